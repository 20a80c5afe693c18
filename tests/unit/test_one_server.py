"""A client whose REST and gRPC sides lead to two servers writes to neither."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient
from qdrant_client.grpc import collections_pb2, collections_service_pb2_grpc, points_pb2, points_service_pb2_grpc
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir.errors import StoreError
from qdrant_cir.storage.stores import ServerStore

IDS = [UUID(int=1)]


@contextmanager
def grpc_side(peers: tuple[int, ...] | None) -> Iterator[tuple[int, list[str]]]:
    """A Qdrant server over gRPC: its port, and the writes that it got; without peers it does not tell them."""
    writes: list[str] = []

    class Collections(collections_service_pb2_grpc.CollectionsServicer):  # type: ignore[misc]
        def CollectionClusterInfo(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
            if peers is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for this key")
            remote = [collections_pb2.RemoteShardInfo(shard_id=peer, peer_id=peer) for peer in (peers or ())[1:]]
            return collections_pb2.CollectionClusterInfoResponse(
                peer_id=(peers or (0,))[0], shard_count=1, remote_shards=remote
            )

    class Points(points_service_pb2_grpc.PointsServicer):  # type: ignore[misc]
        def Delete(self, request: points_pb2.DeletePoints, context: grpc.ServicerContext) -> object:  # noqa: N802
            writes.append(request.collection_name)
            result = points_pb2.UpdateResult(operation_id=1, status=points_pb2.UpdateStatus.Completed)
            return points_pb2.PointsOperationResponse(result=result)

    server = grpc.server(ThreadPoolExecutor(1))
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(), server)
    points_service_pb2_grpc.add_PointsServicer_to_server(Points(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, writes
    server.stop(None).wait()


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        front.memory.create_collection("shop", vectors_config={})
        yield front


def delete(url: str, port: int, name: str = "shop") -> None:
    client = QdrantClient(url=url, grpc_port=port, prefer_grpc=True, check_compatibility=False)
    try:
        store = ServerStore(client, retry_seconds=0)
        store.delete(name, IDS)
        store.delete(name, IDS)
    finally:
        client.close()


@pytest.mark.parametrize(("rest", "grpc_peers"), [((1,), (1,)), ((1, 2), (2,)), ((2,), (1, 2))])
def test_the_servers_of_one_cluster_are_one(
    front: RestFront, rest: tuple[int, ...], grpc_peers: tuple[int, ...]
) -> None:
    front.peers = rest
    with grpc_side(grpc_peers) as (port, writes):
        delete(front.url, port)
    assert writes == ["shop", "shop"]
    assert len(front.asked("GET", "/cluster")) == 1


def test_two_servers_are_told_apart_before_anything_is_written(front: RestFront) -> None:
    with grpc_side((7,)) as (port, writes):
        with pytest.raises(StoreError, match=f"gRPC port {port} are two servers: nothing was written"):
            delete(front.url, port)
        with pytest.raises(StoreError, match="are two servers"):
            delete(front.url, port, "of-the-other-alone")
    assert writes == []


def test_where_one_side_cannot_tell_the_write_goes_on(front: RestFront) -> None:
    with grpc_side(None) as (port, writes):
        delete(front.url, port)
    assert writes == ["shop", "shop"]
    front.faults.append(Fault(404, b"<html>nothing here</html>"))
    with grpc_side((7,)) as (port, writes):
        delete(front.url, port)
        delete("http://127.0.0.1:9", port)
    assert writes == ["shop"] * 4
