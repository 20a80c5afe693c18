"""Scores per query: every metric, over exactly the queries that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.datasets.benchmark import PartTruth
from qdrant_cir.evaluation.metrics import Answer, Metric
from qdrant_cir.evaluation.runs.rankings import check_query_ids, check_rankings

__all__ = ["QueryScores", "score_answers", "score_rankings"]


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Scores of Q queries by M metrics.

    Attributes:
        query_ids: Q, in the order they were given.
        metric_names: M.
        values: float64 [Q, M], from 0 to 1.
    """

    query_ids: tuple[str, ...]
    metric_names: tuple[str, ...]
    values: NDArray[np.float64]

    def mean(self, metric_name: str) -> float:
        """Return the mean of one metric over the queries, from 0 to 1."""
        return float(self.values[:, self.metric_names.index(metric_name)].mean())


def score_answers(
    answers: Mapping[str, Answer], truth: PartTruth, metrics: Sequence[Metric], query_ids: Sequence[str]
) -> QueryScores:
    """Score the answers to queries.

    Args:
        answers: by query id; those of other queries are ignored.
        truth: right answers by query id.
        metrics: what to compute.
        query_ids: the queries to score.

    Raises:
        EvaluationError: there are no queries, or one has no answer or no truth.
    """
    if not query_ids:
        raise EvaluationError("There are no queries to score. Check which images are missing.")
    check_query_ids([query_id for query_id in query_ids if query_id in answers], query_ids)
    unjudged = [query_id for query_id in query_ids if query_id not in truth]
    if unjudged:
        raise EvaluationError(
            f"{len(unjudged)} of {len(query_ids)} queries have no right answer to score against "
            f"({unjudged[0]}, ...). Score the split whose answers are published."
        )
    values = [[metric.score(answers[name], truth[name]) for metric in metrics] for name in query_ids]
    return QueryScores(
        query_ids=tuple(query_ids),
        metric_names=tuple(metric.name for metric in metrics),
        values=np.array(values, dtype=np.float64).reshape(len(query_ids), len(metrics)),
    )


def score_rankings(rankings: Mapping[str, Sequence[str]], truth: PartTruth, metrics: Sequence[Metric]) -> QueryScores:
    """Score rankings from anywhere: a submission file, another system.

    Args:
        rankings: image ids, best first, by query id; one for every query that has a right answer.
        truth: right answers by query id.
        metrics: what to compute; none that reads subsets.

    Raises:
        EvaluationError: a query is missing, unknown or has an empty ranking, or an image comes twice.
    """
    check_rankings(rankings, truth)
    answers = {query_id: Answer(tuple(ranking)) for query_id, ranking in rankings.items()}
    return score_answers(answers, truth, metrics, list(truth))


def best_place(ranking: Sequence[str], targets: frozenset[str]) -> int | None:
    """Return the place of the first target, from 1; None where there is none."""
    return next((place for place, image_id in enumerate(ranking, start=1) if image_id in targets), None)
