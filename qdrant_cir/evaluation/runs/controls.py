"""Controls: the same queries with one half taken away, by stage one alone over the same gallery.

They show what a model finds without reading the text, or without seeing the picture. Where a control finds much, the
data set can be answered with half of its queries, and its numbers say little about composed retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, EvaluationQuery, PartTruth
from qdrant_cir.evaluation.metrics import Answer, Metric
from qdrant_cir.evaluation.runs.answering import complete_run, queries_sha256
from qdrant_cir.evaluation.runs.rankings import answer_retrieved
from qdrant_cir.evaluation.runs.run_file import RunHeader
from qdrant_cir.evaluation.runs.scoring import QueryScores, score_answers
from qdrant_cir.retriever import Retriever

__all__ = ["CONTROLS", "Control", "ControlScores", "run_controls"]

Control: TypeAlias = Literal["image-only", "text-only"]

CONTROLS: tuple[Control, ...] = ("image-only", "text-only")
"""``image-only``: the reference's own vector is searched, and the reference left out of the answer, where it would
always come first. ``text-only``: the text is composed with a blank picture."""


@dataclass(frozen=True, slots=True)
class ControlScores:
    """A control's name and its scores."""

    control: Control
    scores: QueryScores


def run_controls(
    retriever: Retriever,
    part: EvaluationPart,
    truth: PartTruth,
    query_ids: Sequence[str],
    *,
    metrics: Sequence[Metric],
    folder: Path,
    header: RunHeader,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ControlScores, ...]:
    """Run and score both controls of a part.

    Args:
        retriever: over the part's gallery.
        part: whose queries are taken.
        truth: their right answers.
        query_ids: the queries that are scored; one that has no half left, such as a query without text in the text-only
            control, counts as a miss.
        metrics: none that reads subsets.
        folder: where the runs are kept.
        header: of the part's own run.
        progress: as of :func:`complete_run`.

    Raises:
        EvaluationError: a run is of something else or damaged.
        CirError: as :meth:`Retriever.search_many`.
    """
    scored = set(query_ids)
    found = []
    for control in CONTROLS:
        halved = _halve(part, control)
        records = complete_run(
            retriever,
            [query for query in halved.queries if query.query_id in scored and _can_be_asked(query)],
            path=folder / f"{header.split}_{halved.name}.jsonl",
            header=_header(header, halved, depth=max(metric.depth for metric in metrics)),
            progress=progress,
        )
        answers = dict.fromkeys(query_ids, Answer(()))
        answers |= {query_id: answer_retrieved(record) for query_id, record in records.items()}
        found.append(ControlScores(control, score_answers(answers, truth, metrics, query_ids)))
    return tuple(found)


def _halve(part: EvaluationPart, control: Control) -> EvaluationPart:
    """Take the text, or the reference, from every query of a part."""
    is_image_only = control == "image-only"
    queries = tuple(
        replace(query, modification_text="", subset=()) if is_image_only else replace(query, reference=None, subset=())
        for query in part.queries
    )
    return EvaluationPart(f"{part.name}_{control}", queries, part.gallery, is_image_only or part.excludes_reference)


def _can_be_asked(query: EvaluationQuery) -> bool:
    return query.reference is not None or bool(query.modification_text.strip())


def _header(header: RunHeader, halved: EvaluationPart, *, depth: int) -> RunHeader:
    return replace(
        header,
        part=halved.name,
        limit=depth,
        rerank_depth=0,
        excludes_reference=halved.excludes_reference,
        queries_sha256=queries_sha256(halved),
    )
