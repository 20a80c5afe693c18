"""A client whose REST and gRPC sides lead to two servers writes to neither."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient
from qdrant_client.conversions.conversion import grpc_to_payload, payload_to_grpc
from qdrant_client.grpc import collections_pb2, collections_service_pb2_grpc, points_pb2, points_service_pb2_grpc
from qdrant_front import Fault, RestFront, rest_front

from qdrant_cir.errors import StoreError
from qdrant_cir.storage.stores import CollectionSpec, ServerStore

IDS = [UUID(int=1)]


@contextmanager
def grpc_side(peers: tuple[int, ...] | None, memory: QdrantClient | None = None) -> Iterator[tuple[int, list[str]]]:
    """A Qdrant server over gRPC: its port, and the writes that it got; without peers it does not tell them.

    Its collections are those of the memory.
    """
    writes: list[str] = []

    class Collections(collections_service_pb2_grpc.CollectionsServicer):  # type: ignore[misc]
        def CollectionClusterInfo(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
            if peers is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for this key")
            remote = [collections_pb2.RemoteShardInfo(shard_id=peer, peer_id=peer) for peer in (peers or ())[1:]]
            return collections_pb2.CollectionClusterInfoResponse(
                peer_id=(peers or (0,))[0], shard_count=1, remote_shards=remote
            )

        def CollectionExists(self, request: Any, context: grpc.ServicerContext) -> object:  # noqa: N802, ANN401
            exists = memory is not None and memory.collection_exists(request.collection_name)
            result = collections_pb2.CollectionExists(exists=exists)
            return collections_pb2.CollectionExistsResponse(result=result)

        def Get(self, request: Any, context: grpc.ServicerContext) -> object:  # noqa: N802, ANN401
            assert memory is not None
            found = memory.get_collection(request.collection_name).config.metadata or {}
            config = collections_pb2.CollectionConfig(
                metadata=payload_to_grpc(found),
                hnsw_config=collections_pb2.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=collections_pb2.OptimizersConfigDiff(
                    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
                ),
                wal_config=collections_pb2.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            )
            info = collections_pb2.CollectionInfo(status=collections_pb2.Green, config=config)
            return collections_pb2.GetCollectionInfoResponse(result=info)

        def Create(self, request: Any, context: grpc.ServicerContext) -> object:  # noqa: N802, ANN401
            assert memory is not None
            writes.append(f"create {request.collection_name}")
            metadata = grpc_to_payload(request.metadata)
            memory.create_collection(request.collection_name, vectors_config={}, metadata=metadata)
            return collections_pb2.CollectionOperationResponse(result=True)

        def Delete(self, request: Any, context: grpc.ServicerContext) -> object:  # noqa: N802, ANN401
            writes.append(f"drop {request.collection_name}")
            return collections_pb2.CollectionOperationResponse(result=True)

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


@contextmanager
def opened(url: str, port: int) -> Iterator[ServerStore]:
    client = QdrantClient(url=url, grpc_port=port, prefer_grpc=True, check_compatibility=False)
    try:
        yield ServerStore(client, retry_seconds=0, sleep=lambda seconds: None)
    finally:
        client.close()


def delete(url: str, port: int, name: str = "shop") -> None:
    with opened(url, port) as store:
        store.delete(name, IDS)
        store.delete(name, IDS)


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


def test_a_new_collection_is_made_over_rest_and_its_token_read_over_grpc(front: RestFront) -> None:
    # the peers say nothing: a copied disk has the peer of the one that it was copied from
    with grpc_side(None, front.memory) as (port, writes), opened(front.url, port) as store:
        store.create("new__tokens", CollectionSpec(None, {"mine": 1}))
        made = store.describe("new__tokens")
        assert made is not None
        assert made.metadata.keys() == {"mine", "_cir_server"}
        assert [request.call for request in front.requests] == ["PUT new__tokens"]
        assert writes == []
        store.create("new", CollectionSpec(None, {"mine": 2}))
        store.delete("new", IDS)
    assert writes == ["create new", "new"]


def test_two_servers_with_one_peer_are_told_apart_when_a_collection_is_made(front: RestFront) -> None:
    other = QdrantClient(":memory:")
    with grpc_side((1,), other) as (port, writes), opened(front.url, port) as store:
        with pytest.raises(StoreError, match=f"gRPC port {port} are two servers: nothing was written"):
            store.create("new__tokens", CollectionSpec(None, {"mine": 1}))
        assert not front.memory.collection_exists("new__tokens")
        with pytest.raises(StoreError, match="are two servers"):
            store.create("shop", CollectionSpec(None, {"mine": 1}))
    assert front.memory.collection_exists("shop")
    assert writes == []


def test_where_rest_is_closed_a_collection_is_made_over_grpc(front: RestFront) -> None:
    with grpc_side((1,), front.memory) as (port, writes), opened("http://127.0.0.1:9", port) as store:
        store.create("new", CollectionSpec(None, {"mine": 1}))
    assert writes == ["create new"]
