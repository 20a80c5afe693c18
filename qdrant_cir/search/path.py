"""The path of a query, as steps: encode, compose, retrieve, fetch, re-rank, order.

``compose``, ``rerank``, ``search`` and ``explain`` are cuts of this one path, and both retrievers drive it, so that
their answers cannot differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from qdrant_cir.arguments import checked_flag, checked_function, checked_text, shown
from qdrant_cir.errors import CirError, InputError, StoreUnavailableError
from qdrant_cir.model.preprocess import is_pixels
from qdrant_cir.search.effort import EXACT, STEP, Effort, StopRule
from qdrant_cir.search.explanation import Explanation, WordEffect
from qdrant_cir.search.given_hits import GivenHit, GivenHits, given_hits, missing_payloads
from qdrant_cir.search.match import METADATA_KEY, MatchCalibration
from qdrant_cir.search.query_model import (
    ComposedQuery,
    EncodedReference,
    QueryModel,
    WithoutWord,
    checked_query,
    gallery_ids,
    picture_digests,
    references_of,
)
from qdrant_cir.search.ranking import rank_candidates, rank_groups, rank_hits
from qdrant_cir.storage.points import GalleryHit, HitTokens, KnownImage
from qdrant_cir.storage.reads import GalleryReads
from qdrant_cir.storage.steps import Steps, Stopwatch, computed
from qdrant_cir.storage.stores.protocol import PLAIN, Hit, ReadOptions, Record
from qdrant_cir.types import Candidate, ImageSource, PointId, Query, RerankMode, SearchProgress, SearchResult, Timings

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["RerankOptions", "SearchOptions", "compose_steps", "explain_steps", "rerank_steps", "search_steps"]

_STEPS = ("encode", "compose", "retrieve", "fetch", "rerank")

_MOST = 2**31 - 1
"""The largest number of results, candidates or seconds that may be asked for: all stores can count so far."""

_SAME_PICTURE = 1e-5
"""How far below 1 the cosine of a picture with itself may lie: float32 arithmetic in batches of other sizes."""

_TOKENS_SECONDS = 2.0
"""Seconds that a read of tokens is tried again: stage one's order can stand in for them."""

_NAMED = 3
"""Images that a note names; further ones are only counted."""

Place = list[GalleryHit]
"""One place of stage one: a single hit, or the members of a group, best first."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search; :meth:`Retriever.search` describes them."""

    limit: int
    rerank_depth: int
    filter: models.Filter | None = None
    exclude_reference: bool = False
    effort: Effort = EXACT
    group_by: str | None = None
    group_size: int = 10
    read: ReadOptions = PLAIN
    min_match: float | None = None
    progress: Callable[[SearchProgress], None] | None = None

    def checked(self, queries: Sequence[Query]) -> list[Query]:
        """Check the options and the queries before anything is computed; return the queries with plain texts.

        Raises:
            InputError: ``limit`` or ``group_size`` is below 1, ``rerank_depth`` below 0, another option is out of range
                or of a wrong type, or a query is empty or None.
        """
        _check_limit(self.limit)
        _check_whole(self.rerank_depth, name="rerank_depth")
        _check_whole(self.group_size, name="group_size")
        if self.rerank_depth < 0:
            raise InputError(
                f"rerank_depth is {self.rerank_depth}; it must be at least 0, where 0 means stage one alone, "
                "without re-ranking."
            )
        if self.group_size < 1:
            raise InputError(f"group_size is {self.group_size}; it must be at least 1, the members of a group.")
        _check_effort(self.effort)
        _check_read(self.read)
        least = 0.0 if self.min_match is None else self.min_match
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
            raise InputError(f"min_match is {shown(self.min_match)}; it must be a probability, from 0 to 1.")
        if self.progress is not None and not callable(self.progress):
            raise InputError(f"progress is {shown(self.progress)}; it must be a function of one argument, or None.")
        if self.group_by is not None:
            checked_text(self.group_by, name="group_by")
        checked_flag(self.exclude_reference, name="exclude_reference")
        return [checked_query(query) for query in queries]


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """Options of re-ranking; :meth:`Retriever.rerank` describes them."""

    limit: int
    effort: Effort = EXACT
    encode_missing: bool = False
    open_picture: Callable[[str], ImageSource] | None = None
    read: ReadOptions = PLAIN

    def check(self) -> None:
        """Check the options. Raises InputError where one is out of range or of a wrong type."""
        _check_limit(self.limit)
        _check_effort(self.effort)
        _check_read(self.read)
        checked_flag(self.encode_missing, name="encode_missing")
        checked_function(self.open_picture, name="open_picture")


@dataclass(slots=True)
class _Laps:
    """Seconds per step of one query, taken from its watch as the steps end."""

    watch: Stopwatch
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STEPS, 0.0))

    def end(self, step: str) -> float:
        """Add the seconds since the last step ended to ``step``, and return them."""
        lap = self.watch.lap()
        self.seconds[step] += lap
        return lap

    def timings(self) -> Timings:
        return Timings(**self.seconds, total=sum(self.seconds.values()))


@dataclass(slots=True)
class _Scored:
    """Results of stage two so far, by point id, and why it ended."""

    scores: dict[PointId, float] = field(default_factory=dict)
    problems: dict[PointId, str] = field(default_factory=dict)
    views: dict[PointId, str] = field(default_factory=dict)
    partial: dict[PointId, str] = field(default_factory=dict)
    mode: RerankMode = "none"
    unread: StoreUnavailableError | None = None


@dataclass(frozen=True, slots=True)
class _Retrieved:
    """Results of stage one: places, best first, and how many points were not images of this gallery."""

    places: list[Place]
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class _Searched:
    """A query that was composed, retrieved and re-ranked, before its candidates are ordered.

    Attributes:
        composed: the query.
        places: all that stage one found.
        wanted: those of them that were to be re-ranked.
        scored: their scores.
        foreign: points found that are not images of this gallery.
    """

    composed: ComposedQuery
    places: list[Place]
    wanted: list[Place]
    scored: _Scored
    foreign: int


def search_steps(
    reads: GalleryReads, model: QueryModel, query: Query, options: SearchOptions, stop: StopRule, watch: Stopwatch
) -> Steps[SearchResult]:
    """Answer one query; the errors are those of :meth:`Retriever.search`.

    Args:
        reads: of the gallery.
        model: of the gallery's bundle.
        query: checked.
        options: checked.
        stop: when re-ranking ends early.
        watch: counts the query's seconds; the driver stops it while the query waits.
    """
    watch.start()
    laps = _Laps(watch)
    options = replace(options, read=_patient(options.read, stop.time_budget))
    match = _match_of(reads, model, query, options)
    encoded = yield from _encode(reads, model, query, laps, options.read)
    found = yield from _search(reads, model, query, encoded, options, stop, laps)
    return _answer(
        found.composed,
        model,
        found.places,
        found.wanted,
        found.scored,
        laps,
        limit=options.limit,
        reranks=options.rerank_depth > 0,
        notes=_notes_on_foreign(found.foreign),
        match=match,
        min_match=options.min_match,
    )


def compose_steps(reads: GalleryReads, model: QueryModel, query: Query, watch: Stopwatch) -> Steps[ComposedQuery]:
    """Encode and compose one query, checked; errors as :meth:`Retriever.compose`."""
    watch.start()
    laps = _Laps(watch)
    encoded = yield from _encode(reads, model, query, laps, PLAIN)
    return (yield from _compose(reads, model, query, encoded.references, laps))


def rerank_steps(
    reads: GalleryReads,
    model: QueryModel,
    composed: ComposedQuery,
    hits: GivenHits,
    options: RerankOptions,
    watch: Stopwatch,
) -> Steps[SearchResult]:
    """Re-rank hits that were retrieved elsewhere; errors as :meth:`Retriever.rerank`."""
    watch.start()
    laps = _Laps(watch)
    if not isinstance(composed, ComposedQuery):
        raise InputError(f"The query is a {type(composed).__name__}; expected what compose() returned, not its vector.")
    if composed.fingerprint != model.bundle.fingerprint:
        raise InputError(
            f"The query was composed with the bundle {composed.fingerprint[:12]}; this gallery needs "
            f"{model.bundle.fingerprint[:12]}. Compose it with this gallery."
        )
    options = replace(options, read=_patient(options.read, options.effort.time_budget))
    given = given_hits(hits, reads.layout)
    missing = missing_payloads(given, reads.layout)
    points = {point.point_id: point for point in (yield from reads.points(missing, options=options.read))}
    laps.end("fetch")
    encoded: list[HitTokens] = []
    places: list[Place] = []
    strangers = 0
    for members in given:
        place: Place = []
        for entry in members:
            if entry.picture is None:
                hit = _hit_of(reads, entry, points)
                if hit is None:
                    strangers += 1
                else:
                    place.append(hit)
                continue
            # a picture is in no collection: it gets a negative number as its point id
            point_id = -1 - len(encoded)
            data = yield from computed(partial(model.encode_candidate, entry.picture))
            encoded.append(HitTokens(point_id, data, None))
            laps.end("encode")
            image = KnownImage(_name_of(entry.picture), point_id, _source_of(entry.picture), None, {}, None)
            place.append(GalleryHit(image, entry.score, entry.point, entry.group))
        if place:
            places.append(place)
    stop = options.effort.stop_rule(model.bundle, limit=options.limit, rerank_depth=len(places))
    wanted = places if composed.terms else []
    scored = yield from _rerank(
        reads, model, composed, wanted, stop, laps, options.read, encoded=encoded, encode=_encoding(model, options)
    )
    return _answer(
        composed,
        model,
        places,
        wanted,
        scored,
        laps,
        limit=options.limit,
        reranks=True,
        notes=_notes_on_strangers(strangers),
    )


def explain_steps(
    reads: GalleryReads,
    model: QueryModel,
    query: Query,
    candidate: str | PointId | Candidate,
    options: SearchOptions,
    open_picture: Callable[[str], ImageSource] | None,
    watch: Stopwatch,
) -> Steps[Explanation]:
    """Answer one query, and explain the place of one candidate; errors as :meth:`Retriever.explain`."""
    watch.start()
    laps = _Laps(watch)
    wanted_id = candidate.point_id if isinstance(candidate, Candidate) else reads.layout.point_id(candidate)
    encoded = yield from _encode(reads, model, query, laps, options.read)
    found = yield from _search(reads, model, query, encoded, options, StopRule(options.limit), laps)
    if not found.composed.terms:
        raise InputError("Without a modification text nothing is re-ranked, so there is nothing to explain.")
    hits = {hit.point_id: place for place, members in enumerate(found.wanted) for hit in members}
    name = candidate.image_id if isinstance(candidate, Candidate) else candidate
    if wanted_id not in hits:
        raise InputError(
            f"{name!r} is not among the {len(found.wanted)} candidates that were re-ranked, so its place cannot be "
            "explained. Raise the re-rank depth, or give one of the results."
        )
    if found.scored.unread is not None:
        raise found.scored.unread
    if wanted_id not in found.scored.scores:
        raise InputError(
            f"{name!r} was not re-ranked: its tokens are {found.scored.problems[wanted_id]}. Index it again with "
            "this bundle."
        )
    place = hits[wanted_id]
    # the candidate stands for its group, whichever member of it is the best
    places = [*found.places]
    places[place] = [hit for hit in places[place] if hit.point_id == wanted_id]
    ranked = rank_candidates(places, found.scored.scores, found.scored.views)
    explained = next(each for each in ranked if each.retrieval_rank == place + 1)
    image = places[place][0].image
    entries = yield from reads.tokens([image], options=options.read)
    entry = next(each for each in entries if each.data is not None and each.view == explained.view)
    words = yield from computed(partial(model.score_without_words, query, encoded.references, found.composed, entry))
    cells = yield from computed(
        partial(
            model.explain_cells, found.composed, entry, words, source=entry.view or image.source, opener=open_picture
        )
    )
    others = [each for each in ranked if each.rerank_score is not None and each is not explained]
    return Explanation(
        candidate=explained,
        count=len(others) + 1,
        words=tuple(_word_effect(word, explained, others) for word in words),
        cells=cells.effects,
        first_retrieved=next(each for each in ranked if each.retrieval_rank == 1),
        seconds=laps.watch.seconds,
        notes=(*found.composed.notes, *cells.notes),
        precision=model.precision,
    )


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A query's references, and the digests of those that are gallery images."""

    references: Sequence[EncodedReference]
    digests: frozenset[str]


def _encode(reads: GalleryReads, model: QueryModel, query: Query, laps: _Laps, read: ReadOptions) -> Steps[_Encoded]:
    stored = yield from reads.images(gallery_ids(query), options=read)
    encoded = yield from computed(partial(model.encode, query, stored))
    laps.end("encode")
    digests = {image.image.sha256 or image.tokens.sha256 for image in stored.values()}
    return _Encoded(encoded, frozenset(digest for digest in digests if digest))


def _compose(
    reads: GalleryReads, model: QueryModel, query: Query, encoded: Sequence[EncodedReference], laps: _Laps
) -> Steps[ComposedQuery]:
    composed = yield from computed(partial(model.compose, query, encoded, using=reads.layout.vector))
    laps.end("compose")
    return composed


def _search(
    reads: GalleryReads,
    model: QueryModel,
    query: Query,
    encoded: _Encoded,
    options: SearchOptions,
    stop: StopRule,
    laps: _Laps,
) -> Steps[_Searched]:
    """Run steps 2 to 5: compose, retrieve, fetch and re-rank."""
    composed = yield from _compose(reads, model, query, encoded.references, laps)
    excluded: frozenset[PointId | str] = frozenset()
    if options.exclude_reference:
        ids = {reads.layout.point_id(image_id) for image_id in gallery_ids(query)}
        excluded = (yield from computed(partial(picture_digests, query))) | encoded.digests | ids
        laps.end("encode")
        for reference, (given, _) in zip(encoded.references, references_of(query), strict=True):
            if is_pixels(given):
                excluded |= yield from _twins(reads, reference, options)
    found = yield from _retrieve(reads, composed, options, excluded)
    laps.end("retrieve")
    wanted = found.places[: options.rerank_depth] if composed.terms else []
    report = None
    if options.progress is not None:
        report = partial(_report, options.progress, found.places)
        report(_Scored())
    scored = yield from _rerank(reads, model, composed, wanted, stop, laps, options.read, report=report)
    return _Searched(composed, found.places, wanted, scored, found.foreign)


def _twins(reads: GalleryReads, reference: EncodedReference, options: SearchOptions) -> Steps[frozenset[PointId]]:
    """Find the images whose vector is the reference's own: pixels do not tell the file that was indexed."""
    asked = 10
    while True:
        found = yield from reads.nearest(reference.vector, limit=asked, filter=options.filter, options=options.read)
        same = [hit.point_id for hit in found.hits if hit.score >= 1 - _SAME_PICTURE]
        if len(same) < len(found.hits) or found.count < asked:
            return frozenset(same)
        asked *= 4


def _report(progress: Callable[[SearchProgress], None], places: Sequence[Place], scored: _Scored) -> None:
    progress(SearchProgress(rank_candidates(places, scored.scores, scored.views), len(scored.scores)))


def _retrieve(
    reads: GalleryReads, composed: ComposedQuery, options: SearchOptions, excluded: frozenset[PointId | str]
) -> Steps[_Retrieved]:
    """Search until enough places are found or none are left, without what is excluded."""
    wanted = max(options.limit, options.rerank_depth)
    asked = wanted + (1 if options.exclude_reference else 0)
    while True:
        if options.group_by is None:
            found = yield from reads.nearest(composed.vector, limit=asked, filter=options.filter, options=options.read)
            count, hits, foreign = found.count, found.hits, found.foreign
            kept = yield from _without(reads, hits, excluded, options.read)
            places = [[hit] for hit in rank_hits(kept)]
        else:
            groups = yield from reads.nearest_groups(
                composed.vector,
                group_by=options.group_by,
                limit=asked,
                group_size=options.group_size,
                filter=options.filter,
                options=options.read,
            )
            count, foreign = len(groups), 0
            kept = yield from _without(reads, [hit for hits in groups for hit in hits], excluded, options.read)
            standing = {hit.point_id for hit in kept}
            places = [
                rank_hits(members) for hits in groups if (members := [hit for hit in hits if hit.point_id in standing])
            ]
            places = rank_groups(places)
        if len(places) >= wanted or count < asked:
            break
        # excluded and foreign points took places: ask for twice that many more
        asked += 2 * (count - len(places))
    if options.filter is not None and (not count or options.filter.must_not):
        yield from reads.check_filter(options.filter)
    if options.group_by is not None and not count:
        yield from reads.check_field(options.group_by, named_by="group_by")
    return _Retrieved(places[:wanted], foreign)


def _without(
    reads: GalleryReads, hits: Sequence[GalleryHit], excluded: frozenset[PointId | str], read: ReadOptions
) -> Steps[list[GalleryHit]]:
    """Leave out hits of an excluded point, and pictures of an excluded digest."""
    kept = [hit for hit in hits if hit.point_id not in excluded]
    digests = {value for value in excluded if isinstance(value, str)}
    if not digests or not kept:
        return kept
    if reads.layout.picture is None:
        return [hit for hit in kept if hit.image.sha256 not in digests]
    # only the companion of an attached collection has the digests
    made = yield from reads.digests([hit.image for hit in kept], options=read)
    return [hit for hit in kept if digests.isdisjoint(made.get(hit.point_id, ()))]


def _rerank(
    reads: GalleryReads,
    model: QueryModel,
    composed: ComposedQuery,
    wanted: Sequence[Place],
    stop: StopRule,
    laps: _Laps,
    read: ReadOptions,
    *,
    encoded: Sequence[HitTokens] = (),
    encode: Callable[[KnownImage, HitTokens], HitTokens] | None = None,
    report: Callable[[_Scored], None] | None = None,
) -> Steps[_Scored]:
    """Score places in stage one's order until the last one, or until the rule stops.

    The time budget runs from the search in the store. Where no candidate could be scored, the mode is ``none``.
    """
    found = _Scored()
    if not wanted:
        return found
    tokens: dict[PointId, list[HitTokens]] = {entry.point_id: [entry] for entry in encoded}
    size = stop.step or (len(wanted) if report is None else STEP)
    read_up_to = 0
    steps: list[list[float]] = []
    longest = 0.0
    for start in range(0, len(wanted), size):
        if stop.is_settled(steps):
            found.mode = "adaptive"
            return found
        spent = sum(laps.seconds[step] for step in ("retrieve", "fetch", "rerank"))
        if stop.time_budget is not None and read_up_to and spent + longest > stop.time_budget:
            found.mode = "budget"
            return found
        took = 0.0
        if start + size > read_up_to and read_up_to < len(wanted):
            # the first steps at once, and all others when one of them is needed
            until = len(wanted) if stop.first_read is None or read_up_to else stop.first_read
            images = [hit.image for place in wanted[read_up_to:until] for hit in place if hit.point_id not in tokens]
            left = _TOKENS_SECONDS if stop.time_budget is None else max(0.0, stop.time_budget - spent)
            try:
                entries = yield from reads.tokens(
                    list({image.point_id: image for image in images}.values()),
                    options=_patient(read, min(left, _TOKENS_SECONDS)),
                )
            except StoreUnavailableError as error:
                found.unread = error
                laps.end("fetch")
                return found
            for entry in entries:
                tokens.setdefault(entry.point_id, []).append(entry)
            reading = laps.end("fetch")
            # a further read is part of the step that needs it; the first one comes before all steps
            took = reading if read_up_to else 0.0
            read_up_to = min(until, len(wanted))
            spent = sum(laps.seconds[step] for step in ("retrieve", "fetch", "rerank"))
            if stop.time_budget is not None and spent + longest > stop.time_budget:
                found.mode = "budget"
                return found
        hits = {hit.point_id: hit for place in wanted[start : start + size] for hit in place}
        batch = [entry for point_id in hits if point_id not in found.scores for entry in tokens[point_id]]
        if encode is not None:
            for place_, entry in enumerate(batch):
                if entry.data is None:
                    batch[place_] = yield from computed(partial(encode, hits[entry.point_id].image, entry))
            laps.end("encode")
        step = yield from computed(partial(model.score, composed, batch))
        longest = max(longest, took + laps.end("rerank"))
        found.scores |= step.by_id
        found.problems |= step.problems
        found.views |= step.views
        found.partial |= step.partial
        steps.append(list(step.by_id.values()))
        if report is not None:
            report(found)
    found.mode = model.full_mode if found.scores else "none"
    return found


def _answer(
    composed: ComposedQuery,
    model: QueryModel,
    places: Sequence[Place],
    wanted: Sequence[Place],
    scored: _Scored,
    laps: _Laps,
    *,
    limit: int,
    reranks: bool,
    notes: Sequence[str],
    match: MatchCalibration | None = None,
    min_match: float | None = None,
) -> SearchResult:
    named = {hit.point_id: hit.image_id for place in places for hit in place}
    ranked = rank_candidates(places, scored.scores, scored.views)
    probability = None if match is None else match.probability(ranked)
    least = min_match if min_match is not None or match is None else match.min_match
    is_match = None if probability is None or least is None else probability >= least
    return SearchResult(
        candidates=ranked[:limit],
        timings=laps.timings(),
        # a search with re-ranking that found nothing has scored everything there is
        rerank_mode="exact" if reranks and composed.terms and not places else scored.mode,
        notes=(
            *composed.notes,
            *_notes_on_match(probability, least, is_match=is_match),
            *_notes_on(scored, asked=len(wanted), named=named),
            *_notes_on_encoding([hit for place in places for hit in place]),
            *notes,
        ),
        scored=len(scored.scores),
        precision=model.precision,
        match_probability=probability,
        is_match=is_match,
    )


def _match_of(reads: GalleryReads, model: QueryModel, query: Query, options: SearchOptions) -> MatchCalibration | None:
    """Return what tells a match of this gallery; None where it was not calibrated, or not for such a query.

    Raises:
        InputError: a least probability was asked for, and the gallery has no calibration for this bundle.
    """
    found = MatchCalibration.of_object(reads.metadata.get(METADATA_KEY))
    if found is None or found.fingerprint != model.bundle.fingerprint:
        if options.min_match:
            raise InputError(
                f"The gallery {reads.name!r} has no calibration of matches for this bundle, so min_match cannot be "
                "judged. Run `qdrant-cir calibrate-match`, or leave min_match out."
            )
        return None
    # scores less those of a text that must not fit are other numbers than the calibration's
    return None if query.must_not.strip() else found


def _word_effect(word: WithoutWord, candidate: Candidate, others: Sequence[Candidate]) -> WordEffect:
    """Return what a word adds, from the candidate's score without it and the kept scores of all others."""
    now, retrieved = candidate.rerank_score or 0.0, candidate.retrieval_rank
    score = now if word.score is None else word.score
    # equal scores keep stage one's order, as in the answer
    before = [
        each
        for each in others
        if each.rerank_score is not None
        and (each.rerank_score > score or (each.rerank_score == score and each.retrieval_rank < retrieved))
    ]
    rank = len(before) + 1
    places = rank - (candidate.rerank_rank or rank)
    span = word.span
    return WordEffect(span.word, span.start, span.stop, now - score, rank, places, word.is_known)


def _patient(read: ReadOptions, seconds: float | None) -> ReadOptions:
    """Return options of reads that are tried again for at most so many seconds, and not beyond the caller's timeout."""
    limits = [limit for limit in (read.retry_seconds, read.timeout, seconds) if limit is not None]
    return replace(read, retry_seconds=min(limits)) if limits else read


def _hit_of(reads: GalleryReads, entry: GivenHit, points: dict[PointId, Record]) -> GalleryHit | None:
    """Return a given entry as a hit of the gallery; None if there is no such point, or it is not an image."""
    if entry.point_id is None:
        return None
    if entry.point_id in points:
        payload = points[entry.point_id].payload
    elif entry.payload is not None:
        payload = entry.payload
    else:
        return None
    image = reads.layout.known(Hit(entry.point_id, entry.score, payload))
    return None if image is None else GalleryHit(image, entry.score, entry.point, entry.group)


def _encoding(model: QueryModel, options: RerankOptions) -> Callable[[KnownImage, HitTokens], HitTokens] | None:
    """Return the function that encodes missing tokens; None if they stay missing."""
    if not options.encode_missing:
        return None

    def encode(image: KnownImage, entry: HitTokens) -> HitTokens:
        source = entry.view or image.source
        if source is None:
            return entry
        try:
            picture = source if options.open_picture is None else options.open_picture(source)
            data = model.encode_candidate(picture)
        except CirError:
            return entry
        return HitTokens(entry.point_id, data, None, view=entry.view)

    return encode


def _check_whole(value: int, *, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} is {shown(value)}; it must be a whole number.")
    if value > _MOST:
        raise InputError(f"{name} is {shown(value)}; it must be at most {_MOST}.")


def _check_effort(effort: Effort) -> None:
    if not isinstance(effort, Effort):
        raise InputError(f"effort is {shown(effort)}; expected an Effort, such as Effort(confidence=0.95).")
    effort.check()


def _check_read(read: ReadOptions) -> None:
    if read.timeout is not None:
        _check_whole(read.timeout, name="timeout")
        if read.timeout < 1:
            raise InputError(f"timeout is {read.timeout}; it must be at least 1 second.")
    if read.params is not None:
        from qdrant_client import models

        if not isinstance(read.params, models.SearchParams):
            raise InputError(f"params is a {type(read.params).__name__}; expected a qdrant_client.models.SearchParams.")
    if isinstance(read.consistency, bool) or not isinstance(read.consistency, int | str | None):
        kind = type(read.consistency).__name__
        raise InputError(f"consistency is of type {kind}; expected a number, or majority, quorum or all.")
    if read.shard_key_selector is not None:
        from qdrant_client.models import ShardKeyWithFallback

        given = read.shard_key_selector
        for key in given if isinstance(given, list) else [given]:
            if isinstance(key, bool) or not isinstance(key, int | str | ShardKeyWithFallback):
                raise InputError(f"A shard key is of type {type(key).__name__}; expected text or a number.")


def _check_limit(limit: int) -> None:
    _check_whole(limit, name="limit")
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1, the number of results to return.")


def _source_of(picture: ImageSource) -> str | None:
    return str(picture) if hasattr(picture, "__fspath__") else None


def _name_of(picture: ImageSource) -> str:
    return _source_of(picture) or f"a picture given as {type(picture).__name__}"


def _notes_on_match(probability: float | None, least: float | None, *, is_match: bool | None) -> list[str]:
    if is_match is not False or probability is None or least is None:
        return []
    return [
        f"No good match: the first place is what was asked for with a probability of {probability:.0%}, below "
        f"{least:.0%}."
    ]


def _notes_on_foreign(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} of the points found are not images of this gallery and were left out."]


def _notes_on_strangers(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} of the hits are not images of this gallery and were left out."]


def _notes_on_encoding(hits: Sequence[GalleryHit]) -> list[str]:
    """Return a note on pictures that were encoded in another precision than the exact one."""
    found = Counter(hit.image.precision for hit in hits if hit.image.precision != "float32")
    return [
        f"{count} of the {len(hits)} pictures found were encoded in {precision} (`qdrant-cir index --precision`): "
        "their vectors and tokens are close to the exact ones, not equal to them."
        for precision, count in sorted(found.items())
    ]


def _notes_on(found: _Scored, *, asked: int, named: dict[PointId, str]) -> list[str]:
    """Return notes on the candidates that were not re-ranked, and why."""
    notes = []
    looked_at = len(found.scores) + len(found.problems)
    if found.mode == "adaptive":
        notes.append(f"Re-ranking ended after {looked_at} of {asked} candidates: the first places were settled.")
    if found.unread is not None:
        notes.append(
            f"The tokens of {asked - looked_at} of {asked} candidates could not be read, so these stand in stage one's "
            f"order: {found.unread}"
        )
    if found.mode == "budget":
        notes.append(f"Re-ranking ended after {looked_at} of {asked} candidates: the time budget was used up.")
    problems, partial = found.problems, found.partial
    if problems:
        listed = _listed(problems, named)
        notes.append(f"{len(problems)} candidates without valid tokens come after the re-ranked ones ({listed}).")
    if partial:
        listed = _listed(partial, named)
        notes.append(f"{len(partial)} candidates have pictures that are not as they were indexed ({listed}).")
    if {"missing", "stale"} & {*problems.values(), *partial.values()}:
        notes.append("Index pictures with missing or stale tokens again with this bundle: `qdrant-cir index`.")
    return notes


def _listed(problems: dict[PointId, str], named: dict[PointId, str]) -> str:
    """Return the first images with their problems, and how many more there are."""
    listed = "; ".join(f"{named[point_id]}: {reason}" for point_id, reason in list(problems.items())[:_NAMED])
    return f"{listed}; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else listed
