"""The demonstration's answers: how they are counted, and which of them are shown."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.drawn.dataset import DrawnQuery
from qdrant_cir.types import JsonObject, SearchResult

__all__ = ["DemoAnswer", "DemoSummary", "choose_answers", "demo_answer", "summarise_answers"]

SHOWN_QUERIES = 6


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One query of the demonstration, its answer, and where the best right product stands.

    Attributes:
        query: with its kind and right answers.
        result: re-ranked, with every candidate of stage one.
        place_before: from 1, in stage one; None where it is not among the candidates.
        place_after: from 1, after re-ranking; None likewise.
    """

    query: DrawnQuery
    result: SearchResult
    place_before: int | None
    place_after: int | None

    def as_json(self) -> JsonObject:
        """Return the answer as JSON."""
        return {
            "kind": self.query.kind,
            "reference": self.query.reference_id,
            "modification_text": self.query.modification_text,
            "targets": list(self.query.target_ids),
            "place_before": self.place_before,
            "place_after": self.place_after,
        }


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """All queries of the demonstration, counted.

    Attributes:
        queries: how many.
        first_before, first_after: those whose right product stands first, in stage one and after re-ranking.
        brought, lost: those whose right product re-ranking brings to the top, and takes from there.
    """

    queries: int
    first_before: int
    first_after: int
    brought: int
    lost: int

    @property
    def sentence(self) -> str:
        """The counts as a sentence, and how the queries that are shown were chosen."""
        return (
            f"Of all {self.queries} queries {self.first_before} have the right product first when retrieved and "
            f"{self.first_after} after re-ranking, which brings {self.brought} to the top and takes {self.lost} from "
            "there. Those shown are chosen: queries that it answers and retrieval alone does not, and last one that it "
            "does not either."
        )


def demo_answer(query: DrawnQuery, result: SearchResult) -> DemoAnswer:
    """Find where the right products of a query stand in its result."""
    right = [
        (candidate.retrieval_rank, place)
        for place, candidate in enumerate(result.candidates, start=1)
        if candidate.image_id in query.target_ids
    ]
    return DemoAnswer(
        query=query,
        result=result,
        place_before=min((before for before, _ in right), default=None),
        place_after=min((after for _, after in right), default=None),
    )


def choose_answers(answers: list[DemoAnswer]) -> list[DemoAnswer]:
    """Choose ``SHOWN_QUERIES`` answers: those that re-ranking brings to the top, and last one that it does not.

    Kinds and references that were not shown yet come before the others. Where too few are brought to the top, others
    take their place, first those that stage one alone does not answer.
    """
    chosen: list[DemoAnswer] = []
    for is_last in [False] * (SHOWN_QUERIES - 1) + [True]:
        kinds = [answer.query.kind for answer in chosen]
        references = {answer.query.reference_id for answer in chosen}
        chosen += sorted(
            (answer for answer in answers if answer not in chosen),
            key=lambda answer: (
                answer.place_before == 1,
                (answer.place_after == 1) == is_last,
                kinds.count(answer.query.kind),
                answer.query.reference_id in references,
            ),
        )[:1]
    return chosen


def summarise_answers(answers: list[DemoAnswer]) -> DemoSummary:
    """Count what re-ranking brings to the top and takes from there."""
    return DemoSummary(
        queries=len(answers),
        first_before=sum(answer.place_before == 1 for answer in answers),
        first_after=sum(answer.place_after == 1 for answer in answers),
        brought=sum(answer.place_before != 1 and answer.place_after == 1 for answer in answers),
        lost=sum(answer.place_before == 1 and answer.place_after != 1 for answer in answers),
    )
