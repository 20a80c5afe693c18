"""What a server is asked for, by whatever client: tokens uncompressed, and a wide view of the graph."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.grpc import json_with_int_pb2, points_pb2, points_service_pb2_grpc
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir.errors import CollectionNotFoundError, InputError
from qdrant_cir.storage.stores import CollectionSpec, ServerStore, StoredPoint, connect

SPEC = CollectionSpec(vector_size=3, metadata={})
IDS = [UUID(int=n + 1) for n in range(4)]
GRPC_OPTIONS = {"grpc.compression_enabled_algorithms_bitset": 1}
QUERY = np.eye(3, dtype=np.float32)[0]


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        own = ServerStore(front.memory)
        own.create("gallery", SPEC)
        own.upsert("gallery", [StoredPoint(point_id, QUERY, {"tokens": "A" * 999, "n": 1}) for point_id in IDS])
        yield front


@contextmanager
def grpc_points() -> Iterator[tuple[int, list[str]]]:
    """A gRPC server with four points: its port, and the names of the collections that were read from."""
    reads: list[str] = []

    class Points(points_service_pb2_grpc.PointsServicer):  # type: ignore[misc]
        def Get(self, request: points_pb2.GetPoints, context: grpc.ServicerContext) -> points_pb2.GetResponse:  # noqa: N802
            reads.append(request.collection_name)
            value = json_with_int_pb2.Value(string_value="over gRPC")
            return points_pb2.GetResponse(
                result=[points_pb2.RetrievedPoint(id=point, payload={"tokens": value}) for point in request.ids]
            )

    server = grpc.server(ThreadPoolExecutor(1))
    points_service_pb2_grpc.add_PointsServicer_to_server(Points(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, reads
    server.stop(None).wait()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port


def fetched(client: QdrantClient, *, retry_seconds: float = 60) -> list[list[object]]:
    """The tokens that the store reads, twice, and those that one over an asynchronous client reads."""

    async def fetch() -> list[list[object]]:
        options = {**client.init_options, "grpc_options": client.init_options["grpc_options"] and dict(GRPC_OPTIONS)}
        own = AsyncQdrantClient(**options)
        store = ServerStore.over_async(own, asyncio.get_running_loop(), retry_seconds=retry_seconds)
        read = partial(store.fetch, "gallery", IDS, with_vectors=False, fields=("tokens",))
        found = [await asyncio.to_thread(read) for _ in range(2)]
        await own.close()
        return [[record.payload["tokens"] for record in records] for records in found]

    store = ServerStore(client, retry_seconds=retry_seconds)
    found = [store.fetch("gallery", IDS, with_vectors=False, fields=("tokens",)) for _ in range(2)]
    client.close()
    return [[record.payload["tokens"] for record in records] for records in found] + asyncio.run(fetch())


def test_a_clients_tokens_come_uncompressed_over_rest(front: RestFront) -> None:
    client = QdrantClient(url=front.url, check_compatibility=False)
    assert "gzip" in client.http.client._client.headers["accept-encoding"]
    assert fetched(client) == [["A" * 999] * 4] * 4
    assert [read.headers["accept-encoding"] for read in front.asked("POST", "/points")] == ["identity"] * 4


def test_a_grpc_clients_tokens_come_uncompressed_over_its_rest_side(front: RestFront) -> None:
    with grpc_points() as (port, reads):
        client = QdrantClient(url=front.url, grpc_port=port, prefer_grpc=True, check_compatibility=False)
        assert fetched(client) == [["A" * 999] * 4] * 4
        assert [read.headers["accept-encoding"] for read in front.asked("POST", "/points")] == ["identity"] * 4
        assert reads == []


def test_where_rest_does_not_answer_grpc_does_and_is_asked_at_once_the_next_time() -> None:
    with grpc_points() as (port, reads):
        address = f"http://127.0.0.1:{closed_port()}"
        client = QdrantClient(url=address, grpc_port=port, prefer_grpc=True, check_compatibility=False)
        assert fetched(client, retry_seconds=0) == [["over gRPC"] * 4] * 4
        assert reads == ["gallery"] * 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_where_rest_is_another_servers_grpc_is_asked_and_rest_no_more(front: RestFront, status: int) -> None:
    with grpc_points() as (port, reads):
        front.faults += [Fault(status)] * 2
        client = QdrantClient(url=front.url, grpc_port=port, prefer_grpc=True, check_compatibility=False)
        assert fetched(client) == [["over gRPC"] * 4] * 4
        assert len(front.asked("POST", "/points")) == 2
        assert reads == ["gallery"] * 4


def test_a_client_of_connect_reads_over_the_grpc_that_it_has_and_is_not_compressed_either(front: RestFront) -> None:
    with grpc_points() as (port, reads):
        client = connect(front.url, grpc_port=port)
        assert fetched(client) == [["A" * 999] * 4] * 4  # this gRPC server lists no collections, so REST it is
        assert {read.headers["accept-encoding"] for read in front.requests} == {"identity"}
        assert reads == []
        options = {**client.init_options, "prefer_grpc": True, "grpc_options": dict(GRPC_OPTIONS)}
        assert fetched(QdrantClient(**options)) == [["over gRPC"] * 4] * 4
        assert reads == ["gallery"] * 4


def test_a_collection_that_is_missing_is_missing_over_both_sides(front: RestFront) -> None:
    store = ServerStore(QdrantClient(url=front.url, check_compatibility=False))
    with pytest.raises(CollectionNotFoundError):
        store.fetch("nobody", IDS, with_vectors=False)


@pytest.fixture(params=["store", "reader"])
def query(request: pytest.FixtureRequest, front: RestFront) -> Callable[[int], int]:
    """Search with a limit, synchronously or not, and count what is found."""

    async def search(limit: int) -> int:
        client = AsyncQdrantClient(url=front.url, check_compatibility=False)
        own = ServerStore.over_async(client, asyncio.get_running_loop())
        found = await asyncio.to_thread(own.query, "gallery", QUERY, limit=limit, filter=None)
        await client.close()
        return len(found)

    if request.param == "reader":
        return lambda limit: asyncio.run(search(limit))
    store = ServerStore(QdrantClient(url=front.url, check_compatibility=False))
    return lambda limit: len(store.query("gallery", QUERY, limit=limit, filter=None))


@pytest.mark.parametrize(("limit", "view"), [(1, 512), (256, 512), (400, 800)])
def test_a_search_keeps_512_points_in_view_or_twice_the_limit(
    front: RestFront, query: Callable[[int], int], limit: int, view: int
) -> None:
    assert query(limit) == min(limit, 4)
    assert [asked.body["params"]["hnsw_ef"] for asked in front.asked("POST", "/points/query")] == [view]


def test_a_view_that_strict_mode_forbids_is_left_to_the_server(front: RestFront, query: Callable[[int], int]) -> None:
    error = (
        b'{"status": {"error": "Forbidden: Limit exceeded 512 > 128 for \\"hnsw_ef\\". Help: Reduce it"}, "time": 0}'
    )
    front.is_faulty = lambda request: request.path.endswith("/points/query")
    front.faults.append(Fault(400, body=error))
    assert query(3) == 3
    assert [asked.body.get("params", {}).get("hnsw_ef") for asked in front.asked("POST", "/points/query")] == [
        512,
        None,
    ]


@pytest.mark.parametrize("kind", list(models.PayloadSchemaType))
def test_a_payload_index_of_every_kind_of_the_client_is_asked_for(front: RestFront, kind: str) -> None:
    store = ServerStore(QdrantClient(url=front.url, check_compatibility=False))
    store.create_payload_index("gallery", "shop.city", str(models.PayloadSchemaType(kind).value))
    (asked,) = front.asked("PUT", "/index")
    value = models.PayloadSchemaType(kind).value
    wanted = {"type": "text", "phrase_matching": True} if value == "text" else value
    assert asked.body == {"field_name": "shop.city", "field_schema": wanted}
    for field, given in (("a b", "keyword"), ("", "keyword"), ("color", "word"), ("color", None), (7, "keyword")):
        with pytest.raises(InputError, match=r"cannot read|keyword, integer|expected text"):
            store.create_payload_index("gallery", field, given)  # type: ignore[arg-type]
    assert len(front.asked("PUT", "/index")) == 1
