"""Average precision at k; its mean over queries is mAP@k."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.evaluation.metric import Answer, Truth

__all__ = ["AveragePrecision"]


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """The precision at every place up to ``k`` that holds a target, summed, over ``min(targets, k)``.

    That denominator is CIRCO's (Baldrati et al., ICCV 2023, section 4): a ranking whose first places are all
    targets scores 1 whatever ``k`` is.
    """

    k: int

    @property
    def name(self) -> str:
        """Give ``mAP@k``."""
        return f"mAP@{self.k}"

    @property
    def depth(self) -> int:
        """Give ``k``."""
        return self.k

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer."""
        found = 0
        precisions = 0.0
        for place, image_id in enumerate(answer.ranking[: self.k], start=1):
            if image_id in truth.targets:
                found += 1
                precisions += found / place
        return precisions / min(len(truth.targets), self.k)
