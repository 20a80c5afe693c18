"""Texts to ids and masks, exactly as the manifest says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.tokenizer_file import check_tokenizer, read_tokenizer
from qdrant_cir.types import Int64

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["ReadableText", "TextTokenizer", "TokenizedTexts"]

_LOOKED_AT_PER_TOKEN = (64, 512)
"""Characters of a text that are looked at, for each id that the model reads: the first number, and where those give
fewer ids than it reads, the second. Ten megabytes would take ten seconds as a whole."""

_SIGNS = re.compile(r"[^\w\s!-~]+")
_LONGEST_WORD = 1_000
_UNKNOWN_WORD = "\U00010400\U00010401"
"""Two letters of the Deseret alphabet, in no vocabulary; some tokenizers drop what is no letter."""


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
class ReadableText:
    """What a model can read of a text.

    Attributes:
        text: without the words that the model does not know; empty where it knows none.
        unknown: those words as they were written, each once.
    """

    text: str
    unknown: tuple[str, ...]


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
        source = read_tokenizer(bundle.tokenizer_path)
        # before the library reads it: it would compile the expressions
        check_tokenizer(source, bundle.tokenizer_path, spec)
        try:
            tokenizer = Tokenizer.from_str(source)
        # The library raises bare Exception for every fault of a file, and PanicException, which is none.
        except BaseException as error:
            _pass_on_interrupts(error)
            raise BundleError(
                f"{bundle.tokenizer_path} cannot be loaded as a tokenizer: {error}. Export the bundle again."
            ) from error
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if spec.max_length <= special:
            raise BundleError(
                f"tokenizer.max_length is {spec.max_length}, but {special} of these ids are special; "
                "no word would be read. Export the bundle with a larger max_length."
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
        except BaseException as error:
            _pass_on_interrupts(error)
            raise BundleError(
                f"{bundle.tokenizer_path} has no token for unknown words: {error}. Export the bundle again."
            ) from error
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        found = self._tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
        return found if found in encoding.ids else None

    def readable(self, text: str) -> ReadableText:
        """Leave out the words that the tokenizer has no token for; of a very long text, those of its beginning.

        Signs such as emoji that the tokenizer drops without a token are named, too.

        Raises:
            InputError: as :meth:`tokenize`.
        """
        looked_at = _cut(text, _LOOKED_AT_PER_TOKEN[0] * self._max_length)
        encoding = self._encoded(looked_at)
        tokens = [
            (i, span)
            # what was cut off counts too: it moves up where unknown words before it are left out
            for part in (encoding, *encoding.overflowing)
            for i, span in zip(part.ids, part.offsets, strict=True)
            if span[1] > span[0]
        ]
        spans = sorted({span for i, span in tokens if i == self._unknown_id} | _dropped(looked_at, tokens))
        if not any(stop > start for start, stop in encoding.offsets):
            # signs that the tokenizer drops without a token, such as pictures
            return ReadableText("", tuple(dict.fromkeys(text.split())))
        if not spans:
            return ReadableText(text, ())
        kept, end = [], 0
        for start, stop in spans:
            kept.append(text[end:start])
            end = stop
        left = " ".join("".join((*kept, text[end:])).split())
        unknown = tuple(dict.fromkeys(text[start:stop] for start, stop in spans))
        return ReadableText(left if any(letter.isalnum() for letter in left) else "", unknown)

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenise a batch.

        The first id of every text is the manifest's ``first_token_id``. Texts that are too long are cut to
        ``max_length`` ids and keep their closing one.

        Args:
            texts: B texts, B >= 1; a text may be empty.

        Returns:
            Ids and masks, padded with id 0 to the longest text of the batch and never further.

        Raises:
            InputError: a text is no string, holds half of a surrogate pair and so is no Unicode text, or takes the
                tokenizer more steps than it allows.
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
            encoding = self._encoded(part)
            # a part that gives fewer ids than the model reads says nothing of the rest
            if encoding.overflowing or len(part) == len(text):
                break
        words = [i for i, is_special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not is_special]
        is_understood = any(i != self._unknown_id for i in words) or not text.strip()
        return _Encoded(encoding.ids, bool(encoding.overflowing) or len(part) < len(text), is_understood)

    def _encoded(self, text: str) -> Encoding:
        content = _encodable(text)
        try:
            return self._tokenizer.encode(content, add_special_tokens=True)
        # Oniguruma ends a search after ten million steps, which the library makes a PanicException.
        except BaseException as error:
            _pass_on_interrupts(error)
            raise InputError(f"The text {text!r:.80} cannot be tokenised: {error}. Use other words.") from error


def _dropped(text: str, tokens: Sequence[tuple[int, tuple[int, int]]]) -> set[tuple[int, int]]:
    """Return the spans of pictures, such as emoji, that lie in no token; punctuation is dropped for good reason."""
    covered = np.zeros(len(text), np.bool_)
    for _, (start, stop) in tokens:
        covered[start:stop] = True
    return {
        match.span()
        for match in _SIGNS.finditer(text)
        if any(unicodedata.category(sign) == "So" for sign in match[0]) and not covered[slice(*match.span())].any()
    }


def _cut(text: str, characters: int) -> str:
    """Cut a text to about so many characters, between words where there is a gap near the end."""
    if len(text) <= characters:
        return text
    part = text[:characters]
    end = max(part.rfind(gap, max(0, characters - _LONGEST_WORD)) for gap in " \n\t")
    return part if end < 0 else part[:end]


def _pass_on_interrupts(error: BaseException) -> None:
    """Raise again what is no fault of a tokenizer: Ctrl-C, the end of the process and want of memory."""
    is_panic = type(error).__name__ == "PanicException"
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or is_panic):
        raise error


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text {text!r:.80} is not valid Unicode: it holds half of a surrogate pair at position "
            f"{error.start}. Decode it from its bytes again."
        ) from error
    return text
