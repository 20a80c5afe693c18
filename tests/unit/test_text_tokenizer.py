"""The tokenizer of the tiny bundle: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [ENC] 4, make 5, it 6, red 7."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.text_tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> TextTokenizer:
    return TextTokenizer(bundle)


def test_the_first_id_is_replaced_and_the_last_closes(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.tokenize(["Make it RED"])
    assert tokenized.input_ids.tolist() == [[4, 5, 6, 7, 3]]
    assert tokenized.attention_mask.tolist() == [[1, 1, 1, 1, 1]]
    assert tokenized.input_ids.dtype == tokenized.attention_mask.dtype == np.int64


def test_a_batch_is_padded_to_its_longest_text_and_no_further(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.tokenize(["red", "make it red"])
    assert tokenized.input_ids.tolist() == [[4, 7, 3, 0, 0], [4, 5, 6, 7, 3]]
    assert tokenized.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_an_empty_text_is_its_special_ids(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize([""]).input_ids.tolist() == [[4, 3]]


def test_unknown_words_are_read_as_unknown(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize(["épaulettes 👗"]).input_ids.tolist() == [[4, 1, 1, 3]]


def test_a_text_that_is_too_long_is_cut_keeps_its_closing_id_and_says_so(tokenizer: TextTokenizer) -> None:
    six, seven = "red " * 6, "red " * 7
    tokenized = tokenizer.tokenize([seven, six, "red"])
    assert tokenized.truncated == (True, False, False)
    assert tokenized.input_ids.tolist()[0] == [4, 7, 7, 7, 7, 7, 7, 3]
    assert tokenized.input_ids.shape == (3, 8)


def test_a_very_long_text_costs_no_more_than_the_maximum(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize(["red " * 100_000]).input_ids.shape == (1, 8)


def test_half_a_surrogate_pair_is_an_input_error(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match="surrogate pair at position 4"):
        tokenizer.tokenize(["red \ud83d"])


def test_no_text_gives_an_empty_batch(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize([]).input_ids.shape == (0, 0)


def test_a_file_that_is_no_tokenizer_is_a_bundle_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BundleError, match="cannot be loaded as a tokenizer"):
        TextTokenizer(dataclasses.replace(bundle, folder=tmp_path))


def test_a_maximum_without_room_for_words_is_refused(bundle: Bundle) -> None:
    spec = dataclasses.replace(bundle.manifest.tokenizer, max_length=2)
    manifest = dataclasses.replace(bundle.manifest, tokenizer=spec)
    with pytest.raises(BundleError, match="max_length is 2, but 2 of these ids are special"):
        TextTokenizer(dataclasses.replace(bundle, manifest=manifest))
