"""Candidate tokens to bytes and back, and to the form that the re-ranker reads.

The bytes of one image, little-endian: a header of 20 bytes (magic ``CIRT``, version u8, type u8, 2 zeros,
rows u32, dims u32, CRC32 u32 of what follows), for int8 the scales (float32 [N]), then the values.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from qdrant_cir.bundle import ModelSizes, TokenCodec
from qdrant_cir.errors import TokensError
from qdrant_cir.types import Float32, StoredTokens

__all__ = ["decode_tokens", "encode_tokens", "quantize"]

_HEADER = struct.Struct("<4sBBHIII")
_MAGIC = b"CIRT"
_VERSION = 1
_CODES: Mapping[str, int] = {"int8": 1, "float16": 2, "float32": 3}
_DTYPES: Mapping[str, DTypeLike] = {"int8": "i1", "float16": "<f2", "float32": "<f4"}


def quantize(tokens: Float32, codec: TokenCodec) -> StoredTokens:
    """Bring tokens into their stored form.

    Args:
        tokens: float32 [K, N, C].
        codec: ``int8`` is symmetric with one scale per token: no value moves by more than half a scale.

    Returns:
        Values [K, N, C] and scales [K, N], as :class:`StoredTokens` says.

    Raises:
        TokensError: a token holds a value that is not finite, or too large for float16.
    """
    if not np.isfinite(tokens).all():
        raise TokensError("Tokens to be stored hold NaN or infinite values. The image encoder's graph is damaged.")
    if codec == "int8":
        largest = np.abs(tokens).max(axis=-1, initial=0.0)
        scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        # A denormal largest value divides to 0: such a token is zero for all purposes.
        scales[scales == 0] = 1
        values = np.clip(np.rint(tokens / scales[..., None]), -127, 127).astype(np.int8)
        return StoredTokens(values=values, scales=scales)
    ones = np.ones(tokens.shape[:2], dtype=np.float32)
    if codec == "float32":
        return StoredTokens(values=tokens.astype(np.float32, copy=False), scales=ones)
    with np.errstate(over="ignore"):
        halves = tokens.astype(np.float16)
    if not np.isfinite(halves).all():
        raise TokensError(
            f"Tokens reach {np.abs(tokens).max():g}, but float16 ends at 65504. Export the bundle with int8 or float32."
        )
    return StoredTokens(values=halves, scales=ones)


def encode_tokens(tokens: Float32, codec: TokenCodec) -> bytes:
    """Write one image's tokens, float32 [N, C], as bytes. Raises TokensError as :func:`quantize`."""
    stored = quantize(tokens[None], codec)
    payload: bytes = stored.values[0].astype(_DTYPES[codec], copy=False).tobytes()
    if codec == "int8":
        payload = stored.scales[0].astype("<f4", copy=False).tobytes() + payload
    rows, dims = tokens.shape
    return _HEADER.pack(_MAGIC, _VERSION, _CODES[codec], 0, rows, dims, zlib.crc32(payload)) + payload


def decode_tokens(encoded: Sequence[bytes], sizes: ModelSizes) -> StoredTokens:
    """Read the tokens of K images into one batch.

    Args:
        encoded: K results of :func:`encode_tokens`; K may be 0.
        sizes: of the bundle; every image must have its rows, dims and codec.

    Returns:
        Values [K, N, C] and scales [K, N], in the order given.

    Raises:
        TokensError: bytes are damaged, of another version, or of another shape or codec than the bundle's.
            The message names the place in the order given, from 0.
    """
    codec, rows, dims = sizes.token_codec, sizes.token_rows, sizes.token_dims
    dtype = np.dtype(_DTYPES[codec])
    values = np.empty((len(encoded), rows, dims), dtype=dtype)
    scales = np.ones((len(encoded), rows), dtype=np.float32)
    for place, data in enumerate(encoded):
        payload = _checked_payload(data, place=place, sizes=sizes)
        scale_bytes = 4 * rows if codec == "int8" else 0
        if scale_bytes:
            scales[place] = np.frombuffer(payload, dtype="<f4", count=rows)
        values[place] = np.frombuffer(payload, dtype=dtype, offset=scale_bytes).reshape(rows, dims)
    return StoredTokens(values=values, scales=scales)


def _checked_payload(data: bytes, *, place: int, sizes: ModelSizes) -> memoryview:
    label = f"The stored tokens at place {place}"
    cure = "Index the image again."
    if len(data) < _HEADER.size:
        raise TokensError(f"{label} are {len(data)} bytes, shorter than their header of {_HEADER.size}. {cure}")
    magic, version, code, reserved, rows, dims, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC or reserved:
        raise TokensError(f"{label} begin with {magic!r}, not {_MAGIC!r}: these are no tokens of ours. {cure}")
    if version != _VERSION:
        raise TokensError(f"{label} have version {version}; this version of qdrant-cir reads {_VERSION}. {cure}")
    found = next((name for name, known in _CODES.items() if known == code), f"unknown type {code}")
    expected = (sizes.token_codec, sizes.token_rows, sizes.token_dims)
    if (found, rows, dims) != expected:
        raise TokensError(
            f"{label} are {found} [{rows}, {dims}]; the bundle reads "
            f"{sizes.token_codec} [{sizes.token_rows}, {sizes.token_dims}]. "
            "Use the bundle that the collection was made with, or index the image again."
        )
    payload = memoryview(data)[_HEADER.size :]
    width = np.dtype(_DTYPES[found]).itemsize
    size = rows * dims * width + (4 * rows if found == "int8" else 0)
    if len(payload) != size:
        raise TokensError(f"{label} hold {len(payload)} bytes of values; expected {size}. {cure}")
    if zlib.crc32(payload) != crc:
        raise TokensError(f"{label} are damaged: CRC32 {zlib.crc32(payload):08x}, expected {crc:08x}. {cure}")
    return payload
