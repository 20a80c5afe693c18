"""Checks that every store makes before it calls Qdrant, so that all refuse the same, with the same messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qdrant_cir.arguments import shown
from qdrant_cir.errors import InputError
from qdrant_cir.storage.payloads import plain_object
from qdrant_cir.storage.stores.protocol import INDEX_KINDS, StoredPoint
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId

__all__ = [
    "check_given_name",
    "check_index",
    "check_limit",
    "check_name",
    "check_path",
    "check_query_vector",
    "check_vector_name",
    "checked_payloads",
    "checked_points",
    "needs_index",
]

_NAME = re.compile(r'[^\x00-\x1f\x7f<>:"/\\|?*.~][^\x00-\x1f\x7f<>:"/\\|?*]*')
_LONGEST_NAME = 200
_RULE = (
    "A name has 1 to {} bytes, does not begin with a dot or a tilde, and holds no control characters and none of "
    '< > : " / \\ | ? *'
)

DEEPEST = 64
"""The most levels of objects and lists in a payload or a filter. From 123 on, Edge cannot read its own log again."""

_KEY = r'(?:[\w-]+|"[^"]+")'
_STEP = r"(?:\[\d*\])*"
_PATH = re.compile(rf"{_KEY}{_STEP}(?:\.{_KEY}{_STEP})*")


def check_name(name: str, *, room: int = 0) -> None:
    """Refuse a collection name that a server or a file system cannot hold. Raises InputError.

    Args:
        name: of a new collection.
        room: bytes to leave, for a second collection whose name begins with this one.
    """
    if not isinstance(name, str):
        check_given_name(name)
    longest = _LONGEST_NAME - room
    if not _is_name(name, longest):
        raise InputError(f"{name!r} cannot name a collection. {_RULE.format(longest)}")


def check_vector_name(vector: str, collection: str, companion: str) -> None:
    """Refuse the name of a vector for which there can be no companion. Raises InputError."""
    if not _is_name(companion, _LONGEST_NAME):
        longest = _LONGEST_NAME - len(companion.encode(errors="replace")) + len(vector.encode(errors="replace"))
        raise InputError(
            f"A vector named {shown(vector)} cannot be attached to {collection!r}: its collection of tokens is named "
            f"after both. Choose another name with vector= (--vector). {_RULE.format(longest)}"
        )


def _is_name(name: str, longest: int) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= longest and _NAME.fullmatch(name) is not None


def check_given_name(name: str) -> None:
    """Refuse what names no collection, new or standing. Raises InputError."""
    if not isinstance(name, str) or not name:
        raise InputError(f"The collection is {shown(name)}; expected its name.")


def check_limit(limit: int) -> None:
    """Refuse a number of results below 1. Raises InputError."""
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1, the number of points to return.")


def check_path(path: str, *, where: str) -> None:
    """Refuse a payload path that Qdrant cannot read; ``where`` begins the sentence. Raises InputError."""
    if not isinstance(path, str):
        raise InputError(f"{where} the field {shown(path)}; expected text.")
    if not _PATH.fullmatch(path):
        raise InputError(
            f"{where} the field {path!r}, which Qdrant cannot read. Steps are separated by dots, [] means every "
            'element of a list, and a name with spaces or signs needs double quotes: "my field".'
        )


def check_index(field: str, kind: str) -> None:
    """Refuse a payload index that no store can make. Raises InputError."""
    if not isinstance(kind, str):
        raise InputError(f"The kind of an index is {shown(kind)}; expected one of {', '.join(INDEX_KINDS)}.")
    check_path(field, where="An index was asked for")
    if kind not in INDEX_KINDS:
        raise InputError(f"{kind!r} is not a kind of index; expected one of {', '.join(INDEX_KINDS)}.")


def needs_index(name: str, field: str, kind: str, *, why: str) -> InputError:
    """Return the error for a field that must be indexed first, with the command that does it."""
    return InputError(
        f"The field {field!r} of {name!r} has no {kind} index, which {why} needs. Make one first: "
        f"`qdrant-cir index-field '{field}:{kind}' -c {name}`, or gallery.create_payload_index({field!r}, {kind!r})."
    )


def check_query_vector(vector: Float32, *, name: str, size: int | None) -> None:
    """Refuse what cannot be compared with the collection's vectors. Raises InputError."""
    if size is None:
        raise InputError(f"The collection {name!r} holds no vectors, so it cannot be searched by one.")
    _check_vector(vector, size=size, label="The query vector")


def checked_points(points: Sequence[StoredPoint], *, name: str, size: int | None) -> list[StoredPoint]:
    """Return a batch with plain payloads; refuse it whole where one point cannot be stored.

    Args:
        points: the batch.
        name: of the collection, for the message.
        size: dimensions of its vectors, None where it holds none.

    Raises:
        InputError: a vector has another size or a value that is not finite, or a payload holds what
            :func:`plain_json` refuses.
    """
    plain = []
    for point in points:
        label = f"The point {point.point_id}"
        if (point.vector is None) != (size is None):
            raise InputError(
                f"{label} has {'no' if point.vector is None else 'a'} vector, but the collection {name!r} "
                f"{'holds none' if size is None else 'needs one'}."
            )
        if point.vector is not None and size is not None:
            _check_vector(point.vector, size=size, label=label)
        payload = plain_object(dict(point.payload), place=f"{label} cannot be stored: payload")
        plain.append(replace(point, payload=payload))
    return plain


def checked_payloads(payloads: Mapping[PointId, Mapping[str, JsonValue]]) -> dict[PointId, JsonObject]:
    """Return payload fields of points, by id, as plain JSON. Raises InputError as :func:`checked_points`."""
    return {
        point_id: plain_object(_mapping(payload), place=f"The payload of the point {point_id}")
        for point_id, payload in payloads.items()
    }


def _mapping(payload: object) -> object:
    return dict(payload) if isinstance(payload, Mapping) else payload


def _check_vector(vector: Float32, *, size: int, label: str) -> None:
    if vector.shape != (size,):
        raise InputError(f"{label} has the shape {vector.shape}; the collection holds vectors of shape ({size},).")
    if not np.isfinite(vector).all():
        raise InputError(f"{label} holds a value that is not finite.")
