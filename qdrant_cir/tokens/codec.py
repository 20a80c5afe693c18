"""Candidate tokens to bytes and back, and to the form that the re-ranker reads.

The bytes of one image, little-endian: a header of 20 bytes (magic ``CIRT``, version u8, type u8, compression u16,
rows u32, dims u32, CRC32 u32 of what follows), for int8 the scales (float32 [N]), then the values. Version 1 holds
all tokens, and its compression is 0. Version 2 holds merged rows in the dimensions of that compression's
projection, and before the values their weights (u16 [M]): how many tokens each row stands for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from qdrant_cir.errors import TokensError
from qdrant_cir.model.bundle import ModelSizes, TokenCodec
from qdrant_cir.tokens.compression import MergedTokens
from qdrant_cir.types import Float32, StoredTokens

__all__ = [
    "check_bytes",
    "decode_tokens",
    "encode_merged_tokens",
    "encode_tokens",
    "encoded_bytes",
    "is_in_form",
    "quantize",
]

_HEADER = struct.Struct("<4sBBHIII")
_MAGIC = b"CIRT"
_EXACT, _COMPRESSED = 1, 2
_REINDEX = "Index the pictures again with this bundle: `qdrant-cir index`."
_CODES: Mapping[str, int] = {"int8": 1, "float16": 2, "float32": 3}
_DTYPES: Mapping[str, DTypeLike] = {"int8": "i1", "float16": "<f2", "float32": "<f4"}


def quantize(tokens: Float32, codec: TokenCodec) -> StoredTokens:
    """Convert tokens to their stored form.

    Args:
        tokens: float32 [K, N, C].
        codec: ``int8`` is symmetric with one scale per token: no value moves by more than half a scale.

    Returns:
        Values [K, N, C] and scales [K, N], as in :class:`StoredTokens`.

    Raises:
        TokensError: a token holds a value that is not finite, or too large for float16.
    """
    if not np.isfinite(tokens).all():
        raise TokensError("Tokens to be stored hold NaN or infinite values. The image encoder's graph is damaged.")
    if codec == "int8":
        largest = np.abs(tokens).max(axis=-1, initial=0.0)
        scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        # A denormal largest value makes a scale of 0. Such a token counts as zero.
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
    return _encoded(tokens, codec, weights=b"", version=_EXACT, compression=0)


def encode_merged_tokens(merged: MergedTokens, codec: TokenCodec, compression: int) -> bytes:
    """Write one image's merged tokens, [1, M, R], as bytes.

    Args:
        merged: of one image.
        codec: as for :func:`quantize`.
        compression: version of the compression, from 1.

    Raises:
        TokensError: as :func:`quantize`.
    """
    weights = merged.weights[0].astype("<u2").tobytes()
    return _encoded(merged.tokens[0], codec, weights=weights, version=_COMPRESSED, compression=compression)


def _encoded(tokens: Float32, codec: TokenCodec, *, weights: bytes, version: int, compression: int) -> bytes:
    stored = quantize(tokens[None], codec)
    values: bytes = stored.values[0].astype(_DTYPES[codec], copy=False).tobytes()
    scales = stored.scales[0].astype("<f4", copy=False).tobytes() if codec == "int8" else b""
    payload = scales + weights + values
    rows, dims = tokens.shape
    return _HEADER.pack(_MAGIC, version, _CODES[codec], compression, rows, dims, zlib.crc32(payload)) + payload


def encoded_bytes(sizes: ModelSizes) -> int:
    """Return how many bytes one image's tokens are in a bundle's form."""
    version = _EXACT if sizes.compression is None else _COMPRESSED
    return _HEADER.size + _payload_size(sizes.token_codec, sizes.stored_rows, sizes.stored_dims, version=version)


def is_in_form(data: bytes, sizes: ModelSizes) -> bool:
    """Return whether the header of one image's tokens has a bundle's type, compression, rows and dims."""
    packed = sizes.compression
    version, compression = (_EXACT, 0) if packed is None else (_COMPRESSED, packed.version)
    form = (_MAGIC, version, _CODES[sizes.token_codec], compression, sizes.stored_rows, sizes.stored_dims)
    return len(data) >= _HEADER.size and _HEADER.unpack_from(data)[: len(form)] == form


def check_bytes(data: bytes) -> None:
    """Check that one image's tokens are whole, whatever bundle they are of. Raises TokensError."""
    if len(data) < _HEADER.size:
        raise TokensError(f"The tokens are {len(data)} bytes, shorter than their header of {_HEADER.size}.")
    magic, version, code, _, rows, dims, crc = _HEADER.unpack_from(data)
    found = next((name for name, known in _CODES.items() if known == code), None)
    if magic != _MAGIC or version not in (_EXACT, _COMPRESSED) or found is None:
        raise TokensError("The tokens begin with what no version of this library writes.")
    payload = memoryview(data)[_HEADER.size :]
    if len(payload) != _payload_size(found, rows, dims, version=version) or zlib.crc32(payload) != crc:
        raise TokensError("The tokens are damaged: their length or checksum is wrong.")


def decode_tokens(encoded: Sequence[bytes], sizes: ModelSizes) -> StoredTokens:
    """Read the tokens of K images into one batch.

    Args:
        encoded: K results of :func:`encode_tokens`, or of :func:`encode_merged_tokens` where the bundle compresses;
            K may be 0.
        sizes: of the bundle; every image must have its rows, dims, codec and version of the compression.

    Returns:
        Values [K, M, R] and scales [K, M], in the order given, and weights [K, M] where the bundle compresses.

    Raises:
        TokensError: bytes are damaged, or of another version, shape or codec than the bundle's.
            The message names the place in the order given, from 0.
    """
    codec, rows, dims = sizes.token_codec, sizes.stored_rows, sizes.stored_dims
    dtype = np.dtype(_DTYPES[codec])
    values = np.empty((len(encoded), rows, dims), dtype=dtype)
    scales = np.ones((len(encoded), rows), dtype=np.float32)
    weights = None if sizes.compression is None else np.ones((len(encoded), rows), dtype=np.float32)
    for place, data in enumerate(encoded):
        payload = _checked_payload(data, place=place, sizes=sizes)
        offset = 0
        if codec == "int8":
            scales[place] = np.frombuffer(payload, dtype="<f4", count=rows)
            offset = 4 * rows
        if weights is not None:
            weights[place] = np.frombuffer(payload, dtype="<u2", count=rows, offset=offset)
            offset += 2 * rows
        values[place] = np.frombuffer(payload, dtype=dtype, offset=offset).reshape(rows, dims)
    return StoredTokens(values=values, scales=scales, weights=weights)


def _checked_payload(data: bytes, *, place: int, sizes: ModelSizes) -> memoryview:
    label = f"The stored tokens at place {place}"
    cure = "Index the image again."
    if len(data) < _HEADER.size:
        raise TokensError(f"{label} are {len(data)} bytes, shorter than their header of {_HEADER.size}. {cure}")
    magic, version, code, compression, rows, dims, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC or (version == _EXACT and compression):
        raise TokensError(f"{label} begin with {magic!r}, not {_MAGIC!r}: these are not tokens of this library. {cure}")
    if version not in (_EXACT, _COMPRESSED):
        raise TokensError(
            f"{label} have version {version}; this version of qdrant-cir reads {_EXACT} and {_COMPRESSED}. {cure}"
        )
    wanted = 0 if sizes.compression is None else sizes.compression.version
    if compression != wanted:
        raise TokensError(
            f"{label} are {_form(compression)}; the bundle reads tokens that are {_form(wanted)}. {_REINDEX}"
        )
    found = next((name for name, known in _CODES.items() if known == code), f"unknown type {code}")
    expected = (sizes.token_codec, sizes.stored_rows, sizes.stored_dims)
    if (found, rows, dims) != expected:
        raise TokensError(
            f"{label} are {found} [{rows}, {dims}]; the bundle reads "
            f"{sizes.token_codec} [{sizes.stored_rows}, {sizes.stored_dims}]. "
            "Use the bundle that the collection was made with, or index the image again."
        )
    payload = memoryview(data)[_HEADER.size :]
    size = _payload_size(found, rows, dims, version=version)
    if len(payload) != size:
        raise TokensError(f"{label} hold {len(payload)} bytes of values; expected {size}. {cure}")
    if zlib.crc32(payload) != crc:
        raise TokensError(f"{label} are damaged: CRC32 {zlib.crc32(payload):08x}, expected {crc:08x}. {cure}")
    return payload


def _payload_size(codec: str, rows: int, dims: int, *, version: int) -> int:
    width = np.dtype(_DTYPES[codec]).itemsize
    return rows * dims * width + (4 * rows if codec == "int8" else 0) + (2 * rows if version == _COMPRESSED else 0)


def _form(compression: int) -> str:
    return f"of version {compression} of the compression" if compression else "not compressed"
