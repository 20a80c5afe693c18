"""Where collections live: a Qdrant server or cloud, this process's memory, or a folder (Qdrant Edge).

:func:`open_store` opens any of them by its address, ``":memory:"`` or a path, and wraps a client.

Modules that need qdrant-client, which takes a second to load, are loaded at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.opening import (
    AsyncStoreLike,
    StoreLike,
    check_shard_key,
    is_folder,
    is_place,
    make_shard_key,
    open_store,
    open_store_async,
    with_shard_key,
)
from qdrant_cir.storage.stores.protocol import (
    INDEX_KINDS,
    VECTOR_NAME,
    CollectionSpec,
    Hit,
    Record,
    Store,
    StoredPoint,
)
from qdrant_cir.storage.stores.retrying import RETRY_SECONDS, retrying_within

if TYPE_CHECKING:
    from qdrant_cir.storage.stores.connection import connect, connect_async
    from qdrant_cir.storage.stores.filters import filter_fields
    from qdrant_cir.storage.stores.server import ServerStore

_HOMES = {
    "ServerStore": "server",
    "connect": "connection",
    "connect_async": "connection",
    "filter_fields": "filters",
}

__all__ = [
    "INDEX_KINDS",
    "RETRY_SECONDS",
    "VECTOR_NAME",
    "AsyncStoreLike",
    "CollectionSpec",
    "EdgeStore",
    "Hit",
    "Record",
    "ServerStore",
    "Store",
    "StoreLike",
    "StoredPoint",
    "check_shard_key",
    "connect",
    "connect_async",
    "filter_fields",
    "is_folder",
    "is_place",
    "open_store",
    "open_store_async",
    "retrying_within",
    "make_shard_key",
    "with_shard_key",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
