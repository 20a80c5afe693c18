"""The client's own store in memory: one per process, whose calls take turns."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from types import TracebackType
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_cir.storage.stores.places import MEMORY

__all__ = ["indexes_of", "is_local", "shared_memory", "turn_of"]


class _Turn:
    """A lock that is free in a forked child, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self._pid, self._lock = os.getpid(), RLock()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), RLock()
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


_making = _Turn()
_turns: WeakKeyDictionary[QdrantClient, _Turn] = WeakKeyDictionary()
_indexes: WeakKeyDictionary[QdrantClient | AsyncQdrantClient, dict[str, dict[str, str]]] = WeakKeyDictionary()
_memory: QdrantClient | None = None


def is_local(client: QdrantClient | AsyncQdrantClient) -> bool:
    """Return whether a client keeps the points itself, in memory or in a folder, and asks no server."""
    options = client.init_options
    return options.get("location") == MEMORY or options.get("path") is not None


def turn_of(client: QdrantClient) -> AbstractContextManager[None]:
    """Return the lock to hold during a call of a local client, which is not made for threads; no lock for others.

    All stores of one client share its lock.
    """
    if not is_local(client):
        return nullcontext()
    with _making:
        return _turns.setdefault(client, _Turn())


def indexes_of(client: QdrantClient | AsyncQdrantClient) -> dict[str, dict[str, str]]:
    """Return the payload indexes that were made in a local client, by collection and field; it keeps none itself."""
    with _making:
        return _indexes.setdefault(client, {})


def shared_memory() -> QdrantClient:
    """Return the memory of this process, made at the first call. A forked child has a copy of its parent's."""
    global _memory
    with _making:
        if _memory is None:
            # opened in one thread and used in others, in turn
            _memory = QdrantClient(MEMORY, force_disable_check_same_thread=True)
        return _memory
