"""One process at a time in a store directory: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from qdrant_cir.errors import StoreError, StoreLockedError

__all__ = ["DirectoryLock"]

LOCK_FILE = ".lock"


class DirectoryLock:
    """An exclusive lock on a directory, taken when made and held until released or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: another store object holds it, in this process or another.
            StoreError: the lock file cannot be written, or the platform has no file locks.
        """
        path = directory / LOCK_FILE
        try:
            # not "w": a holder's id must stand until the lock is ours
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"The store directory {directory} cannot be used: {error}. Give a directory that you may write to."
            ) from error
        try:
            _lock(self._file, directory)
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Give the lock back; repeating it is harmless."""
        self._file.close()


def _lock(file: IO[str], directory: Path) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise StoreError(
            "The embedded store needs POSIX file locks, which this platform lacks. Use a Qdrant server."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        whose = "this process" if holder == str(os.getpid()) else "another process"
        raise StoreLockedError(
            f"The store directory {directory} is held by {whose} (pid {holder}). An embedded store serves "
            "one process "
            "at a time: close the other one first, or use a Qdrant server."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The store directory {directory} cannot be locked: {error}. Use a local file system, or a Qdrant server."
        ) from error
