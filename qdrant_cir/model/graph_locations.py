"""The files that an ONNX graph reads its weights from, as its protobuf names them.

The runtime does not need the ``onnx`` package; this reads the few fields that lead to external data (onnx.proto, IR
version 13), in whatever order and form of length they were written. What onnxruntime's reader might take otherwise is
refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from qdrant_cir.errors import BundleError

__all__ = ["external_locations"]

_DEEPEST = 100
"""Messages within each other, as in protobuf's own limit."""

_MOST_FIELDS = 4_000_000
"""Fields of one graph. A transformer of twelve layers has about 50,000."""

_Message: TypeAlias = Literal[
    "model", "graph", "node", "attribute", "sparse tensor", "tensor", "function", "training", "entry"
]

_INNER: Mapping[_Message, Mapping[int, _Message]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
        "function": {7: "node", 11: "attribute"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
        "sparse tensor": {1: "tensor", 2: "tensor"},
        "tensor": {13: "entry"},
        "entry": {},
    }
)
"""Which fields of a message hold messages that lead to external data, by number."""

_KEY, _VALUE = 1, 2
_FIXED = {1: 8, 5: 4}


class _MalformedError(ValueError):
    """The bytes are not what protobuf writes."""


def external_locations(path: Path) -> tuple[str, ...]:
    """Return the locations of external weights that a graph names, each once.

    Initializers, sparse ones, tensors in the attributes of nodes, in inner graphs, functions and training graphs.

    Raises:
        BundleError: the file is empty, cannot be read or is no ONNX graph.
    """
    try:
        if path.stat().st_size == 0:
            raise BundleError(f"{path} is empty. Export the bundle again.")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return tuple(dict.fromkeys(_locations(content)))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error
    except _MalformedError as error:
        raise BundleError(f"{path} is no ONNX graph: {error}. Export the bundle again.") from error


def _locations(content: mmap.mmap) -> Iterator[str]:
    waiting: list[tuple[_Message, int, int, int]] = [("model", 0, len(content), 1)]
    fields = 0
    while waiting:
        kind, place, end, depth = waiting.pop()
        if depth > _DEEPEST:
            raise _MalformedError(f"messages within each other more than {_DEEPEST} deep")
        inner = _INNER[kind]
        keys: list[bytes] = []
        values: list[bytes] = []
        found: list[tuple[_Message, int, int, int]] = []
        while place < end:
            fields += 1
            if fields > _MOST_FIELDS:
                raise _MalformedError(f"more than {_MOST_FIELDS} fields")
            number, is_bytes, start, place = _field(content, place, end)
            if not is_bytes:
                continue
            if number in inner:
                found.append((inner[number], start, place, depth + 1))
            elif kind == "entry" and number in (_KEY, _VALUE):
                (keys if number == _KEY else values).append(content[start:place])
        # the last of several values counts for protobuf; all are looked at here
        if b"location" in keys:
            yield from (_decoded(value) for value in values or [b""])
        waiting.extend(reversed(found))


def _field(content: mmap.mmap, place: int, end: int) -> tuple[int, bool, int, int]:
    """Return a field's number, whether it is bytes, where its value starts and where it ends."""
    tag = content[place]
    tag, place = (tag, place + 1) if tag < 0x80 else _varint(content, place, end, longest=5)
    number, wire = tag >> 3, tag & 7
    if number == 0 or tag >= 2**32:
        raise _MalformedError(f"field number {number} at byte {place}")
    if wire == 2:
        length, place = _varint(content, place, end, longest=5)
        stop = place + length
    elif wire == 0:
        stop = _varint(content, place, end, longest=10)[1]
    elif wire in _FIXED:
        stop = place + _FIXED[wire]
    else:
        # groups are older than ONNX, which has none
        raise _MalformedError(f"wire type {wire} at byte {place}")
    if stop > end:
        raise _MalformedError(f"a field at byte {place} ends behind what holds it")
    return number, wire == 2, place, stop


def _varint(content: mmap.mmap, place: int, end: int, *, longest: int) -> tuple[int, int]:
    """Return a number and the place behind it."""
    value = 0
    for shift in range(0, 7 * longest, 7):
        if place >= end:
            raise _MalformedError(f"it ends within a number, at byte {place}")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _MalformedError(f"a number of more than {longest} bytes at byte {place}")


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"a location {value!r:.80} that is no text") from error
