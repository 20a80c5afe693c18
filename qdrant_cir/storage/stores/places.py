"""The meaning of a store that is given as text: a server's address, the process's memory, or a folder."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from qdrant_cir.errors import InputError

__all__ = ["MEMORY", "folder_of", "is_address", "is_memory", "is_place", "shown_address"]

MEMORY = ":memory:"
"""The memory of this process, as for a Qdrant client: one for all that open it, until the process ends."""

# two letters at least: "C:/" is a drive of Windows
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:[/\\]|.*[/\\]https?:[/\\]", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(?:[\w.-]+|\[[0-9a-f:]+\]):\d+(?:/.*)?", re.IGNORECASE)


def is_place(store: object) -> bool:
    """Return whether a store was given by its place; only then does the library close it."""
    return isinstance(store, str | PathLike)


def is_memory(place: str | PathLike[str]) -> bool:
    """Return whether a place is the memory of this process."""
    return os.fspath(place) == MEMORY


def is_address(place: str | PathLike[str]) -> bool:
    """Return whether a place is the address of a server."""
    return isinstance(place, str) and place.strip().lower().startswith(("http://", "https://"))


def folder_of(place: str | PathLike[str]) -> Path:
    """Read a place as a folder.

    Raises:
        InputError: it is the address of a server, the memory, or begins with ``~``, written with spaces or slashes
            too. A folder of that name would be made, and the server would stay empty, without a warning.
    """
    given = os.fspath(place)
    if not isinstance(given, str) or not given.strip() or "\0" in given or not _is_file_name(given):
        raise InputError(
            f"{given!r} is not the place of a store. Give a folder, or an address such as http://localhost:6333."
        )
    plain = given.strip()
    if Path(plain).name.strip() == MEMORY:
        raise InputError(f"{given!r} is not a folder. To index and search in memory, give store={MEMORY!r}.")
    if plain == "~" or plain.startswith(("~/", "~\\")):
        raise InputError(
            f"{given!r} begins with a tilde, which only a shell replaces. Give the whole path, or "
            f"pathlib.Path({plain!r}).expanduser()."
        )
    if _SCHEME.match(plain) or _HOST_AND_PORT.fullmatch(plain):
        raise InputError(
            f"{shown_address(plain)!r} is the address of a server, not a folder. A server's address begins with "
            "http:// or https:// and is given as a text, such as http://localhost:6333, on the command line as --url."
        )
    return Path(given)


def _is_file_name(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeError:
        return False
    return True


def shown_address(address: str) -> str:
    """Return an address for messages, without user, password and everything after a question mark."""
    return re.sub(r"^([a-z][a-z0-9+.-]*:/+|)[^/]*@", r"\1", address.partition("?")[0], flags=re.IGNORECASE)
