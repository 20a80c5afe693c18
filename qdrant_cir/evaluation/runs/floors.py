"""Queries with one half taken away: what a model finds without reading the text, or without seeing the picture.

A benchmark of composed retrieval is worth something only where these find little. They are run through the same
retriever over the same gallery, stage one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, PartTruth
from qdrant_cir.evaluation.metrics import Metric, Recall
from qdrant_cir.evaluation.runs.answering import complete_run, queries_sha256
from qdrant_cir.evaluation.runs.rankings import answer_retrieved
from qdrant_cir.evaluation.runs.run_file import RunHeader
from qdrant_cir.evaluation.runs.scoring import QueryScores, score_answers
from qdrant_cir.retriever import Retriever

__all__ = ["FLOORS", "FLOOR_METRICS", "Floor", "FloorScores", "run_floors"]

Floor: TypeAlias = Literal["image-only", "text-only"]

FLOORS: tuple[Floor, ...] = ("image-only", "text-only")
"""``image-only``: the reference's own vector is searched, and the reference left out of the answer, where it would
always come first. ``text-only``: the text is composed with a blank picture."""

FLOOR_METRICS: tuple[Metric, ...] = (Recall(1), Recall(10), Recall(100))


@dataclass(frozen=True, slots=True)
class FloorScores:
    """One floor and what its queries scored."""

    floor: Floor
    scores: QueryScores


def run_floors(
    retriever: Retriever,
    part: EvaluationPart,
    truth: PartTruth,
    query_ids: Sequence[str],
    *,
    folder: Path,
    header: RunHeader,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[FloorScores, ...]:
    """Run and score both floors of a part.

    Args:
        retriever: over the part's gallery.
        part: whose queries are taken.
        truth: their right answers.
        query_ids: the queries that are scored.
        folder: where the runs are kept.
        header: of the part's own run.
        progress: as of :func:`complete_run`.

    Raises:
        EvaluationError: a run is of something else or damaged.
        CirError: as :meth:`Retriever.search_many`.
    """
    asked = set(query_ids)
    found = []
    for floor in FLOORS:
        halved = _halve(part, floor)
        records = complete_run(
            retriever,
            [query for query in halved.queries if query.query_id in asked],
            path=folder / f"{header.split}_{halved.name}.jsonl",
            header=_header(header, halved),
            progress=progress,
        )
        answers = {query_id: answer_retrieved(record) for query_id, record in records.items()}
        found.append(FloorScores(floor, score_answers(answers, truth, FLOOR_METRICS, query_ids)))
    return tuple(found)


def _halve(part: EvaluationPart, floor: Floor) -> EvaluationPart:
    """Take the text, or the reference, from every query of a part."""
    is_image_only = floor == "image-only"
    queries = tuple(
        replace(query, modification_text="", subset=()) if is_image_only else replace(query, reference=None, subset=())
        for query in part.queries
    )
    return EvaluationPart(f"{part.name}_{floor}", queries, part.gallery, is_image_only or part.excludes_reference)


def _header(header: RunHeader, halved: EvaluationPart) -> RunHeader:
    return replace(
        header,
        part=halved.name,
        limit=max(metric.depth for metric in FLOOR_METRICS),
        rerank_depth=0,
        excludes_reference=halved.excludes_reference,
        queries_sha256=queries_sha256(halved),
    )
