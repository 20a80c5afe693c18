"""What a search reads of the store: the same calls, as few as can be, from both retrievers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_cir import AsyncRetriever, Effort, EffortCalibration, GalleryImage, Indexer, Query, Retriever
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.search.effort import LeadBound
from qdrant_cir.storage.stores.protocol import Hit, Record
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import PointId

Writer = Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]
COUNT = 24


class CountingStore(ServerStore):
    """Notes every read, as the kind of call and the number of points asked for."""

    def __init__(self) -> None:
        super().__init__(QdrantClient(":memory:"))
        self.reads: list[tuple[str, int]] = []

    def query(self, *args: Any, limit: int, **options: Any) -> list[Hit]:  # noqa: ANN401
        self.reads.append(("query", limit))
        return super().query(*args, limit=limit, **options)

    def fetch(self, name: str, point_ids: Sequence[PointId], **options: Any) -> list[Record]:  # noqa: ANN401
        self.reads.append(("fetch", len(point_ids)))
        return super().fetch(name, point_ids, **options)

    def scroll(self, *args: Any, limit: int, **options: Any) -> list[Record]:  # noqa: ANN401
        self.reads.append(("scroll", limit))
        return super().scroll(*args, limit=limit, **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> list[Path]:
    random = np.random.default_rng(5)
    colors = {f"c{n}": tuple(random.integers(0, 256, 3).tolist()) for n in range(COUNT - 4)}
    folder = tmp_path_factory.mktemp("pictures")
    paths = write_solid_images(folder, colors)  # type: ignore[arg-type]
    copies = [folder / f"copy{n}.png" for n in range(4)]
    for copy in copies:
        copy.write_bytes(paths[0].read_bytes())
    return paths + copies


@pytest.fixture(scope="module")
def store(tiny_bundle: Path, pictures: list[Path]) -> Iterator[CountingStore]:
    store = CountingStore()
    with Indexer.open("colors", store=store, bundle=tiny_bundle, provider="cpu") as indexer:
        indexer.index([ImageRecord(p.stem, p, payload={"n": n}, source=None) for n, p in enumerate(pictures)])
    yield store
    store.close()


def searched(store: CountingStore, bundle: Path, query: Query, **options: Any) -> list[tuple[str, int]]:  # noqa: ANN401
    """Return the reads of one search, which must be those of the other retriever too."""
    with Retriever.open("colors", store=store, bundle=bundle, provider="cpu", threads=1) as retriever:
        store.reads = []
        retriever.search(query, **options)
        sync = store.reads

    async def ask() -> list[tuple[str, int]]:
        async with AsyncRetriever.open("colors", store=store, bundle=bundle, provider="cpu", threads=1) as concurrent:
            store.reads = []
            await concurrent.search(query, **options)
            return store.reads

    assert asyncio.run(ask()) == sync
    return sync


def stops_at(lead: float, bundle: Path) -> Effort:
    calibration = EffortCalibration(load_bundle(bundle).fingerprint, COUNT, 2, 100, (LeadBound(3, 0.9, lead),))
    return Effort(confidence=0.9, calibration=calibration)


def test_a_search_of_a_picture_makes_two_reads(store: CountingStore, tiny_bundle: Path, pictures: list[Path]) -> None:
    reads = searched(store, tiny_bundle, Query(pictures[1], "make it blue"), limit=3, rerank_depth=20)
    assert reads == [("query", 20), ("fetch", 20)]


def test_stage_one_alone_makes_one_read(store: CountingStore, tiny_bundle: Path, pictures: list[Path]) -> None:
    assert searched(store, tiny_bundle, Query(pictures[1], "make it blue"), limit=3, rerank_depth=0) == [("query", 3)]


def test_a_stored_reference_adds_its_two_halves(store: CountingStore, tiny_bundle: Path) -> None:
    reads = searched(store, tiny_bundle, Query(GalleryImage("c1"), "darker"), limit=3, rerank_depth=20)
    assert reads == [("fetch", 1), ("fetch", 1), ("query", 20), ("fetch", 20)]


def test_several_stored_references_are_read_together(store: CountingStore, tiny_bundle: Path) -> None:
    query = Query([GalleryImage("c1"), GalleryImage("c2"), GalleryImage("c1")], "darker")
    reads = searched(store, tiny_bundle, query, limit=3, rerank_depth=20)
    assert reads == [("fetch", 2), ("fetch", 2), ("query", 20), ("fetch", 20)]


@pytest.mark.parametrize(("lead", "fetched"), [(-1e9, [6]), (1e9, [6, COUNT - 6])])
def test_re_ranking_that_may_end_early_reads_the_first_tokens_and_the_rest_when_it_goes_on(
    store: CountingStore, tiny_bundle: Path, pictures: list[Path], lead: float, fetched: list[int]
) -> None:
    reads = searched(
        store,
        tiny_bundle,
        Query(pictures[1], "make it blue"),
        limit=3,
        rerank_depth=COUNT,
        effort=stops_at(lead, tiny_bundle),
    )
    assert reads == [("query", COUNT), *(("fetch", count) for count in fetched)]


def test_an_excluded_reference_costs_no_read_while_the_spare_hit_suffices(
    store: CountingStore, tiny_bundle: Path, pictures: list[Path]
) -> None:
    query = Query(pictures[1], "make it blue")
    reads = searched(store, tiny_bundle, query, limit=3, rerank_depth=10, exclude_reference=True)
    assert reads == [("query", 11), ("fetch", 10)]


def test_more_copies_of_the_reference_than_the_spare_hit_cost_one_more_read(
    store: CountingStore, tiny_bundle: Path, pictures: list[Path]
) -> None:
    reads = searched(store, tiny_bundle, Query(pictures[0], "same"), limit=5, rerank_depth=5, exclude_reference=True)
    assert reads == [("query", 6), ("query", 16), ("fetch", 5)]


def test_a_store_that_has_no_more_is_not_asked_again(
    store: CountingStore, tiny_bundle: Path, pictures: list[Path]
) -> None:
    query = Query(pictures[1], "make it blue")
    reads = searched(store, tiny_bundle, query, limit=COUNT, rerank_depth=0, exclude_reference=True)
    assert reads == [("query", COUNT + 1)]


def test_a_filter_in_doubt_is_looked_into_once(store: CountingStore, tiny_bundle: Path, pictures: list[Path]) -> None:
    unlike = models.Filter(must_not=[models.FieldCondition(key="n", match=models.MatchValue(value=3))])
    reads = searched(store, tiny_bundle, Query(pictures[1], "darker"), limit=3, rerank_depth=5, filter=unlike)
    assert reads == [("query", 5), ("scroll", 1), ("fetch", 5)]
