"""Where a query is lost: stage one did not return its target, or stage two put it too low."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Losses", "TargetPlaces", "count_losses"]


@dataclass(frozen=True, slots=True)
class TargetPlaces:
    """Where the target of one query stands, from 1; None where it is not in the ranking.

    Attributes:
        query_id: of the query.
        retrieved: after stage one.
        final: after stage two.
    """

    query_id: str
    retrieved: int | None
    final: int | None


@dataclass(frozen=True, slots=True)
class Losses:
    """What became of queries at one cut-off; the three counts add up to the queries.

    Attributes:
        k: the cut-off.
        found: a target is among the final first k.
        candidate_misses: none is, and none was among the candidates that stage two saw; it could not have
            helped.
        ordering_losses: none is, though one was among the candidates.
    """

    k: int
    found: int
    candidate_misses: int
    ordering_losses: int


def count_losses(places: Iterable[TargetPlaces], *, k: int, rerank_depth: int) -> Losses:
    """Count found and lost queries at a cut-off.

    Args:
        places: of the queries.
        k: the cut-off.
        rerank_depth: how many candidates stage two saw, at least 1.
    """
    found = misses = losses = 0
    for place in places:
        if place.final is not None and place.final <= k:
            found += 1
        elif place.retrieved is None or place.retrieved > rerank_depth:
            misses += 1
        else:
            losses += 1
    return Losses(k, found, misses, losses)
