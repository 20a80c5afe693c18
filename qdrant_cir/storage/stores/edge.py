"""The embedded store: collections in a directory, searched in this process by Qdrant Edge.

Edge is in beta. What this adapter adds: a lock on the directory, checks before Edge sees anything (its log is
written before it validates), a flush after every write and every failure, folders that appear and vanish
whole, and a refusal to work in a forked child. Every call of Edge holds Python's global lock;
:meth:`EdgeStore.optimize` for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from qdrant_cir.errors import CollectionError, CollectionNotFoundError, InputError, StoreError
from qdrant_cir.storage.stores.checks import check_limit, check_name, check_query_vector, checked_points
from qdrant_cir.storage.stores.directory_lock import DirectoryLock
from qdrant_cir.storage.stores.edge_shards import (
    collection_folders,
    create_folder,
    drop_folder,
    open_shard,
    read_spec,
    remove_leftovers,
    translated,
)
from qdrant_cir.storage.stores.protocol import VECTOR_NAME, CollectionSpec, Hit, Record, StoredPoint
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["EdgeStore"]

_INDEX_KINDS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
}


@dataclass(frozen=True, slots=True)
class _OpenCollection:
    shard: edge.EdgeShard
    spec: CollectionSpec


_LEAST_HNSW_EF = 512
"""Points that a search of the graph keeps in view; Edge's own 128 loses a fifth of the nearest in the hardest data."""


class EdgeStore:
    """A :class:`~qdrant_cir.storage.stores.protocol.Store` in a directory, for all threads of one process."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        """Open a store, making the directory where there is none.

        Args:
            directory: on a local file system; nothing else should be kept in it.

        Raises:
            StoreLockedError: another process, or another store object of this one, holds the directory.
            StoreError: the directory cannot be made, written or locked.
        """
        self._directory = Path(directory).absolute()
        self._pid = os.getpid()
        self._guard = RLock()
        self._open: dict[str, _OpenCollection] = {}
        self._closed = False
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store directory {self._directory} cannot be made: {error}. Give a directory that you may write."
            ) from error
        self._lock = DirectoryLock(self._directory)
        try:
            remove_leftovers(self._directory)
        except StoreError:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """The directory, absolute."""
        return self._directory

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        with self._guard:
            self._check_usable()
            return [folder.name for folder in collection_folders(self._directory)]

    def describe(self, name: str) -> CollectionSpec | None:
        """Give what a collection is made of, or None where there is none of that name."""
        with self._guard:
            self._check_usable()
            return self._collection(name).spec if name in self.collection_names() else None

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises CollectionError where one of that name stands."""
        check_name(name)
        with self._guard:
            self._check_usable()
            folder = self._directory / name
            if folder.exists():
                raise CollectionError(
                    f"There is already a collection {name!r} in {self._directory}. Drop it first, or use another name."
                )
            create_folder(folder, spec)

    def drop(self, name: str) -> None:
        """Remove a collection and all its points; nothing happens where there is none."""
        with self._guard:
            self._check_usable()
            if name not in self.collection_names():
                return
            held = self._open.pop(name, None)
            if held is not None:
                with translated(f"close the collection {name!r}"):
                    held.shard.close()
            drop_folder(self._directory / name)

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field by a kind: keyword, integer, float, bool or datetime. May be repeated."""
        if kind not in _INDEX_KINDS:
            raise InputError(f"{kind!r} is no kind of index; expected one of {', '.join(_INDEX_KINDS)}.")
        self._update(name, edge.UpdateOperation.create_field_index(field, _INDEX_KINDS[kind]))

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        """Write points, replacing those of the same id; on the disk when it returns.

        Raises:
            InputError: a vector or payload cannot be stored; nothing of this call is written then.
        """
        points = checked_points(points, name=name, size=self._collection(name).spec.vector_size)
        if points:
            self._update(name, edge.UpdateOperation.upsert_points([_edge_point(point) for point in points]))

    def query(self, name: str, vector: Float32, *, limit: int, filter: Filter | None) -> list[Hit]:
        """Give the nearest points by cosine, best first; equal scores in any order. Raises InputError."""
        check_limit(limit)
        with self._guard:
            held = self._collection(name)
            check_query_vector(vector, name=name, size=held.spec.vector_size)
            request = edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector.astype(float).tolist(), using=VECTOR_NAME),
                filter=_edge_filter(filter),
                with_payload=True,
                params=edge.SearchParams(hnsw_ef=max(_LEAST_HNSW_EF, 2 * limit)),
            )
            with translated(f"search the collection {name!r}"):
                return [Hit(_uuid(hit.id), hit.score, hit.payload or {}) for hit in held.shard.query(request)]

    def fetch(
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]:
        """Read points by id: those that exist, in the order asked for."""
        with self._guard:
            held = self._collection(name)
            with translated(f"read the collection {name!r}"):
                found = held.shard.retrieve(
                    list(dict.fromkeys(point_ids)), True if fields is None else list(fields), with_vectors
                )
        records = {record.point_id: record for record in map(_record, found)}
        return [records[point_id] for point_id in point_ids if point_id in records]

    def scroll(self, name: str, *, filter: Filter | None, limit: int, after: UUID | None) -> list[Record]:
        """Read points in id order without vectors, ``limit`` at a time, those behind ``after``."""
        check_limit(limit)
        if after is not None and after.int == 2**128 - 1:
            return []
        start = None if after is None else UUID(int=after.int + 1)
        request = edge.ScrollRequest(
            offset=start, limit=limit, filter=_edge_filter(filter), with_payload=True, with_vector=False
        )
        with self._guard:
            held = self._collection(name)
            with translated(f"read the collection {name!r}"):
                found, _ = held.shard.scroll(request)
        return [_record(record) for record in found]

    def delete(self, name: str, point_ids: Sequence[UUID]) -> None:
        """Remove points; ids that do not exist are passed over."""
        self._collection(name)
        if point_ids:
            self._update(name, edge.UpdateOperation.delete_points(list(point_ids)))

    def count(self, name: str, filter: Filter | None) -> int:
        """Count points exactly."""
        request = edge.CountRequest(exact=True, filter=_edge_filter(filter))
        with self._guard:
            held = self._collection(name)
            with translated(f"count the collection {name!r}"):
                return held.shard.count(request)

    def optimize(self, name: str) -> None:
        """Build the HNSW graph where the collection is large enough for one, and drop what was deleted.

        Holds Python's global lock for seconds: call it after indexing, not while serving.
        """
        with self._guard:
            held = self._collection(name)
            with translated(f"optimize the collection {name!r}"):
                held.shard.optimize()
                held.shard.flush()

    def close(self) -> None:
        """Write everything to the disk and give the directory back; repeating it is harmless."""
        with self._guard:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            try:
                with translated(f"close {self._directory}"):
                    for held in self._open.values():
                        held.shard.flush()
                        held.shard.close()
            finally:
                self._open.clear()
                self._lock.release()

    def _collection(self, name: str) -> _OpenCollection:
        """Give an open collection, opening it on its first use."""
        with self._guard:
            self._check_usable()
            if name not in self._open:
                names = self.collection_names()
                if name not in names:
                    raise CollectionNotFoundError(
                        f"There is no collection {name!r} in {self._directory}. "
                        + (f"There is: {', '.join(names)}." if names else "It holds none.")
                    )
                folder = self._directory / name
                self._open[name] = _OpenCollection(shard=open_shard(folder), spec=read_spec(folder))
            return self._open[name]

    def _update(self, name: str, operation: edge.UpdateOperation) -> None:
        """Apply an operation and flush, even after a refused one: part of it may stand in the log."""
        with self._guard:
            shard = self._collection(name).shard
            with translated(f"write to the collection {name!r}"):
                try:
                    shard.update(operation)
                finally:
                    shard.flush()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(
                f"The store in {self._directory} was opened by process {self._pid} before this one (pid "
                f"{os.getpid()}) "
                "was forked from it. Open a store in the process that uses it, and start workers with "
                "'spawn'."
            )
        if self._closed:
            raise StoreError(f"The store in {self._directory} was closed. Open a new EdgeStore.")


def _edge_filter(filter: Filter | None) -> edge.Filter | None:
    """Convert a filter; None stays None, and does not wait a second for qdrant-client to load. Raises InputError."""
    if filter is None:
        return None
    from qdrant_cir.storage.stores.edge_filters import convert_filter

    return convert_filter(filter)


def _edge_point(point: StoredPoint) -> edge.Point:
    vector: edge.Vector = {} if point.vector is None else {VECTOR_NAME: point.vector.astype(float).tolist()}
    return edge.Point(point.point_id, vector, dict(point.payload))


def _record(found: edge.Record) -> Record:
    vector = found.vector.get(VECTOR_NAME) if isinstance(found.vector, dict) else None
    return Record(
        point_id=_uuid(found.id),
        payload=found.payload or {},
        vector=None if vector is None else np.asarray(vector, dtype=np.float32),
    )


def _uuid(point_id: object) -> UUID:
    if not isinstance(point_id, UUID):
        raise StoreError(f"The collection holds the point {point_id!r}, which qdrant-cir did not write: no UUID.")
    return point_id
