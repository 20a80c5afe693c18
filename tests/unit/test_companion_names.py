"""Errors about a companion name the collection that the user typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir import CirError, Gallery, ImageRecord, attach
from qdrant_cir.errors import CollectionError, CollectionNotFoundError, InputError, StoreError, StoreUnavailableError
from qdrant_cir.storage.stores import ServerStore
from qdrant_cir.storage.stores.protocol import StoredPoint

GALLERIES = ("own", "attached")


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        yield front


@pytest.fixture(params=GALLERIES)
def gallery(request: pytest.FixtureRequest, front: RestFront, tiny_bundle: Path, tmp_path: Path) -> Iterator[Gallery]:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    client = QdrantClient(front.url, check_compatibility=False, timeout=1)
    if request.param == "own":
        made = Gallery.create("products", store=client, bundle=tiny_bundle, retry_seconds=0)
        made.index([ImageRecord("1", tmp_path / "red.png", payload={}, source=None)])
    else:
        front.memory.create_collection("products", vectors_config={})
        front.memory.upsert("products", [models.PointStruct(id=1, payload={"picture": "red.png"}, vector={})])
        made = attach(client, "products", picture="picture", root=tmp_path, bundle=tiny_bundle, retry_seconds=0)
        made.index()
    yield made
    client.close()


def companion_of(gallery: Gallery) -> str:
    return gallery.collection.layout.companion


def said(call: Callable[[], object], kind: type[CirError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_refused_failed_and_gone(gallery: Gallery, front: RestFront, tiny_bundle: Path) -> None:
    companion = companion_of(gallery)
    store = gallery.collection.store
    front.is_faulty = lambda request: f"/{companion}" in request.path

    def look() -> object:
        return store.scroll(companion, filter=None, limit=1, after=None)

    for fault, kind, begin in (
        (Fault(403, b'{"status": {"error": "forbidden"}}'), StoreError, "refused the API key about the tokens of"),
        (Fault(504), StoreUnavailableError, "failed about the tokens of"),
        (Fault(cut="before"), StoreUnavailableError, "cannot be reached about the tokens of"),
    ):
        for call in (
            look,
            gallery.info,
            lambda: Gallery.open("products", store=front.url, bundle=tiny_bundle, retry_seconds=0),
        ):
            front.faults = [fault] * 9
            text = said(call, kind)
            assert companion not in text
            if call is look:
                assert f"{begin} the collection 'products'" in text
    front.faults = []
    front.memory.delete_collection(companion)
    text = said(look, CollectionNotFoundError)
    assert text.startswith("The tokens of the collection 'products' are gone")
    assert companion not in text
    text = said(lambda: gallery.search(None, "in blue", limit=1), CollectionError)
    assert "has lost its tokens" in text
    assert companion not in text


def test_what_the_server_says_of_a_companion_names_the_collection(
    gallery: Gallery, front: RestFront, caplog: pytest.LogCaptureFixture
) -> None:
    companion = companion_of(gallery)
    store = gallery.collection.store
    front.is_faulty = lambda request: f"/{companion}" in request.path

    def look() -> object:
        return store.scroll(companion, filter=None, limit=1, after=None)

    words = f'{{"status": {{"error": "Collection {companion} is busy"}}}}'.encode()
    for status in (400, 403, 500, 507):
        front.faults = [Fault(status, words)]
        text = said(look, CirError)
        assert companion not in text
        assert "Collection products (tokens) is busy" in text
    front.faults = [Fault(503, words)]
    patient = ServerStore(QdrantClient(front.url, check_compatibility=False), retry_seconds=9, sleep=lambda _: None)
    patient.name_companion(companion, "products")
    patient.scroll(companion, filter=None, limit=1, after=None)
    assert "Collection products (tokens) is busy); trying again" in caplog.text
    assert companion not in caplog.text


def test_the_embedded_store_names_the_collection_too(tmp_path: Path, tiny_bundle: Path) -> None:
    with Gallery.create("Shop", store=tmp_path / "store", bundle=tiny_bundle) as gallery:
        store, companion = gallery.collection.store, companion_of(gallery)
        store.upsert(companion, [StoredPoint(1, None, {})])
        for wrong in (
            lambda: store.update_vectors(companion, "none", {1: np.ones(4, np.float32)}),
            lambda: store.fetch(companion, [-1], with_vectors=False),
        ):
            text = said(wrong, CirError)
            assert "the tokens of the collection 'Shop'" in text
            assert companion not in text
        store.drop(companion)
        text = said(lambda: store.count(companion, None), CollectionNotFoundError)
        assert text.startswith("The tokens of the collection 'Shop' are gone")
        assert companion not in text


@pytest.mark.parametrize("vector", ["a/b", "a:b", "x" * 195, "\ud800"])
def test_a_vector_after_which_no_companion_can_be_named_is_refused_by_its_own_name(
    vector: str, tiny_bundle: Path
) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("products", vectors_config={})
    text = said(lambda: attach(client, "products", picture="picture", vector=vector, bundle=tiny_bundle), InputError)
    assert text.startswith(f"A vector named {vector!r:.60} cannot be attached to 'products'")
    assert "products__" not in text
    assert "A name has 1 to 190 bytes" in text


@pytest.mark.parametrize("gallery", ["attached"], indirect=True)
def test_who_names_an_attached_collections_companion_is_told_the_collection(
    gallery: Gallery, tiny_bundle: Path
) -> None:
    companion = companion_of(gallery)
    for make in (Gallery.open, Gallery.create):
        message = said(
            lambda make=make: make(companion, store=gallery.collection.store, bundle=tiny_bundle), CollectionError
        )  # type: ignore[misc]
        assert "holds the tokens of 'products'" in message
