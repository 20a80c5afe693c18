"""The interface through which the rest of the library uses Qdrant, wherever it runs.

A store holds named collections of points. It knows nothing of images, tokens or bundles; ``collection.py``
does. Both implementations translate their library's exceptions into :mod:`qdrant_cir.errors`, and give the
same answers to the same calls (``tests/congruence``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId

if TYPE_CHECKING:
    from qdrant_client.models import Filter, ReadConsistency, SearchParams, ShardKeySelector

__all__ = [
    "INDEX_KINDS",
    "PAGE",
    "PLAIN",
    "VECTOR_NAME",
    "CollectionSpec",
    "Hit",
    "HitGroup",
    "ReadOptions",
    "Record",
    "Store",
    "StoredPoint",
    "VectorSpec",
    "behind",
    "hnsw_ef",
    "pages_of",
]

VECTOR_NAME = "image"
"""The one named vector of a gallery collection; cosine distance."""

INDEX_KINDS = ("keyword", "integer", "float", "bool", "datetime", "text", "uuid", "geo")
"""Kinds of payload index."""

PAGE = 1000
"""Points that are looked at together."""

_LEAST_HNSW_EF = 512


def hnsw_ef(limit: int) -> int:
    """Return how many points a search of the graph keeps as candidates.

    Qdrant's default of 128 loses a fifth of the nearest points in the hardest data.
    """
    return max(_LEAST_HNSW_EF, 2 * limit)


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """A dense vector of a collection.

    Attributes:
        size: dimensions.
        distance: in Qdrant's words: ``Cosine``, ``Dot``, ``Euclid``, ``Manhattan``.
        is_multi: whether a point holds several, compared by their best.
    """

    size: int
    distance: str = "Cosine"
    is_multi: bool = False


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """The specification of a collection.

    Attributes:
        vector_size: dimensions of the vector named ``image``, or None where there is none.
        metadata: kept with the collection and returned by :meth:`Store.describe`.
        vectors: every dense vector by its name, the unnamed one by ``""``; filled by :meth:`Store.describe`.
        placement: how it lies on a server, by the names of ``create_collection``, and ``on_disk`` of its vectors.
            :meth:`Store.describe` fills in all that a server says, and None for what it has no value of; nothing for
            a collection that lies on no server.
    """

    vector_size: int | None
    metadata: JsonObject
    vectors: Mapping[str, VectorSpec] = field(default_factory=dict, compare=False)
    placement: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of a read that a caller may set: passed to Qdrant unchanged, ignored by the embedded store.

    Attributes:
        params: search parameters, instead of the store's own.
        consistency: read consistency.
        timeout: seconds.
        shard_key_selector: the shard keys to look at.
        retry_seconds: how long a failed read is tried again, where that is less than the store's own limit.
    """

    params: SearchParams | None = None
    consistency: ReadConsistency | None = None
    timeout: int | None = None
    shard_key_selector: ShardKeySelector | None = None
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point to write. ``vector`` is float32 [D], None in a payload-only collection."""

    point_id: PointId
    vector: Float32 | None
    payload: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Hit:
    """One point that a query found: cosine score, higher is better, and its payload."""

    point_id: PointId
    score: float
    payload: JsonObject


@dataclass(frozen=True, slots=True)
class HitGroup:
    """Hits that share the value of a payload field, best first."""

    value: JsonValue
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One stored point's payload, and its vector if it was asked for: float32 [D], [V, D] of V views."""

    point_id: PointId
    payload: JsonObject
    vector: Float32 | None


PLAIN = ReadOptions()
"""A read without options."""


class Store(Protocol):
    """Synchronous reading and writing.

    Every method raises StoreError where Qdrant cannot be reached or fails, and every method that names a
    collection, except ``describe`` and ``drop``, raises CollectionNotFoundError where there is none of that
    name.
    """

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        ...

    def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        ...

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises CollectionError where one of that name exists."""
        ...

    def update_metadata(self, name: str, values: JsonObject) -> None:
        """Set top-level keys of a collection's metadata; the others stay."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection and all its points; nothing happens where there is none."""
        ...

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field, so that filters on it are fast, and allowed in strict mode.

        May be repeated. A store in memory needs no index and checks the arguments alone.

        Args:
            name: of the collection.
            field: a path such as ``color`` or ``shop.city``.
            kind: keyword, integer, float, bool, datetime, text, uuid or geo.

        Raises:
            InputError: the path cannot be read, or there is no such kind.
        """
        ...

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        """Write points, replacing those of the same id; visible and durable when it returns.

        Raises:
            InputError: a vector or payload cannot be stored; nothing of this call is written then.
        """
        ...

    def resolve(self, name: str) -> str:
        """Return the name of the collection that an alias stands for; any other name as it is."""
        ...

    def add_vector(self, name: str, vector: str, spec: VectorSpec) -> None:
        """Add a named vector to an existing collection; its points do not have it yet. May be repeated."""
        ...

    def remove_vector(self, name: str, vector: str) -> None:
        """Remove a named vector with all its values; nothing happens where there is none."""
        ...

    def update_vectors(self, name: str, vector: str, values: Mapping[PointId, Float32]) -> list[PointId]:
        """Write a named vector of existing points, float32 [D] or [V, D]; nothing else of them changes.

        Returns:
            The ids of which there is no point; the others are written.
        """
        ...

    def clear_vectors(self, name: str, vector: str, point_ids: Sequence[PointId]) -> None:
        """Remove the values that points have under a named vector; ids that do not exist are skipped."""
        ...

    def set_payloads(self, name: str, payloads: Mapping[PointId, Mapping[str, JsonValue]]) -> None:
        """Set top-level payload fields of points, by id; other fields stay, ids that do not exist are skipped."""
        ...

    def delete_payloads(self, name: str, fields: Mapping[PointId, Sequence[str]]) -> None:
        """Remove top-level payload fields of points, by id; the others stay."""
        ...

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
        """Return the nearest points by cosine, best first; equal scores in any order.

        Raises:
            InputError: the vector has another size or is not finite, ``limit`` is below 1, or the filter
                holds what the store cannot evaluate.
        """
        ...

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
        """Return the best groups by their best hit, at most ``limit``, each of at most ``group_size`` hits.

        Points without the field are left out; a point with a list of values is in each of their groups.

        Raises:
            InputError: as :meth:`query`, or the field cannot be grouped by.
        """
        ...

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
        """Read points by id: those that exist, in the order asked for.

        Args:
            name: of the collection.
            point_ids: may repeat.
            with_vectors: read the vector ``using`` as well.
            fields: the top-level payload fields to read; None for all.
            using: the vector's name.
            options: of the caller.
        """
        ...

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
        ...

    def delete(self, name: str, point_ids: Sequence[PointId]) -> None:
        """Remove points; ids that do not exist are skipped."""
        ...

    def count(self, name: str, filter: Filter | None) -> int:
        """Count points exactly, or as well as a server in strict mode does it."""
        ...

    def counts_exactly(self, name: str) -> bool:
        """Return whether the counts of a collection that were made are exact."""
        ...

    def optimize(self, name: str) -> None:
        """Build what queries need (HNSW) now, where the store does not do so by itself."""
        ...

    def close(self) -> None:
        """Release what the store holds; a client that was given stays open."""
        ...


def behind(after: PointId | None) -> PointId | None:
    """Return the first id after another in Qdrant's order, integers before UUIDs; None for None and for the last."""
    if after is None:
        return None
    if isinstance(after, int):
        return after + 1 if after < 2**64 - 1 else UUID(int=0)
    return UUID(int=after.int + 1) if after.int < 2**128 - 1 else None


def pages_of(
    store: Store, name: str, *, filter: Filter | None = None, fields: Sequence[str] | None = None, size: int = PAGE
) -> Iterator[list[Record]]:
    """Yield the points of a collection in id order, ``size`` at a time."""
    after: PointId | None = None
    while page := store.scroll(name, filter=filter, limit=size, after=after, fields=fields):
        yield page
        after = page[-1].point_id
