"""Which server is talked to, over which transport, and what is said of its address."""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient
from qdrant_client.grpc import collections_pb2, collections_service_pb2_grpc
from qdrant_front import RestFront, rest_front

from qdrant_cir.errors import CirError, InputError, StoreError
from qdrant_cir.storage.stores import ServerStore, connect, connect_async, connection, open_store


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QDRANT_API_KEY", "QDRANT_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        yield front


@contextmanager
def grpc_server() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Another Qdrant server, over gRPC: its port, and the headers of the calls that it got."""
    calls: list[dict[str, str]] = []

    class Collections(collections_service_pb2_grpc.CollectionsServicer):  # type: ignore[misc]
        def List(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
            calls.append(dict(context.invocation_metadata()))
            return collections_pb2.ListCollectionsResponse(
                collections=[collections_pb2.CollectionDescription(name="of-the-grpc-server")]
            )

    server = grpc.server(ThreadPoolExecutor(1))
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, calls
    server.stop(None).wait()


def names(client: QdrantClient) -> list[str]:
    try:
        return ServerStore(client).collection_names()
    finally:
        client.close()


def test_a_server_on_another_port_is_not_mistaken_for_the_one_whose_grpc_port_is_open(
    front: RestFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    with grpc_server() as (port, calls):
        monkeypatch.setattr(connection, "GRPC_PORT", port)
        front.memory.create_collection("of-this-server", vectors_config={})
        assert names(connect(front.url)) == ["of-this-server"]
        assert calls == []


def test_grpc_is_used_on_its_usual_port_beside_the_usual_port_of_rest(
    front: RestFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    with grpc_server() as (port, calls):
        monkeypatch.setattr(connection, "GRPC_PORT", port)
        monkeypatch.setattr(connection, "REST_PORT", front.port)
        assert names(connect("http://127.0.0.1")) == ["of-the-grpc-server"]
        assert names(connect(front.url)) == ["of-the-grpc-server"]
        asked = len(calls)
        # behind a path stands a proxy, and who knows whose that port is
        connect(f"{front.url}/qdrant").close()
        connect(f"http://user:word@127.0.0.1:{front.port}").close()
        assert len(calls) == asked


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_grpc_port_that_is_named_is_used_beside_any_address(
    front: RestFront, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with grpc_server() as (port, calls):
        if how == "environment":
            monkeypatch.setenv("QDRANT_GRPC_PORT", str(port))
        client = connect(front.url, "the key", grpc_port=port if how == "argument" else None)
        assert names(client) == ["of-the-grpc-server"]
        assert {call["api-key"] for call in calls} == {"the key"}


def test_a_closed_grpc_port_leaves_rest(front: RestFront) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    front.memory.create_collection("here", vectors_config={})
    assert names(connect(front.url, grpc_port=closed)) == ["here"]


def test_a_grpc_port_that_swallows_everything_costs_no_three_seconds(front: RestFront) -> None:
    # a queue of one that is full: the kernel answers no further connection, as a firewall does
    with socket.socket() as swallowing, socket.socket() as first, socket.socket() as second:
        swallowing.bind(("127.0.0.1", 0))
        swallowing.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(swallowing.getsockname())
        started = perf_counter()
        client = connect(front.url, grpc_port=swallowing.getsockname()[1])
        assert perf_counter() - started < 2.5
        assert client.init_options["prefer_grpc"] is False
        client.close()


def test_a_grpc_port_that_takes_calls_and_never_answers_costs_about_a_second(front: RestFront) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = perf_counter()
        client = connect(front.url, grpc_port=silent.getsockname()[1])
        assert perf_counter() - started < 5
        assert client.init_options["prefer_grpc"] is False
        client.close()


def test_a_client_made_of_host_and_port_works_and_is_named_so(front: RestFront) -> None:
    client = QdrantClient(host="127.0.0.1", port=front.port, check_compatibility=False)
    front.memory.create_collection("here", vectors_config={})
    assert ServerStore(client).collection_names() == ["here"]
    assert connection.place_of(client) == f"Qdrant at 127.0.0.1:{front.port}"
    client.close()


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_is_none_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="grpc_port"):
        connect("http://localhost:6333", grpc_port=port)
    monkeypatch.setenv("QDRANT_GRPC_PORT", "six")
    with pytest.raises(InputError, match="QDRANT_GRPC_PORT"):
        connect("http://localhost:6333")


def test_an_address_with_a_path_and_one_in_brackets_reach_their_server(front: RestFront) -> None:
    store = ServerStore(connect(f"{front.url}/proxied/"), retry_seconds=0)
    with pytest.raises(CirError):
        store.collection_names()
    assert front.requests[-1].path == "/proxied/collections"
    client = connect("http://[::1]:7999")
    assert client.http.client.host == "http://[::1]:7999"
    client.close()


def test_user_and_password_of_a_proxy_are_sent_but_never_shown(
    front: RestFront, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="qdrant_cir")
    address = front.url.replace("://", "://ann:s%40cret@")
    client = connect(address)
    ServerStore(client).collection_names()
    assert front.requests[-1].headers["authorization"] == "Basic YW5uOnNAY3JldA=="
    client.close()
    for given in (f"http://ann:s@cret@127.0.0.1:{'1' * 9}", "ftp://ann:s@cret@host", "http://ann:s@cret@"):
        with pytest.raises(InputError) as raised:
            connect(given)
        assert "cret" not in str(raised.value)
    own = QdrantClient(url="http://ann:s%40cret@127.0.0.1:1", check_compatibility=False)
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:1 ") as failed:
        ServerStore(own, retry_seconds=0).collection_names()
    assert "cret" not in str(failed.value) + caplog.text
    own.close()


def test_a_key_over_plain_http_is_one_sentence_in_the_log_and_no_warning_of_python(
    front: RestFront, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger="qdrant_cir")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("QDRANT_API_KEY", "of the environment")
        open_store(front.url).collection_names()
        assert front.requests[-1].headers["api-key"] == "of the environment"
        open_store(front.url, api_key="given").collection_names()
        assert front.requests[-1].headers["api-key"] == "given"
        open_store(front.url, api_key="").collection_names()
        assert "api-key" not in front.requests[-1].headers
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"The API key is sent to {front.url} unencrypted; an address with https:// would hide it."] * 2


def test_an_asynchronous_client_has_the_same_settings_and_warns_of_nothing(front: RestFront) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = connect_async(front.url, "the key")
    assert client.init_options == connect(front.url, "the key").init_options | {
        "grpc_options": client.init_options["grpc_options"]
    }
    assert client.init_options["grpc_options"]["grpc.compression_enabled_algorithms_bitset"] == 1

    async def ask() -> list[str]:
        found = await asyncio.to_thread(ServerStore.over_async(client, asyncio.get_running_loop()).collection_names)
        await client.close()
        return found

    assert asyncio.run(ask()) == []
    assert front.requests[-1].headers["accept-encoding"] == "identity"
    assert front.requests[-1].headers["api-key"] == "the key"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6333", "http://", "http://localhost:port", "http://localhost:99999", "http://[::1", "ftp://x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="not the address of a Qdrant server"):
        connect(url)
