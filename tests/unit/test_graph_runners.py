"""The three graph runners on a model that a person can compute by hand (tests/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdrant_cir.errors import InputError, TokensError
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import preprocess
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, Float32

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> ImageEncoder:
    return ImageEncoder.open(bundle, Compute("cpu", 1))


@pytest.fixture(scope="module")
def composer(bundle: Bundle) -> Composer:
    return Composer.open(bundle, Compute("cpu", 1))


@pytest.fixture(scope="module")
def reranker(bundle: Bundle) -> Reranker:
    return Reranker.open(bundle, Compute("cpu", 1))


def solid_tokens(*colours: tuple[float, float, float]) -> Float32:
    return np.asarray([[colour] * 5 for colour in colours], dtype=np.float32)


def test_a_solid_picture_has_its_colour_in_every_token_and_its_direction_as_vector(
    encoder: ImageEncoder, bundle: Bundle
) -> None:
    pixels = preprocess(Image.new("RGB", (30, 30), RED), bundle.manifest.preprocessing)
    encoded = encoder.encode(pixels[None])
    np.testing.assert_allclose(encoded.tokens[0], [[1, -1, -1]] * 5, atol=1e-6)
    np.testing.assert_allclose(encoded.vectors[0], np.array([1, -1, -1]) / sqrt(3), atol=1e-6)


def test_tokens_tell_quadrants_apart(encoder: ImageEncoder, bundle: Bundle) -> None:
    picture = Image.new("RGB", (16, 16), RED)
    picture.paste(BLUE, (8, 0, 16, 8))
    tokens = encoder.encode(preprocess(picture, bundle.manifest.preprocessing)[None]).tokens[0]
    red, blue = [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]
    # A quarter of the picture is blue: 0.75 red + 0.25 blue = (0.5, -1, -0.5).
    np.testing.assert_allclose(tokens, np.array([[0.5, -1, -0.5], red, blue, red, red]), atol=1e-6)


def test_no_picture_gives_no_tokens_of_the_right_shape(encoder: ImageEncoder) -> None:
    encoded = encoder.encode(np.zeros((0, 3, 16, 16), np.float32))
    assert encoded.tokens.shape == (0, 5, 3)
    assert encoded.vectors.shape == (0, 3)


def test_pixels_of_another_size_are_refused_with_both_shapes(encoder: ImageEncoder) -> None:
    with pytest.raises(InputError, match=r"pixel_values float32 \[batch,3,16,16\].*got .*\[2,3,8,8\]"):
        encoder.encode(np.zeros((2, 3, 8, 8), np.float32))


def test_make_it_blue_moves_a_red_reference_to_blue(composer: Composer) -> None:
    (query,) = composer.compose(solid_tokens((1, -1, -1)), ["make it blue"])
    # red + blue's word = (1, -1, -1) + (-3, -3, 3) = (-2, -4, 2), of length sqrt(24)
    np.testing.assert_allclose(query.vector, np.array([-2, -4, 2]) / sqrt(24), atol=1e-6)
    assert query.input_ids.tolist() == [4, 5, 6, 9, 3]
    assert query.fusion_states.shape == (5, 3)


def test_the_batch_does_not_change_a_query(composer: Composer) -> None:
    references = solid_tokens((1, -1, -1), (0.2, 0.4, 0.6), (-1, 1, -1))
    texts = ["same but darker", "red", ""]
    together = composer.compose(references, texts)
    alone = [composer.compose(references[i : i + 1], texts[i : i + 1])[0] for i in range(3)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-6)
        np.testing.assert_allclose(one.fusion_states, other.fusion_states, atol=1e-6)
        assert one.input_ids.tolist() == other.input_ids.tolist()
    assert [len(query.input_ids) for query in together] == [5, 3, 2]


def test_no_text_gives_no_query_and_unequal_counts_are_refused(composer: Composer) -> None:
    assert composer.compose(solid_tokens(), []) == []
    with pytest.raises(InputError, match="1 references and 2 texts"):
        composer.compose(solid_tokens((1, 1, 1)), ["red", "blue"])


QUERY = Composition(
    vector=np.array([0, 0, 1], np.float32),
    input_ids=np.array([4, 3], np.int64),
    fusion_states=np.array([[0, 0.5, 2], [7, 7, 7]], np.float32),
)


def test_a_score_is_the_dot_product_with_the_mean_token(reranker: Reranker) -> None:
    # 0 * 1 + 0.5 * 0.5 + 2 * 1 = 2.25;  0.5 * -1 + 2 * -1 = -2.5
    scores = reranker.score(QUERY, quantize(solid_tokens((1, 0.5, 1), (1, -1, -1)), "int8"))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [2.25, -2.5], atol=0.02)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_chunks_change_neither_order_nor_scores(bundle: Bundle, chunk: int, count: int) -> None:
    tokens = np.random.default_rng(count).normal(size=(count, 5, 3)).astype(np.float32)
    stored = quantize(tokens, "int8")
    scores = Reranker.open(bundle, Compute("cpu", 1), chunk=chunk).score(QUERY, stored)
    expected = (stored.values * stored.scales[..., None]).mean(axis=1) @ QUERY.fusion_states[0]
    assert scores.shape == (count,)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("codec", ["float16", "float32"])
def test_float_codecs_reach_the_graph_as_they_are(
    build_tiny_bundle: Callable[..., Path], tmp_path: Path, codec: str
) -> None:
    bundle = load_bundle(build_tiny_bundle(tmp_path / "bundle", codec=codec))
    reranker = Reranker.open(bundle, Compute("cpu", 1))
    scores = reranker.score(QUERY, quantize(solid_tokens((1, 0.5, 1)), bundle.manifest.token_codec))
    assert scores.tolist() == [2.25]


def test_tokens_of_another_codec_are_refused_by_name(reranker: Reranker) -> None:
    with pytest.raises(TokensError, match="tokens are float16; the re-ranker reads int8"):
        reranker.score(QUERY, quantize(solid_tokens((1, 1, 1)), "float16"))


def test_a_chunk_below_one_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="chunk is 0"):
        Reranker.open(bundle, Compute("cpu", 1), chunk=0)
