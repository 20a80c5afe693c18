"""In which order, and how many bytes at a time, a gallery is written and removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recording_store import Call, RecordingStore

from qdrant_cir.errors import InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import HitTokens, IndexedImage, point_id_of, tokens_point
from qdrant_cir.storage.steps import run
from qdrant_cir.types import Float32, JsonObject

GALLERY, TOKENS = "pictures", "pictures__tokens"
RED = np.array([1, 0, 0], np.float32)
LARGEST_WRITE = 4 * 2**20


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture
def collection(store: RecordingStore, tiny_bundle: Path) -> Collection:
    made = Collection.create(store, GALLERY, load_bundle(tiny_bundle))
    store.calls.clear()
    return made


def image(
    image_id: str = "hat",
    *,
    sha256: str = "a" * 64,
    vector: Float32 = RED,
    tokens: bytes = b"tokens",
    payload: JsonObject | None = None,
) -> IndexedImage:
    return IndexedImage(
        image_id, point_id_of(image_id), None, sha256, vector=vector, tokens=tokens, payload=payload or {}, bundle="b"
    )


def test_an_image_is_written_after_its_tokens(store: RecordingStore, collection: Collection) -> None:
    collection.write([image()])
    assert [call.name for call in store.calls_of("upsert")] == [TOKENS, GALLERY]


def test_an_image_is_deleted_before_its_tokens(store: RecordingStore, collection: Collection) -> None:
    collection.write([image()])
    assert collection.delete(["hat"]) == {"hat"}
    assert store.calls_of("delete") == [Call("delete", GALLERY), Call("delete", TOKENS)]
    assert store.points == {GALLERY: {}, TOKENS: {}}


def test_a_gallery_is_dropped_after_its_tokens(store: RecordingStore, collection: Collection) -> None:
    collection.drop()
    assert store.calls == [Call("drop", TOKENS), Call("drop", GALLERY)]


@pytest.mark.parametrize(
    "refused",
    [
        image(payload={"price": float("nan")}),
        image(payload={"_cir": "mine"}),
        image(vector=np.ones(4, np.float32)),
        image(vector=np.array([1, np.inf, 0], np.float32)),
    ],
    ids=["payload", "reserved field", "shape", "infinite"],
)
def test_an_image_that_is_refused_leaves_nothing_and_changes_no_tokens(
    store: RecordingStore, collection: Collection, refused: IndexedImage
) -> None:
    collection.write([image()])
    before = {name: dict(points) for name, points in store.points.items()}
    with pytest.raises(InputError):
        collection.write([image("shoe"), replace(refused, sha256="b" * 64)])
    assert store.points == before


def test_tokens_of_another_picture_are_stale_and_never_served(store: RecordingStore, collection: Collection) -> None:
    collection.write([image("hat"), image("shoe", sha256="b" * 64, tokens=b"of the shoe")])
    old = image("hat", sha256="c" * 64, tokens=b"of the picture before")
    store.upsert(TOKENS, [tokens_point(old, collection.layout)])
    found = run(collection.reads.nearest(RED, limit=2, filter=None), store)
    images = sorted((hit.image for hit in found.hits), key=lambda image: image.image_id)
    assert run(collection.reads.tokens(images), store) == [
        HitTokens(point_id_of("hat"), data=None, problem="stale", sha256="c" * 64),
        HitTokens(point_id_of("shoe"), data=b"of the shoe", problem=None, sha256="b" * 64),
    ]
    assert collection.tokens(["hat", "shoe"]) == {"shoe": b"of the shoe"}
    assert collection.known(["hat", "shoe"]).keys() == {"shoe"}


@pytest.mark.parametrize(
    "heavy",
    [
        image(tokens=b"\xff" * 300_000),
        image(payload={"text": "a" * 400_000}),
        image(payload={"text": "深い青" * 50_000}),
        image(payload={"text": '"\n' * 200_000}),
    ],
    ids=["tokens", "payload", "Japanese", "escapes"],
)
def test_no_write_exceeds_four_megabytes_and_none_is_one_image_alone(
    store: RecordingStore, collection: Collection, heavy: IndexedImage
) -> None:
    collection.write(replace(heavy, image_id=f"{n}", point_id=point_id_of(f"{n}")) for n in range(40))
    writes = store.calls_of("upsert")
    assert max(call.written for call in writes) <= LARGEST_WRITE
    assert {name: len(points) for name, points in store.points.items()} == {GALLERY: 40, TOKENS: 40}
    assert len(writes) < 40


def test_indexing_ends_with_both_halves_optimized_once_and_only_where_something_was_written(
    store: RecordingStore, collection: Collection, tiny_bundle: Path
) -> None:
    bundle = load_bundle(tiny_bundle)
    indexer = Indexer(collection, ImageEncoder.open(bundle, Compute("cpu", 1)), bundle, batch_size=2)
    records = [ImageRecord(f"{n}", Image.new("RGB", (8, 8), (200, n, 9)), {}, None) for n in range(5)]
    assert indexer.index(records).indexed == 5
    optimized = [Call("optimize", GALLERY), Call("optimize", TOKENS)]
    assert store.calls[-2:] == optimized
    assert indexer.index(records).unchanged == 5
    assert store.calls_of("optimize") == optimized
