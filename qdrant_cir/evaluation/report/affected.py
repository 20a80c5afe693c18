"""Queries that lack their reference, a target or a subset member: they are named, and not scored."""

from __future__ import annotations

from collections.abc import Collection as Container
from dataclasses import dataclass

from qdrant_cir.errors import ImageError
from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, EvaluationQuery, PartTruth
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.types import GalleryImage

__all__ = ["AffectedQuery", "find_affected"]


@dataclass(frozen=True, slots=True)
class AffectedQuery:
    """A query that is not scored, and why.

    Attributes:
        query_id: of the query.
        reason: a sentence that names the images.
        can_run: whether it is run nevertheless, because its reference is there.
    """

    query_id: str
    reason: str
    can_run: bool


def find_affected(part: EvaluationPart, truth: PartTruth, present: Container[str]) -> tuple[AffectedQuery, ...]:
    """Find the queries whose reference, targets or subset members are not all there.

    Args:
        part: with its queries.
        truth: of the part.
        present: image ids that the gallery holds.

    Returns:
        In the part's order. Queries that only lack other images are not among them.
    """
    found = []
    for query in part.queries:
        reasons = []
        has_reference = _has_reference(query, present)
        if not has_reference:
            reasons.append(f"the reference {_reference_name(query)} is missing or unreadable")
        targets = truth[query.query_id].targets if query.query_id in truth else frozenset()
        for what, image_ids in (("target", sorted(targets)), ("subset member", query.subset)):
            lost = [image_id for image_id in image_ids if image_id not in present]
            if lost:
                reasons.append(f"{len(lost)} of {len(image_ids)} {what}s missing: {', '.join(lost)}")
        if reasons:
            found.append(AffectedQuery(query.query_id, "; ".join(reasons), has_reference))
    return tuple(found)


def _has_reference(query: EvaluationQuery, present: Container[str]) -> bool:
    if query.reference is None:
        return True
    if isinstance(query.reference, GalleryImage):
        return str(query.reference.image_id) in present
    try:
        load_image(query.reference)
    except ImageError:
        return False
    return True


def _reference_name(query: EvaluationQuery) -> str:
    if isinstance(query.reference, GalleryImage):
        return str(query.reference.image_id)
    return str(query.reference)
