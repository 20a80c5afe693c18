"""The two retrievers give exactly the same answers, to queries and to mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_cir.errors import CirError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import AsyncRetriever, Retriever
from qdrant_cir.search.effort import EXACT, Effort, EffortCalibration, LeadBound
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import GalleryImage, Query, SearchResult, Timings

Color = tuple[int, int, int]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]
EVEN = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
NOWHERE = models.Filter(must=[models.FieldCondition(key="nowhere", match=models.MatchValue(value=1))])


def color_of(channels: list[int]) -> Color:
    red, green, blue = channels
    return red, green, blue


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> list[Path]:
    random = np.random.default_rng(11)
    colors = {f"c{n}": color_of(random.integers(0, 256, 3).tolist()) for n in range(40)}
    return write_solid_images(tmp_path_factory.mktemp("pictures"), colors)


@pytest.fixture(scope="module", params=["memory", "edge"])
def store(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    pictures: list[Path],
) -> Iterator[Store]:
    store: Store = (
        ServerStore(QdrantClient(":memory:"))
        if request.param == "memory"
        else EdgeStore(tmp_path_factory.mktemp("edge"))
    )
    bundle = load_bundle(tiny_bundle)
    records = [
        ImageRecord(path.stem, path, payload={"even": n % 2 == 0}, source=None) for n, path in enumerate(pictures)
    ]
    collection = Collection.create(store, "colors", bundle)
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    yield store
    store.close()


def without_time(result: SearchResult) -> SearchResult:
    """Leave out the seconds, and a cosine's last digit, which ``:memory:`` rounds by where arrays lie."""
    candidates = tuple(replace(c, retrieval_score=round(c.retrieval_score, 5)) for c in result.candidates)
    return replace(result, candidates=candidates, timings=Timings(0, 0, 0, 0, 0, 0))


def both(
    store: Store,
    bundle: Path,
    queries: list[Query],
    *,
    limit: int = 10,
    rerank_depth: int = 20,
    filter: models.Filter | None = None,
    exclude_reference: bool = False,
    effort: Effort = EXACT,
) -> tuple[list[SearchResult] | str, list[SearchResult] | str]:
    """Ask both retrievers; an error stands for itself by class and words."""

    async def ask() -> list[SearchResult]:
        async with await AsyncRetriever.open(
            "colors", store=store, bundle=bundle, provider="cpu", threads=1
        ) as retriever:
            return await retriever.search_many(
                queries,
                limit=limit,
                rerank_depth=rerank_depth,
                filter=filter,
                exclude_reference=exclude_reference,
                effort=effort,
            )

    def ask_sync() -> list[SearchResult]:
        with Retriever.open("colors", store=store, bundle=bundle, provider="cpu", threads=1) as retriever:
            return retriever.search_many(
                queries,
                limit=limit,
                rerank_depth=rerank_depth,
                filter=filter,
                exclude_reference=exclude_reference,
                effort=effort,
            )

    answers: list[list[SearchResult] | str] = []
    for asked in (ask_sync, lambda: asyncio.run(ask())):
        try:
            answers.append([without_time(result) for result in asked()])
        except CirError as error:
            answers.append(f"{type(error).__name__}: {error}")
    return answers[0], answers[1]


@pytest.mark.parametrize("rerank_depth", [0, 5, 40])
@pytest.mark.parametrize("filter", [None, EVEN, NOWHERE])
@pytest.mark.parametrize("exclude_reference", [False, True])
def test_answers_are_exactly_equal(
    store: Store,
    tiny_bundle: Path,
    pictures: list[Path],
    rerank_depth: int,
    filter: models.Filter | None,
    exclude_reference: bool,
) -> None:
    queries = [
        Query(pictures[0], "make it blue"),
        Query(GalleryImage("c1"), "darker"),
        Query(GalleryImage("c2")),
        Query(pictures[3].read_bytes()),
        Query(modification_text="lighter " * 20),
    ]
    sync, concurrent = both(
        store,
        tiny_bundle,
        queries,
        rerank_depth=rerank_depth,
        filter=filter,
        exclude_reference=exclude_reference,
    )
    assert sync == concurrent
    assert isinstance(sync, str) == (filter is NOWHERE)


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        (Query(), 10),
        (Query(modification_text="blue"), 0),
        (Query(GalleryImage("nobody"), "blue"), 10),
        (Query("no/such/file.png", "blue"), 10),
    ],
)
def test_mistakes_are_refused_in_the_same_words(store: Store, tiny_bundle: Path, query: Query, limit: int) -> None:
    sync, concurrent = both(store, tiny_bundle, [query], limit=limit)
    assert isinstance(sync, str)
    assert sync == concurrent


@pytest.mark.parametrize("lead", [-1e9, 0.5, 1e9])
def test_effort_ends_re_ranking_at_the_same_candidate(
    store: Store, tiny_bundle: Path, pictures: list[Path], lead: float
) -> None:
    fingerprint = load_bundle(tiny_bundle).fingerprint
    calibration = EffortCalibration(fingerprint, 20, 4, 100, (LeadBound(10, 0.9, lead),))
    queries = [Query(picture, "make it blue") for picture in pictures[:6]]
    sync, concurrent = both(store, tiny_bundle, queries, effort=Effort(confidence=0.9, calibration=calibration))
    assert sync == concurrent
    assert not isinstance(sync, str)


def test_searches_at_the_same_time_do_not_disturb_each_other(
    store: Store, tiny_bundle: Path, pictures: list[Path]
) -> None:
    queries = [Query(picture, "darker") for picture in pictures]

    async def ask() -> list[SearchResult]:
        async with await AsyncRetriever.open("colors", store=store, bundle=tiny_bundle, provider="cpu") as retriever:
            return await asyncio.gather(*(retriever.search(query) for query in queries))

    with Retriever.open("colors", store=store, bundle=tiny_bundle, provider="cpu") as retriever:
        expected = [without_time(retriever.search(query)) for query in queries]
    assert [without_time(result) for result in asyncio.run(ask())] == expected
