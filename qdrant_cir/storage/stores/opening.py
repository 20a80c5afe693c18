"""Opening of stores from a place, a client or a store.

qdrant-client takes a second to load, so it is loaded here only for what is neither a folder nor an embedded
store; a caller with a client has loaded it already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias, cast

from qdrant_cir.arguments import checked_port, checked_seconds, shown
from qdrant_cir.errors import CollectionNotFoundError, InputError
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.places import MEMORY, folder_of, is_address, is_memory, is_place
from qdrant_cir.storage.stores.protocol import CollectionSpec, Store
from qdrant_cir.storage.stores.retrying import RETRY_SECONDS

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

__all__ = [
    "AsyncStoreLike",
    "StoreLike",
    "check_placement",
    "check_shard_key",
    "describe_companion",
    "is_folder",
    "is_place",
    "open_store",
    "open_store_async",
    "make_shard_key",
    "name_companion",
    "with_shard_key",
]

StoreLike: TypeAlias = "Store | QdrantClient | str | PathLike[str]"
"""An open store, a Qdrant client, a server's address, the folder of an embedded store, or ``":memory:"``."""

AsyncStoreLike: TypeAlias = "Store | AsyncQdrantClient | str | PathLike[str]"
"""An open store, an asynchronous Qdrant client, a server's address, an embedded store's folder, or ``":memory:"``."""

is_folder = is_place


def open_store(
    store: StoreLike,
    *,
    creates: bool = True,
    api_key: str | None = None,
    grpc_port: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
) -> Store:
    """Open the store at a place, wrap a client, or return an open store as it is.

    Stores opened from one folder share it, in this process; ``":memory:"`` is one memory for all.

    Args:
        store: a place, a client or a store.
        api_key: of the server at an address; ``QDRANT_API_KEY`` where it is None.
        grpc_port: where that server speaks gRPC; see :func:`~qdrant_cir.storage.stores.connection.connect`.
        retry_seconds: how long one call of a server is tried again.
        creates: make the folder of an embedded store and its lock file where they are missing.

    Raises:
        InputError: ``store`` is none of these, or not the address of a server.
        CollectionNotFoundError: there is no such folder, and it is not to be made.
        StoreError: the folder cannot be used.
        StoreLockedError: another process holds it.
    """
    checked_seconds(retry_seconds, name="retry_seconds")
    if grpc_port is not None:
        checked_port(grpc_port)
    if isinstance(store, EdgeStore):
        return store
    place = store if isinstance(store, str | PathLike) else None
    if place is not None and not is_address(place) and not is_memory(place):
        folder = folder_of(place)
        if not creates and not folder.is_dir():
            raise CollectionNotFoundError(
                f"There is no store in {folder.absolute()}, so there is no collection yet. Give the right folder."
            )
        return EdgeStore(place, creates=creates)
    from qdrant_client import QdrantClient

    from qdrant_cir.storage.stores.server import ServerStore

    if place is not None:
        if is_memory(place):
            return ServerStore.in_memory()
        return ServerStore.connect(str(place), api_key, grpc_port=grpc_port, retry_seconds=retry_seconds)
    if isinstance(store, QdrantClient):
        return ServerStore(store, retry_seconds=retry_seconds)
    _check_store(store)
    return cast("Store", store)


def with_shard_key(store: Store, key: int | str | None) -> Store:
    """Return a store whose writes go to the shards of a key; the store itself for None.

    Raises:
        InputError: the key is no text and no number, or the store is not a server's.
    """
    check_shard_key(store, key)
    keyed = getattr(store, "with_shard_key", None)
    if key is None or keyed is None:
        return store
    found: Store = keyed(key)
    return found


def check_shard_key(store: StoreLike | AsyncStoreLike, key: int | str | None) -> None:
    """Refuse what is no shard key, and any for a store in a folder. Raises InputError."""
    if key is None:
        return
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        raise InputError(f"{shown(key)} is not a shard key. Give a text or a whole number.")
    is_folder = is_place(store) and not is_address(cast("str", store)) and not is_memory(cast("str", store))
    if is_folder or isinstance(store, EdgeStore):
        raise InputError("Shard keys are for collections on a server; the embedded store has no shards.")


def describe_companion(store: Store, companion: str, collection: str) -> CollectionSpec | None:
    """Describe a companion; from then on, errors of a server about it name the collection that it belongs to."""
    name_companion(store, companion, collection)
    return store.describe(companion)


def name_companion(store: Store, companion: str, collection: str | None) -> None:
    """Let errors of a server about a companion name the collection that it belongs to; None: it belongs to none."""
    name = getattr(store, "name_companion", None)
    if name is not None:
        name(companion, collection)


def check_placement(store: Store, placement: Mapping[str, object]) -> None:
    """Refuse options of collections where the store takes none. Raises InputError."""
    check = getattr(store, "check_placement", None)
    if check is not None:
        check(placement)


def make_shard_key(store: Store, name: str) -> None:
    """Make the shards of the store's key in a collection; nothing where the store has none."""
    make_key = getattr(store, "create_shard_key", None)
    if make_key is not None:
        make_key(name)


async def open_store_async(
    store: AsyncStoreLike,
    *,
    creates: bool = True,
    api_key: str | None = None,
    grpc_port: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
) -> Store:
    """Open a store for asynchronous code, which calls it in threads. Arguments and errors as :func:`open_store`."""
    if not isinstance(store, str | PathLike | EdgeStore):
        from qdrant_client import AsyncQdrantClient

        from qdrant_cir.storage.stores.server import ServerStore

        if isinstance(store, AsyncQdrantClient):
            loop = asyncio.get_running_loop()
            return ServerStore.over_async(store, loop, retry_seconds=retry_seconds)
    opened = partial(
        open_store, store, creates=creates, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds
    )
    return await asyncio.to_thread(opened)


def _check_store(store: object) -> None:
    if not all(callable(getattr(store, method, None)) for method in ("describe", "query", "fetch", "upsert")):
        asynchronous = ""
        if "Async" in type(store).__name__:
            asynchronous = " An asynchronous client is for attach_async, AsyncGallery and AsyncRetriever."
        raise InputError(
            f"{type(store).__name__} is not a store.{asynchronous} Give a folder, a server's address, {MEMORY!r}, a "
            "QdrantClient or an open store."
        )
