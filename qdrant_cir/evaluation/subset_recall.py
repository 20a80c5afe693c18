"""Recall within a query's own subset: five look-alikes of the reference, ranked among themselves (CIRR)."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.evaluation.metric import Answer, Truth

__all__ = ["SubsetRecall"]


@dataclass(frozen=True, slots=True)
class SubsetRecall:
    """1 where a target stands among the first ``k`` of the subset's own ranking, else 0."""

    k: int

    @property
    def name(self) -> str:
        """Give ``Rsubset@k``."""
        return f"Rsubset@{self.k}"

    @property
    def depth(self) -> int:
        """Give 0: the gallery's ranking is not looked at."""
        return 0

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer."""
        return float(not truth.targets.isdisjoint(answer.subset_ranking[: self.k]))
