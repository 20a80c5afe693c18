"""From what a caller has, a folder, a client or a store, to a store or an asynchronous reader.

qdrant-client takes a second to load, so it is loaded here only for what is neither a folder nor an embedded
store; whoever gives a client has loaded it already.
"""

from __future__ import annotations

import asyncio
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.protocol import AsyncReader, Store
from qdrant_cir.storage.stores.threaded import ThreadedReader

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

__all__ = ["AsyncStoreLike", "StoreLike", "is_folder", "open_reader", "open_store"]

StoreLike: TypeAlias = "Store | QdrantClient | str | PathLike[str]"
"""An open store, a Qdrant client, or the folder of an embedded store."""

AsyncStoreLike: TypeAlias = "Store | AsyncQdrantClient | str | PathLike[str]"
"""An open store, an asynchronous Qdrant client, or the folder of an embedded store."""


def is_folder(store: object) -> bool:
    """Tell whether a store was given as a folder; only then is it the library's to close."""
    return isinstance(store, str | PathLike)


def open_store(store: StoreLike) -> Store:
    """Open the embedded store in a folder, wrap a client, or give an open store as it is.

    Raises:
        StoreError: the folder cannot be used.
        StoreLockedError: another process holds it.
    """
    if isinstance(store, str | PathLike):
        return EdgeStore(store)
    if isinstance(store, EdgeStore):
        return store
    from qdrant_client import QdrantClient

    from qdrant_cir.storage.stores.server import ServerStore

    return ServerStore(store) if isinstance(store, QdrantClient) else store


async def open_reader(store: AsyncStoreLike) -> AsyncReader:
    """Make an asynchronous reader; calls of a store are made in a thread. Raises as :func:`open_store`."""
    if not isinstance(store, str | PathLike | EdgeStore):
        from qdrant_client import AsyncQdrantClient

        from qdrant_cir.storage.stores.server import AsyncServerReader

        if isinstance(store, AsyncQdrantClient):
            return AsyncServerReader(store)
    return ThreadedReader(await asyncio.to_thread(open_store, store))
