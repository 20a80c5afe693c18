"""Any store, read from asynchronous code: every call in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdrant_cir.storage.stores.protocol import (
    PLAIN,
    VECTOR_NAME,
    CollectionSpec,
    Hit,
    HitGroup,
    ReadOptions,
    Record,
    Store,
)
from qdrant_cir.types import Float32, PointId

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["ThreadedReader"]


class ThreadedReader:
    """An :class:`~qdrant_cir.storage.stores.protocol.AsyncReader` over a :class:`Store`, which threads may share."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        return await asyncio.to_thread(self.store.collection_names)

    async def resolve(self, name: str) -> str:
        """Return the name of the collection that an alias stands for; any other name as it is."""
        return await asyncio.to_thread(self.store.resolve, name)

    async def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        return await asyncio.to_thread(self.store.describe, name)

    async def query(
        self,
        name: str,
        vector: Float32,
        *,
        limit: int,
        filter: Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Hit]:
        """Return the nearest points; as :meth:`Store.query`."""
        return await asyncio.to_thread(
            self.store.query, name, vector, limit=limit, filter=filter, using=using, options=options
        )

    async def query_groups(
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
        """Return the best groups; as :meth:`Store.query_groups`."""
        return await asyncio.to_thread(
            self.store.query_groups,
            name,
            vector,
            group_by=group_by,
            limit=limit,
            group_size=group_size,
            filter=filter,
            using=using,
            options=options,
        )

    async def fetch(
        self,
        name: str,
        point_ids: Sequence[PointId],
        *,
        with_vectors: bool,
        fields: Sequence[str] | None = None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Record]:
        """Read points by id; as :meth:`Store.fetch`."""
        return await asyncio.to_thread(
            self.store.fetch, name, point_ids, with_vectors=with_vectors, fields=fields, using=using, options=options
        )

    async def scroll(
        self,
        name: str,
        *,
        filter: Filter | None,
        limit: int,
        after: PointId | None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        """Read points in id order; as :meth:`Store.scroll`."""
        return await asyncio.to_thread(self.store.scroll, name, filter=filter, limit=limit, after=after, fields=fields)

    async def close(self) -> None:
        """Close the store; not for callers who only borrowed it."""
        await asyncio.to_thread(self.store.close)
