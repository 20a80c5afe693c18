"""Answers as JSON: the one form that the command line, explanations and the service write."""

from __future__ import annotations

from dataclasses import asdict

from qdrant_cir.types import Candidate, JsonObject, SearchResult

__all__ = ["candidate_object", "result_object"]


def candidate_object(candidate: Candidate, rank: int | None, *, with_point: bool) -> JsonObject:
    """Return a candidate as JSON.

    Args:
        candidate: of an answer.
        rank: its place there.
        with_point: whether ``id`` is the id of its point, as Qdrant has it, and the id that it was indexed under and
            its source stand beside it. Otherwise ``id`` is the id that it was indexed under, and nothing names a file.
    """
    point_id = candidate.point_id
    names: JsonObject = {"id": candidate.image_id}
    if with_point:
        names = {
            "id": point_id if point_id is None or isinstance(point_id, int) else str(point_id),
            "image_id": candidate.image_id,
            "source": candidate.source,
        }
    return {
        "rank": rank,
        **names,
        "score": candidate.rerank_score,
        "retrieval_score": candidate.retrieval_score,
        "retrieval_rank": candidate.retrieval_rank,
        "group": candidate.group,
        "view": candidate.view,
        "payload": dict(candidate.payload),
    }


def result_object(result: SearchResult) -> JsonObject:
    """Return all of a result but its candidates as JSON."""
    return {
        "rerank_mode": result.rerank_mode,
        "scored": result.scored,
        "precision": result.precision,
        "match_probability": result.match_probability,
        "is_match": result.is_match,
        "timings": dict(asdict(result.timings)),
        "notes": list(result.notes),
    }
