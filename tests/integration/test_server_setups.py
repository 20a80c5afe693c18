"""Servers in strict mode, with keys, killed, and three as a cluster of which one has stopped.

They need Docker, wherever QDRANT_URL points: ``CIR_REQUIRE=cluster`` makes their skip a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Timer
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import models
from qdrant_containers import Server, qdrant_cluster, qdrant_server, token

from qdrant_cir import CollectionOptions
from qdrant_cir.errors import InputError, StoreError
from qdrant_cir.storage.stores import CollectionSpec, ServerStore, StoredPoint, connect

KEY = "the key of the server, of 32 bytes and more"
READ_ONLY_KEY = "the key of its readers"
IDS = [UUID(int=n + 1) for n in range(30)]
VECTORS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
RED = models.Filter(must=[models.FieldCondition(key="color", match=models.MatchValue(value="red"))])

pytestmark = pytest.mark.usefixtures("docker_engine")
Opened = Callable[..., ServerStore]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Open stores that are closed after the test."""
    for name in ("QDRANT_API_KEY", "QDRANT_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    stores: list[ServerStore] = []

    def open_at(server: Server, key: str = "", retry_seconds: float = 60) -> ServerStore:
        stores.append(ServerStore.connect(server.url, key, grpc_port=server.grpc_port, retry_seconds=retry_seconds))
        return stores[-1]

    yield open_at
    for store in stores:
        store.close()


def fill(store: ServerStore, name: str) -> None:
    store.create(name, CollectionSpec(vector_size=4, metadata={}))
    colors = [("red", "blue")[n % 2] for n in range(30)]
    points = zip(IDS, VECTORS, colors, strict=True)
    store.upsert(name, [StoredPoint(point_id, vector, {"color": color}) for point_id, vector, color in points])


def nearest(store: ServerStore, name: str, filter: models.Filter | None = None) -> list[object]:
    return [hit.point_id for hit in store.query(name, VECTORS[0], limit=5, filter=filter)]


def test_in_strict_mode_a_filter_needs_an_index_and_nothing_else_does(opened: Opened) -> None:
    with qdrant_server("cluster") as server:
        store = opened(server)
        fill(store, "shop")
        strict = models.StrictModeConfig(
            enabled=True,
            unindexed_filtering_retrieve=False,
            unindexed_filtering_update=False,
            search_allow_exact=False,
            max_query_limit=20,
            upsert_max_batchsize=10,
        )
        client = connect(server.url, grpc_port=server.grpc_port)
        client.update_collection("shop", strict_mode_config=strict)
        client.close()
        assert nearest(store, "shop")[0] == IDS[0]
        assert len(store.fetch("shop", IDS, with_vectors=True)) == 30
        page = store.scroll("shop", filter=None, limit=30, after=None)
        rest = store.scroll("shop", filter=None, limit=30, after=page[-1].point_id)
        assert (len(page), len(rest)) == (20, 10)
        assert store.count("shop", None) > 0
        assert not store.counts_exactly("shop")
        with pytest.raises(InputError, match="index-field 'color:keyword' -c shop"):
            nearest(store, "shop", RED)
        with pytest.raises(InputError, match="at most 20 results"):
            store.query("shop", VECTORS[0], limit=21, filter=None)
        store.create_payload_index("shop", "color", "keyword")
        assert len(nearest(store, "shop", RED)) == 5
        points = zip(IDS, VECTORS, strict=True)
        store.upsert("shop", [StoredPoint(point_id, vector, {"color": "red"}) for point_id, vector in points])
        store.delete("shop", IDS[:1])
        assert len(store.fetch("shop", IDS, with_vectors=False)) == 29


def test_rest_of_one_server_and_grpc_of_another_write_to_neither(opened: Opened) -> None:
    with qdrant_server("cluster") as server, qdrant_server("cluster") as other:
        mixed = opened(Server(server.container, server.url, other.grpc_port))
        with pytest.raises(StoreError, match="are two servers: nothing was written"):
            fill(mixed, "shop")
        for one in (server, other):
            assert opened(one).collection_names() == []


def test_keys_and_tokens_allow_what_they_are_made_for(opened: Opened) -> None:
    environment = {
        "QDRANT__SERVICE__API_KEY": KEY,
        "QDRANT__SERVICE__READ_ONLY_API_KEY": READ_ONLY_KEY,
        "QDRANT__SERVICE__JWT_RBAC": "true",
    }
    with qdrant_server("cluster", environment) as server:
        owner = opened(server, KEY)
        for name in ("shop", "shop__tokens"):
            fill(owner, name)
        with pytest.raises(StoreError, match="API key"):
            opened(server, "wrong").collection_names()
        both = token(KEY, {"shop": "r", "shop__tokens": "r"})
        for key in (READ_ONLY_KEY, both):
            reader = opened(server, key)
            assert reader.resolve("shop") == "shop"
            assert nearest(reader, "shop")[0] == IDS[0]
            assert len(reader.fetch("shop__tokens", IDS, with_vectors=False)) == 30
            with pytest.raises(StoreError, match="API key"):
                reader.delete("shop", IDS[:1])
        half = opened(server, token(KEY, {"shop": "r"}))
        assert nearest(half, "shop")[0] == IDS[0]
        with pytest.raises(StoreError, match="API key"):
            half.fetch("shop__tokens", IDS, with_vectors=False)
        assert owner.count("shop", None) == 30


def test_a_killed_server_that_comes_back_costs_a_pause_and_no_point(opened: Opened) -> None:
    with qdrant_server("cluster") as server:
        store = opened(server)
        fill(store, "shop")
        server.kill()
        restart = Timer(2, server.start_again)
        restart.start()
        store.upsert("shop", [StoredPoint(UUID(int=99), VECTORS[0], {"color": "red"})])
        restart.join()
        assert store.count("shop", None) == 31
        server.kill()
        with pytest.raises(StoreError, match="cannot be reached"):
            opened(server, retry_seconds=0).count("shop", None)


def test_options_of_collections_reach_the_cluster(opened: Opened) -> None:
    options = CollectionOptions(shard_number=6, replication_factor=2, on_disk=True)
    with qdrant_cluster("cluster") as (first, *_):
        store = opened(first)
        store.create("shop", CollectionSpec(vector_size=4, metadata={}, placement=options.given))
        found = store.describe("shop")
        assert found is not None
        assert {"shard_number": 6, "replication_factor": 2}.items() <= found.placement.items()


def test_with_one_of_three_servers_stopped_everything_goes_on(opened: Opened) -> None:
    with qdrant_cluster("cluster") as (first, second, third):
        store = opened(first)
        fill(store, "shop")
        before = nearest(store, "shop")
        third.kill()
        for server in (first, second):
            assert nearest(opened(server), "shop") == before
        store.upsert("shop", [StoredPoint(UUID(int=99), VECTORS[0], {"color": "red"})])
        fill(store, "new")
        store.delete("shop", IDS[:1])
        assert store.count("shop", None) == 30
        third.start_again()
        third.wait()
        assert opened(third).count("shop", None) == 30
        assert opened(third).count("new", None) == 30
