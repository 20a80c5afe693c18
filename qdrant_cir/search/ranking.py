"""The order of an answer: the one place where results are sorted and numbered. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from qdrant_cir.errors import TokensError
from qdrant_cir.storage.points import GalleryHit
from qdrant_cir.types import Candidate, PointId

__all__ = ["final_order", "rank_candidates", "rank_groups", "rank_hits", "retrieval_order"]

Key = TypeVar("Key", bound=Hashable)


def retrieval_order(scores: Mapping[str, float]) -> list[str]:
    """Return image ids in stage one's order: by falling score, equal scores by id, so that every store agrees."""
    return sorted(scores, key=lambda image_id: (-scores[image_id], image_id))


def final_order(retrieved: Sequence[Key], scores: Mapping[Key, float]) -> list[Key]:
    """Return the final order of what stage one found.

    Args:
        retrieved: in stage one's order, each once.
        scores: the re-ranker's, higher is better; what was not re-ranked has none.

    Returns:
        The re-ranked by falling score, equal scores in stage one's order; then all others in stage one's order.
    """
    # sorted() is stable, so equal scores keep stage one's order
    reranked = sorted((key for key in retrieved if key in scores), key=lambda key: -scores[key])
    return [*reranked, *(key for key in retrieved if key not in scores)]


def rank_hits(hits: Iterable[GalleryHit]) -> list[GalleryHit]:
    """Return hits in stage one's order."""
    by_id = {hit.image_id: hit for hit in hits}
    return [by_id[image_id] for image_id in retrieval_order({hit.image_id: hit.score for hit in by_id.values()})]


def rank_groups(groups: Iterable[list[GalleryHit]]) -> list[list[GalleryHit]]:
    """Return groups in stage one's order, by their best members; groups that share theirs go by their values."""
    # every store cuts and lists groups of equal scores in its own way
    return sorted(groups, key=lambda hits: (-hits[0].score, hits[0].image_id, str(hits[0].group)))


def rank_candidates(
    places: Sequence[Sequence[GalleryHit]], scores: Mapping[PointId, float], views: Mapping[PointId, str]
) -> tuple[Candidate, ...]:
    """Return the candidates of an answer in their final order, one per place of stage one.

    Args:
        places: in stage one's order, each a hit by itself or the members of a group, of which the best one counts.
        scores: the re-ranker's, by point id; hits that were not re-ranked have none.
        views: which of a point's pictures scored best, of points that have several.

    Raises:
        TokensError: a score is not a number.
    """
    for hits in places:
        for hit in hits:
            if not math.isfinite(scores.get(hit.point_id, 0.0)):
                raise TokensError(
                    f"The re-ranker scored the image {hit.image_id!r} with {scores[hit.point_id]}, which cannot be "
                    "ordered. Its stored tokens are damaged, or the bundle is; index the image again."
                )
    best = [final_order([hit.point_id for hit in hits], scores)[0] for hits in places]
    chosen = [
        next(hit for hit in hits if hit.point_id == point_id) for hits, point_id in zip(places, best, strict=True)
    ]
    by_place = {place: scores[hit.point_id] for place, hit in enumerate(chosen) if hit.point_id in scores}
    return tuple(
        Candidate(
            image_id=chosen[place].image_id,
            payload=chosen[place].image.payload,
            source=chosen[place].image.source,
            retrieval_score=chosen[place].score,
            retrieval_rank=place + 1,
            rerank_score=by_place.get(place),
            rerank_rank=rank if place in by_place else None,
            point_id=_public_id(chosen[place].point_id),
            point=chosen[place].point,
            group=chosen[place].group,
            view=views.get(chosen[place].point_id),
        )
        for rank, place in enumerate(final_order(range(len(chosen)), by_place), start=1)
    )


def _public_id(point_id: PointId) -> PointId | None:
    """Return a point's id; None for a picture of the caller's, which has a negative number while it is ranked."""
    return None if isinstance(point_id, int) and point_id < 0 else point_id
