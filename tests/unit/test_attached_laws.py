"""What attaching changes of a collection that stands, in which order, whose tokens count, and what detaching leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.storage.attachment import Attachment, attach_collection, detach_collection
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import IndexedImage
from qdrant_cir.storage.steps import run
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.protocol import CollectionSpec, Store, StoredPoint, VectorSpec
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import Float32, JsonObject, PointId

SHOP, VECTOR, COMPANION = "shop", "cir", "shop__cir"
RED, BLUE = np.array([1, 0, 0], np.float32), np.array([0, 0, 1], np.float32)
PRODUCTS: Mapping[PointId, JsonObject] = {
    1: {"image": "one.png", "changed": "monday", "price": 10},
    2: {"image": "two.png", "changed": "monday", "price": 20},
}
OWN = [0.6, 0.8]
"""The vector that the user's points had before."""


class NotingStore(ServerStore):
    """The client's own store, which notes every call that changes something, and the collection."""

    def __init__(self, client: QdrantClient) -> None:
        super().__init__(client)
        self.changes: list[tuple[str, str]] = []

    def create(self, name: str, spec: CollectionSpec) -> None:
        self.changes.append(("create", name))
        super().create(name, spec)

    def drop(self, name: str) -> None:
        self.changes.append(("drop", name))
        super().drop(name)

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        self.changes.append(("upsert", name))
        super().upsert(name, points)

    def delete(self, name: str, point_ids: Sequence[PointId]) -> None:
        self.changes.append(("delete", name))
        super().delete(name, point_ids)

    def add_vector(self, name: str, vector: str, spec: VectorSpec) -> None:
        self.changes.append(("add_vector", name))
        super().add_vector(name, vector, spec)

    def remove_vector(self, name: str, vector: str) -> None:
        self.changes.append(("remove_vector", name))
        super().remove_vector(name, vector)

    def update_vectors(self, name: str, vector: str, values: Mapping[PointId, Float32]) -> list[PointId]:
        self.changes.append(("update_vectors", name))
        return super().update_vectors(name, vector, values)

    def clear_vectors(self, name: str, vector: str, point_ids: Sequence[PointId]) -> None:
        self.changes.append(("clear_vectors", name))
        super().clear_vectors(name, vector, point_ids)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """The user's collection: two points with a vector of the user's."""
    client = QdrantClient(":memory:")
    client.create_collection(SHOP, vectors_config={"text": _cosine(2)})
    client.upsert(
        SHOP,
        [models.PointStruct(id=int(str(id)), vector={"text": OWN}, payload=data) for id, data in PRODUCTS.items()],
    )
    yield client
    client.close()


@pytest.fixture
def store(client: QdrantClient) -> NotingStore:
    return NotingStore(client)


def _cosine(size: int) -> models.VectorParams:
    return models.VectorParams(size=size, distance=models.Distance.COSINE)


def attached(store: Store, bundle: Bundle, *, picture: str = "image", version: str | None = None) -> Collection:
    """Attach and return what :meth:`Collection.open_attached` finds."""
    attach_collection(store, Attachment(SHOP, VECTOR, picture, version), bundle)
    return Collection.open_attached(store, SHOP, VECTOR, bundle)


def encoded(bundle: Bundle, point_id: PointId, *, vector: Float32 = RED) -> IndexedImage:
    """Return a point's picture as the indexer would hand it over."""
    payload = PRODUCTS.get(point_id, {"image": "gone.png", "changed": "never"})
    return IndexedImage(
        image_id=str(point_id),
        point_id=point_id,
        source=str(payload["image"]),
        sha256=f"{point_id}" * 64,
        vector=vector,
        tokens=f"tokens of {point_id}".encode(),
        payload=payload,
        bundle=bundle.fingerprint,
    )


def problems(collection: Collection) -> dict[PointId, str | None]:
    """Return what is wrong with the tokens of every point that the search finds."""
    found = run(collection.reads.nearest(RED, limit=9, filter=None), collection.store)
    tokens = run(collection.reads.tokens([hit.image for hit in found.hits]), collection.store)
    assert all((entry.data is None) == (entry.problem is not None) for entry in tokens)
    return {entry.point_id: entry.problem for entry in tokens}


def test_the_companion_is_made_before_the_vector_for_it_keeps_whose_the_vector_is(
    store: NotingStore, bundle: Bundle
) -> None:
    attached(store, bundle)
    assert store.changes == [("create", COMPANION), ("add_vector", SHOP)]


def test_a_point_gets_and_loses_its_vector_before_its_tokens_which_alone_say_of_which_picture_they_are(
    store: NotingStore, bundle: Bundle
) -> None:
    collection = attached(store, bundle)
    store.changes.clear()
    assert collection.write([encoded(bundle, 1)]) == []
    assert store.changes == [("update_vectors", SHOP), ("upsert", COMPANION)]
    store.changes.clear()
    assert collection.delete([1]) == {1}
    assert store.changes == [("clear_vectors", SHOP), ("delete", COMPANION)]
    assert (collection.count(), store.count(SHOP, None), store.count(COMPANION, None)) == (0, 2, 0)


def test_tokens_are_of_the_picture_that_the_payload_names_now(
    store: NotingStore, client: QdrantClient, bundle: Bundle
) -> None:
    collection = attached(store, bundle)
    collection.write([encoded(bundle, 1), encoded(bundle, 2)])
    assert problems(collection) == {1: None, 2: None}
    client.set_payload(SHOP, {"image": "another.png"}, points=[2])
    assert problems(collection) == {1: None, 2: "stale"}
    client.set_payload(SHOP, {"image": "two.png"}, points=[2])
    assert problems(collection) == {1: None, 2: None}
    client.delete_payload(SHOP, ["image"], points=[1])
    assert problems(collection) == {1: "no picture", 2: None}


def test_where_a_field_tells_the_pictures_version_tokens_of_another_version_are_stale(
    store: NotingStore, client: QdrantClient, bundle: Bundle
) -> None:
    collection = attached(store, bundle, version="changed")
    collection.write([encoded(bundle, 1), encoded(bundle, 2)])
    assert problems(collection) == {1: None, 2: None}
    client.set_payload(SHOP, {"changed": "tuesday"}, points=[2])
    assert problems(collection) == {1: None, 2: "stale"}


def test_tokens_of_a_point_that_is_gone_are_not_written_and_no_point_is_made(
    store: NotingStore, bundle: Bundle
) -> None:
    collection = attached(store, bundle)
    gone = encoded(bundle, 3)
    assert [each.image for each in collection.write([encoded(bundle, 1), gone, encoded(bundle, 2)])] == [gone]
    assert [record.point_id for record in store.scroll(SHOP, filter=None, limit=9, after=None)] == [1, 2]
    assert [record.point_id for record in store.scroll(COMPANION, filter=None, limit=9, after=None)] == [1, 2]
    assert problems(collection) == {1: None, 2: None}


def test_an_attached_collection_is_never_dropped(store: NotingStore, bundle: Bundle) -> None:
    collection = attached(store, bundle)
    with pytest.raises(InputError, match="Detach instead"):
        collection.drop()
    assert store.collection_names() == [SHOP, COMPANION]


def test_detaching_leaves_the_collection_as_it_was(store: NotingStore, client: QdrantClient, bundle: Bundle) -> None:
    before = (client.get_collection(SHOP).config.params, client.scroll(SHOP, with_vectors=True))
    collection = attached(store, bundle)
    collection.write([encoded(bundle, 1), encoded(bundle, 2)])
    assert collection.attachment is not None
    store.changes.clear()
    detach_collection(store, collection.attachment)
    assert store.changes == [("remove_vector", SHOP), ("drop", COMPANION)]
    assert (client.get_collection(SHOP).config.params, client.scroll(SHOP, with_vectors=True)) == before


def test_detaching_keeps_a_vector_that_stood_before_and_takes_only_our_values_out_of_it(
    client: QdrantClient, bundle: Bundle
) -> None:
    client.create_collection("hats", vectors_config={VECTOR: _cosine(3)})
    client.upsert("hats", [models.PointStruct(id=id, vector={}, payload={"image": f"{id}.png"}) for id in (1, 2)])
    store = NotingStore(client)
    attachment = attach_collection(store, Attachment("hats", VECTOR, "image"), bundle)
    assert not attachment.made_vector
    collection = Collection.open_attached(store, "hats", VECTOR, bundle)
    collection.write([encoded(bundle, 1)])
    client.update_vectors("hats", [models.PointVectors(id=2, vector={VECTOR: [0.0, 1.0, 0.0]})])
    detach_collection(store, attachment)
    assert list(store.describe("hats").vectors) == [VECTOR]  # type: ignore[union-attr]
    records = store.fetch("hats", [1, 2], with_vectors=True, using=VECTOR)
    assert [None if record.vector is None else record.vector.tolist() for record in records] == [None, [0, 1, 0]]
    assert store.collection_names() == ["hats", SHOP]


def _in_memory(folder: Path) -> Store:
    client = QdrantClient(":memory:")
    client.create_collection(SHOP, vectors_config={"image": _cosine(2)})
    return ServerStore(client)


def _on_disk(folder: Path) -> Store:
    store = EdgeStore(folder)
    store.create(SHOP, CollectionSpec(2, {}))
    return store


@pytest.mark.parametrize("opened", [_in_memory, _on_disk])
def test_a_vector_is_written_into_a_point_of_which_nothing_else_changes(
    tmp_path: Path, opened: Callable[[Path], Store]
) -> None:
    store = opened(tmp_path / "store")
    before = np.array(OWN, np.float32)
    store.upsert(SHOP, [StoredPoint(id, before, payload) for id, payload in PRODUCTS.items()])
    store.add_vector(SHOP, VECTOR, VectorSpec(3))
    assert store.update_vectors(SHOP, VECTOR, {1: RED, 3: BLUE}) == [3]
    assert store.update_vectors(SHOP, VECTOR, {1: BLUE}) == []
    for name, vectors in (("image", {1: OWN, 2: OWN}), (VECTOR, {1: BLUE.tolist()})):
        found = store.fetch(SHOP, [1, 2, 3], with_vectors=True, using=name)
        assert {record.point_id: record.payload for record in found} == PRODUCTS
        values = {record.point_id: record.vector for record in found if record.vector is not None}
        assert {id: value.tolist() for id, value in values.items()} == {
            id: pytest.approx(vector) for id, vector in vectors.items()
        }
    store.clear_vectors(SHOP, VECTOR, [1, 3])
    cleared = store.fetch(SHOP, [1, 2], with_vectors=True, using=VECTOR)
    assert [(record.payload, record.vector) for record in cleared] == [(data, None) for data in PRODUCTS.values()]
    store.close()
