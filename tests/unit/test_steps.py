"""The three drivers of a path: what it is sent, what it is thrown, from which thread, and what its watch counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeAlias, cast

import pytest

from qdrant_cir.storage.steps import Call, Read, Steps, Stopwatch, TimedSteps, run, run_async, run_side_by_side
from qdrant_cir.storage.stores.protocol import Store


class HandClock:
    """Seconds that pass only when a test lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """What a step reads; ``threads`` are those that read."""

    def __init__(self, clock: HandClock | None = None) -> None:
        self.clock = clock
        self.threads: set[threading.Thread] = set()

    def look(self, name: str) -> str:
        self.threads.add(threading.current_thread())
        if self.clock is not None:
            self.clock.now += 1
        if name == "nothing":
            raise KeyError(name)
        return name.upper()


class LateThread(Executor):
    """Begins what it is given 100 s late, and is heard of another 100 s after its end."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:  # noqa: ANN401
        future: Future[Any] = Future()
        self.clock.now += 100
        try:
            future.set_result(call(*args, **options))
        except Exception as error:
            future.set_exception(error)
        self.clock.now += 100
        return future


Driver: TypeAlias = Callable[[TimedSteps[str], Executor, HandClock | None], str]


def alone(path: TimedSteps[str], threads: Executor, clock: HandClock | None) -> str:
    return run(path.steps, cast(Store, Shelf(clock)))


def awaited(path: TimedSteps[str], threads: Executor, clock: HandClock | None) -> str:
    return asyncio.run(run_async(path, cast(Store, Shelf(clock)), threads))


def side_by_side(path: TimedSteps[str], threads: Executor, clock: HandClock | None) -> str:
    (outcome,) = run_side_by_side([path], cast(Store, Shelf(clock)), threads, in_flight=2)
    return outcome


DRIVERS = (alone, awaited, side_by_side)


def fail() -> str:
    raise KeyError("nothing")


FAILING: dict[str, Read | Call] = {"read": Read(lambda shelf: shelf.look("nothing")), "computation": Call(fail)}


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def timed(steps: Steps[str], clock: HandClock | None = None) -> TimedSteps[str]:
    return TimedSteps(steps, Stopwatch() if clock is None else Stopwatch(clock))


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_step_is_sent_its_outcome(driver: Driver, threads: ThreadPoolExecutor) -> None:
    def steps() -> Steps[str]:
        read = yield Read(lambda shelf: shelf.look("a"))
        made = yield Call(lambda: read + "b")
        again = yield Read(lambda shelf: shelf.look(made))
        return f"{read} {made} {again}"

    assert driver(timed(steps()), threads, None) == "A Ab AB"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("what", FAILING)
def test_what_a_step_raises_is_raised_where_the_path_asked_for_it(
    driver: Driver, threads: ThreadPoolExecutor, what: str
) -> None:
    def steps() -> Steps[str]:
        try:
            yield FAILING[what]
        except KeyError as error:
            return f"without {error}"
        return "with nothing"

    assert driver(timed(steps()), threads, None) == "without 'nothing'"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("what", FAILING)
def test_what_a_path_does_not_catch_reaches_the_caller(driver: Driver, threads: ThreadPoolExecutor, what: str) -> None:
    def steps() -> Steps[str]:
        yield FAILING[what]
        return "with nothing"

    with pytest.raises(KeyError, match="nothing"):
        driver(timed(steps()), threads, None)


def test_a_path_whose_caller_is_cancelled_ends_after_its_step(threads: ThreadPoolExecutor) -> None:
    began, may_end, after = threading.Event(), threading.Event(), threading.Event()
    closed: list[str] = []

    def wait() -> None:
        began.set()
        assert may_end.wait(10)

    def steps() -> Steps[str]:
        try:
            yield Call(wait)
            yield Call(after.set)
            return "done"
        finally:
            closed.append("closed")

    async def ask() -> None:
        asking = asyncio.create_task(run_async(timed(steps()), cast(Store, Shelf()), threads))
        await asyncio.to_thread(began.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        may_end.set()

    asyncio.run(ask())
    threads.shutdown()
    assert (after.is_set(), closed) == (False, ["closed"])


@pytest.mark.parametrize("driver", [awaited, side_by_side])
def test_the_watch_counts_reads_and_computations_and_not_the_waiting_for_a_thread(driver: Driver) -> None:
    clock = HandClock()
    laps: list[float] = []

    def compute() -> None:
        clock.now += 10

    def steps() -> Steps[str]:
        yield Read(lambda shelf: shelf.look("a"))
        laps.append(path.watch.lap())
        yield Call(compute)
        laps.append(path.watch.lap())
        yield Read(lambda shelf: shelf.look("b"))
        laps.append(path.watch.lap())
        return "done"

    path = timed(steps(), clock)
    assert driver(path, LateThread(clock), clock) == "done"
    assert laps == [1, 10, 1]
    assert clock.now == 212


def test_of_paths_side_by_side_only_the_callers_thread_reads_and_only_others_compute(
    threads: ThreadPoolExecutor,
) -> None:
    computing: set[threading.Thread] = set()

    def steps(name: str) -> Steps[str]:
        read = yield Read(lambda shelf: shelf.look(name))
        yield Call(lambda: computing.add(threading.current_thread()))
        again = yield Read(lambda shelf: shelf.look(read))
        return f"{again}"

    shelf = Shelf()
    names = [f"n{place}" for place in range(8)]
    found = run_side_by_side([timed(steps(name)) for name in names], cast(Store, shelf), threads, in_flight=3)
    assert found == [name.upper() for name in names]
    assert shelf.threads == {threading.current_thread()}
    assert computing
    assert threading.current_thread() not in computing


def test_of_paths_side_by_side_no_more_are_begun_than_may_be_in_flight_and_none_after_a_failure() -> None:
    begun: list[int] = []
    unlocked = threading.Event()

    def steps(place: int) -> Steps[str]:
        begun.append(place)
        if place == 2:
            unlocked.set()
        yield Call(unlocked.wait)
        if place == 0:
            raise KeyError("first")
        yield Call(lambda: None)
        return "done"

    paths = [timed(steps(place)) for place in range(8)]
    with ThreadPoolExecutor(1) as threads, pytest.raises(KeyError, match="first"):
        run_side_by_side(paths, cast(Store, Shelf()), threads, in_flight=3)
    assert begun == [0, 1, 2]
