"""A collection that somebody else made, wherever Qdrant runs, and its owner, who never heard of us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import NAMESPACE_DNS, UUID, uuid5

import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.protocol import CollectionSpec, VectorSpec

Id = int | UUID
Vectors = dict[str, list[float]]

NAME = "products"
SIZES = {"image": 4, "text": 2}
"""The owner's vectors."""

METADATA = {"mine": {"nested": [1, 2.5, None]}}


@dataclass(frozen=True)
class Item:
    """A point of the owner's."""

    id: Id
    payload: dict[str, Any]
    vectors: Vectors = field(default_factory=dict)


def item(n: int, picture: str | None) -> Item:
    """The n-th product: integers and UUIDs mixed, nested payload, two vectors."""
    payload = {
        "media": {"tags": ["a", {"deep": [1, 2.5, None, True, "ä"]}], **({} if picture is None else {"main": picture})},
        "brand": f"b{n % 3}",
        "n": n,
    }
    vectors = {"image": [1.0, n % 7, n % 3, 0.5], "text": [float(n % 5) - 2, 1.0]}
    return Item(id_of(n), payload, vectors)


def id_of(n: int) -> Id:
    """The id of the n-th product."""
    return n if n % 2 else uuid5(NAMESPACE_DNS, str(n))


class Owner(Protocol):
    """What the owner does to his collection. ``dump`` leaves out what is under names of vectors that are not his."""

    store: Any
    name: str

    def create(self, several: str | None = None) -> None: ...
    def remove(self) -> None: ...
    def put(self, items: Sequence[Item]) -> None: ...
    def delete(self, ids: Sequence[Id]) -> None: ...
    def set_payload(self, id: Id, payload: Mapping[str, Any]) -> None: ...
    def overwrite_payload(self, id: Id, payload: Mapping[str, Any]) -> None: ...
    def clear_payload(self, id: Id) -> None: ...
    def set_vector(self, id: Id, name: str, value: Sequence[float]) -> None: ...
    def delete_vector(self, id: Id, name: str) -> None: ...
    def query(self, vector: Sequence[float], using: str, limit: int) -> Any: ...  # noqa: ANN401
    def dump(self) -> dict[Id, Any]: ...
    def having(self, vector: str) -> set[Id]: ...
    def config(self) -> object: ...


class ClientOwner:
    """An owner with a client of his own."""

    def __init__(self, store: QdrantClient, name: str = NAME) -> None:
        self.store, self.name = store, name

    def create(self, several: str | None = None) -> None:
        vectors = {key: models.VectorParams(size=n, distance=models.Distance.COSINE) for key, n in SIZES.items()}
        if several is not None:
            config = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
            vectors[several] = models.VectorParams(size=3, distance=models.Distance.COSINE, multivector_config=config)
        self.store.create_collection(self.name, vectors_config=vectors, metadata=METADATA)

    def remove(self) -> None:
        self.store.delete_collection(self.name)

    def put(self, items: Sequence[Item]) -> None:
        points = [models.PointStruct(id=_plain(i.id), vector=i.vectors, payload=i.payload) for i in items]  # type: ignore[arg-type]
        self.store.upsert(self.name, points, wait=True)

    def delete(self, ids: Sequence[Id]) -> None:
        self.store.delete(self.name, models.PointIdsList(points=[_plain(id) for id in ids]), wait=True)

    def set_payload(self, id: Id, payload: Mapping[str, Any]) -> None:
        self.store.set_payload(self.name, dict(payload), [_plain(id)], wait=True)

    def overwrite_payload(self, id: Id, payload: Mapping[str, Any]) -> None:
        self.store.overwrite_payload(self.name, dict(payload), [_plain(id)], wait=True)

    def clear_payload(self, id: Id) -> None:
        self.store.clear_payload(self.name, models.PointIdsList(points=[_plain(id)]), wait=True)

    def set_vector(self, id: Id, name: str, value: Sequence[float]) -> None:
        self.store.update_vectors(
            self.name, [models.PointVectors(id=_plain(id), vector={name: list(value)})], wait=True
        )

    def delete_vector(self, id: Id, name: str) -> None:
        self.store.delete_vectors(self.name, [name], models.PointIdsList(points=[_plain(id)]), wait=True)

    def query(self, vector: Sequence[float], using: str, limit: int) -> models.QueryResponse:
        return self.store.query_points(self.name, list(vector), using=using, limit=limit)

    def _points(self) -> list[models.Record]:
        return self.store.scroll(self.name, limit=10_000, with_payload=True, with_vectors=True)[0]

    def dump(self) -> dict[Id, Any]:
        return {_id(p.id): (p.payload, _own(p.vector)) for p in self._points()}

    def having(self, vector: str) -> set[Id]:
        return {_id(p.id) for p in self._points() if isinstance(p.vector, dict) and vector in p.vector}

    def config(self) -> object:
        config = self.store.get_collection(self.name).config
        return config.metadata, config.params.vectors


class ShardOwner:
    """An owner of a shard of Qdrant Edge in the folder of a store, which has it open in this process."""

    def __init__(self, store: EdgeStore, name: str = NAME, *, is_bare: bool) -> None:
        self.store, self.name, self._is_bare = store, name, is_bare

    def create(self, several: str | None = None) -> None:
        if not self._is_bare:
            self.store.create(self.name, CollectionSpec(SIZES["image"], {"mine": METADATA["mine"]}))  # type: ignore[dict-item]
            self.store.add_vector(self.name, "text", VectorSpec(SIZES["text"]))
            return
        vectors = {key: edge.EdgeVectorParams(n, edge.Distance.Cosine) for key, n in SIZES.items()}
        shard = edge.EdgeShard.create(str(self.store.directory / self.name), edge.EdgeConfig(vectors=vectors))
        shard.flush()
        shard.close()

    @property
    def _shard(self) -> edge.EdgeShard:
        folder = self.store._folder
        if folder is None:
            raise RuntimeError("the store is closed")
        return folder.collection(self.name).shard

    def remove(self) -> None:
        self.store.drop(self.name)

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._shard.update(operation)
        self._shard.flush()

    def put(self, items: Sequence[Item]) -> None:
        points = [edge.Point(i.id, i.vectors, i.payload) for i in items]  # type: ignore[arg-type]
        self._update(edge.UpdateOperation.upsert_points(points))

    def delete(self, ids: Sequence[Id]) -> None:
        self._update(edge.UpdateOperation.delete_points(list(ids)))

    def set_payload(self, id: Id, payload: Mapping[str, Any]) -> None:
        self._update(edge.UpdateOperation.set_payload([id], dict(payload)))

    def overwrite_payload(self, id: Id, payload: Mapping[str, Any]) -> None:
        self._update(edge.UpdateOperation.overwrite_payload([id], dict(payload)))

    def clear_payload(self, id: Id) -> None:
        self._update(edge.UpdateOperation.clear_payload([id]))

    def set_vector(self, id: Id, name: str, value: Sequence[float]) -> None:
        self._update(edge.UpdateOperation.update_vectors([edge.PointVectors(id, {name: list(value)})]))

    def delete_vector(self, id: Id, name: str) -> None:
        self._update(edge.UpdateOperation.delete_vectors([id], [name]))

    def query(self, vector: Sequence[float], using: str, limit: int) -> list[edge.ScoredPoint]:
        nearest = edge.Query.Nearest(list(vector), using=using)
        return self._shard.query(edge.QueryRequest(limit=limit, query=nearest, with_payload=True))

    def _points(self) -> list[edge.Record]:
        return self._shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))[0]

    def dump(self) -> dict[Id, Any]:
        return {_id(p.id): (p.payload or {}, _own(p.vector)) for p in self._points()}

    def having(self, vector: str) -> set[Id]:
        return {_id(p.id) for p in self._points() if isinstance(p.vector, dict) and vector in p.vector}

    def config(self) -> object:
        described = self.store.describe(self.name)
        return None if described is None else (described.metadata, described.vectors)


Writes = Callable[[Owner], None]


def _own(vectors: object) -> dict[str, Any]:
    return {key: value for key, value in vectors.items() if key in SIZES} if isinstance(vectors, dict) else {}


def _plain(id: Id) -> int | str:
    return id if isinstance(id, int) else str(id)


def _id(id: object) -> Id:
    return id if isinstance(id, int) else UUID(str(id))
