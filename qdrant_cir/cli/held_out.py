"""Scores that a calibration learns from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qdrant_cir.evaluation.datasets.annotation_files import read_json_lines
from qdrant_cir.gallery import Gallery
from qdrant_cir.types import GalleryImage

__all__ = ["scores_of_queries"]


def scores_of_queries(
    queries: Path,
    gallery: Gallery,
    *,
    rerank_depth: int,
    exclude_reference: bool,
    progress: Callable[[int, int], None],
) -> list[list[float]]:
    """Re-rank every query of a file to the full depth; return its scores in stage one's order.

    Raises:
        CirError: as :meth:`Gallery.search`; InputError for a file that cannot be read.
    """
    entries = read_json_lines(queries)
    scores: list[list[float]] = []
    for entry in entries:
        given = entry.text("reference")
        picture = queries.parent / given
        result = gallery.search(
            picture if picture.is_file() else GalleryImage(given),
            entry.text("modification_text"),
            limit=max(1, rerank_depth),
            rerank_depth=rerank_depth,
            exclude_reference=exclude_reference,
        )
        ordered = sorted(result.candidates, key=lambda candidate: candidate.retrieval_rank)
        scores.append([c.rerank_score for c in ordered if c.rerank_score is not None])
        progress(len(scores), len(entries))
    return scores
