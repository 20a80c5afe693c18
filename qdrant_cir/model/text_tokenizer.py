"""Texts to ids and masks, exactly as the manifest says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.types import Int64

__all__ = ["TextTokenizer", "TokenizedTexts"]


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """A batch of B texts, padded on the right to the longest of them.

    Attributes:
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 for text and 0 for padding.
        truncated: B flags; true where the text was longer than the model reads.
    """

    input_ids: Int64
    attention_mask: Int64
    truncated: tuple[bool, ...]


class TextTokenizer:
    """The tokenizer of a bundle. Safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the bundle's tokenizer.

        Raises:
            BundleError: the file is no tokenizer that the ``tokenizers`` library reads.
        """
        from tokenizers import Tokenizer

        spec = bundle.manifest.tokenizer
        try:
            tokenizer = Tokenizer.from_str(bundle.tokenizer_path.read_text(encoding="utf-8"))
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
        tokenizer.no_padding()
        # Truncation of the library keeps the special tokens of the post-processor, [SEP] at the end included.
        tokenizer.enable_truncation(max_length=spec.max_length)
        self._tokenizer = tokenizer
        self._first_token_id = spec.first_token_id

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenise a batch.

        The first id of every text is the manifest's ``first_token_id``. Texts that are too long are cut to
        ``max_length`` ids and keep their closing one.

        Args:
            texts: B texts, B >= 1; a text may be empty.

        Returns:
            Ids and masks, padded with id 0 to the longest text of the batch and never further.

        Raises:
            InputError: a text holds half of a surrogate pair and so is no Unicode text.
        """
        # One by one: encode_batch starts a thread pool, dearer than short texts and unsafe to fork.
        encodings = [self._tokenizer.encode(_encodable(text), add_special_tokens=True) for text in texts]
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
            truncated=tuple(bool(encoding.overflowing) for encoding in encodings),
        )


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text {text!r:.80} is not valid Unicode: it holds half of a surrogate pair at position "
            f"{error.start}. Decode it from its bytes again."
        ) from error
    return text
