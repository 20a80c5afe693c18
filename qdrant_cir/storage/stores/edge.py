"""The embedded store: collections in a directory, searched in this process by Qdrant Edge.

Edge is in beta. What this adapter adds: a lock on the directory, checks before Edge sees anything (its log is
written before it validates), a flush after every write and every failure, folders that appear and vanish
whole, a refusal to work in a forked child, and stores that share a directory within one process. Every call
of Edge holds Python's global lock; :meth:`EdgeStore.optimize` for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from qdrant_cir.errors import CollectionError, InputError, StoreError
from qdrant_cir.storage.stores.checks import (
    check_given_name,
    check_index,
    check_limit,
    check_name,
    check_query_vector,
    checked_payloads,
    checked_points,
    needs_index,
)
from qdrant_cir.storage.stores.edge_folder import EdgeFolder, join_folder, leave_folder
from qdrant_cir.storage.stores.edge_room import bytes_on_disk, check_room
from qdrant_cir.storage.stores.edge_shards import (
    create_folder,
    drop_folder,
    holds_collection,
    is_shard,
    read_spec,
    read_vectors,
    translated,
    update_metadata,
)
from qdrant_cir.storage.stores.grouping import grouped
from qdrant_cir.storage.stores.places import folder_of
from qdrant_cir.storage.stores.protocol import (
    INDEX_KINDS,
    PLAIN,
    VECTOR_NAME,
    CollectionSpec,
    Hit,
    HitGroup,
    ReadOptions,
    Record,
    StoredPoint,
    VectorSpec,
    behind,
    hnsw_ef,
)
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["EdgeStore"]

_INDEX_KINDS = {kind: getattr(edge.PayloadSchemaType, kind.capitalize()) for kind in INDEX_KINDS}

_COPIES = 4
"""What is written stands in the log, in its segment and in its indexes."""


class EdgeStore:
    """A :class:`~qdrant_cir.storage.stores.protocol.Store` in a directory, for all threads of one process.

    Any number of them may be open in one directory of one process. They share what is open, and the last one
    to be closed releases the directory.
    """

    def __init__(self, directory: str | PathLike[str], *, creates: bool = True) -> None:
        """Open a store.

        Args:
            directory: on a local file system; nothing else should be kept in it. One that cannot be written is copied
                to a temporary folder and read there.
            creates: make the directory and its lock file where they are missing; else that waits for the first write,
                and a directory that is not there is an empty store.

        Raises:
            InputError: it is the address of a server, or names no directory.
            StoreLockedError: another process holds the directory.
            StoreError: the directory cannot be made, written or locked.
        """
        self._directory = folder_of(directory).absolute()
        self._pid = os.getpid()
        self._folder: EdgeFolder | None = join_folder(self._directory, self, creates=creates)

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
        with self._using() as folder:
            return folder.collection_names()

    def name_companion(self, companion: str, collection: str | None) -> None:
        """Let errors about a companion name the collection that it belongs to, which users know; None: to none."""
        with self._using() as folder:
            if collection is None:
                folder.companions.pop(companion, None)
            else:
                folder.companions[companion] = collection

    def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        with self._using() as folder:
            if name not in folder.collection_names():
                return None
            # from its description alone: what cannot be opened can still be named, and dropped
            return replace(read_spec(folder.directory / name), vectors=read_vectors(folder.directory / name))

    @staticmethod
    def check_placement(placement: Mapping[str, object]) -> None:
        """Refuse options of collections, which are for a server. Raises InputError."""
        if placement:
            raise InputError(
                f"The embedded store takes no options of collections ({', '.join(placement)}): they are for a server."
            )

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises CollectionError where one of that name exists."""
        check_name(name)
        self.check_placement(spec.placement)
        with self._writing() as opened:
            folder = opened.directory / name
            if folder.exists():
                raise CollectionError(
                    f"There is already a collection {name!r} in {self._directory}. Drop it first, or use another name."
                )
            create_folder(folder, spec)

    def update_metadata(self, name: str, values: JsonObject) -> None:
        """Set top-level keys of a collection's metadata; the others stay."""
        with self._writing(name) as opened:
            opened.collection(name)
            update_metadata(opened.directory / name, values)

    def drop(self, name: str) -> None:
        """Remove a collection and all its points, also one that cannot be opened; nothing where there is none."""
        check_name(name)
        with self._using() as folder:
            if not holds_collection(folder.directory / name):
                return
            folder.claim()
            folder.check_writable(name)
            held = folder.open.pop(name, None)
            if held is not None:
                with suppress(StoreError), translated(f"close {folder.subject(name)}"):
                    held.shard.close()
            drop_folder(folder.directory / name)

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field by a kind; as :meth:`Store.create_payload_index`."""
        check_index(field, kind)
        # with phrases, which a filter may look for
        schema = edge.TextIndexParams(phrase_matching=True) if kind == "text" else _INDEX_KINDS[kind]
        self._update(name, lambda: [edge.UpdateOperation.create_field_index(field, schema)])

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        """Write points, replacing those of the same id; on the disk when it returns.

        Raises:
            InputError: a vector or payload cannot be stored; nothing of this call is written then.
        """
        with self._using() as folder:
            size = folder.collection(name).spec.vector_size
        points = checked_points(points, name=name, size=size)
        if points:
            self._update(
                name,
                lambda: [edge.UpdateOperation.upsert_points([_edge_point(point) for point in points])],
                size=sum(map(_bytes_of, points)),
            )

    def is_foreign(self, name: str) -> bool:
        """Return whether a collection is a shard that another program made."""
        return is_shard(self._directory / name)

    def resolve(self, name: str) -> str:
        """Return the name as it is: the embedded store has no aliases. Raises InputError for what is none."""
        check_given_name(name)
        return name

    def add_vector(self, name: str, vector: str, spec: VectorSpec) -> None:
        """Add a named vector to an existing collection; its points do not have it yet. May be repeated."""
        with self._using() as folder:
            folder.collection(name)
            if vector in read_vectors(folder.directory / name):
                return
        several = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if spec.is_multi else None
        distance = getattr(edge.Distance, spec.distance)
        self._update(name, lambda: [edge.UpdateOperation.create_dense_vector(vector, spec.size, distance, several)])

    def remove_vector(self, name: str, vector: str) -> None:
        """Remove a named vector with all its values; nothing happens where there is none."""
        with self._using() as folder:
            folder.collection(name)
            if vector not in read_vectors(folder.directory / name):
                return
        self._update(name, lambda: [edge.UpdateOperation.delete_vector_name(vector)])

    def update_vectors(self, name: str, vector: str, values: Mapping[PointId, Float32]) -> list[PointId]:
        """Write a named vector of existing points, float32 [D] or [V, D]; nothing else of them changes.

        Returns:
            The ids of which there is no point.
        """
        with self._using():
            standing = self._standing(name, list(values))
            if standing:
                self._update(
                    name,
                    lambda: [
                        edge.UpdateOperation.update_vectors(
                            [
                                edge.PointVectors(point_id, {vector: values[point_id].astype(float).tolist()})
                                for point_id in standing
                            ]
                        )
                    ],
                    size=sum(values[point_id].nbytes for point_id in standing),
                )
        return [point_id for point_id in values if point_id not in standing]

    def clear_vectors(self, name: str, vector: str, point_ids: Sequence[PointId]) -> None:
        """Remove the values that points have under a named vector; ids that do not exist are skipped."""
        with self._using():
            standing = self._standing(name, point_ids)
            if standing:
                self._update(name, lambda: [edge.UpdateOperation.delete_vectors(list(standing), [vector])])

    def set_payloads(self, name: str, payloads: Mapping[PointId, Mapping[str, JsonValue]]) -> None:
        """Set top-level payload fields of points, by id; other fields stay, ids that do not exist are skipped."""
        plain = checked_payloads(payloads)
        with self._using():
            standing = self._standing(name, list(plain))
            if standing:
                self._update(
                    name,
                    lambda: [edge.UpdateOperation.set_payload([point_id], plain[point_id]) for point_id in standing],
                    size=sum(map(_bytes_of_payload, plain.values())),
                )

    def delete_payloads(self, name: str, fields: Mapping[PointId, Sequence[str]]) -> None:
        """Remove top-level payload fields of points, by id; the others stay."""
        with self._using():
            standing = self._standing(name, list(fields))
            if standing:
                self._update(
                    name,
                    lambda: [
                        edge.UpdateOperation.delete_payload([point_id], [f'"{key}"' for key in fields[point_id]])
                        for point_id in standing
                    ],
                )

    def query(
        self,
        name: str,
        vector: Float32,
        *,
        limit: int,
        filter: Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Hit]:
        """Return the nearest points by cosine, best first; equal scores in any order. Raises InputError."""
        check_limit(limit)
        with self._using() as folder:
            held = folder.collection(name)
            _check_words(name, held.shard, filter)
            check_query_vector(vector, name=name, size=self._size_of(folder, name, using))
            given = options.params
            with translated(f"search {folder.subject(name)}"):
                request = edge.QueryRequest(
                    limit=limit,
                    query=edge.Query.Nearest(vector.astype(float).tolist(), using=using),
                    filter=_edge_filter(filter),
                    with_payload=True,
                    params=edge.SearchParams(
                        hnsw_ef=(given.hnsw_ef if given is not None else None) or hnsw_ef(limit),
                        exact=bool(given is not None and given.exact),
                    ),
                )
                return [Hit(_point_id(hit.id), hit.score, hit.payload or {}) for hit in held.shard.query(request)]

    def query_groups(
        self,
        name: str,
        vector: Float32,
        *,
        group_by: str,
        limit: int,
        group_size: int,
        filter: Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[HitGroup]:
        """Return the best groups by their best hit, made here of plain searches. Raises InputError."""
        search = partial(self.query, name, vector, using=using, options=options)
        return grouped(search, group_by=group_by, limit=limit, group_size=group_size, filter=filter)

    def fetch(
        self,
        name: str,
        point_ids: Sequence[PointId],
        *,
        with_vectors: bool,
        fields: Sequence[str] | None = None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Record]:
        """Read points by id: those that exist, in the order asked for."""
        with self._using() as folder:
            held = folder.collection(name)
            vectors = [using] if with_vectors and self._size_of(folder, name, using) is not None else False
            with translated(f"read {folder.subject(name)}"):
                found = held.shard.retrieve(list(dict.fromkeys(point_ids)), _payload_of(fields), vectors)
        records = {record.point_id: record for record in (_record(record, using) for record in found)}
        return [records[point_id] for point_id in point_ids if point_id in records]

    def scroll(
        self,
        name: str,
        *,
        filter: Filter | None,
        limit: int,
        after: PointId | None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        """Read points in id order without vectors, at most ``limit`` that follow ``after``; integers come first."""
        check_limit(limit)
        start = behind(after)
        if after is not None and start is None:
            return []
        with self._using() as folder:
            held = folder.collection(name)
            _check_words(name, held.shard, filter)
            with translated(f"read {folder.subject(name)}"):
                request = edge.ScrollRequest(
                    offset=start,
                    limit=limit,
                    filter=_edge_filter(filter),
                    with_payload=_payload_of(fields),
                    with_vector=False,
                )
                found, _ = held.shard.scroll(request)
        return [_record(record) for record in found]

    def delete(self, name: str, point_ids: Sequence[PointId]) -> None:
        """Remove points; ids that do not exist are skipped."""
        with self._using() as folder:
            folder.collection(name)
        if point_ids:
            self._update(name, lambda: [edge.UpdateOperation.delete_points(list(point_ids))])

    def count(self, name: str, filter: Filter | None) -> int:
        """Count points exactly."""
        with self._using() as folder:
            held = folder.collection(name)
            _check_words(name, held.shard, filter)
            with translated(f"count {folder.subject(name)}"):
                request = edge.CountRequest(exact=True, filter=_edge_filter(filter))
                return held.shard.count(request)

    def counts_exactly(self, name: str) -> bool:
        """Return True: the embedded store counts exactly."""
        return True

    def optimize(self, name: str) -> None:
        """Build the HNSW graph where the collection is large enough for one, and drop what was deleted.

        Holds Python's global lock for seconds: call it after indexing, not while serving.
        """
        with self._writing(name) as folder:
            held = folder.collection(name)
            # segments are written anew beside the old ones
            check_room(folder.directory, f"optimize {folder.subject(name)}", bytes_on_disk(held.folder))
            with translated(f"optimize {folder.subject(name)}"):
                held.shard.optimize()
                held.shard.flush()

    def close(self) -> None:
        """Release the directory once no other store of this process has it open; repeating it is harmless.

        Everything is written to the disk then.
        """
        if os.getpid() != self._pid:
            return
        folder, self._folder = self._folder, None
        if folder is not None:
            leave_folder(folder, self)

    @contextmanager
    def _using(self) -> Iterator[EdgeFolder]:
        """Hold the folder for one call. Raises StoreError where the store is closed, or came with a fork."""
        folder = self._folder
        if os.getpid() != self._pid:
            raise StoreError(
                f"The store in {self._directory} was opened by process {self._pid} before this one (pid "
                f"{os.getpid()}) was forked from it. Open a store in the process that uses it."
            )
        if folder is not None:
            with folder.guard:
                # checked again: another thread may have closed the store while this one waited
                if self._folder is folder:
                    folder.lock_what_stands()
                    yield folder
                    return
        raise StoreError(f"The store in {self._directory} was closed. Open a new EdgeStore.")

    @contextmanager
    def _writing(self, name: str | None = None) -> Iterator[EdgeFolder]:
        """Hold the folder for a write, with its lock. Raises StoreError where it cannot be written."""
        with self._using() as folder:
            folder.claim()
            folder.check_writable(name)
            yield folder

    def _standing(self, name: str, point_ids: Sequence[PointId]) -> dict[PointId, None]:
        """Return the ids that exist, in their order: Edge refuses a call that names any other."""
        found = self.fetch(name, point_ids, with_vectors=False, fields=())
        return dict.fromkeys(record.point_id for record in found)

    def _size_of(self, folder: EdgeFolder, name: str, vector: str) -> int | None:
        if vector == VECTOR_NAME and folder.collection(name).spec.vector_size is not None:
            return folder.collection(name).spec.vector_size
        found = read_vectors(folder.directory / name).get(vector)
        return None if found is None else found.size

    def _update(self, name: str, operations: Callable[[], list[edge.UpdateOperation]], *, size: int = 0) -> None:
        """Apply operations of ``size`` bytes and flush, even after a refused one: part of it may be in the log."""
        with self._writing(name) as folder:
            shard = folder.collection(name).shard
            folder.check_writable(name)
            check_room(folder.directory, f"write to {folder.subject(name)}", _COPIES * size)
            with translated(f"write to {folder.subject(name)}"):
                made = operations()
                try:
                    for operation in made:
                        shard.update(operation)
                finally:
                    shard.flush()


def _edge_filter(filter: Filter | None) -> edge.Filter | None:
    """Convert a filter; None stays None, and does not wait a second for qdrant-client to load. Raises InputError."""
    if filter is None:
        return None
    from qdrant_cir.storage.stores.filters import convert_filter

    return convert_filter(filter)


def _check_words(name: str, shard: edge.EdgeShard, filter: Filter | None) -> None:
    """Refuse a filter that looks for words in a field without a text index, which a server splits otherwise."""
    if filter is None:
        return
    from qdrant_cir.storage.stores.filters import text_fields

    if wanted := text_fields(filter):
        schema = shard.info().payload_schema
        for field in wanted:
            if field not in schema or schema[field].data_type != edge.PayloadSchemaType.Text:
                raise needs_index(name, field, "text", why="a filter on its words")


def _edge_point(point: StoredPoint) -> edge.Point:
    vector: edge.Vector = {} if point.vector is None else {VECTOR_NAME: point.vector.astype(float).tolist()}
    return edge.Point(point.point_id, vector, dict(point.payload))


def _bytes_of(point: StoredPoint) -> int:
    return _bytes_of_payload(point.payload) + (0 if point.vector is None else point.vector.nbytes)


def _bytes_of_payload(payload: Mapping[str, JsonValue]) -> int:
    return 64 + len(repr(payload))


def _record(found: edge.Record, vector: str = VECTOR_NAME) -> Record:
    value = found.vector.get(vector) if isinstance(found.vector, dict) else None
    return Record(
        point_id=_point_id(found.id),
        payload=found.payload or {},
        vector=None if value is None else np.asarray(value, dtype=np.float32),
    )


def _payload_of(fields: Sequence[str] | None) -> bool | list[str]:
    if fields is None:
        return True
    return list(fields) if fields else False


def _point_id(point_id: object) -> PointId:
    return point_id if isinstance(point_id, int) else UUID(str(point_id))
