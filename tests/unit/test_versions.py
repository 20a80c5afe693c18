"""A server that is too old is told apart from a wrong call, and one far from the client's version is warned of once."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient
from qdrant_client.grpc import qdrant_pb2, qdrant_pb2_grpc
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir.errors import CirError, CollectionNotFoundError, InputError, StoreError
from qdrant_cir.storage.stores import CollectionSpec, ServerStore, connect
from qdrant_cir.storage.stores.protocol import VectorSpec

SPEC = VectorSpec(3, "Cosine", False)
MAJOR, MINOR = (int(part) for part in importlib.metadata.version("qdrant-client").split(".")[:2])


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[RestFront]:
    for name in ("QDRANT_API_KEY", "QDRANT_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    with rest_front() as front:
        ServerStore(front.memory).create("shop", CollectionSpec(vector_size=3, metadata={}))
        front.is_faulty = lambda request: "/vectors/" in request.path
        yield front


def add_vector(front: RestFront, answer: Fault) -> CirError:
    front.faults.append(answer)
    store = ServerStore.connect(front.url, retry_seconds=0)
    with pytest.raises(CirError) as raised:
        store.add_vector("shop", "cir", SPEC)
    store.close()
    assert not front.faults
    return raised.value


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_lacks_a_call_is_named_with_the_version_that_is_needed(front: RestFront, status: int) -> None:
    front.version = "1.17.1"
    error = add_vector(front, Fault(status, b""))
    assert type(error) is StoreError
    assert "is version 1.17.1 and lacks a call: this needs Qdrant 1.18." in str(error)


def test_a_wrong_call_stays_one_on_an_old_server_too(front: RestFront) -> None:
    front.version = "1.17.1"
    wrong = add_vector(front, Fault(400, b'{"status": {"error": "Wrong input: no such vector"}, "time": 0}'))
    assert type(wrong) is InputError
    missing = add_vector(front, Fault(404, b'{"status": {"error": "Not found: Collection"}, "time": 0}'))
    assert type(missing) is CollectionNotFoundError


@pytest.mark.parametrize("version", [None, "1.18.0", "2.0.0", "dev"])
def test_an_empty_404_of_a_server_that_is_not_old_is_not_put_down_to_its_age(
    front: RestFront, version: str | None
) -> None:
    front.version = version
    assert "needs Qdrant" not in str(add_vector(front, Fault(404, b"")))


def test_over_grpc_an_unknown_call_of_an_old_server_is_named_alike() -> None:
    class Root(qdrant_pb2_grpc.QdrantServicer):  # type: ignore[misc]
        def HealthCheck(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
            return qdrant_pb2.HealthCheckReply(title="qdrant", version="1.17.1")

    server = grpc.server(ThreadPoolExecutor(1))
    qdrant_pb2_grpc.add_QdrantServicer_to_server(Root(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = QdrantClient("127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
    with pytest.raises(StoreError, match=r"version 1\.17\.1 and lacks a call: this needs Qdrant 1\.18\."):
        ServerStore(client, retry_seconds=0).collection_names()
    client.close()
    server.stop(None).wait()


def warnings_of(front: RestFront, caplog: pytest.LogCaptureFixture) -> list[str]:
    store = ServerStore(connect(front.url))
    for _ in range(3):
        store.collection_names()
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("version", [f"{MAJOR}.{MINOR - 3}.9", f"{MAJOR}.{MINOR + 3}.0", f"{MAJOR + 1}.{MINOR}.0"])
def test_versions_far_apart_are_one_warning(front: RestFront, version: str, caplog: pytest.LogCaptureFixture) -> None:
    front.version = version
    (warning,) = warnings_of(front, caplog)
    assert warning.startswith(f"Qdrant at {front.url} is version {version} and qdrant-client is {MAJOR}.{MINOR}.")


@pytest.mark.parametrize(
    "version", [None, "dev", f"{MAJOR}.{MINOR - 2}.0", f"{MAJOR}.{MINOR}.0", f"{MAJOR}.{MINOR + 2}.0"]
)
def test_versions_near_each_other_and_unknown_ones_are_none(
    front: RestFront, version: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    front.version = version
    assert warnings_of(front, caplog) == []


@pytest.mark.filterwarnings("ignore:Qdrant client version")  # the client's own, from a thread of its
def test_a_client_that_compares_the_versions_itself_is_not_asked_again(
    front: RestFront, caplog: pytest.LogCaptureFixture
) -> None:
    front.version = f"{MAJOR + 1}.0.0"
    client = QdrantClient(front.url)
    ServerStore(client).collection_names()
    client.close()
    assert caplog.records == []
