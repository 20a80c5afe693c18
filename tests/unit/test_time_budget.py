"""What counts against a time budget, on a clock that a hand drives: no test waits, and every second is meant."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.retriever import AsyncRetriever, Retriever
from qdrant_cir.search.effort import Effort, EffortCalibration, LeadBound
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.protocol import Hit, Record
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import Composition, Float32, GalleryImage, Query, SearchResult, StoredTokens

Color = tuple[int, int, int]
COUNT = 24  # three steps of eight candidates
QUERY = Query(modification_text="make it blue")


class HandClock:
    """Seconds that pass only when a test lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowStore(ServerStore):
    """The client's own store, whose searches and reads take seconds of a clock."""

    def __init__(self, client: QdrantClient, clock: HandClock) -> None:
        super().__init__(client)
        self.clock = clock
        self.search_seconds = self.read_seconds = self.tokens_seconds = 0.0

    def query(self, *args: Any, **options: Any) -> list[Hit]:  # noqa: ANN401
        self.clock.now += self.search_seconds
        return super().query(*args, **options)

    def fetch(self, *args: Any, with_vectors: bool, **options: Any) -> list[Record]:  # noqa: ANN401
        self.clock.now += self.read_seconds if with_vectors else self.tokens_seconds
        return super().fetch(*args, with_vectors=with_vectors, **options)


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]],
) -> Iterator[QdrantClient]:
    random = np.random.default_rng(2)
    colors = {f"c{n}": tuple(random.integers(0, 256, 3).tolist()) for n in range(COUNT)}
    pictures = write_solid_images(tmp_path_factory.mktemp("pictures"), colors)
    bundle, client = load_bundle(tiny_bundle), QdrantClient(":memory:")
    records = [ImageRecord(path.stem, path, payload={}, source=None) for path in pictures]
    collection = Collection.create(ServerStore(client), "colors", bundle)
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu", 1)), bundle).index(records)
    yield client
    client.close()


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(client: QdrantClient, clock: HandClock) -> SlowStore:
    return SlowStore(client, clock)


@pytest.fixture
def retriever(store: SlowStore, bundle: Bundle, clock: HandClock) -> Retriever:
    model = QueryModel(bundle, Compute("cpu", 1))
    return Retriever(Collection.open(store, "colors", bundle), model, clock=clock)


@pytest.fixture
def a_second_per_candidate(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the re-ranker take a second of the clock for every candidate."""
    score = Reranker.score

    def slow(self: Reranker, query: Composition, candidates: StoredTokens) -> Float32:
        clock.now += len(candidates.values)
        return score(self, query, candidates)

    monkeypatch.setattr(Reranker, "score", slow)


def search(retriever: Retriever, *, time_budget: float, query: Query = QUERY) -> SearchResult:
    return retriever.search(query, limit=3, rerank_depth=COUNT, effort=Effort(time_budget=time_budget))


@pytest.mark.usefixtures("a_second_per_candidate")
@pytest.mark.parametrize(("time_budget", "scored"), [(8, 8), (15, 8), (16, 16), (23, 16), (24, 24)])
def test_a_step_that_cannot_end_within_the_budget_is_not_begun(
    retriever: Retriever, time_budget: float, scored: int
) -> None:
    result = search(retriever, time_budget=time_budget)
    assert result.scored == scored
    assert result.timings.rerank == scored <= time_budget
    assert result.rerank_mode == ("exact" if scored == COUNT else "budget")


def test_the_search_in_the_store_counts_against_the_budget(retriever: Retriever, store: SlowStore) -> None:
    store.search_seconds = 6
    assert search(retriever, time_budget=5).scored == 0
    result = search(retriever, time_budget=7)
    assert (result.scored, result.timings.retrieve, result.timings.total) == (COUNT, 6, 6)


def test_reading_the_tokens_counts_against_the_budget(retriever: Retriever, store: SlowStore) -> None:
    store.tokens_seconds = 6
    assert search(retriever, time_budget=5).scored == 0
    result = search(retriever, time_budget=7)
    assert (result.scored, result.timings.fetch, result.timings.total) == (COUNT, 6, 6)


@pytest.mark.usefixtures("a_second_per_candidate")
@pytest.mark.parametrize("step", ["search_seconds", "tokens_seconds"])
def test_a_step_is_not_begun_where_what_came_before_it_leaves_too_little(
    retriever: Retriever, store: SlowStore, step: str
) -> None:
    setattr(store, step, 6)
    # 6 seconds, and 8 per step
    assert search(retriever, time_budget=21).scored == 8
    assert search(retriever, time_budget=22).scored == 16


@pytest.mark.usefixtures("a_second_per_candidate")
def test_a_further_read_counts_as_time_of_the_step_that_needs_it(
    retriever: Retriever, store: SlowStore, bundle: Bundle
) -> None:
    store.tokens_seconds = 6
    calibration = EffortCalibration(bundle.fingerprint, COUNT, 4, 100, (LeadBound(3, 0.9, 1e9),))

    def scored(time_budget: float) -> int:
        effort = Effort(confidence=0.9, calibration=calibration, time_budget=time_budget)
        return retriever.search(QUERY, limit=3, rerank_depth=COUNT, effort=effort).scored

    # 6 of reading and three steps of 4; then a step of 6 + 4, after which the next one may take as long
    assert [scored(seconds) for seconds in (27, 28, 37, 38)] == [12, 16, 16, 20]


def test_reading_the_reference_counts_as_encoding_and_not_against_the_budget(
    retriever: Retriever, store: SlowStore
) -> None:
    store.read_seconds = 100
    result = search(retriever, time_budget=5, query=Query(GalleryImage("c1"), "make it blue"))
    assert (result.scored, result.timings.encode, result.timings.total) == (COUNT, 100, 100)


def late_in_other_threads() -> float:
    """Tell the time of a batch: queries are fetched in the caller's thread at second 0, and re-ranked at 100."""
    return 0.0 if threading.current_thread() is threading.main_thread() else 100.0


def search_many(store: ServerStore, bundle: Bundle, effort: Effort) -> list[SearchResult]:
    retriever = Retriever(
        Collection.open(store, "colors", bundle),
        QueryModel(bundle, Compute("cpu", 1)),
        clock=late_in_other_threads,
    )
    return retriever.search_many([QUERY] * 4, limit=3, rerank_depth=COUNT, effort=effort)


def search_many_async(store: ServerStore, bundle: Bundle, effort: Effort) -> list[SearchResult]:
    async def search() -> list[SearchResult]:
        reads = Collection.open(store, "colors", bundle).reads
        model = QueryModel(bundle, Compute("cpu", 1))
        async with AsyncRetriever(reads, store, model, clock=late_in_other_threads) as retriever:
            return await retriever.search_many([QUERY] * 4, limit=3, rerank_depth=COUNT, effort=effort)

    return asyncio.run(search())


@pytest.mark.parametrize("search", [search_many, search_many_async])
def test_waiting_for_others_of_a_batch_is_not_charged_to_a_query(
    store: SlowStore, bundle: Bundle, search: Callable[[ServerStore, Bundle, Effort], list[SearchResult]]
) -> None:
    results = search(store, bundle, Effort(time_budget=5))
    assert [(result.scored, result.timings.rerank) for result in results] == [(COUNT, 0)] * 4
