"""Merging rows: what is equal becomes one row, every token is counted once, the class token stays."""

from __future__ import annotations

import numpy as np
import pytest

from qdrant_cir.errors import TokensError
from qdrant_cir.tokens.compression import MergedTokens, expand_rows, merge_rows
from qdrant_cir.types import Float32


def random_tokens(images: int = 3, rows: int = 17) -> Float32:
    return np.random.default_rng(7).normal(size=(images, rows, 8)).astype(np.float32)


def test_equal_tokens_become_one_row_that_says_how_many_they_were() -> None:
    class_token, a, b = [9.0, 9.0], [1.0, 0.0], [0.0, 2.0]
    merged = merge_rows(np.array([[class_token, a, a, b, b, a, a, b, b]], np.float32), 3)
    assert merged.tokens[0].tolist() == [class_token, a, b]
    assert merged.weights[0].tolist() == [1, 4, 4]


@pytest.mark.parametrize("rows", [3, 5, 8, 9, 16, 17])
def test_weights_count_every_token_once_and_the_weighted_mean_stays(rows: int) -> None:
    tokens = random_tokens()
    merged = merge_rows(tokens, rows)
    assert merged.tokens.shape == (3, rows, 8)
    assert merged.weights.sum(axis=1).tolist() == [17, 17, 17]
    np.testing.assert_array_equal(merged.tokens[:, 0], tokens[:, 0])
    np.testing.assert_allclose((merged.tokens * merged.weights[..., None]).sum(1), tokens.sum(1), atol=1e-4)


def test_merging_to_all_rows_changes_nothing() -> None:
    np.testing.assert_array_equal(merge_rows(random_tokens(), 17).tokens, random_tokens())


def test_an_image_merges_the_same_alone_and_in_a_batch() -> None:
    tokens = random_tokens()
    np.testing.assert_allclose(merge_rows(tokens[1:2], 6).tokens[0], merge_rows(tokens, 6).tokens[1], atol=1e-6)


def test_expanding_repeats_each_row_as_often_as_it_stands_for() -> None:
    rows = np.array([[[1.0], [2.0], [3.0]]], np.float32)
    expanded = expand_rows(MergedTokens(rows, np.array([[1, 3, 2]], np.float32)))
    assert expanded[0, :, 0].tolist() == [1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("rows", [2, 18])
def test_too_few_or_too_many_rows_are_refused(rows: int) -> None:
    with pytest.raises(TokensError, match="give 3 to 17"):
        merge_rows(random_tokens(), rows)
