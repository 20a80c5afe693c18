"""From what a caller has, a folder, a client or a store, to a store."""

from __future__ import annotations

from os import PathLike
from typing import TypeAlias

from qdrant_client import QdrantClient

from qdrant_cir.stores.edge import EdgeStore
from qdrant_cir.stores.protocol import Store
from qdrant_cir.stores.server import ServerStore

__all__ = ["StoreLike", "is_folder", "open_store"]

StoreLike: TypeAlias = "Store | QdrantClient | str | PathLike[str]"
"""An open store, a Qdrant client, or the folder of an embedded store."""


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
    return ServerStore(store) if isinstance(store, QdrantClient) else store
