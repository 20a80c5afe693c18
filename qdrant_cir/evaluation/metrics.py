"""Metrics: numbers from 0 to 1 for one query, whose means over queries are reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from qdrant_cir.errors import EvaluationError

__all__ = ["Answer", "AveragePrecision", "Metric", "Recall", "RecallOf", "Truth"]

RecallOf: TypeAlias = Literal["any", "single", "subset"]
"""``any`` target in the gallery's ranking; the ``single`` target that the query was written for (CIRCO); or any target
in the ranking of the query's own ``subset`` (CIRR)."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The right answers of one query.

    Attributes:
        targets: image ids; any of them is right.
        single_target: the one that the modification text was written for, where the data set names it.
    """

    targets: frozenset[str]
    single_target: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One stage's answer to one query: image ids, best first, none twice.

    Attributes:
        ranking: of the gallery.
        subset_ranking: of the query's subset; empty where it has none.
    """

    ranking: tuple[str, ...]
    subset_ranking: tuple[str, ...] = ()


class Metric(Protocol):
    """A number from 0 to 1 for one query; higher is better."""

    @property
    def name(self) -> str:
        """The name as papers print it, such as ``R@10``."""
        ...

    @property
    def depth(self) -> int:
        """The number of places of the gallery's ranking that are read; 0 for none."""
        ...

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer."""
        ...


@dataclass(frozen=True, slots=True)
class Recall:
    """1 where a target is among the first ``k``, else 0.

    With one target per query (FashionIQ, CIRR) this is the usual recall.

    Attributes:
        k: the cut-off.
        of: which target counts, in which ranking.
    """

    k: int
    of: RecallOf = "any"

    @property
    def name(self) -> str:
        """``R@k``, or ``Rsubset@k``."""
        return f"Rsubset@{self.k}" if self.of == "subset" else f"R@{self.k}"

    @property
    def depth(self) -> int:
        """``k``; 0 for a subset, which reads nothing of the gallery's ranking."""
        return 0 if self.of == "subset" else self.k

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer. Raises EvaluationError where the single target is asked for and the truth has none."""
        if self.of == "subset":
            return float(not truth.targets.isdisjoint(answer.subset_ranking[: self.k]))
        if self.of == "any":
            return float(not truth.targets.isdisjoint(answer.ranking[: self.k]))
        if truth.single_target is None:
            raise EvaluationError(
                f"{self.name} of the single target was asked of a query that has targets, but none of them is named as "
                "the one it was written for. Name it, or use Recall(k), which any target satisfies."
            )
        return float(truth.single_target in answer.ranking[: self.k])


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """The precision at every place up to ``k`` that holds a target, summed, over ``min(targets, k)``.

    The denominator is CIRCO's (Baldrati et al., ICCV 2023, section 4): a ranking that begins with targets alone scores
    1 whatever ``k`` is. The mean over queries is mAP@k.
    """

    k: int

    @property
    def name(self) -> str:
        """``mAP@k``."""
        return f"mAP@{self.k}"

    @property
    def depth(self) -> int:
        """``k``."""
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
