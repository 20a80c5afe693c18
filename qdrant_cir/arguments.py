"""Checks of arguments at the public edge: what is of another type is refused by name, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from qdrant_cir.errors import InputError

__all__ = [
    "checked_flag",
    "checked_function",
    "checked_id",
    "checked_items",
    "checked_path",
    "checked_port",
    "checked_seconds",
    "checked_text",
    "shown",
]

_T = TypeVar("_T")
_MOST = 2**4096
"""Whole numbers below it may be written as text: Python refuses more than 4,300 digits."""


def checked_path(value: str | PathLike[str], *, name: str) -> Path:
    """Return a path. Raises InputError for what is none, such as None or bytes."""
    found = fspath(value) if isinstance(value, str | PathLike) else None
    if not isinstance(found, str):
        raise InputError(f"{name} is {shown(value)}; expected a path, as text or as a pathlib.Path.")
    return Path(found)


def checked_text(value: str, *, name: str) -> str:
    """Return a text. Raises InputError for what is none."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}; expected text.")
    return value


def checked_flag(value: bool, *, name: str) -> bool:  # noqa: FBT001 - the value that is checked
    """Return True or False. Raises InputError for anything else."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {shown(value)}; expected True or False.")
    return value


def checked_function(value: _T, *, name: str) -> _T:
    """Return a function or None. Raises InputError for what cannot be called."""
    if value is not None and not callable(value):
        raise InputError(f"{name} is {shown(value)}; expected a function, or None.")
    return value


def checked_id(value: str | int | UUID, *, name: str) -> str | int | UUID:
    """Return the id of an image or a point. Raises InputError for what cannot be one."""
    is_id = isinstance(value, str | UUID) or (isinstance(value, Integral) and abs(value) < _MOST)
    if isinstance(value, bool) or not is_id:
        raise InputError(f"{name} is {shown(value)}; expected text, an unsigned integer of 64 bits or a UUID.")
    return value


def checked_items(values: Iterable[_T], *, name: str) -> Iterable[_T]:
    """Return what can be gone through one by one. Raises InputError for anything else, and for one text."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{name} is {shown(values)}; expected a list.")
    return values


def checked_port(value: int) -> int:
    """Return the port of a server. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**16:
        raise InputError(
            f"{shown(value)} is not a port for gRPC (grpc_port or QDRANT_GRPC_PORT). Give a number such as 6334."
        )
    return value


def checked_seconds(value: float, *, name: str) -> float:
    """Return a number of seconds, at least 0. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise InputError(f"{name} is {shown(value)}; expected a number of seconds, at least 0.")
    return value


def shown(value: object, *, width: int = 60) -> str:
    """Return a value for a message: the beginning of its repr, or its type where that fails."""
    try:
        return f"{value!r:.{width}}"
    except Exception:  # a whole number of more than 4,300 digits, or a class of somebody's own
        return f"of type {type(value).__name__}"
