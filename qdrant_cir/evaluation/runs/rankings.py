"""The scores of both stages for a query, and the order that follows from them.

The order depends on the scores alone, never on the order in which they were written: stage one by falling score, equal
scores by image id; stage two by falling score, equal scores in stage one's order, then everything that was not
re-ranked, in stage one's order. That is the rule of :class:`qdrant_cir.Retriever`. It does not depend on targets, so it
breaks ties neither for nor against them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.metrics import Answer
from qdrant_cir.search.ranking import final_order, retrieval_order
from qdrant_cir.types import SearchResult, Timings

__all__ = [
    "QueryRecord",
    "ScoredImage",
    "StageScores",
    "answer_reranked",
    "answer_retrieved",
    "check_ranking",
    "rank_by_score",
    "record_of",
]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """An image and its score, higher is better."""

    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class StageScores:
    """The scores of both stages over one list of images, in any order.

    Attributes:
        retrieved: every image that stage one returned.
        reranked: those of them that stage two scored; empty where it did not run.
    """

    retrieved: tuple[ScoredImage, ...]
    reranked: tuple[ScoredImage, ...]

    def retrieved_order(self) -> tuple[str, ...]:
        """Return stage one's ranking."""
        return rank_by_score(self.retrieved)

    def reranked_order(self) -> tuple[str, ...]:
        """Return the final ranking."""
        scores = {image.image_id: image.score for image in self.reranked}
        return tuple(final_order(self.retrieved_order(), scores))


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One line of a run.

    Attributes:
        query_id: unique in the run.
        gallery: scores of the gallery's best.
        subset: scores of all images of the query's subset; None where it has none.
        timings: of the gallery's search.
        notes: the retriever's.
    """

    query_id: str
    gallery: StageScores
    subset: StageScores | None
    timings: Timings
    notes: tuple[str, ...]


def rank_by_score(images: Iterable[ScoredImage]) -> tuple[str, ...]:
    """Return image ids in stage one's order."""
    return tuple(retrieval_order({image.image_id: image.score for image in images}))


def answer_retrieved(record: QueryRecord) -> Answer:
    """Return stage one's answer."""
    return Answer(
        ranking=record.gallery.retrieved_order(),
        subset_ranking=() if record.subset is None else record.subset.retrieved_order(),
    )


def answer_reranked(record: QueryRecord) -> Answer:
    """Return the final answer."""
    return Answer(
        ranking=record.gallery.reranked_order(),
        subset_ranking=() if record.subset is None else record.subset.reranked_order(),
    )


def record_of(query_id: str, result: SearchResult, subset: SearchResult | None) -> QueryRecord:
    """Return a run's line for the retriever's answer.

    Args:
        query_id: of the query.
        result: searched with a limit of at least the re-rank depth, so that stage one's ranking is whole.
        subset: the answer over the query's subset, None where it has none.

    Raises:
        EvaluationError: a score is not a number or an image comes twice.
    """
    record = QueryRecord(
        query_id=query_id,
        gallery=_scores_of(result),
        subset=None if subset is None else _scores_of(subset),
        timings=result.timings,
        notes=result.notes,
    )
    check_record(record)
    return record


def check_record(record: QueryRecord) -> None:
    """Refuse scores that give no order.

    Raises:
        EvaluationError: a score is not a number, an image comes twice, or stage two scored what stage one
            had not found.
    """
    for scores in (record.gallery, record.subset):
        if scores is None:
            continue
        for stage in (scores.retrieved, scores.reranked):
            check_ranking(record.query_id, [image.image_id for image in stage])
            for image in stage:
                if not math.isfinite(image.score):
                    raise EvaluationError(
                        f"Query {record.query_id!r}: the score of {image.image_id!r} is {image.score}, "
                        "which cannot be ranked. Run the query again."
                    )
        unknown = {image.image_id for image in scores.reranked} - {image.image_id for image in scores.retrieved}
        if unknown:
            raise EvaluationError(
                f"Query {record.query_id!r}: {', '.join(sorted(unknown)[:3])} was re-ranked but not "
                "retrieved. The record is damaged; run the query again."
            )


def check_ranking(query_id: str, image_ids: Sequence[str]) -> None:
    """Refuse a ranking that names an image twice: it would count one place as two.

    Raises:
        EvaluationError: naming the image.
    """
    for image_id, count in Counter(image_ids).items():
        if count > 1:
            raise EvaluationError(
                f"Query {query_id!r}: the image {image_id!r} is in the ranking {count} times, expected "
                "once. Remove the repetitions where the ranking is made."
            )


def check_query_ids(found: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse answers that are not exactly those of the queries: a mean over fewer is another number.

    Raises:
        EvaluationError: queries are missing or unknown; the first of them are named.
    """
    answered, asked = set(found), set(expected)
    problems = [
        f"{len(ids)} {what} ({', '.join(sorted(ids)[:3])}{', ...' if len(ids) > 3 else ''})"
        for what, ids in (
            ("have no answer", asked - answered),
            ("are not of this data set", answered - asked),
        )
        if ids
    ]
    if problems:
        raise EvaluationError(
            f"Of {len(asked)} queries, {' and '.join(problems)}. Complete the run, or score it against the "
            "data set that it was made for."
        )


def check_rankings(rankings: Mapping[str, Sequence[str]], query_ids: Iterable[str]) -> None:
    """Check rankings from elsewhere, such as a submission file: every query, no image twice, none empty.

    Raises:
        EvaluationError: as :func:`check_query_ids` and :func:`check_ranking`, or a ranking is empty.
    """
    check_query_ids(rankings, query_ids)
    for query_id, ranking in rankings.items():
        if not ranking:
            raise EvaluationError(f"Query {query_id!r}: the ranking is empty. Run the query again.")
        check_ranking(query_id, ranking)


def _scores_of(result: SearchResult) -> StageScores:
    by_retrieval = sorted(result.candidates, key=lambda candidate: candidate.retrieval_rank)
    return StageScores(
        retrieved=tuple(ScoredImage(c.image_id, c.retrieval_score) for c in by_retrieval),
        reranked=tuple(
            ScoredImage(c.image_id, c.rerank_score) for c in result.candidates if c.rerank_score is not None
        ),
    )
