"""Intervals for means of means: queries are drawn again with replacement, within their part."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap_means", "interval_of", "number_clusters"]

_LEVEL = 0.95
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the bounds of its 95% percentile interval."""

    value: float
    low: float
    high: float


def number_clusters(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number equal keys alike, from 0: int64 [Q]. Every None is a key of its own."""
    numbers: dict[Hashable, int] = {}
    own = [("none", place) if key is None else key for place, key in enumerate(keys)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in own], dtype=np.int64)


def bootstrap_means(
    parts: Sequence[NDArray[np.float64]], clusters: Sequence[NDArray[np.int64]], *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Draw the clusters of every part again and average: over their queries, then over parts without weights.

    Queries of one cluster, such as those of one reference, succeed and fail together; drawing them one by one
    would make the intervals too narrow. Columns keep together what belongs to a query, so that the difference of two
    columns is a paired one.

    Args:
        parts: float64 [Q, M] for every part, Q of its own.
        clusters: int64 [Q] for every part, as :func:`number_clusters` gives them.
        resamples: how often to draw.
        seed: equal seeds give equal draws.

    Returns:
        float64 [resamples, M].
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, parts[0].shape[1]))
    for values, numbers in zip(parts, clusters, strict=True):
        present = np.unique(numbers, return_inverse=True)[1]
        sizes = np.bincount(present).astype(np.float64)
        sums = np.stack([np.bincount(present, weights=column) for column in values.T], axis=1)
        for start in range(0, resamples, _CHUNK):
            drawn = rng.multinomial(
                len(sizes), np.full(len(sizes), 1 / len(sizes)), size=min(_CHUNK, resamples - start)
            )
            total[start : start + len(drawn)] += (drawn @ sums) / (drawn @ sizes)[:, None]
    return total / len(parts)


def interval_of(value: float, draws: NDArray[np.float64]) -> Interval:
    """Return a value with the interval that its draws, float64 [resamples], span."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
