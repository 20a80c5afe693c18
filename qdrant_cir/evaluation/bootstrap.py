"""Intervals for means of means: queries are drawn again with replacement, within their part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap_means", "interval_of"]

_LEVEL = 0.95
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the bounds of its 95% percentile interval."""

    value: float
    low: float
    high: float


def bootstrap_means(parts: Sequence[NDArray[np.float64]], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw the queries of every part again and average: over queries, then over parts without weights.

    Columns keep together what belongs to a query, so that the difference of two columns is a paired one.

    Args:
        parts: float64 [Q, M] for every part, Q of its own.
        resamples: how often to draw.
        seed: equal seeds give equal draws.

    Returns:
        float64 [resamples, M].
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, parts[0].shape[1]))
    for values in parts:
        queries = len(values)
        for start in range(0, resamples, _CHUNK):
            size = min(_CHUNK, resamples - start)
            counts = rng.multinomial(queries, np.full(queries, 1 / queries), size=size)
            total[start : start + size] += counts @ values / queries
    return total / len(parts)


def interval_of(value: float, draws: NDArray[np.float64]) -> Interval:
    """Give a value the interval that its draws, float64 [resamples], span."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
