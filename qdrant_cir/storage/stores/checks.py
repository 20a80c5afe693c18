"""What every store refuses before it calls Qdrant, so that all of them refuse the same in the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores.protocol import StoredPoint
from qdrant_cir.types import Float32

__all__ = ["check_limit", "check_name", "check_points", "check_query_vector"]

_NAME = re.compile(r'[^\x00-\x1f\x7f<>:"/\\|?*.~][^\x00-\x1f\x7f<>:"/\\|?*]*')
_LONGEST_NAME = 200
_INT64 = range(-(2**63), 2**63)


def check_name(name: str) -> None:
    """Refuse a collection name that a server or a file system cannot hold. Raises InputError."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _LONGEST_NAME or not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a collection. A name has 1 to {_LONGEST_NAME} bytes, does not begin with "
            "a dot "
            'or a tilde, and holds no control characters and none of < > : " / \\ | ? *'
        )


def check_limit(limit: int) -> None:
    """Refuse a number of results below 1. Raises InputError."""
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1, the number of points to return.")


def check_query_vector(vector: Float32, *, name: str, size: int | None) -> None:
    """Refuse what cannot be compared with the collection's vectors. Raises InputError."""
    if size is None:
        raise InputError(f"The collection {name!r} holds no vectors, so it cannot be searched by one.")
    _check_vector(vector, size=size, label="The query vector")


def check_points(points: Sequence[StoredPoint], *, name: str, size: int | None) -> None:
    """Refuse a batch of which one point cannot be stored.

    Args:
        points: the batch.
        name: of the collection, for the message.
        size: dimensions of its vectors, None where it holds none.

    Raises:
        InputError: a vector has another size or a value that is not finite, or a payload is not JSON with
            finite numbers and integers of 64 bits.
    """
    for point in points:
        label = f"The point {point.point_id}"
        if (point.vector is None) != (size is None):
            raise InputError(
                f"{label} has {'no' if point.vector is None else 'a'} vector, but the collection {name!r} "
                f"{'holds none' if size is None else 'needs one'}."
            )
        if point.vector is not None and size is not None:
            _check_vector(point.vector, size=size, label=label)
        _check_object(point.payload, label=f"{label} has a payload that cannot be stored:", path="payload")


def _check_vector(vector: Float32, *, size: int, label: str) -> None:
    if vector.shape != (size,):
        raise InputError(f"{label} has the shape {vector.shape}; the collection holds vectors of shape ({size},).")
    if not np.isfinite(vector).all():
        raise InputError(f"{label} holds a value that is not finite.")


def _check_object(value: Mapping[str, object], *, label: str, path: str) -> None:
    for key, item in value.items():
        if not isinstance(key, str):
            raise InputError(f"{label} {path} has the key {key!r}; keys must be strings.")
        _check_text(key, label=label, path=f"a key of {path}")
        _check_json(item, label=label, path=f"{path}.{key}")


def _check_text(value: str, *, label: str, path: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{label} {path} is {value!r}, which is not valid Unicode text.") from error


def _check_json(value: object, *, label: str, path: str) -> None:
    # exact types: subclasses such as numpy.float64 do not survive every transport
    kind = type(value)
    if value is None or kind is bool:
        return
    if isinstance(value, str) and kind is str:
        _check_text(value, label=label, path=path)
    elif isinstance(value, dict) and kind is dict:
        _check_object(value, label=label, path=path)
    elif isinstance(value, list) and kind is list:
        for place, item in enumerate(value):
            _check_json(item, label=label, path=f"{path}[{place}]")
    elif isinstance(value, float) and kind is float:
        if not isfinite(value):
            raise InputError(f"{label} {path} is {value}; numbers must be finite.")
    elif isinstance(value, int) and kind is int:
        if value not in _INT64:
            raise InputError(f"{label} {path} is {value}; integers must fit 64 bits.")
    else:
        raise InputError(f"{label} {path} is of type {kind.__name__}; expected what JSON may hold.")
