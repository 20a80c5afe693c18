"""Any store, read from asynchronous code: every call in a thread, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from qdrant_cir.storage.stores.protocol import CollectionSpec, Hit, Record, Store
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["ThreadedReader"]


class ThreadedReader:
    """An :class:`~qdrant_cir.storage.stores.protocol.AsyncReader` over a :class:`Store`.

    Calls wait for each other, because not every store may be called from two threads; the event loop does not
    wait. One reader belongs to one event loop.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        async with self._turn:
            return await asyncio.to_thread(self._store.collection_names)

    async def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        async with self._turn:
            return await asyncio.to_thread(self._store.describe, name)

    async def query(self, name: str, vector: Float32, *, limit: int, filter: Filter | None) -> list[Hit]:
        """Return the nearest points; as :meth:`Store.query`."""
        async with self._turn:
            return await asyncio.to_thread(self._store.query, name, vector, limit=limit, filter=filter)

    async def fetch(
        self, name: str, point_ids: Sequence[UUID], *, with_vectors: bool, fields: Sequence[str] | None = None
    ) -> list[Record]:
        """Read points by id; as :meth:`Store.fetch`."""
        async with self._turn:
            return await asyncio.to_thread(self._store.fetch, name, point_ids, with_vectors=with_vectors, fields=fields)

    async def scroll(self, name: str, *, filter: Filter | None, limit: int, after: UUID | None) -> list[Record]:
        """Read points in id order; as :meth:`Store.scroll`."""
        async with self._turn:
            return await asyncio.to_thread(self._store.scroll, name, filter=filter, limit=limit, after=after)

    async def close(self) -> None:
        """Close the store; whoever was lent the store does not call this."""
        async with self._turn:
            await asyncio.to_thread(self._store.close)
