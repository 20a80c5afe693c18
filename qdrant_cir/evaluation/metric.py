"""What a metric reads and gives. Each metric has a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Answer", "Metric", "Truth"]


@dataclass(frozen=True, slots=True)
class Truth:
    """The right answers of one query.

    Attributes:
        targets: image ids; any of them is right.
        single_target: the one that the modification text was written for, where the data set says so.
    """

    targets: frozenset[str]
    single_target: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one stage answered to one query: image ids, best first, none twice.

    Attributes:
        ranking: of the gallery.
        subset_ranking: of the query's subset; empty where it has none.
    """

    ranking: tuple[str, ...]
    subset_ranking: tuple[str, ...] = ()


class Metric(Protocol):
    """A number from 0 to 1 for one query; its mean over queries is what is reported."""

    @property
    def name(self) -> str:
        """Give the name as papers print it, such as ``R@10``."""
        ...

    @property
    def depth(self) -> int:
        """Tell how many places of the gallery's ranking are looked at; 0 for none."""
        ...

    def score(self, answer: Answer, truth: Truth) -> float:
        """Score one answer; higher is better."""
        ...
