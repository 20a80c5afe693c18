"""A Qdrant server, a cloud cluster, or the client's own ``:memory:``, through a client that is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Self
from uuid import UUID

import numpy as np
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_cir.errors import InputError, StoreError
from qdrant_cir.storage.stores.checks import check_limit, check_name, check_query_vector, checked_points
from qdrant_cir.storage.stores.connection import connect, place_of
from qdrant_cir.storage.stores.filter_fields import check_filter_form
from qdrant_cir.storage.stores.protocol import VECTOR_NAME, CollectionSpec, Hit, Record, StoredPoint
from qdrant_cir.storage.stores.server_errors import call_with_backoff, translated
from qdrant_cir.types import Float32

__all__ = ["AsyncServerReader", "ServerStore"]

_INDEX_KINDS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
}


class ServerStore:
    """A :class:`~qdrant_cir.storage.stores.protocol.Store` behind a ``QdrantClient``.

    Threads may share it as far as they may share the client: yes for a server, no for ``:memory:``.
    """

    def __init__(self, client: QdrantClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take a client, which stays open.

        Args:
            client: :func:`qdrant_cir.storage.stores.connect` makes a good one.
            sleep: waits so many seconds before a failed write is tried again.
        """
        self._client = client
        self._sleep = sleep
        self._owns_client = False
        self._place = place_of(client)
        self._sizes: dict[str, int | None] = {}

    @classmethod
    def connect(cls, url: str, api_key: str | None = None) -> Self:
        """Make a store with a client of its own, closed with it. Raises InputError for no address."""
        store = cls(connect(url, api_key))
        store._owns_client = True
        return store

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        with self._translated(None):
            return _names_of(self._client.get_collections())

    def describe(self, name: str) -> CollectionSpec | None:
        """Give what a collection is made of, or None where there is none of that name."""
        with self._translated(name):
            if not self._client.collection_exists(name):
                return None
            return _spec_of(self._client.get_collection(name))

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection.

        Raises:
            CollectionError: one of that name stands.
            StoreError: the server is too old to keep metadata.
        """
        check_name(name)
        vectors = {}
        if spec.vector_size is not None:
            vectors[VECTOR_NAME] = models.VectorParams(size=spec.vector_size, distance=models.Distance.COSINE)
        with self._translated(name):
            self._client.create_collection(name, vectors_config=vectors, metadata=spec.metadata)
        self._sizes.pop(name, None)
        made = self.describe(name)
        if made is None or made.metadata != spec.metadata:
            self.drop(name)
            raise StoreError(
                f"{self._place} does not keep metadata with a collection, as servers do from version 1.16 "
                "on. Upgrade "
                "it; the new collection was removed again."
            )

    def drop(self, name: str) -> None:
        """Remove a collection and all its points; nothing happens where there is none."""
        self._sizes.pop(name, None)
        with self._translated(name):
            self._client.delete_collection(name)

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field by a kind: keyword, integer, float, bool or datetime. May be repeated."""
        if kind not in _INDEX_KINDS:
            raise InputError(f"{kind!r} is no kind of index; expected one of {', '.join(_INDEX_KINDS)}.")
        with self._translated(name):
            self._client.get_collection(name)
            options = self._client.init_options
            if options.get("location") != ":memory:" and options.get("path") is None:
                self._client.create_payload_index(name, field, field_schema=_INDEX_KINDS[kind], wait=True)

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        """Write points, replacing those of the same id; visible and durable when it returns.

        A failure that is likely to pass is met with further attempts after growing pauses, for some 8
        seconds.

        Raises:
            InputError: a vector or payload cannot be stored; nothing of this call is written then.
        """
        points = checked_points(points, name=name, size=self._vector_size(name))
        if points:
            structs = [_point_struct(point) for point in points]
            self._write(name, lambda: self._client.upsert(name, structs, wait=True))

    def query(self, name: str, vector: Float32, *, limit: int, filter: models.Filter | None) -> list[Hit]:
        """Give the nearest points by cosine, best first; equal scores in any order. Raises InputError."""
        check_limit(limit)
        check_filter_form(filter)
        check_query_vector(vector, name=name, size=self._vector_size(name))
        with self._translated(name):
            found = self._client.query_points(
                name, vector.tolist(), using=VECTOR_NAME, limit=limit, query_filter=filter, with_payload=True
            )
        return _hits_of(found)

    def fetch(
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]:
        """Read points by id: those that exist, in the order asked for."""
        with self._translated(name):
            found = self._client.retrieve(
                name,
                [str(point_id) for point_id in dict.fromkeys(point_ids)],
                with_payload=True if fields is None else list(fields),
                with_vectors=with_vectors,
            )
        return _in_order(point_ids, _records_of(found))

    def scroll(self, name: str, *, filter: models.Filter | None, limit: int, after: UUID | None) -> list[Record]:
        """Read points in id order without vectors, ``limit`` at a time, those behind ``after``."""
        check_limit(limit)
        check_filter_form(filter)
        if after is not None and after.int == 2**128 - 1:
            return []
        with self._translated(name):
            found, _ = self._client.scroll(
                name, scroll_filter=filter, limit=limit, offset=_behind(after), with_payload=True
            )
        return _records_of(found)

    def delete(self, name: str, point_ids: Sequence[UUID]) -> None:
        """Remove points; ids that do not exist are passed over."""
        if not point_ids:
            self._vector_size(name)
            return
        selector = models.PointIdsList(points=[str(point_id) for point_id in point_ids])
        self._write(name, lambda: self._client.delete(name, selector, wait=True))

    def count(self, name: str, filter: models.Filter | None) -> int:
        """Count points exactly."""
        check_filter_form(filter)
        with self._translated(name):
            return self._client.count(name, filter, exact=True).count

    def optimize(self, name: str) -> None:
        """Do nothing: a server optimizes by itself. Raises CollectionNotFoundError like every other call."""
        with self._translated(name):
            self._client.get_collection(name)

    def close(self) -> None:
        """Close the client if the store made it; a client that was given stays open."""
        if self._owns_client:
            self._client.close()

    def _vector_size(self, name: str) -> int | None:
        if name not in self._sizes:
            with self._translated(name):
                self._sizes[name] = _spec_of(self._client.get_collection(name)).vector_size
        return self._sizes[name]

    def _write(self, name: str, call: Callable[[], object]) -> None:
        with self._translated(name):
            call_with_backoff(call, place=self._place, sleep=self._sleep)

    def _translated(self, name: str | None) -> AbstractContextManager[None]:
        return translated(self._place, name=name)


class AsyncServerReader:
    """An :class:`~qdrant_cir.storage.stores.protocol.AsyncReader` behind a given ``AsyncQdrantClient``."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._place = place_of(client)
        self._sizes: dict[str, int | None] = {}

    async def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        with self._translated(None):
            return _names_of(await self._client.get_collections())

    async def describe(self, name: str) -> CollectionSpec | None:
        """Give what a collection is made of, or None where there is none of that name."""
        with self._translated(name):
            if not await self._client.collection_exists(name):
                return None
            return _spec_of(await self._client.get_collection(name))

    async def query(self, name: str, vector: Float32, *, limit: int, filter: models.Filter | None) -> list[Hit]:
        """Give the nearest points; as :meth:`ServerStore.query`."""
        check_limit(limit)
        check_filter_form(filter)
        with self._translated(name):
            if name not in self._sizes:
                self._sizes[name] = _spec_of(await self._client.get_collection(name)).vector_size
            check_query_vector(vector, name=name, size=self._sizes[name])
            found = await self._client.query_points(
                name, vector.tolist(), using=VECTOR_NAME, limit=limit, query_filter=filter, with_payload=True
            )
        return _hits_of(found)

    async def fetch(
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]:
        """Read points by id; as :meth:`ServerStore.fetch`."""
        with self._translated(name):
            found = await self._client.retrieve(
                name,
                [str(point_id) for point_id in dict.fromkeys(point_ids)],
                with_payload=True if fields is None else list(fields),
                with_vectors=with_vectors,
            )
        return _in_order(point_ids, _records_of(found))

    async def scroll(self, name: str, *, filter: models.Filter | None, limit: int, after: UUID | None) -> list[Record]:
        """Read points in id order; as :meth:`ServerStore.scroll`."""
        check_limit(limit)
        check_filter_form(filter)
        if after is not None and after.int == 2**128 - 1:
            return []
        with self._translated(name):
            found, _ = await self._client.scroll(
                name, scroll_filter=filter, limit=limit, offset=_behind(after), with_payload=True
            )
        return _records_of(found)

    async def close(self) -> None:
        """Release nothing: the client was given and stays open."""

    def _translated(self, name: str | None) -> AbstractContextManager[None]:
        return translated(self._place, name=name)


def _names_of(answer: models.CollectionsResponse) -> list[str]:
    return sorted(collection.name for collection in answer.collections)


def _spec_of(info: models.CollectionInfo) -> CollectionSpec:
    vectors = info.config.params.vectors
    params = vectors.get(VECTOR_NAME) if isinstance(vectors, dict) else None
    return CollectionSpec(
        vector_size=None if params is None else params.size, metadata=dict(info.config.metadata or {})
    )


def _point_struct(point: StoredPoint) -> models.PointStruct:
    vector = {} if point.vector is None else {VECTOR_NAME: point.vector.tolist()}
    return models.PointStruct(id=str(point.point_id), vector=vector, payload=dict(point.payload))


def _hits_of(answer: models.QueryResponse) -> list[Hit]:
    return [Hit(_uuid(point.id), float(point.score), point.payload or {}) for point in answer.points]


def _records_of(found: Iterable[models.Record]) -> list[Record]:
    records = []
    for point in found:
        vector = point.vector.get(VECTOR_NAME) if isinstance(point.vector, dict) else None
        array = None if vector is None else np.asarray(vector, dtype=np.float32)
        records.append(Record(_uuid(point.id), point.payload or {}, array))
    return records


def _in_order(point_ids: Sequence[UUID], records: Iterable[Record]) -> list[Record]:
    found = {record.point_id: record for record in records}
    return [found[point_id] for point_id in point_ids if point_id in found]


def _behind(after: UUID | None) -> str | None:
    """Give the id to start at: Qdrant's offset is the first point to return."""
    return None if after is None else str(UUID(int=after.int + 1))


def _uuid(point_id: models.ExtendedPointId) -> UUID:
    try:
        return UUID(str(point_id))
    except ValueError as error:
        raise StoreError(
            f"The collection holds the point {point_id!r}, which qdrant-cir did not write: no UUID."
        ) from error
