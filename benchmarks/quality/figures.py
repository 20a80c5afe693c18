"""Numbers with intervals: what rankings score, and by how much one ranking is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.catalogue import HeldOutQuery
from qdrant_cir.evaluation.metrics import Answer, AveragePrecision, Metric, Recall, Truth
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of, number_clusters
from qdrant_cir.types import Int64, JsonObject

METRICS: tuple[Metric, ...] = (Recall(1), Recall(5), Recall(10), Recall(50), Recall(100), AveragePrecision(10))
R1, R10, R100 = 0, 2, 4
"""Columns of :func:`score_rankings`."""

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric of two rankings of the same queries, in points out of 100; ``gain`` is paired."""

    name: str
    before: Interval
    after: Interval
    gain: Interval


def score_rankings(rankings: Int64, queries: Sequence[HeldOutQuery]) -> NDArray[np.float64]:
    """Score every query's ranking.

    Args:
        rankings: int64 [Q, n], gallery rows, best first.
        queries: Q of them.

    Returns:
        float64 [Q, M] from 0 to 100, a column per metric of ``METRICS``.
    """
    table = np.empty((len(queries), len(METRICS)))
    for place, query in enumerate(queries):
        answer = Answer(tuple(map(str, rankings[place].tolist())))
        truth = Truth(frozenset(map(str, query.targets)))
        table[place] = [100 * metric.score(answer, truth) for metric in METRICS]
    return table


def compare(
    before: NDArray[np.float64], after: NDArray[np.float64], queries: Sequence[HeldOutQuery]
) -> tuple[Compared, ...]:
    """Compare two tables of :func:`score_rankings` of the same queries, one by one.

    Intervals are 95%, by a bootstrap that draws queries of one reference together.
    """
    table = np.hstack((before, after, after - before))
    clusters = number_clusters([query.reference for query in queries])
    draws = bootstrap_means([table], [clusters], resamples=_RESAMPLES, seed=_SEED)
    found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
    count = len(METRICS)
    return tuple(
        Compared(metric.name, found[place], found[count + place], found[2 * count + place])
        for place, metric in enumerate(METRICS)
    )


def intervals(table: NDArray[np.float64], queries: Sequence[HeldOutQuery]) -> tuple[Interval, ...]:
    """Give every column's mean with its interval."""
    return tuple(compared.before for compared in compare(table, table, queries))


def in_words(interval: Interval) -> str:
    """Write ``61.5 [59.3, 63.7]``."""
    return f"{interval.value:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def gain_in_words(interval: Interval) -> str:
    """Write ``+20.5 [+18.3, +22.7]``."""
    return f"{interval.value:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


def interval_json(interval: Interval) -> JsonObject:
    """Give an interval as JSON."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}
