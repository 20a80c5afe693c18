"""A path of reads and computations, written once and driven twice: synchronously and asynchronously.

A path is a generator. It yields each :class:`Read` and each :class:`Call` that it needs, is sent the outcome, and
neither blocks nor awaits itself. :func:`run` drives one against a :class:`Store`, :func:`run_side_by_side` several, and
:func:`run_async` one without blocking the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from qdrant_cir.storage.stores.protocol import Store

__all__ = ["Call", "Read", "Steps", "Stopwatch", "TimedSteps", "computed", "run", "run_async", "run_side_by_side"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """One call of the store."""

    call: Callable[[Store], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One computation, which takes a while and touches no store."""

    compute: Callable[[], Any]


Steps: TypeAlias = Generator[Read | Call, Any, T]
"""A path that ends with a ``T``."""


class Stopwatch:
    """The seconds that a path has taken, without those that it waited for its turn."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        """Start at zero, stopped; ``now`` returns seconds."""
        self._now = now
        self._spent = self._lap_from = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go on counting; harmless while it counts."""
        if self._since is None:
            self._since = self._now()

    def stop(self) -> None:
        """Count no longer; harmless while it does not."""
        self._spent, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return self._spent + (0.0 if self._since is None else self._now() - self._since)

    def lap(self) -> float:
        """Return the seconds since the last lap ended, and begin the next."""
        before, self._lap_from = self._lap_from, self.seconds
        return self._lap_from - before


@dataclass(frozen=True, slots=True)
class TimedSteps(Generic[T]):
    """A path, and the watch that stops while the path waits for a thread."""

    steps: Steps[T]
    watch: Stopwatch


def computed(compute: Callable[[], T]) -> Steps[T]:
    """Yield one computation and return its outcome."""
    outcome: T = yield Call(compute)
    return outcome


def run(steps: Steps[T], store: Store, *, stopped: threading.Event | None = None) -> T:
    """Drive a path in this thread. Raises what the path raises, and CancelledError between two steps once stopped."""
    resume: Callable[[], Read | Call] = partial(steps.send, None)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        if stopped is not None and stopped.is_set():
            steps.close()
            raise CancelledError
        try:
            value = step.call(store) if isinstance(step, Read) else step.compute()
        except Exception as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, value)


async def run_async(path: TimedSteps[T], store: Store, threads: Executor) -> T:
    """Drive a path in one of ``threads``, so that the event loop goes on; cancelled, it ends after its current step.

    Raises what the path raises.
    """
    stopped = threading.Event()
    # what hangs on the caller, such as headers for Qdrant, goes along
    context = contextvars.copy_context()

    def work() -> T:
        path.watch.start()
        return context.run(run, path.steps, store, stopped=stopped)

    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    finally:
        stopped.set()


def run_side_by_side(paths: Sequence[TimedSteps[T]], store: Store, threads: Executor, *, in_flight: int) -> list[T]:
    """Drive paths together, ``in_flight`` at a time: the store is called from this thread alone.

    Raises:
        Exception: what the first path that failed raised; no further path is begun then.
    """
    outcomes: dict[int, T] = {}
    computing: dict[Future[Any], int] = {}

    def advance(place: int, resume: Callable[[], Read | Call]) -> None:
        path = paths[place]
        while True:
            path.watch.start()
            try:
                step = resume()
            except StopIteration as end:
                outcomes[place] = end.value
                return
            if isinstance(step, Call):
                path.watch.stop()
                computing[threads.submit(_counted, path.watch, step.compute)] = place
                return
            try:
                value = step.call(store)
            except Exception as error:
                resume = partial(path.steps.throw, error)
            else:
                resume = partial(path.steps.send, value)

    begun = 0
    try:
        while computing or begun < len(paths):
            while begun < len(paths) and len(computing) < in_flight:
                advance(begun, partial(paths[begun].steps.send, None))
                begun += 1
            for future in wait(computing, return_when=FIRST_COMPLETED).done:
                place = computing.pop(future)
                error = future.exception()
                steps = paths[place].steps
                advance(place, partial(steps.send, future.result()) if error is None else partial(steps.throw, error))
    finally:
        for future in computing:
            future.cancel()
        wait(computing)
    return [outcomes[place] for place in range(len(paths))]


def _counted(watch: Stopwatch, compute: Callable[[], T]) -> T:
    watch.start()
    try:
        return compute()
    finally:
        watch.stop()
