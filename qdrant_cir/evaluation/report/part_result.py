"""The answers to a part's queries, scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart
from qdrant_cir.evaluation.metrics import Metric, Recall, Truth
from qdrant_cir.evaluation.report.affected import AffectedQuery
from qdrant_cir.evaluation.report.losses import TargetPlaces
from qdrant_cir.evaluation.runs.controls import ControlScores
from qdrant_cir.evaluation.runs.galleries import PartGallery
from qdrant_cir.evaluation.runs.rankings import QueryRecord, answer_reranked, answer_retrieved
from qdrant_cir.evaluation.runs.scoring import QueryScores, best_place, score_answers

__all__ = ["PartResult", "judge_part"]


@dataclass(frozen=True, slots=True)
class PartResult:
    """The scored run of a part.

    Attributes:
        part: with its queries.
        gallery: that was searched.
        affected: queries that are not scored because of missing images.
        records: every answer, in the part's order.
        rerank_depth: candidates that stage two scored; 0 for none.
        retrieved: stage one's scores of every other query; None where answers are not published.
        final: the scores after stage two, the same queries and metrics; equal to ``retrieved`` where it did
            not run.
        ceiling: recall of that target by stage one at ``rerank_depth``, as ``retrieved``; None where stage
            two did not run.
        places: of every scored query's target, in the order of the scores: the single one where the data set
            names one, else the best.
        controls: the same queries with one half taken away; empty where they were not run.
    """

    part: EvaluationPart
    gallery: PartGallery
    affected: tuple[AffectedQuery, ...]
    records: Mapping[str, QueryRecord]
    rerank_depth: int
    retrieved: QueryScores | None
    final: QueryScores | None
    ceiling: QueryScores | None
    places: tuple[TargetPlaces, ...]
    controls: tuple[ControlScores, ...] = ()


def judge_part(
    benchmark: Benchmark,
    part: EvaluationPart,
    *,
    gallery: PartGallery,
    affected: Sequence[AffectedQuery],
    records: Mapping[str, QueryRecord],
    rerank_depth: int,
) -> PartResult:
    """Score the answers to a part's queries, except those that missing images affect.

    Raises:
        EvaluationError: a query that can be run has no answer, or no query is left to score.
    """
    truth = benchmark.truth_of(part)
    if not truth:
        return PartResult(part, gallery, tuple(affected), records, rerank_depth, None, None, None, ())
    left_out = {query.query_id for query in affected}
    query_ids = [query.query_id for query in part.queries if query.query_id not in left_out]
    retrieved = {query_id: answer_retrieved(record) for query_id, record in records.items()}
    final = {query_id: answer_reranked(record) for query_id, record in records.items()}
    metrics: Sequence[Metric] = benchmark.metrics
    goals = {query_id: Truth(_goal(truth[query_id])) for query_id in query_ids}
    return PartResult(
        part=part,
        gallery=gallery,
        affected=tuple(affected),
        records=records,
        rerank_depth=rerank_depth,
        retrieved=score_answers(retrieved, truth, metrics, query_ids),
        final=score_answers(final, truth, metrics, query_ids),
        ceiling=score_answers(retrieved, goals, [Recall(rerank_depth)], query_ids) if rerank_depth else None,
        places=tuple(
            TargetPlaces(
                query_id,
                best_place(retrieved[query_id].ranking, goals[query_id].targets),
                best_place(final[query_id].ranking, goals[query_id].targets),
            )
            for query_id in query_ids
        ),
    )


def _goal(truth: Truth) -> frozenset[str]:
    return truth.targets if truth.single_target is None else frozenset({truth.single_target})
