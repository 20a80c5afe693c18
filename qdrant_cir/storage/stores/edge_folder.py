"""A folder of the embedded store, opened once per process, however many stores use it.

Qdrant Edge opens a collection once at a time. So the stores of one process that are given the same folder
share what is open: the first one locks the folder, the last one to be closed closes the collections and
releases the folder. A forked child starts clean: what it inherited is neither used nor closed there.

Edge opens no collection that it cannot write. One that lies on a read-only file system, say, is copied to a
temporary folder, searched there, and removed from there when the folder is closed.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, RLock
from weakref import WeakSet, WeakValueDictionary, finalize

import qdrant_edge as edge

from qdrant_cir.errors import CollectionNotFoundError, InputError, StoreError
from qdrant_cir.storage.stores.directory_lock import LOCK_FILE, DirectoryLock
from qdrant_cir.storage.stores.edge_room import RESERVE, bytes_on_disk, check_room, copy_folder, free_bytes, is_writable
from qdrant_cir.storage.stores.edge_shards import (
    collection_folders,
    is_shard,
    open_shard,
    read_spec,
    release_inherited,
    remove_leftovers,
    translated,
)
from qdrant_cir.storage.stores.protocol import CollectionSpec

__all__ = ["EdgeFolder", "OpenCollection", "join_folder", "leave_folder"]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenCollection:
    """A collection in use: its shard, what it is made of, and the folder that is open, which may be a copy."""

    shard: edge.EdgeShard
    spec: CollectionSpec
    folder: Path


class EdgeFolder:
    """One folder and the collections that are open in it. Every use holds :attr:`guard`."""

    def __init__(self, directory: Path) -> None:
        """Take the lock where there is a lock file; make nothing. Raises InputError, StoreError, StoreLockedError."""
        self.directory = directory
        self.guard = RLock()
        self.holders: WeakSet[object] = WeakSet()
        self.open: dict[str, OpenCollection] = {}
        self.companions: dict[str, str] = {}
        self.lock: DirectoryLock | None = None
        self._copies: Path | None = None
        if is_shard(directory):
            raise InputError(
                f"{directory} is itself a shard of Qdrant Edge. Give the folder that it lies in as the store, "
                f"{str(directory.parent)!r}, and {directory.name!r} as the collection."
            )
        try:
            directory.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"The store directory {directory} cannot be used: {error}.") from error
        if not directory.is_dir():
            raise StoreError(f"The store directory {directory} cannot be used: it is not a folder.")
        self.lock_what_stands()

    @property
    def is_writable(self) -> bool:
        """Whether collections can be made in it."""
        return os.access(self.directory, os.W_OK)

    def lock_what_stands(self) -> None:
        """Take the lock where there is a lock file, and it is not taken yet. Raises StoreError, StoreLockedError."""
        if self.lock is None and (self.directory / LOCK_FILE).exists():
            self._lock()

    def claim(self) -> None:
        """Make the folder and its lock file where they are missing, to write. Raises StoreError, StoreLockedError."""
        if self.lock is not None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store directory {self.directory} cannot be made: {error}. Give a directory that you may write to."
            ) from error
        if self.is_writable:
            self._lock()

    def check_writable(self, name: str | None = None) -> None:
        """Refuse to write where that cannot be done. Raises StoreError."""
        if not self.is_writable or (name in self.open and self.open[name].folder != self.directory / name):
            raise StoreError(
                f"The store in {self.directory} cannot be written: it is read-only here. It can be searched; to change "
                "it, make it writable, or copy it to a folder that is."
            )

    def _lock(self) -> None:
        self.lock = DirectoryLock(self.directory, writes=self.is_writable)
        if not self.is_writable:
            return
        try:
            remove_leftovers(self.directory)
        except StoreError:
            self.lock.release()
            raise

    def collection(self, name: str) -> OpenCollection:
        """Return an open collection, opening it at its first use. Raises CollectionNotFoundError, StoreError."""
        if name not in self.open:
            self.check_name(name)
            spec = read_spec(self.directory / name)
            folder = self._opened_at(name)
            self.open[name] = OpenCollection(open_shard(folder), spec, folder)
        return self.open[name]

    def check_name(self, name: str) -> None:
        """Refuse the name of no collection. Raises CollectionNotFoundError."""
        names = self.collection_names()
        if name not in names and name in self.companions:
            raise CollectionNotFoundError(
                f"The tokens of the collection {self.companions[name]!r} are gone from {self.directory}. Index again, "
                "or attach again and index."
            )
        if name not in names:
            raise CollectionNotFoundError(
                f"There is no collection {name!r} in {self.directory}. "
                + (f"There is: {', '.join(names)}." if names else "It holds none.")
            )

    def _opened_at(self, name: str) -> Path:
        """Return the folder in which a collection can be opened: its own, or a copy where it cannot be written."""
        folder = self.directory / name
        if is_writable(folder) and self.is_writable:
            check_room(folder, f"open {self.subject(name)}")
            return folder
        if self._copies is None:
            place = Path(tempfile.gettempdir())
            size = sum(map(bytes_on_disk, collection_folders(self.directory)))
            free = free_bytes(place)
            if free is not None and free < size + RESERVE:
                raise StoreError(
                    f"The store in {self.directory} cannot be written, so it has to be copied to be searched, and "
                    f"{place} has no room for its {size / 2**20:.0f} MB. Make the store writable, or set TMPDIR to a "
                    "folder with more room."
                )
            logger.warning(
                "The store in %s cannot be written: it is searched in a copy of %.0f MB in %s, which is removed at the "
                "end.",
                self.directory,
                size / 2**20,
                place,
            )
            with translated(f"make a temporary folder in {place}"):
                self._copies = Path(tempfile.mkdtemp(prefix="qdrant-cir-"))
            finalize(self, _remove_copies, self._copies, os.getpid())
        copy = self._copies / name
        if not copy.exists():
            with translated(f"copy {folder} to {self._copies}"):
                copy_folder(folder, copy)
        return copy

    def subject(self, name: str) -> str:
        """Return a collection for messages; a companion by the collection that it belongs to."""
        owner = self.companions.get(name)
        return f"the collection {name!r}" if owner is None else f"the tokens of the collection {owner!r}"

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
                if self.lock is not None:
                    self.lock.release()
                if self._copies is not None:
                    _remove_copies(self._copies, os.getpid())


_turn = Lock()
# weak: a store that was dropped without being closed releases its folder as well
_folders: WeakValueDictionary[str, EdgeFolder] = WeakValueDictionary()
_inherited: list[EdgeFolder] = []
_watches_forks = False


def join_folder(directory: Path, holder: object, *, creates: bool) -> EdgeFolder:
    """Open a folder for a holder, or share it where this process has it open; ``creates`` makes it and its lock file.

    Raises:
        StoreLockedError: another process holds it.
        StoreError: it cannot be made, written or locked.
    """
    key = os.path.realpath(directory)
    with _turn:
        _watch_forks()
        folder = _folders.get(key)
        # a folder that was removed and made again is another one; stores that hold the old one keep it
        if folder is None or not (folder.lock is None or folder.lock.guards(directory)):
            folder = _folders[key] = EdgeFolder(directory)
        if creates:
            folder.claim()
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


def _remove_copies(folder: Path, owner: int) -> None:
    """Remove copies in the process that made them; a forked child leaves them alone."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


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
        if folder.lock is not None:
            folder.lock.abandon()
        for held in folder.open.values():
            release_inherited(held.folder)
    # another thread of the parent may have held it
    _turn, _folders = Lock(), WeakValueDictionary()
