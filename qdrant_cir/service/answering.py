"""Queries of the service: admitted, answered within their deadline, and told step by step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from qdrant_cir.errors import InputError
from qdrant_cir.gallery import AsyncGallery
from qdrant_cir.search.answer_json import candidate_object, result_object
from qdrant_cir.search.effort import Effort
from qdrant_cir.search.gate import Gate
from qdrant_cir.service.bodies import SearchBody
from qdrant_cir.service.observing import Metrics, trace_steps
from qdrant_cir.types import Candidate, JsonObject, JsonValue, PointId, Reference, SearchProgress, SearchResult

if TYPE_CHECKING:
    from qdrant_client import models
    from starlette.requests import Request

__all__ = ["Answered", "Answerer", "Event", "GoneError", "Settings", "Stream", "read_filter", "until_gone"]

T = TypeVar("T")

_LEAST_BUDGET = 0.001

_FIRST_EVENT_SECONDS = 0.005
"""Seconds that a query waits at most for its first event to be sent."""


class GoneError(Exception):
    """The client has gone away."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a service behaves under load.

    Attributes:
        running: queries that are answered at the same time; one already fills the cores.
        waiting: queries that wait; the next is refused with 429.
        deadline_ms: of a query that names none; None for no limit.
        confidence: of a query that names none; None scores every candidate.
        min_match: of a query that names none, where the gallery was calibrated.
        api_key: demanded of every request but probes and the page's files; None for none.
        most_bytes: of one body.
        addresses: whether clients may name pictures by http(s) addresses, in ``/rerank``.
    """

    running: int = 2
    waiting: int = 32
    deadline_ms: int | None = None
    confidence: float | None = None
    min_match: float | None = None
    api_key: str | None = None
    most_bytes: int = 20_000_000
    addresses: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, the seconds that its query waited, and the confidence that it was searched with."""

    result: SearchResult
    waited: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: JsonObject


@dataclass(frozen=True, slots=True)
class Stream:
    """A query that is being answered by events.

    Attributes:
        first: what stage one found.
        following: all further events.
        end: ends the query if it still runs; to be called whether or not ``following`` was ever begun.
    """

    first: Event
    following: AsyncIterator[Event]
    end: Callable[[], None]


class Answerer:
    """The door for all queries of a service, whatever their collection."""

    def __init__(self, settings: Settings) -> None:
        """Let nothing wait yet."""
        self.gate = Gate(settings.running, waiting=settings.waiting)
        self.metrics = Metrics(self.gate)
        self.settings = settings
        # seconds of encoding and composing, which a time budget does not cover; learnt from the queries
        self._before = 0.0

    async def admitted(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work when it is its turn. Raises BusyError where too many wait."""
        async with self.gate:
            return await work()

    async def search(
        self,
        gallery: AsyncGallery,
        body: SearchBody,
        references: list[Reference] | None,
        *,
        progress: Callable[[SearchProgress], None] | None = None,
    ) -> Answered:
        """Answer one query.

        Raises:
            BusyError: too many wait.
            CirError: as :meth:`AsyncGallery.search`.
        """
        came = perf_counter()
        deadline_ms = body.deadline_ms or self.settings.deadline_ms
        confidence = body.confidence or self.settings.confidence
        found = 0

        def watch(told: SearchProgress) -> None:
            nonlocal found
            found = len(told.candidates)
            if progress is not None:
                progress(told)

        filter = read_filter(body.filter)
        async with self.gate:
            waited = perf_counter() - came
            budget, depth = None, body.rerank_depth
            notes: tuple[str, ...] = ()
            if deadline_ms is not None:
                left = deadline_ms / 1000 - waited - self._before
                budget = max(left, _LEAST_BUDGET)
                if left < 0 < depth:
                    depth, notes = 0, ("The deadline had passed when the query was begun; nothing was re-ranked.",)
            result = await gallery.search(
                references,
                body.text,
                must_not=body.must_not,
                weights=body.weights,
                must_not_weight=body.must_not_weight,
                limit=body.limit,
                rerank_depth=depth,
                filter=filter,
                exclude_reference=body.exclude_reference,
                effort=Effort(confidence if depth else None, budget),
                group_by=body.group_by,
                min_match=self.settings.min_match if body.min_match is None else body.min_match,
                progress=watch,
            )
        self._before += 0.2 * (result.timings.encode + result.timings.compose - self._before)
        wanted = min(depth, found)
        is_whole = result.rerank_mode in ("exact", "compressed")
        self.metrics.answered(result, waited=waited, misses=max(0, wanted - result.scored) if is_whole else 0)
        trace_steps(result)
        if result.rerank_mode == "budget":
            notes = (*notes, f"The deadline of {deadline_ms} ms ended the re-ranking after {result.scored} candidates.")
        return Answered(
            replace(result, notes=(*result.notes, *notes)),
            waited,
            confidence if result.rerank_mode == "adaptive" else None,
        )

    async def events(
        self, gallery: AsyncGallery, body: SearchBody, references: list[Reference] | None, request: Request
    ) -> Stream:
        """Begin a query and wait for its first event.

        Raises:
            GoneError: the client went away before the first event.
            CirError: as :meth:`search`, where it fails before the first event. A later error is an event.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[SearchProgress | None] = asyncio.Queue()
        is_sent = threading.Event()

        def tell(told: SearchProgress) -> None:
            # in the thread that searches
            loop.call_soon_threadsafe(queue.put_nowait, told)
            if not told.scored:
                # re-ranking keeps the interpreter busy: the first event goes out before it begins
                is_sent.wait(_FIRST_EVENT_SECONDS)

        task = asyncio.create_task(self.search(gallery, body, references, progress=tell))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        first = await until_gone(request, asyncio.create_task(queue.get()), ends=task)
        if first is None:
            # every answer makes progress, so it failed
            raise task.exception() or GoneError

        async def following() -> AsyncIterator[Event]:
            known: set[PointId | None] = set()
            is_sent.set()
            while (told := await queue.get()) is not None:
                fresh = [each for each in told.candidates if each.rerank_score is not None]
                fresh = [each for each in fresh if each.point_id not in known]
                known.update(each.point_id for each in fresh)
                yield Event(
                    "scored",
                    {"candidates": [{"id": each.image_id, "score": each.rerank_score} for each in fresh]},
                )
            answered = await task
            yield Event("ranked", {"candidates": candidate_objects(answered.result.candidates)})
            yield Event("done", summary_object(answered))

        def end() -> None:
            task.cancel()
            is_sent.set()

        return Stream(Event("retrieved", {"candidates": candidate_objects(first.candidates)}), following(), end)


async def until_gone(request: Request, task: asyncio.Task[T], *, ends: asyncio.Task[Answered] | None = None) -> T:
    """Await a task for as long as the client is there; when it goes, cancel the task, and ``ends`` too.

    Raises:
        GoneError: the client has gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watching = asyncio.create_task(gone())
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError
    finally:
        watching.cancel()
        if not task.done():
            task.cancel()
            if ends is not None:
                ends.cancel()


def read_filter(given: Mapping[str, object] | None) -> models.Filter | None:
    """Read a filter of Qdrant's from JSON. Raises InputError."""
    if given is None:
        return None
    from qdrant_client import models

    try:
        return models.Filter.model_validate(given)
    except (ValidationError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is nested too deep"
        raise InputError(
            f"The filter cannot be read: {reason}. Expected a filter of Qdrant's, such as "
            '{"must": [{"key": "color", "match": {"value": "red"}}]}.'
        ) from error


def candidate_objects(candidates: Iterable[Candidate]) -> list[JsonValue]:
    """Return candidates as JSON, in their order."""
    return [candidate_object(each, rank, with_point=False) for rank, each in enumerate(candidates, 1)]


def summary_object(answered: Answered) -> JsonObject:
    """Return all of an answer but its candidates as JSON."""
    made = result_object(answered.result)
    timings = {**asdict(answered.result.timings), "waited": answered.waited}
    return {**made, "timings": timings, "confidence": answered.confidence}
