"""The tokenizer of the tiny bundle: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [ENC] 4, make 5, it 6, red 7."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.model.bundle import Bundle, load_bundle, sha256_of, write_manifest
from qdrant_cir.model.text_tokenizer import ReadableText, TextTokenizer


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
    started = time.process_time()
    for text in ("red " * 2_500_000, "x" * 10_000_000, "\u0301" * 10_000_000, "red" + " " * 10_000_000 + "red"):
        tokenized = tokenizer.tokenize([text])
        assert tokenized.input_ids.shape[1] <= 8
        assert tokenized.truncated == (True,)
    assert time.process_time() - started < 5


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


def test_a_search_that_takes_too_many_steps_is_an_input_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_cir.model.tokenizer_file.why_endless", lambda _: None)
    split = {"type": "Split", "pattern": {"Regex": r"a*a*a*(?<=b)"}, "behavior": "Isolated", "invert": False}
    tokenizer = TextTokenizer(changed(bundle, tmp_path, lambda content: content.update(pre_tokenizer=split)))
    assert tokenizer.tokenize(["make it red"]).input_ids.shape[0] == 1
    with pytest.raises(InputError, match=r"cannot be tokenised: .*retry-limit"):
        tokenizer.tokenize(["a" * 2_000])


def replacing(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "normalizers",
    [
        [replacing({"String": "a"}, "a" * 1_000_000)],
        [replacing({"String": "a"}, "aa")] * 40,
        [replacing({"Regex": ""}, "aaa")] * 9,
    ],
)
def test_a_tokenizer_that_makes_texts_grow_without_bound_is_refused(
    bundle: Bundle, tmp_path: Path, normalizers: list[dict[str, Any]]
) -> None:
    growing = {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": normalizers}]}
    with pytest.raises(BundleError, match="characters of one before it splits"):
        TextTokenizer(changed(bundle, tmp_path, lambda content: content.update(normalizer=growing)))


def without_first_token(content: dict[str, Any]) -> None:
    del content["model"]["vocab"]["[ENC]"]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[ENC]"]


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["model"].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["model"].update(unk_token=None), "no token for unknown words"),
        (without("unk_token"), "no token for unknown words"),
        (lambda content: content["model"]["vocab"].pop("[UNK]"), "no token for unknown words"),
        (without("vocab"), "holds no vocabulary"),
        (lambda content: content.pop("model"), "holds no vocabulary"),
        (without_first_token, r"first_token_id is 4, but"),
        (
            lambda content: content.update(normalizer=replacing({"Regex": "(a|a)*b"}, " ")),
            r"regular expression '\(a\|a\)\*b'",
        ),
    ],
)
def test_a_bundle_whose_tokenizer_breaks_on_some_text_does_not_load(
    tiny_bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    whole = load_bundle(folder)
    changed(whole, folder, change)
    spec = dataclasses.replace(whole.manifest.tokenizer, sha256=sha256_of(whole.tokenizer_path))
    write_manifest(folder, dataclasses.replace(whole.manifest, tokenizer=spec))
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("model", "loads"),
    [
        ({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *[[c, -1.0] for c in "abcde"]]}, True),
        ({"type": "Unigram", "unk_id": None, "vocab": [["<unk>", 0.0], *[[c, -1.0] for c in "abcde"]]}, False),
        ({"type": "Unigram", "unk_id": 9, "vocab": [["<unk>", 0.0], *[[c, -1.0] for c in "abcde"]]}, False),
        ({"type": "BPE", "unk_token": None, "vocab": dict(zip("abcde", range(5), strict=True)), "merges": []}, True),
        ({"type": "BPE", "unk_token": "?", "vocab": dict(zip("abcde", range(5), strict=True)), "merges": []}, False),
    ],
)
def test_unknown_words_have_a_token_in_every_kind_of_tokenizer(
    bundle: Bundle, tmp_path: Path, model: dict[str, Any], loads: bool
) -> None:
    broken = changed(
        bundle, tmp_path, lambda content: content.update(model=model, post_processor=None, added_tokens=[])
    )
    if loads:
        assert TextTokenizer(broken).tokenize(["abc"]).input_ids[0, 0] == 4
        return
    with pytest.raises(BundleError, match="no token for unknown words"):
        TextTokenizer(broken)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be loaded as a tokenizer"),
        (
            b'{"model": {"vocab": {"a": 4, "u": 5}, "unk_token": "u"}, "decoder": ' + b"[" * 70 + b"]" * 70 + b"}",
            "64 deep",
        ),
        (b" " * (64 * 1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_file_that_no_tokenizer_wrote_is_a_bundle_error(
    bundle: Bundle, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        TextTokenizer(dataclasses.replace(bundle, folder=tmp_path))


def test_words_that_the_model_does_not_know_are_left_out_and_named_once(tokenizer: TextTokenizer) -> None:
    read = tokenizer.readable("make taupe it Sleeveless red taupe")
    assert read == ReadableText("make it red", ("taupe", "Sleeveless"))


def test_known_words_move_up_where_unknown_ones_are_left_out(tokenizer: TextTokenizer) -> None:
    read = tokenizer.readable("taupe " * 30 + "red, mauve, make it red")
    assert read == ReadableText("red make it red", ("taupe", ",", "mauve"))


def test_a_text_of_known_words_is_read_as_it_is(tokenizer: TextTokenizer) -> None:
    assert tokenizer.readable("Make  it RED") == ReadableText("Make  it RED", ())


def test_a_text_of_unknown_words_alone_leaves_nothing(tokenizer: TextTokenizer) -> None:
    assert tokenizer.readable("taupe, sleeveless!").text == ""


def test_signs_that_the_tokenizer_drops_are_named_where_nothing_else_is_there() -> None:
    tokenizer = TextTokenizer(load_bundle("photos"))
    assert tokenizer.readable("\U0001f457\U0001f525 ?") == ReadableText("", ("\U0001f457\U0001f525", "?"))
    assert tokenizer.readable("") == ReadableText("", ())


@pytest.mark.parametrize(
    ("text", "left", "unknown"),
    [
        ("in red \U0001f457\U0001f3fd please", "in red please", ("\U0001f457\U0001f3fd",)),
        ("in \u2764\ufe0f chic red", "in red", ("\u2764\ufe0f", "chic")),
        ("the \u201cred\u201d one \u2014 but lighter!", "the \u201cred\u201d one \u2014 but lighter!", ()),
    ],
)
def test_a_picture_among_known_words_is_named_and_punctuation_is_not(
    text: str, left: str, unknown: tuple[str, ...]
) -> None:
    assert TextTokenizer(load_bundle("photos")).readable(text) == ReadableText(left, unknown)


def test_a_word_that_the_packaged_bundle_for_photographs_lacks_is_named() -> None:
    read = TextTokenizer(load_bundle("photos")).readable("in taupe, but chic")
    assert read == ReadableText("in taupe, but", ("chic",))
