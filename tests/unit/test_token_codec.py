"""The token codec: what was written is read, what was damaged is refused."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from qdrant_cir.errors import TokensError
from qdrant_cir.model.bundle import CompressionSizes, ModelSizes, TokenCodec
from qdrant_cir.tokens.codec import (
    decode_tokens,
    encode_merged_tokens,
    encode_tokens,
    encoded_bytes,
    is_in_form,
    quantize,
)
from qdrant_cir.tokens.compression import MergedTokens
from qdrant_cir.types import Float32, StoredTokens

CODECS: tuple[TokenCodec, ...] = get_args(TokenCodec)


def sizes(codec: TokenCodec, rows: int = 5, dims: int = 8) -> ModelSizes:
    return ModelSizes(image_size=16, token_rows=rows, token_dims=dims, vector_size=4, fusion_dims=4, token_codec=codec)


def random_tokens(images: int) -> Float32:
    return np.random.default_rng(7).normal(scale=3, size=(images, 5, 8)).astype(np.float32)


def expanded(stored: StoredTokens) -> Float32:
    values: Float32 = stored.values.astype(np.float32) * stored.scales[..., None]
    return values


def test_int8_scales_each_token_to_its_largest_value() -> None:
    # Largest 2.54: scale 0.02. 2.54 / 0.02 = 127; -1 / 0.02 = -50; 0.029 / 0.02 = 1.45 -> 1.
    stored = quantize(np.array([[[2.54, -1.0, 0.029], [-127.0, 0.4, 0.6]]], np.float32), "int8")
    np.testing.assert_allclose(stored.scales, [[0.02, 1.0]], rtol=1e-6)
    assert stored.values.dtype == np.int8
    assert stored.values.tolist() == [[[127, -50, 1], [-127, 0, 1]]]


def test_int8_moves_no_value_by_more_than_half_a_scale() -> None:
    tokens = random_tokens(20)
    stored = quantize(tokens, "int8")
    assert (np.abs(expanded(stored) - tokens) <= stored.scales[..., None] * 0.5001).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("images", [0, 1, 3])
def test_decoding_gives_what_quantizing_gave_in_the_same_order(codec: TokenCodec, images: int) -> None:
    tokens = random_tokens(images)
    decoded = decode_tokens([encode_tokens(one, codec) for one in tokens], sizes(codec))
    stored = quantize(tokens, codec)
    assert decoded.values.dtype == np.dtype(codec)
    assert decoded.values.shape == (images, 5, 8)
    assert decoded.scales.shape == (images, 5)
    np.testing.assert_array_equal(decoded.values, stored.values)
    np.testing.assert_array_equal(decoded.scales, stored.scales)


def test_float32_is_lossless() -> None:
    tokens = random_tokens(2)
    np.testing.assert_array_equal(expanded(quantize(tokens, "float32")), tokens)


@pytest.mark.parametrize("codec", CODECS)
def test_zero_and_denormal_tokens_survive(codec: TokenCodec) -> None:
    tokens = np.zeros((1, 5, 8), np.float32)
    tokens[0, 1, 0] = np.float32(1e-45)
    stored = decode_tokens([encode_tokens(tokens[0], codec)], sizes(codec))
    np.testing.assert_allclose(expanded(stored), tokens, atol=1e-40)
    assert (stored.scales > 0).all()


@pytest.mark.parametrize(("codec", "expected"), [("int8", 80), ("float16", 100), ("float32", 180)])
def test_an_image_takes_header_scales_and_values(codec: TokenCodec, expected: int) -> None:
    # 20 header; int8: 5 * 4 scales + 40 values; float16: 40 * 2; float32: 40 * 4
    assert len(encode_tokens(random_tokens(1)[0], codec)) == expected


def test_the_format_of_version_one_stays_what_it_is() -> None:
    # The CRC32 of 00 00 80 3f 7f 81 00, as any tool computes it.
    tokens = np.array([[127.0, -127.0, 0.0]], np.float32)
    assert encode_tokens(tokens, "int8") == (
        b"CIRT" + bytes([1, 1, 0, 0]) + struct.pack("<III", 1, 3, 0xF9F7017C) + struct.pack("<f3b", 1.0, 127, -127, 0)
    )


@pytest.mark.parametrize("place", range(80))
def test_a_flipped_bit_is_noticed_wherever_it_is(place: int) -> None:
    good = encode_tokens(random_tokens(1)[0], "int8")
    bad = bytearray(good)
    bad[place] ^= 1
    with pytest.raises(TokensError, match="stored tokens at place 1"):
        decode_tokens([good, bytes(bad)], sizes("int8"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "are 0 bytes"),
        (lambda data: data[:19], "are 19 bytes"),
        (lambda data: data[:-1], "hold 59 bytes of values; expected 60"),
        (lambda data: data + b"\0", "hold 61 bytes of values; expected 60"),
        (lambda data: b"PNG!" + data[4:], "these are not tokens of this library"),
        (lambda data: data[:4] + b"\3" + data[5:], "have version 3; this version of qdrant-cir reads 1 and 2"),
        (lambda data: data[:5] + b"\x09" + data[6:], r"are unknown type 9 \[5, 8\]; the bundle reads int8"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 255]), "are damaged: CRC32"),
    ],
)
def test_damage_is_described(change, message: str) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    with pytest.raises(TokensError, match=message):
        decode_tokens([change(encode_tokens(random_tokens(1)[0], "int8"))], sizes("int8"))


def test_tokens_of_another_bundle_are_refused_with_both_shapes() -> None:
    data = encode_tokens(random_tokens(1)[0], "int8")
    with pytest.raises(TokensError, match=r"are int8 \[5, 8\]; the bundle reads int8 \[6, 8\]"):
        decode_tokens([data], sizes("int8", rows=6))
    with pytest.raises(TokensError, match=r"are int8 \[5, 8\]; the bundle reads float16 \[5, 8\]"):
        decode_tokens([data], sizes("float16"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_stored(codec: TokenCodec, value: float) -> None:
    with pytest.raises(TokensError, match="NaN or infinite"):
        encode_tokens(np.full((5, 8), value, np.float32), codec)


def test_values_beyond_float16_are_refused_not_made_infinite() -> None:
    with pytest.raises(TokensError, match="reach 70000, but float16 ends at 65504"):
        encode_tokens(np.full((5, 8), 70000, np.float32), "float16")


def merged(rows: int = 3, dims: int = 4) -> MergedTokens:
    weights = np.array([[1, 300, 65535]], np.float32)[:, :rows]
    return MergedTokens(np.random.default_rng(3).normal(size=(1, rows, dims)).astype(np.float32), weights)


def compressed_sizes(codec: TokenCodec, version: int = 7) -> ModelSizes:
    return replace(sizes(codec), compression=CompressionSizes(rows=3, dims=4, version=version))


def test_the_format_of_version_two_stays_what_it_is() -> None:
    payload = struct.pack("<fH3b", 1.0, 300, 127, -127, 0)
    one = MergedTokens(np.array([[[127.0, -127.0, 0.0]]], np.float32), np.array([[300]], np.float32))
    assert encode_merged_tokens(one, "int8", 7) == (
        b"CIRT" + bytes([2, 1, 7, 0]) + struct.pack("<III", 1, 3, zlib.crc32(payload)) + payload
    )


@pytest.mark.parametrize(("codec", "expected"), [("int8", 50), ("float16", 50), ("float32", 74)])
def test_merged_tokens_come_back_with_their_weights(codec: TokenCodec, expected: int) -> None:
    # 20 header, 3 * 2 weights; int8: 3 * 4 scales + 12 values, which is 20 + M * (R + 6); float16: 12 * 2
    data = encode_merged_tokens(merged(), codec, 7)
    assert len(data) == expected
    assert is_in_form(data, compressed_sizes(codec))
    decoded = decode_tokens([data, data], compressed_sizes(codec))
    stored = quantize(merged().tokens, codec)
    np.testing.assert_array_equal(decoded.values[1], stored.values[0])
    np.testing.assert_array_equal(decoded.scales[1], stored.scales[0])
    assert decoded.weights is not None
    np.testing.assert_array_equal(decoded.weights, merged().weights.repeat(2, axis=0))


@pytest.mark.parametrize("place", range(50))
def test_a_flipped_bit_of_merged_tokens_is_noticed_wherever_it_is(place: int) -> None:
    bad = bytearray(encode_merged_tokens(merged(), "int8", 7))
    bad[place] ^= 1
    with pytest.raises(TokensError, match="stored tokens at place 0"):
        decode_tokens([bytes(bad)], compressed_sizes("int8"))


def test_forms_are_told_apart_and_the_message_names_the_command() -> None:
    exact = encode_tokens(random_tokens(1)[0], "int8")
    compressed = encode_merged_tokens(merged(), "int8", 7)
    assert is_in_form(exact, sizes("int8"))
    assert not is_in_form(exact, sizes("float16"))
    assert not is_in_form(exact, compressed_sizes("int8"))
    assert not is_in_form(compressed, sizes("int8"))
    assert not is_in_form(compressed, compressed_sizes("int8", version=8))
    assert not is_in_form(b"CIRT", sizes("int8"))
    with pytest.raises(TokensError, match=r"are not compressed; the bundle reads .* version 7 .*`qdrant-cir index`"):
        decode_tokens([exact], compressed_sizes("int8"))
    with pytest.raises(TokensError, match=r"of version 7 of the compression; the bundle reads .* not compressed"):
        decode_tokens([compressed], sizes("int8"))
    with pytest.raises(TokensError, match=r"of version 7 of the compression; the bundle reads .* version 8"):
        decode_tokens([compressed], compressed_sizes("int8", version=8))


@pytest.mark.parametrize("codec", CODECS)
def test_the_size_of_an_image_is_known_before_it_is_encoded(codec: TokenCodec) -> None:
    tokens = random_tokens(1)
    assert len(encode_tokens(tokens[0], codec)) == encoded_bytes(sizes(codec))
    merged = MergedTokens(tokens[:, :3, :4], np.ones((1, 3), np.float32))
    compressed = replace(sizes(codec), compression=CompressionSizes(rows=3, dims=4, version=1))
    assert len(encode_merged_tokens(merged, codec, 1)) == encoded_bytes(compressed)
