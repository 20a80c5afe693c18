"""One process at a time in a store directory: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import IO

from qdrant_cir.errors import StoreError, StoreLockedError

__all__ = ["DirectoryLock"]

LOCK_FILE = ".lock"


class DirectoryLock:
    """A lock on a directory, taken when made and held until released or the process ends.

    Exclusive for who writes; who cannot write, and reads a copy, shares it with others of that kind. The lock file
    names who wrote, by host and process id. A process id alone is not enough: in containers that share a volume, two
    processes have the same one.
    """

    def __init__(self, directory: Path, *, writes: bool = True) -> None:
        """Take the lock.

        Args:
            directory: must exist.
            writes: False locks the file that stands, and does not change it.

        Raises:
            StoreLockedError: it is held already.
            StoreError: the lock file cannot be written, or the file system has no locks.
        """
        path = directory / LOCK_FILE
        try:
            # not "w": a holder's name must stay until the lock is taken
            self._file: IO[str] = path.open("a+" if writes else "r", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"The store directory {directory} cannot be used: {error}. Give a directory that you may write to."
            ) from error
        try:
            _lock(self._file, directory, shares=not writes)
            if writes:
                self._name_holder(directory)
        except BaseException:
            self._file.close()
            raise

    def _name_holder(self, directory: Path) -> None:
        try:
            self._file.truncate(0)
            self._file.write(f"{_this_host()} {os.getpid()}\n")
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"The store directory {directory} cannot be used: its lock file cannot be written ({error}). Free some "
                "space, or use a folder on another disk."
            ) from error

    def guards(self, directory: Path) -> bool:
        """Return whether the lock file in a directory is still the locked one: folders may be removed and remade."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), (directory / LOCK_FILE).stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock, also where a forked child still has the file open; repeating it is harmless."""
        if not self._file.closed:
            import portalocker

            try:
                portalocker.unlock(self._file)
            finally:
                self._file.close()

    def abandon(self) -> None:
        """Close a file that came with a fork; the lock stays with the parent."""
        self._file.close()


def _lock(file: IO[str], directory: Path, *, shares: bool) -> None:
    # imported late, because it looks for writable folders at import
    import portalocker

    try:
        kind = portalocker.LockFlags.SHARED if shares else portalocker.LockFlags.EXCLUSIVE
        portalocker.lock(file, kind | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.AlreadyLocked as error:
        raise StoreLockedError(
            f"The store directory {directory} is held by {_holder(file)}. An embedded store serves one process at a "
            "time: close the other one first, or use a Qdrant server."
        ) from error
    except (OSError, portalocker.exceptions.LockException) as error:
        raise StoreError(
            f"The store directory {directory} cannot be locked: {error}. Use a local file system, or a Qdrant server."
        ) from error


def _holder(file: IO[str]) -> str:
    """Name the process that holds a lock, as the lock file does."""
    try:
        file.seek(0)
        words = file.read().split()
    except (OSError, UnicodeDecodeError):  # Windows also locks the file's content
        words = []
    if len(words) == 1 and words[0].isdigit():  # written by a version that named no host
        return f"another process (pid {words[0]})"
    if len(words) != 2:
        return "another process"
    host, pid = words
    if host != _this_host():
        return f"a process on the host or in the container {host} (pid {pid} there)"
    return f"this process (pid {pid})" if pid == str(os.getpid()) else f"another process (pid {pid})"


def _this_host() -> str:
    return "".join((platform.node() or "unknown").split())
