"""A folder of the embedded store, opened once per process, however many stores use it.

Qdrant Edge opens a collection once at a time. So the stores of one process that are given the same folder
share what is open: the first one locks the folder, the last one to be closed closes the collections and
releases the folder. A forked child starts clean: what it inherited is neither used nor closed there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, RLock
from weakref import WeakSet, WeakValueDictionary

import qdrant_edge as edge

from qdrant_cir.errors import CollectionNotFoundError, StoreError
from qdrant_cir.storage.stores.directory_lock import DirectoryLock
from qdrant_cir.storage.stores.edge_shards import (
    collection_folders,
    open_shard,
    read_spec,
    release_inherited,
    remove_leftovers,
    translated,
)
from qdrant_cir.storage.stores.protocol import CollectionSpec

__all__ = ["EdgeFolder", "OpenCollection", "join_folder", "leave_folder"]


@dataclass(frozen=True, slots=True)
class OpenCollection:
    """A collection in use."""

    shard: edge.EdgeShard
    spec: CollectionSpec


class EdgeFolder:
    """One locked folder and the collections that are open in it. Every use holds :attr:`guard`."""

    def __init__(self, directory: Path) -> None:
        """Lock a folder, making it where there is none. Raises StoreError, StoreLockedError."""
        self.directory = directory
        self.guard = RLock()
        self.holders: WeakSet[object] = WeakSet()
        self.open: dict[str, OpenCollection] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store directory {directory} cannot be made: {error}. Give a directory that you may write to."
            ) from error
        self.lock = DirectoryLock(directory)
        try:
            remove_leftovers(directory)
        except StoreError:
            self.lock.release()
            raise

    def collection(self, name: str) -> OpenCollection:
        """Return an open collection, opening it at its first use. Raises CollectionNotFoundError, StoreError."""
        if name not in self.open:
            names = self.collection_names()
            if name not in names:
                raise CollectionNotFoundError(
                    f"There is no collection {name!r} in {self.directory}. "
                    + (f"There is: {', '.join(names)}." if names else "It holds none.")
                )
            folder = self.directory / name
            self.open[name] = OpenCollection(shard=open_shard(folder), spec=read_spec(folder))
        return self.open[name]

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        return [folder.name for folder in collection_folders(self.directory)]

    def close(self) -> None:
        """Write everything to the disk and release the folder. Raises StoreError."""
        with self.guard:
            try:
                with translated(f"close {self.directory}"):
                    for held in self.open.values():
                        held.shard.flush()
                        held.shard.close()
            finally:
                self.open.clear()
                self.lock.release()


_turn = Lock()
# weak: a store that was dropped without being closed releases its folder as well
_folders: WeakValueDictionary[str, EdgeFolder] = WeakValueDictionary()
_inherited: list[EdgeFolder] = []
_watches_forks = False


def join_folder(directory: Path, holder: object) -> EdgeFolder:
    """Open a folder for a holder, or share it where this process has it open.

    Raises:
        StoreLockedError: another process holds it.
        StoreError: it cannot be made, written or locked.
    """
    key = os.path.realpath(directory)
    with _turn:
        _watch_forks()
        folder = _folders.get(key)
        # a folder that was removed and made again is another one; stores that hold the old one keep it
        if folder is None or not folder.lock.guards(directory):
            folder = _folders[key] = EdgeFolder(directory)
        folder.holders.add(holder)
        return folder


def leave_folder(folder: EdgeFolder, holder: object) -> None:
    """End a holder's share of a folder; the last one to go closes it. Raises StoreError."""
    with _turn:
        folder.holders.discard(holder)
        if not folder.holders:
            for key in [key for key, known in _folders.items() if known is folder]:
                del _folders[key]
            # inside the lock: a store that opens the folder meanwhile waits, and does not find it locked
            folder.close()


def _watch_forks() -> None:
    global _watches_forks
    if not _watches_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_clean)
        _watches_forks = True


def _start_clean() -> None:
    """Forget in a forked child what the parent has open, without closing it: a closed shard writes."""
    global _turn, _folders
    _inherited.extend(_folders.values())
    for folder in _inherited:
        folder.lock.abandon()
        for name in folder.open:
            release_inherited(folder.directory / name)
    # another thread of the parent may have held it
    _turn, _folders = Lock(), WeakValueDictionary()
