"""A store over an asynchronous client gives what one over a synchronous client gives, and threads may share stores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import models as m

from qdrant_cir.errors import CirError
from qdrant_cir.storage.steps import Read, Steps, Stopwatch, TimedSteps, run_async
from qdrant_cir.storage.stores import (
    CollectionSpec,
    EdgeStore,
    ServerStore,
    Store,
    StoredPoint,
)

DIMS = 6
COUNT = 30
VECTORS = np.random.default_rng(3).normal(size=(COUNT, DIMS)).astype(np.float32)
IDS = [uuid5(UUID(int=0), f"point {n}") for n in range(COUNT)]
EVEN = m.Filter(must=[m.FieldCondition(key="even", match=m.MatchValue(value=True))])
BROKEN = m.Filter(must=[m.FieldCondition(key="a b", match=m.MatchValue(value=True))])
SPEC = CollectionSpec(vector_size=DIMS, metadata={"made": "by hand"})


def fill(store: Store) -> None:
    store.create("gallery", SPEC)
    store.upsert("gallery", [StoredPoint(IDS[n], VECTORS[n], {"n": n, "even": n % 2 == 0}) for n in range(COUNT)])


@pytest.fixture(scope="module", params=["memory", "edge"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made: Store = (
        EdgeStore(tmp_path_factory.mktemp("edge")) if request.param == "edge" else ServerStore(QdrantClient(":memory:"))
    )
    fill(made)
    yield made
    made.close()


CALLS: dict[str, Callable[[Store], Any]] = {
    "names": lambda s: s.collection_names(),
    "describe": lambda s: s.describe("gallery"),
    "describe nothing": lambda s: s.describe("nobody"),
    "query": lambda s: s.query("gallery", VECTORS[0], limit=9, filter=EVEN),
    "fetch": lambda s: [x.payload for x in s.fetch("gallery", IDS[:5], with_vectors=False, fields=("n",))],
    "scroll": lambda s: s.scroll("gallery", filter=EVEN, limit=4, after=IDS[3]),
    "query of no collection": lambda s: s.query("nobody", VECTORS[0], limit=9, filter=None),
    "fetch of no collection": lambda s: s.fetch("nobody", IDS[:1], with_vectors=False),
    "broken filter": lambda s: s.query("gallery", VECTORS[0], limit=9, filter=BROKEN),
    "wrong size": lambda s: s.query("gallery", VECTORS[0][:3], limit=9, filter=None),
    "limit of none": lambda s: s.query("gallery", VECTORS[0], limit=0, filter=None),
}


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except CirError as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("kind", CALLS)
def test_the_asynchronous_client_answers_as_the_synchronous_one(kind: str) -> None:
    async def ask() -> object:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection(
            "gallery",
            vectors_config={"image": m.VectorParams(size=DIMS, distance=m.Distance.COSINE)},
            metadata=SPEC.metadata,
        )
        points = [
            m.PointStruct(id=str(IDS[n]), vector={"image": VECTORS[n].tolist()}, payload={"n": n, "even": n % 2 == 0})
            for n in range(COUNT)
        ]
        await client.upsert("gallery", points)
        return await asyncio.to_thread(CALLS[kind], ServerStore.over_async(client, asyncio.get_running_loop()))

    oracle = ServerStore(QdrantClient(":memory:"))
    fill(oracle)
    assert outcome(lambda: asyncio.run(ask())) == outcome(lambda: CALLS[kind](oracle))


def test_calls_at_the_same_time_do_not_disturb_each_other(store: Store) -> None:
    async def ask() -> list[Any]:
        calls = [asyncio.to_thread(store.query, "gallery", vector, limit=5, filter=None) for vector in VECTORS]
        return list(await asyncio.gather(*calls))

    expected = [store.query("gallery", vector, limit=5, filter=None) for vector in VECTORS]
    for hits, wanted in zip(asyncio.run(ask()), expected, strict=True):
        assert [hit.point_id for hit in hits] == [hit.point_id for hit in wanted]


def one(reading: Read) -> Steps[Any]:
    return (yield reading)


def test_the_event_loop_goes_on_while_a_store_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()
    query = type(store).query

    def waiting(*args: object, **kwargs: object) -> object:
        assert may_answer.wait(10), "the event loop stood still while the store worked"
        return query(*args, **kwargs)

    async def ask() -> list[Any]:
        reading = Read(lambda store: store.query("gallery", VECTORS[0], limit=5, filter=None))
        asking = asyncio.ensure_future(run_async(TimedSteps(one(reading), Stopwatch()), store, threads))
        await asyncio.sleep(0)
        may_answer.set()
        return list(await asking)

    monkeypatch.setattr(type(store), "query", waiting)
    with ThreadPoolExecutor(1) as threads:
        assert len(asyncio.run(ask())) == 5
