"""What the rest of the library asks of Qdrant, wherever it runs.

A store holds named collections of points. It knows nothing of images, tokens or bundles; ``collection.py``
does. Both implementations translate their library's exceptions into :mod:`qdrant_cir.errors`, and give the
same answers to the same calls (``tests/congruence``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from qdrant_cir.types import Float32, JsonObject, JsonValue

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = [
    "INDEX_KINDS",
    "VECTOR_NAME",
    "AsyncReader",
    "CollectionSpec",
    "Hit",
    "Record",
    "Store",
    "StoredPoint",
    "hnsw_ef",
]

VECTOR_NAME = "image"
"""The one named vector of a gallery collection; cosine distance."""

INDEX_KINDS = ("keyword", "integer", "float", "bool", "datetime", "text", "uuid", "geo")
"""Kinds of payload index."""

_LEAST_HNSW_EF = 512


def hnsw_ef(limit: int) -> int:
    """Return how many points a search of the graph keeps in view.

    Qdrant's own 128 loses a fifth of the nearest in the hardest data.
    """
    return max(_LEAST_HNSW_EF, 2 * limit)


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is made of.

    Attributes:
        vector_size: dimensions of the named vector, or None for a payload-only collection.
        metadata: kept with the collection and given back by :meth:`Store.describe`.
    """

    vector_size: int | None
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point to write. ``vector`` is float32 [D], None in a payload-only collection."""

    point_id: UUID
    vector: Float32 | None
    payload: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Hit:
    """One point that a query found: cosine score, higher is better, and its payload."""

    point_id: UUID
    score: float
    payload: JsonObject


@dataclass(frozen=True, slots=True)
class Record:
    """One stored point's payload, and its vector if it was asked for."""

    point_id: UUID
    payload: JsonObject
    vector: Float32 | None


class Store(Protocol):
    """Synchronous reading and writing.

    Every method raises StoreError where Qdrant cannot be reached or fails, and every method that names a
    collection, ``describe`` and ``drop`` apart, raises CollectionNotFoundError where there is none of that
    name.
    """

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        ...

    def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        ...

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises CollectionError where one of that name stands."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection and all its points; nothing happens where there is none."""
        ...

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field, so that filters on it are fast, and allowed where a server is strict.

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

    def query(self, name: str, vector: Float32, *, limit: int, filter: Filter | None) -> list[Hit]:
        """Return the nearest points by cosine, best first; equal scores in any order.

        Raises:
            InputError: the vector has another size or is not finite, ``limit`` is below 1, or the filter
                holds what the store cannot evaluate.
        """
        ...

    def fetch(
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]:
        """Read points by id: those that exist, in the order asked for.

        ``fields`` names the top-level payload fields to read; None reads all.
        """
        ...

    def scroll(self, name: str, *, filter: Filter | None, limit: int, after: UUID | None) -> list[Record]:
        """Read points in id order without vectors, ``limit`` at a time, those behind ``after``."""
        ...

    def delete(self, name: str, point_ids: Sequence[UUID]) -> None:
        """Remove points; ids that do not exist are passed over."""
        ...

    def count(self, name: str, filter: Filter | None) -> int:
        """Count points exactly."""
        ...

    def optimize(self, name: str) -> None:
        """Build what queries need (HNSW) now, where the store does not do so by itself."""
        ...

    def close(self) -> None:
        """Release what the store holds; a client that was given stays open."""
        ...


class AsyncReader(Protocol):
    """The read path of a query, asynchronously. Same semantics as :class:`Store`."""

    async def collection_names(self) -> list[str]: ...  # noqa: D102

    async def describe(self, name: str) -> CollectionSpec | None: ...  # noqa: D102

    async def query(self, name: str, vector: Float32, *, limit: int, filter: Filter | None) -> list[Hit]: ...  # noqa: D102

    async def fetch(  # noqa: D102
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]: ...

    async def scroll(  # noqa: D102
        self, name: str, *, filter: Filter | None, limit: int, after: UUID | None
    ) -> list[Record]: ...

    async def close(self) -> None: ...  # noqa: D102
