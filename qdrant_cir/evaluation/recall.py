"""Recall at k, as composed retrieval uses the word: is a right image among the first k?"""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.evaluation.metric import Answer, Truth

__all__ = ["Recall"]


@dataclass(frozen=True, slots=True)
class Recall:
    """1 where at least one target stands among the first ``k``, else 0.

    With one target per query (FashionIQ, CIRR) this is recall as everyone defines it.
    """

    k: int

    @property
    def name(self) -> str:
        """Give ``R@k``."""
        return f"R@{self.k}"

    @property
    def depth(self) -> int:
        """Give ``k``."""
        return self.k

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer."""
        return float(not truth.targets.isdisjoint(answer.ranking[: self.k]))
