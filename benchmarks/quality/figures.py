"""Numbers with intervals, and the paired difference of two tables of the same queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.evaluation.datasets.custom import METRICS
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of
from qdrant_cir.types import JsonObject

R1, R10, R100 = ([metric.name for metric in METRICS].index(name) for name in ("R@1", "R@10", "R@100"))
"""Columns of a table."""

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric of two rankings of the same queries, in percent; ``gain`` is paired."""

    name: str
    before: Interval
    after: Interval
    gain: Interval


def compare(
    before: NDArray[np.float64], after: NDArray[np.float64], clusters: NDArray[np.int64]
) -> tuple[Compared, ...]:
    """Compare two tables float64 [Q, M] of the same queries, one by one.

    Intervals are 95%, by a bootstrap that draws queries of one cluster, int64 [Q], together.
    """
    table = np.hstack((before, after, after - before))
    draws = bootstrap_means([table], [clusters], resamples=_RESAMPLES, seed=_SEED)
    found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
    count = len(METRICS)
    return tuple(
        Compared(metric.name, found[place], found[count + place], found[2 * count + place])
        for place, metric in enumerate(METRICS)
    )


def intervals(table: NDArray[np.float64], clusters: NDArray[np.int64]) -> tuple[Interval, ...]:
    """Return every column's mean with its interval."""
    return tuple(compared.before for compared in compare(table, table, clusters))


def in_words(interval: Interval) -> str:
    """Write ``61.5 [59.3, 63.7]``."""
    return f"{interval.value:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def gain_in_words(interval: Interval) -> str:
    """Write ``+20.5 [+18.3, +22.7]``."""
    return f"{interval.value:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


def interval_json(interval: Interval) -> JsonObject:
    """Return an interval as JSON."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}
