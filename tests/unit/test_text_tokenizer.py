"""The tokenizer of the tiny bundle: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [ENC] 4, make 5, it 6, red 7."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_ten_megabytes_take_no_time_and_give_the_first_ids(tokenizer: TextTokenizer) -> None:
    started = time.monotonic()
    for text in ("red " * 2_500_000, "x" * 10_000_000, "\u0301" * 10_000_000, "red" + " " * 10_000_000 + "red"):
        tokenized = tokenizer.tokenize([text])
        assert tokenized.input_ids.shape[1] <= 8
        assert tokenized.truncated == (True,)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("gap", [" ", "  \n", " " * 700])
def test_a_text_that_is_cut_first_gives_the_ids_of_the_whole(
    tokenizer: TextTokenizer, bundle: Bundle, gap: str
) -> None:
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(bundle.tokenizer_path))
    whole.enable_truncation(max_length=bundle.manifest.tokenizer.max_length)
    text = gap.join(["make", "it", "red"] * 200)
    assert tokenizer.tokenize([text]).input_ids[0, 1:].tolist() == whole.encode(text).ids[1:]


def test_a_text_of_unknown_words_alone_is_not_understood(tokenizer: TextTokenizer) -> None:
    texts = ["в красном", "\U0001f457\U0001f525", "épaulettes red", "red", ""]
    assert tokenizer.tokenize(texts).understood == (False, False, True, True, True)


@pytest.mark.parametrize("text", [None, b"red", 5, ["red"]])
def test_what_is_no_text_is_an_input_error(tokenizer: TextTokenizer, text: object) -> None:
    with pytest.raises(InputError, match=f"The text is {type(text).__name__}"):
        tokenizer.tokenize([text])  # type: ignore[list-item]


def changed(bundle: Bundle, folder: Path, change: Callable[[dict[str, Any]], object]) -> Bundle:
    """The bundle with another tokenizer file."""
    content = json.loads(bundle.tokenizer_path.read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return dataclasses.replace(bundle, folder=folder)


def test_a_tokenizer_without_a_token_for_unknown_words_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    broken = changed(bundle, tmp_path, lambda content: content["model"].update(unk_token="[NONE]"))
    with pytest.raises(BundleError, match="no token for unknown words"):
        TextTokenizer(broken)


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(?:\w*)*x", r"((ab)+c?){2,}", r"((x+))*"])
def test_a_regular_expression_that_may_take_for_ever_is_refused(
    bundle: Bundle, tmp_path: Path, expression: str
) -> None:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    with pytest.raises(BundleError, match="may take for ever"):
        TextTokenizer(changed(bundle, tmp_path, lambda content: content.update(pre_tokenizer=split)))


def test_expressions_of_known_tokenizers_are_read(bundle: Bundle, tmp_path: Path) -> None:
    expression = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}(+]+|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    TextTokenizer(changed(bundle, tmp_path, lambda content: content.update(pre_tokenizer=split)))


@pytest.mark.parametrize("first", [-1, 10_000])
def test_a_first_id_that_is_no_token_is_refused(bundle: Bundle, first: int) -> None:
    spec = dataclasses.replace(bundle.manifest.tokenizer, first_token_id=first)
    manifest = dataclasses.replace(bundle.manifest, tokenizer=spec)
    with pytest.raises(BundleError, match=f"first_token_id is {first}, but"):
        TextTokenizer(dataclasses.replace(bundle, manifest=manifest))
