"""From the scores of held-out queries to the leads at which re-ranking may stop.

The bound is conformal risk control (Angelopoulos and others, *Conformal Risk Control*, ICLR 2024): the loss of a
query is the share of its exact first ``limit`` places that were not scored, which can only fall when stopping
later. For Q queries the lead is the smallest with ``(Q * mean loss + 1) / (Q + 1) <= 1 - confidence``; the
expected loss of a further query of the same kind is then at most ``1 - confidence``, whatever the scores'
distribution. No right answers are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nextafter

from qdrant_cir.errors import InputError
from qdrant_cir.search.effort import EffortCalibration, LeadBound, lead_of

__all__ = ["CONFIDENCES", "STEP", "calibrate_effort"]

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995)
LIMITS = (1, 2, 3, 5, 10, 20, 50, 100)
STEP = 10
"""Candidates between two decisions."""
_LEAST_QUERIES = 20


@dataclass(frozen=True, slots=True)
class _StoppedQuery:
    """Leads after each step but the last, highest so far, and the loss of stopping there."""

    leads: tuple[float, ...]
    losses: tuple[float, ...]

    def loss(self, lead: float) -> float:
        return next((loss for found, loss in zip(self.leads, self.losses, strict=True) if found >= lead), 0.0)


def calibrate_effort(
    scores: Sequence[Sequence[float]], *, fingerprint: str, rerank_depth: int, step: int = STEP
) -> EffortCalibration:
    """Find the leads to stop at.

    Args:
        scores: for every query the re-ranker's scores of its candidates, in stage one's order.
        fingerprint: of the bundle that made them.
        rerank_depth: candidates asked for; a smaller gallery has fewer.
        step: candidates between two decisions.

    Raises:
        InputError: there are fewer than 20 queries, or ``step`` is below 1.
    """
    if len(scores) < _LEAST_QUERIES:
        raise InputError(f"There are {len(scores)} queries; a calibration needs at least {_LEAST_QUERIES}.")
    if step < 1:
        raise InputError(f"step is {step}; it must be at least 1.")
    bounds = []
    for limit in sorted({limit for limit in LIMITS if limit < rerank_depth} | {rerank_depth}):
        stopped = [_stopped(row, limit, step) for row in scores]
        bounds += [LeadBound(limit, confidence, _least_lead(stopped, confidence)) for confidence in CONFIDENCES]
    return EffortCalibration(fingerprint, rerank_depth, step, len(scores), tuple(bounds))


def _stopped(scores: Sequence[float], limit: int, step: int) -> _StoppedQuery:
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:limit]
    steps = [scores[start : start + step] for start in range(0, len(scores), step)]
    highest, leads, losses = -inf, [], []
    for count in range(1, len(steps)):
        highest = max(highest, lead_of(steps[:count], limit=limit))
        leads.append(highest)
        losses.append(sum(place >= count * step for place in order) / len(order))
    return _StoppedQuery(tuple(leads), tuple(losses))


def _least_lead(stopped: Sequence[_StoppedQuery], confidence: float) -> float:
    """Return the smallest lead whose risk is small enough; ``inf`` where none is."""

    def is_safe(lead: float) -> bool:
        total = sum(query.loss(lead) for query in stopped)
        return (total + 1) / (len(stopped) + 1) <= 1 - confidence

    candidates = sorted({lead for query in stopped for lead in query.leads if isfinite(lead)})
    if candidates:
        candidates.append(nextafter(candidates[-1], inf))
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if is_safe(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else inf
