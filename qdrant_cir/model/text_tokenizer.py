"""Texts to ids and masks, exactly as the manifest says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.types import Int64

__all__ = ["TextTokenizer", "TokenizedTexts"]

_LOOKED_AT_PER_TOKEN = (64, 512)
"""Characters of a text that are looked at, for each id that the model reads: the first number, and where those give
fewer ids than it reads, the second. Ten megabytes would take ten seconds as a whole."""

_LONGEST_WORD = 1_000
_UNKNOWN_WORD = "\ue000\ue001"
"""Two characters for private use, in no vocabulary."""


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """A batch of B texts, padded on the right to the longest of them.

    Attributes:
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 for text and 0 for padding.
        truncated: B flags; true where the text was longer than the model reads.
        understood: B flags; false where there are words and the tokenizer knows not one of them.
    """

    input_ids: Int64
    attention_mask: Int64
    truncated: tuple[bool, ...]
    understood: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One text: its ids, whether it was cut, and whether any word of it is known."""

    ids: list[int]
    is_truncated: bool
    is_understood: bool


class TextTokenizer:
    """The tokenizer of a bundle. Safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the bundle's tokenizer.

        Raises:
            BundleError: the file is no tokenizer that the ``tokenizers`` library reads, has no token for unknown words
                or a regular expression that may take for ever, or its numbers do not fit the manifest's.
        """
        from tokenizers import Tokenizer

        spec = bundle.manifest.tokenizer
        try:
            source = bundle.tokenizer_path.read_text(encoding="utf-8")
            tokenizer = Tokenizer.from_str(source)
        # The library raises bare Exception for every fault of a file.
        except Exception as error:
            raise BundleError(
                f"{bundle.tokenizer_path} cannot be loaded as a tokenizer: {error}. Export the bundle again."
            ) from error
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if spec.max_length <= special:
            raise BundleError(
                f"tokenizer.max_length is {spec.max_length}, but {special} of these ids are special; "
                "no word would be read. Export the bundle with a larger max_length."
            )
        _check_expressions(json.loads(source), bundle)
        words = tokenizer.get_vocab_size(with_added_tokens=True)
        if not 0 <= spec.first_token_id < words:
            raise BundleError(
                f"tokenizer.first_token_id is {spec.first_token_id}, but {bundle.tokenizer_path} holds {words} tokens. "
                "Export the bundle again."
            )
        tokenizer.no_padding()
        # Truncation of the library keeps the special tokens of the post-processor, [SEP] at the end included.
        tokenizer.enable_truncation(max_length=spec.max_length)
        self._tokenizer = tokenizer
        self._max_length = spec.max_length
        self._unknown_id = self._id_of_unknown_words(bundle)
        self._first_token_id = spec.first_token_id

    def _id_of_unknown_words(self, bundle: Bundle) -> int | None:
        """Return the id of what the tokenizer does not know, None where it knows every character."""
        try:
            encoding = self._tokenizer.encode(_UNKNOWN_WORD, add_special_tokens=True)
        except Exception as error:
            raise BundleError(
                f"{bundle.tokenizer_path} has no token for unknown words: {error}. Export the bundle again."
            ) from error
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        found = self._tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
        return found if found in encoding.ids else None

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenise a batch.

        The first id of every text is the manifest's ``first_token_id``. Texts that are too long are cut to
        ``max_length`` ids and keep their closing one.

        Args:
            texts: B texts, B >= 1; a text may be empty.

        Returns:
            Ids and masks, padded with id 0 to the longest text of the batch and never further.

        Raises:
            InputError: a text is no string, or holds half of a surrogate pair and so is no Unicode text.
        """
        # One by one: encode_batch starts a thread pool, dearer than short texts and unsafe to fork.
        encodings = [self._encode(text) for text in texts]
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        input_ids = np.zeros((len(texts), longest), dtype=np.int64)
        attention_mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            input_ids[row, :length] = encoding.ids
            attention_mask[row, :length] = 1
        if longest:
            input_ids[:, 0] = self._first_token_id
        return TokenizedTexts(
            input_ids=input_ids,
            attention_mask=attention_mask,
            truncated=tuple(encoding.is_truncated for encoding in encodings),
            understood=tuple(encoding.is_understood for encoding in encodings),
        )

    def _encode(self, text: str) -> _Encoded:
        """Encode one text, of which only so much is looked at as can matter."""
        if not isinstance(text, str):
            raise InputError(f"The text is {type(text).__name__}; expected a string.")
        for characters in _LOOKED_AT_PER_TOKEN:
            part = _cut(text, characters * self._max_length)
            encoding = self._tokenizer.encode(_encodable(part), add_special_tokens=True)
            # a part that gives fewer ids than the model reads says nothing of the rest
            if encoding.overflowing or len(part) == len(text):
                break
        words = [i for i, is_special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not is_special]
        is_understood = any(i != self._unknown_id for i in words) or not text.strip()
        return _Encoded(encoding.ids, bool(encoding.overflowing) or len(part) < len(text), is_understood)


def _cut(text: str, characters: int) -> str:
    """Cut a text to about so many characters, between words where there is a gap near the end."""
    if len(text) <= characters:
        return text
    part = text[:characters]
    end = max(part.rfind(gap, max(0, characters - _LONGEST_WORD)) for gap in " \n\t")
    return part if end < 0 else part[:end]


def _check_expressions(value: object, bundle: Bundle) -> None:
    """Refuse a repeat within a repeat, such as ``(a+)+``: some texts would keep it busy for ever."""
    if isinstance(value, dict):
        expression = value.get("Regex")
        if isinstance(expression, str) and _repeats_repeats(expression):
            raise BundleError(
                f"{bundle.tokenizer_path} splits texts by the regular expression {expression!r:.80}, which may take "
                "for ever on some of them. Export the bundle with another tokenizer."
            )
        for item in value.values():
            _check_expressions(item, bundle)
    elif isinstance(value, list):
        for item in value:
            _check_expressions(item, bundle)


def _repeats_repeats(expression: str) -> bool:
    """Tell whether a group that holds ``*``, ``+`` or ``{`` is itself repeated."""
    plain = re.sub(r"\\.", "x", expression, flags=re.DOTALL)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    while found := re.search(r"\((?:\?[:=!>a-zA-Z<]*)?([^()]*)\)", plain):
        holds = any(mark in found[1] for mark in "*+{")
        if holds and plain[found.end() : found.end() + 1] in ("*", "+", "{"):
            return True
        plain = plain[: found.start()] + ("x+" if holds else "x") + plain[found.end() :]
    return False


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text {text!r:.80} is not valid Unicode: it holds half of a surrogate pair at position "
            f"{error.start}. Decode it from its bytes again."
        ) from error
    return text
