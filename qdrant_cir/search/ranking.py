"""A query after the store: what to ask for, what to keep, and the order of the answer. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from qdrant_cir.errors import InputError, TokensError
from qdrant_cir.search.effort import Effort, StopRule
from qdrant_cir.search.query_model import QueryModel, ReadyQuery
from qdrant_cir.search.scoring import NO_SCORES, CandidateTokens, RerankScores
from qdrant_cir.storage.points import GalleryHit
from qdrant_cir.types import (
    Candidate,
    Query,
    SearchResult,
    Timings,
)

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["FetchedQuery", "SearchOptions", "StageClock", "answer_fetched", "rank_candidates"]

_NAMED = 3
"""Images that a note names before it only counts."""


class StageClock:
    """Measures the steps after composing, each from the end of the one before it; 0.0 for one not taken."""

    def __init__(self, *, read: Callable[[], float] = perf_counter) -> None:
        """Start; ``read`` returns the seconds that have passed since any fixed moment."""
        self.read = read
        self.retrieve = self.fetch = self.rerank = 0.0
        self.started = self._last = read()

    def retrieved(self) -> None:
        """Note the end of the search in the store."""
        self.retrieve = self._lap()

    def fetched(self) -> None:
        """Note that the tokens are there."""
        self.fetch = self._lap()

    def begins_reranking(self) -> None:
        """Leave out the time that a query waited for others of its batch, from the steps and the time budget."""
        now = self.read()
        self.started += now - self._last
        self._last = now

    def reranked(self, *, reading: float) -> None:
        """Note that the scores are there; ``reading`` is what of it went into reading further tokens."""
        self.rerank = self._lap() - reading
        self.fetch += reading

    def _lap(self) -> float:
        last, self._last = self._last, self.read()
        return self._last - last


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a caller asks of a search; the meaning of each is with :meth:`Retriever.search`."""

    limit: int
    rerank_depth: int
    filter: models.Filter | None
    exclude_reference: bool
    effort: Effort

    def check(self, queries: Sequence[Query]) -> None:
        """Check what a caller gave, before anything is computed.

        Raises:
            InputError: ``limit`` is below 1, ``rerank_depth`` below 0, the effort out of its range, or a query is
                empty.
        """
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}; it must be at least 1, the number of results to return.")
        if self.rerank_depth < 0:
            raise InputError(
                f"rerank_depth is {self.rerank_depth}; it must be at least 0, where 0 means stage one alone, "
                "without re-ranking."
            )
        self.effort.check()
        for query in queries:
            if query.reference is None and not query.modification_text.strip():
                raise InputError("The query has neither a reference image nor a modification text. Give at least one.")

    @property
    def hits_asked_for(self) -> int:
        """Hits to ask of stage one: enough for both numbers, and one to spare for the reference."""
        return max(self.limit, self.rerank_depth) + (1 if self.exclude_reference else 0)

    def doubts_filter(self, hits: Sequence[GalleryHit]) -> bool:
        """Say whether the filter may name a field that no image has, unnoticed."""
        return self.filter is not None and (not hits or bool(self.filter.must_not))

    def keep(self, hits: Sequence[GalleryHit], query: ReadyQuery) -> list[GalleryHit]:
        """Put stage one's hits in their order, without the reference where it is excluded.

        The order is that of the scores; equal scores go by image id, so that every store gives the same.
        """
        kept = [
            hit
            for hit in hits
            if (query.excluded_id is None or hit.image_id != query.excluded_id)
            and (query.excluded_sha256 is None or hit.sha256 != query.excluded_sha256)
        ]
        ordered = sorted(kept, key=lambda hit: (-hit.score, hit.image_id))
        return ordered[: max(self.limit, self.rerank_depth)]

    def to_rerank(self, hits: Sequence[GalleryHit], query: ReadyQuery) -> list[GalleryHit]:
        """Choose the hits that stage two looks at: none without a text."""
        return [] if query.composed is None else list(hits[: self.rerank_depth])


def rank_candidates(hits: Sequence[GalleryHit], scores: Mapping[str, float]) -> tuple[Candidate, ...]:
    """Give the final order: the one place where results are sorted and numbered.

    Args:
        hits: in stage one's order.
        scores: the re-ranker's, by image id; hits that were not re-ranked have none.

    Returns:
        The re-ranked hits by falling score, equal scores in stage one's order; then all others in stage one's
        order.

    Raises:
        TokensError: a score is not a number.
    """
    for image_id, score in scores.items():
        if not math.isfinite(score):
            raise TokensError(
                f"The re-ranker scored the image {image_id!r} with {score}, which cannot be ordered. Its "
                "stored tokens are damaged, or the bundle is; index the image again."
            )
    places = {hit.image_id: place for place, hit in enumerate(hits, start=1)}
    reranked = sorted(
        (hit for hit in hits if hit.image_id in scores),
        key=lambda hit: (-scores[hit.image_id], places[hit.image_id]),
    )
    others = [hit for hit in hits if hit.image_id not in scores]
    return tuple(
        Candidate(
            image_id=hit.image_id,
            payload=hit.payload,
            source=hit.source,
            retrieval_score=hit.score,
            retrieval_rank=places[hit.image_id],
            rerank_score=scores.get(hit.image_id),
            rerank_rank=rank if hit.image_id in scores else None,
        )
        for rank, hit in enumerate((*reranked, *others), start=1)
    )


@dataclass(frozen=True, slots=True)
class FetchedQuery:
    """A query with what the store gave for it.

    Attributes:
        query: as it was composed.
        hits: in stage one's order.
        tokens: of those that are to be re-ranked.
        clock: has measured the steps up to here.
    """

    query: ReadyQuery
    hits: Sequence[GalleryHit]
    tokens: CandidateTokens
    clock: StageClock


def answer_fetched(model: QueryModel, fetched: FetchedQuery, *, options: SearchOptions, stop: StopRule) -> SearchResult:
    """Re-rank and put the answer together; the last step of both retrievers.

    Raises:
        TokensError: a score is not a number.
        ProviderError: the computation failed.
    """
    query, clock, scores = fetched.query, fetched.clock, NO_SCORES
    if fetched.tokens.count:
        clock.begins_reranking()
        scores = model.score(query, fetched.tokens, stop, started=clock.started, clock=clock.read)
        clock.reranked(reading=fetched.tokens.reading)
    spent = (query.encode_seconds, query.compose_seconds, clock.retrieve, clock.fetch, clock.rerank)
    reranks = options.rerank_depth > 0 and query.composed is not None
    return SearchResult(
        candidates=rank_candidates(fetched.hits, scores.by_id)[: options.limit],
        timings=Timings(*spent, total=sum(spent)),
        # a search that was to be re-ranked and found nothing has scored all there is
        rerank_mode="exact" if reranks and not fetched.tokens.count else scores.mode,
        notes=(*query.notes, *_notes_on(scores, asked=fetched.tokens.count), *_notes_on_encoding(fetched.hits)),
        scored=len(scores.by_id),
        precision=model.precision,
    )


def _notes_on_encoding(hits: Sequence[GalleryHit]) -> list[str]:
    """Say what was encoded in another precision than the exact one."""
    found = Counter(hit.precision for hit in hits if hit.precision != "float32")
    return [
        f"{count} of the {len(hits)} pictures found were encoded in {precision} (`qdrant-cir index --precision`): "
        "their vectors and tokens are close to the exact ones, not equal to them."
        for precision, count in sorted(found.items())
    ]


def _notes_on(scores: RerankScores, *, asked: int) -> list[str]:
    """Say which candidates were not re-ranked, and why."""
    notes = []
    looked_at = len(scores.by_id) + len(scores.problems)
    if scores.mode == "adaptive":
        notes.append(f"Re-ranking ended after {looked_at} of {asked} candidates: the first places were settled.")
    if scores.mode == "budget":
        notes.append(f"Re-ranking ended after {looked_at} of {asked} candidates, for its time was over.")
    problems = scores.problems
    if problems:
        named = "; ".join(f"{image_id}: {reason}" for image_id, reason in list(problems.items())[:_NAMED])
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        notes.append(f"{len(problems)} candidates without valid tokens stand after the re-ranked ({named}{more}).")
    if "missing" in problems.values():
        notes.append("Index pictures of missing tokens again with this bundle: `qdrant-cir index`.")
    return notes
