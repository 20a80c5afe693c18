"""A server that is down for a moment: what is tried again, how long, and what is said meanwhile.

The client and HTTP are real. Where a test has no time to wait, the store's clock is a number that its sleep moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Timer
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir.errors import CollectionError, InputError, StoreError
from qdrant_cir.storage.stores import CollectionSpec, ServerStore, StoredPoint, open_store
from qdrant_cir.storage.stores.retrying import Retries, retrying_within

SPEC = CollectionSpec(vector_size=3, metadata={"made": "here"})
ONE = np.eye(3, dtype=np.float32)[0]
POINT = StoredPoint(UUID(int=1), ONE, {"n": 1})
CALLS: dict[str, Callable[[ServerStore], Any]] = {
    "collection_names": lambda store: store.collection_names(),
    "describe": lambda store: store.describe("gallery"),
    "create": lambda store: store.create("other", SPEC),
    "drop": lambda store: store.drop("gallery"),
    "create_payload_index": lambda store: store.create_payload_index("gallery", "n", "integer"),
    "upsert": lambda store: store.upsert("gallery", [POINT]),
    "query": lambda store: store.query("gallery", ONE, limit=1, filter=None),
    "fetch": lambda store: store.fetch("gallery", [POINT.point_id], with_vectors=False),
    "scroll": lambda store: store.scroll("gallery", filter=None, limit=1, after=None),
    "delete": lambda store: store.delete("gallery", [POINT.point_id]),
    "count": lambda store: store.count("gallery", None),
    "optimize": lambda store: store.optimize("gallery"),
}


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        own = ServerStore(front.memory)
        own.create("gallery", SPEC)
        own.upsert("gallery", [POINT])
        yield front


@pytest.fixture
def store(front: RestFront, clock: Clock) -> Iterator[ServerStore]:
    client = QdrantClient(url=front.url, check_compatibility=False)
    yield ServerStore(client, sleep=clock.sleep, clock=clock)
    client.close()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "fault", [Fault(503), Fault(500), Fault(429, retry_after="1"), Fault(cut="before"), Fault(cut="after")], ids=str
)
def test_every_call_read_or_write_is_made_again_after_a_failure_that_passes(
    store: ServerStore, front: RestFront, clock: Clock, name: str, fault: Fault
) -> None:
    store.collection_names()
    expected = (
        CALLS[name](ServerStore(front.memory)) if name in ("describe", "query", "fetch", "scroll", "count") else 0
    )
    front.faults += [fault, fault]
    found = CALLS[name](store)
    assert len(clock.pauses) == 2
    assert front.faults == []
    if expected != 0:
        assert found == expected


def test_pauses_grow_to_a_quarter_of_a_minute_and_end_with_the_budget(
    store: ServerStore, front: RestFront, clock: Clock
) -> None:
    front.faults += [Fault(503)] * 99
    with pytest.raises(StoreError, match="status 503: down for the moment"):
        store.count("gallery", None)
    assert clock.pauses == [0.5, 1, 2, 4, 8, 15, 15, 14.5]
    assert sum(clock.pauses) == 60


@pytest.mark.parametrize(("seconds", "pauses"), [(0, []), (0.25, [0.25]), (10, [0.5, 1, 2, 4, 2.5])])
def test_the_budget_is_the_callers(front: RestFront, clock: Clock, seconds: float, pauses: list[float]) -> None:
    front.faults += [Fault(503)] * 99
    client = QdrantClient(url=front.url, check_compatibility=False)
    store = ServerStore(client, retry_seconds=seconds, sleep=clock.sleep, clock=clock)
    with pytest.raises(StoreError):
        store.count("gallery", None)
    assert clock.pauses == pauses
    client.close()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "60", None, True])
def test_what_is_no_number_of_seconds_is_refused(seconds: float) -> None:
    for make in (
        lambda: ServerStore(QdrantClient(":memory:"), retry_seconds=seconds),
        lambda: open_store("http://127.0.0.1:1", retry_seconds=seconds),
    ):
        with pytest.raises(InputError, match="retry_seconds"):
            make()


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_gets_it_in_seconds_or_until_a_date(
    store: ServerStore, front: RestFront, clock: Clock, status: int
) -> None:
    front.faults += [
        Fault(status, retry_after="7"),
        Fault(status, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)),
        Fault(status, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        Fault(status, retry_after="soon"),
    ]
    assert store.count("gallery", None) == 1
    assert clock.pauses == [7, pytest.approx(19, abs=1.5), 2, 4]


def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(
    store: ServerStore, front: RestFront, clock: Clock
) -> None:
    front.faults.append(Fault(429, retry_after="900"))
    with pytest.raises(StoreError, match="429"):
        store.count("gallery", None)
    assert clock.pauses == []


def test_the_time_that_a_server_asks_for_is_told_where_it_is_more_than_there_is(
    store: ServerStore, front: RestFront
) -> None:
    front.faults.append(Fault(429, retry_after="61"))
    with pytest.raises(StoreError, match=r"status 429.* asks to wait 61 s, and retries go on for less"):
        store.count("gallery", None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 501])
def test_what_waiting_does_not_mend_is_told_at_once(
    store: ServerStore, front: RestFront, clock: Clock, status: int
) -> None:
    front.faults.append(Fault(status))
    with pytest.raises((StoreError, InputError, CollectionError), match=r"down for the moment|no collection"):
        store.count("gallery", None)
    assert clock.pauses == []


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 422, 502, 520])
def test_a_proxys_page_is_neither_the_users_error_nor_a_collection_that_is_missing(
    store: ServerStore, front: RestFront, status: int
) -> None:
    front.faults += [Fault(status, body=b"<html><body>who are you?</body></html>")] * 20
    with pytest.raises(StoreError, match=f"status {status} and text that is not a Qdrant server"):
        store.count("gallery", None)


def test_waiting_is_said_in_the_log(store: ServerStore, front: RestFront, caplog: pytest.LogCaptureFixture) -> None:
    front.faults.append(Fault(503))
    store.count("gallery", None)
    # another test may have made the log of debugging visible
    told = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert [(record.levelno, record.getMessage()) for record in told] == [
        (
            logging.WARNING,
            f"Qdrant at {front.url} failed (down for the moment); trying again in 0.5 s, for 60 s at most",
        )
    ]


def test_a_server_that_never_answered_is_given_up_after_two_seconds_and_a_known_one_is_waited_for(clock: Clock) -> None:
    with rest_front() as front:
        client = QdrantClient(url=front.url, check_compatibility=False)
        known = ServerStore(client, sleep=clock.sleep, clock=clock)
        known.collection_names()
    stranger = ServerStore(client, sleep=clock.sleep, clock=clock)
    for store, waited in ((stranger, 2), (known, 60)):
        clock.pauses.clear()
        with pytest.raises(StoreError, match="cannot be reached"):
            store.collection_names()
        assert sum(clock.pauses) == waited
    client.close()


def test_a_server_that_restarts_within_a_second_is_no_error() -> None:
    with rest_front() as front:
        port, memory = front.port, front.memory
        client = QdrantClient(url=front.url, check_compatibility=False)
        store = ServerStore(client)
        store.create("gallery", SPEC)
    started: list[Any] = []

    def start() -> None:
        again = rest_front(port, memory)
        again.__enter__()
        started.append(again)

    timer = Timer(0.3, start)
    timer.start()
    store.upsert("gallery", [POINT])
    assert store.count("gallery", None) == 1
    timer.join()
    started[0].__exit__(None, None, None)
    client.close()


def test_a_collection_whose_making_was_applied_but_not_answered_is_made_and_a_standing_one_is_refused(
    store: ServerStore, front: RestFront
) -> None:
    store.collection_names()
    front.is_faulty = lambda request: request.method == "PUT"
    front.faults.append(Fault(cut="after"))
    store.create("new", SPEC)
    assert store.describe("new") == SPEC
    front.faults.append(Fault(cut="before"))
    with pytest.raises(CollectionError, match="already"):
        store.create("gallery", SPEC)
    assert store.count("gallery", None) == 1


def test_the_asynchronous_reader_tries_again_too(front: RestFront, clock: Clock) -> None:
    async def ask() -> tuple[object, ...]:
        client = AsyncQdrantClient(url=front.url, check_compatibility=False)
        own = ServerStore.over_async(client, asyncio.get_running_loop(), sleep=clock.sleep, clock=clock)
        answers = []
        for call in (
            own.collection_names,
            lambda: own.describe("gallery"),
            lambda: own.query("gallery", ONE, limit=1, filter=None),
            lambda: own.fetch("gallery", [POINT.point_id], with_vectors=False),
            lambda: own.scroll("gallery", filter=None, limit=1, after=None),
        ):
            front.faults += [Fault(503), Fault(cut="before")]
            answers.append(await asyncio.to_thread(call))
        front.faults += [Fault(503)] * 99
        clock.pauses.clear()
        with pytest.raises(StoreError):
            await asyncio.to_thread(own.collection_names)
        await client.close()
        return tuple(answers)

    own = ServerStore(front.memory)
    assert asyncio.run(ask()) == tuple(
        CALLS[name](own) for name in ("collection_names", "describe", "query", "fetch", "scroll")
    )
    assert sum(clock.pauses) == 60


def test_a_read_that_something_can_stand_in_for_is_given_up_earlier(
    store: ServerStore, front: RestFront, clock: Clock
) -> None:
    front.faults += [Fault(503)] * 99
    with retrying_within(2), retrying_within(30), pytest.raises(StoreError):
        store.fetch("gallery", [POINT.point_id], with_vectors=False)
    assert sum(clock.pauses) == 2
    with pytest.raises(StoreError):
        store.fetch("gallery", [POINT.point_id], with_vectors=False)
    assert sum(clock.pauses) == 62


def test_a_sleep_that_lets_no_time_go_by_ends_as_well() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise ResponseHandlingException(ConnectionResetError())

    with pytest.raises(ResponseHandlingException):
        Retries("nowhere", sleep=pauses.append, has_answered=True).call(fail)
    assert sum(pauses) == pytest.approx(60, abs=0.1)
