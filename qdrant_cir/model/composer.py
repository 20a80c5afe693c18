"""Reference tokens plus texts to queries: the ``composer`` graph (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import Session, open_graph
from qdrant_cir.model.text_tokenizer import ReadableText, TextTokenizer
from qdrant_cir.types import Composition, Float32

__all__ = ["Composer"]


class Composer:
    """The composer of a bundle. Safe to share between threads."""

    def __init__(self, session: Session, tokenizer: TextTokenizer) -> None:
        """Use a session of the ``composer`` graph and the tokenizer of the same bundle."""
        self._session = session
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, bundle: Bundle, compute: Compute) -> Composer:
        """Load graph and tokenizer; arguments and errors as :func:`qdrant_cir.model.sessions.open_graph`."""
        return cls(open_graph(bundle, "composer", compute), TextTokenizer(bundle))

    def readable(self, text: str) -> ReadableText:
        """Leave out the words that the model does not know; as :meth:`TextTokenizer.readable`."""
        return self._tokenizer.readable(text)

    def compose(self, reference_tokens: Float32, texts: Sequence[str]) -> list[Composition]:
        """Compose a batch in one run.

        Args:
            reference_tokens: float32 [B, N, C], the references' tokens as encoded.
            texts: B modification texts; shorter ones are padded to the longest. B may be 0.

        Returns:
            B queries in the order given, without padding. The batch changes them only by rounding.

        Raises:
            InputError: there are not as many texts as references, or the tokens do not fit the graph.
            ProviderError: the computation failed.
        """
        if len(reference_tokens) != len(texts):
            raise InputError(
                f"There are {len(reference_tokens)} references and {len(texts)} texts. Give one text per reference."
            )
        if not texts:
            return []
        tokenized = self._tokenizer.tokenize(texts)
        outputs = self._session.run(
            {
                "input_ids": tokenized.input_ids,
                "attention_mask": tokenized.attention_mask,
                "reference_tokens": reference_tokens,
            }
        )
        lengths = tokenized.attention_mask.sum(axis=1)
        return [
            Composition(
                vector=outputs["query_vectors"][row],
                input_ids=tokenized.input_ids[row, :length],
                fusion_states=outputs["fusion_states"][row, :length],
                is_truncated=tokenized.truncated[row],
                is_understood=tokenized.understood[row],
            )
            for row, length in enumerate(lengths)
        ]
