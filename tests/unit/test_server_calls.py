"""What a server is asked for, and what its refusals lead to: a real client, and answers made by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from uuid import UUID

import numpy as np
import pytest
from canned_servers import VECTOR_SIZE, Refusal, RestServer, grpc_server, rest_server

from qdrant_cir.errors import CirError, InputError, StoreError
from qdrant_cir.storage.stores import ServerStore, StoredPoint, connect

POINT = StoredPoint(UUID(int=1), np.ones(VECTOR_SIZE, np.float32), {})
WRITES: dict[str, Callable[[ServerStore], None]] = {
    "upsert": lambda store: store.upsert("gallery", [POINT]),
    "delete": lambda store: store.delete("gallery", [POINT.point_id]),
    "set_payloads": lambda store: store.set_payloads("gallery", {POINT.point_id: {"price": 1}}),
    "delete_payloads": lambda store: store.delete_payloads("gallery", {POINT.point_id: ["price"]}),
    "update_vectors": lambda store: _update_vectors(store),
    "clear_vectors": lambda store: store.clear_vectors("gallery", "image", [POINT.point_id]),
}


def _update_vectors(store: ServerStore) -> None:
    assert store.update_vectors("gallery", "image", {POINT.point_id: np.ones(VECTOR_SIZE, np.float32)}) == []


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest) -> Callable[[ServerStore], None]:
    return WRITES[request.param]


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    """Seconds that a store would have waited, in order."""
    return []


@pytest.fixture
def store(server: RestServer, pauses: list[float]) -> Iterator[ServerStore]:
    """A store that reaches the server as users do, over REST, for nothing speaks gRPC there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]
    client = connect(server.url, grpc_port=closed_port)
    yield ServerStore(client, sleep=pauses.append)
    client.close()


def test_a_write_returns_when_the_server_has_applied_it(
    store: ServerStore, server: RestServer, write: Callable[[ServerStore], None]
) -> None:
    write(store)
    assert [request.query["wait"] for request in server.writes] == [["true"]]


def test_a_write_that_fails_for_a_moment_is_tried_again_after_growing_pauses(
    store: ServerStore, server: RestServer, pauses: list[float], write: Callable[[ServerStore], None]
) -> None:
    server.refusals += [Refusal(503), Refusal(500)]
    write(store)
    assert pauses == [0.5, 1.0]
    assert len(server.writes) == 3


def test_a_write_is_given_up_when_the_budget_of_a_minute_is_spent(
    store: ServerStore, server: RestServer, pauses: list[float], write: Callable[[ServerStore], None]
) -> None:
    server.refusals += [Refusal(503)] * 20
    with pytest.raises(StoreError, match="status 503: refused with 503"):
        write(store)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 14.5]
    assert len(server.writes) == len(pauses) + 1


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 0.5), ("59", 59.0)])
def test_a_server_that_asks_for_a_pause_within_the_budget_gets_it(
    store: ServerStore, server: RestServer, pauses: list[float], asked: str, waited: float
) -> None:
    server.refusals.append(Refusal(429, retry_after=asked))
    WRITES["upsert"](store)
    assert pauses == [waited]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InputError), (401, StoreError), (403, StoreError), (422, InputError), (507, StoreError)]
)
def test_a_refusal_that_waiting_does_not_mend_is_told_at_once(
    store: ServerStore, server: RestServer, pauses: list[float], status: int, kind: type[CirError]
) -> None:
    server.refusals += [Refusal(status)] * 9
    with pytest.raises(kind, match=f"refused with {status}") as raised:
        WRITES["upsert"](store)
    assert raised.type is kind
    assert pauses == []
    assert len(server.writes) == 1


def test_answers_are_asked_for_uncompressed_over_rest(store: ServerStore, server: RestServer) -> None:
    WRITES["upsert"](store)
    assert len(server.requests) == 2
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


def test_answers_are_asked_for_uncompressed_over_grpc() -> None:
    with grpc_server() as server:
        connect("http://127.0.0.1:9", grpc_port=server.port).close()
        sent = bytes(server.sent)
    assert b"grpc-accept-encoding\x08identity" in sent
    assert b"gzip" not in sent
