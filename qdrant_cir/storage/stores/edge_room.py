"""Room on the disk: what Qdrant Edge maps into memory ends the process where a disk turns out to be full.

Its files have holes, which are filled when they are first written, by a store into memory. Where the file system has no
block for that, the kernel ends the process with SIGBUS, which nothing can catch. So room is looked for before.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from qdrant_cir.errors import StoreError

__all__ = ["RESERVE", "bytes_on_disk", "check_room", "copy_folder", "free_bytes", "is_writable"]

RESERVE = 32 * 2**20
"""Bytes that stay free beside what a call needs: Edge also writes to its log and its indexes, and others write too."""

_BLOCK = 512
_CHUNK = 2**14
_ZEROS = bytes(_CHUNK)


def check_room(directory: Path, task: str, needs: int = 0) -> None:
    """Refuse a call for which the disk has no room.

    Args:
        directory: on that disk.
        task: what is to be done, after "to".
        needs: bytes that it may take.

    Raises:
        StoreError: there is less room than that and :data:`RESERVE`.
    """
    free = free_bytes(directory)
    if free is not None and free < needs + RESERVE:
        raise StoreError(
            f"The disk of {directory} is nearly full: {_megabytes(free)} are free, and {_megabytes(needs + RESERVE)} "
            f"are needed to {task}. Free some space, or use a folder on another disk."
        )


def free_bytes(directory: Path) -> int | None:
    """Return the bytes that may be written to a folder's disk; None where the file system does not tell."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return usage.free if usage.total else None


def bytes_on_disk(folder: Path) -> int:
    """Return the bytes that a folder's files take, without their holes."""
    return sum(_bytes_of(path.stat()) for path in folder.rglob("*") if path.is_file())


def is_writable(folder: Path) -> bool:
    """Return whether a folder and everything in it may be written."""
    return os.access(folder, os.W_OK) and all(os.access(path, os.W_OK) for path in folder.rglob("*"))


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, and leave the holes of its files where they are. Raises OSError."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        elif path.is_file():
            _copy_file(path, copy)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(_CHUNK):
            if chunk == _ZEROS[: len(chunk)]:
                written.seek(len(chunk), os.SEEK_CUR)
            else:
                written.write(chunk)
        written.truncate()


def _bytes_of(status: os.stat_result) -> int:
    blocks = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * _BLOCK)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MB"
