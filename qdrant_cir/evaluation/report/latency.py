"""The time that the steps of queries took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from qdrant_cir.types import Timings

__all__ = ["StepLatency", "summarize_latency"]


@dataclass(frozen=True, slots=True)
class StepLatency:
    """Milliseconds per query of one step; ``p95`` is exceeded by one query in twenty."""

    step: str
    mean_ms: float
    p50_ms: float
    p95_ms: float


def summarize_latency(timings: Sequence[Timings]) -> tuple[StepLatency, ...]:
    """Sum up the steps in the order of a query, the total last; empty without queries."""
    if not timings:
        return ()
    summary = []
    for field in fields(Timings):
        milliseconds = 1000 * np.array([getattr(timing, field.name) for timing in timings])
        p50, p95 = np.quantile(milliseconds, [0.5, 0.95])
        summary.append(StepLatency(field.name, float(milliseconds.mean()), float(p50), float(p95)))
    return tuple(summary)
