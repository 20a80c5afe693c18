"""Recall at k on the one target that a query was written for, where other images are right too (CIRCO)."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.metric import Answer, Truth

__all__ = ["SingleTargetRecall"]


@dataclass(frozen=True, slots=True)
class SingleTargetRecall:
    """1 where the single target stands among the first ``k``, else 0; other right images do not count."""

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
        """Score one answer. Raises EvaluationError where the truth names no single target."""
        if truth.single_target is None:
            raise EvaluationError(
                f"{self.name} on the single target was asked of a query that has targets, but none of them "
                "is named as the one it was written for. Name it, or take Recall, which any target satisfies."
            )
        return float(truth.single_target in answer.ranking[: self.k])
