"""Where collections live: a given Qdrant client (server, cloud, in memory), or a directory (Qdrant Edge)."""

from qdrant_cir.stores.connection import connect, connect_async
from qdrant_cir.stores.edge import EdgeStore
from qdrant_cir.stores.filter_fields import filter_fields
from qdrant_cir.stores.opening import StoreLike, is_folder, open_store
from qdrant_cir.stores.protocol import (
    VECTOR_NAME,
    AsyncReader,
    CollectionSpec,
    Hit,
    Record,
    Store,
    StoredPoint,
)
from qdrant_cir.stores.server import AsyncServerReader, ServerStore
from qdrant_cir.stores.threaded import ThreadedReader

__all__ = [
    "VECTOR_NAME",
    "AsyncReader",
    "AsyncServerReader",
    "CollectionSpec",
    "EdgeStore",
    "Hit",
    "Record",
    "ServerStore",
    "Store",
    "StoreLike",
    "StoredPoint",
    "ThreadedReader",
    "connect",
    "connect_async",
    "filter_fields",
    "is_folder",
    "open_store",
]
