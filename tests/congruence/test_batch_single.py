"""Many queries at once give what each gives alone: the same order, notes and scores, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qdrant_cir.errors import InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import GalleryImage, Query

Color = tuple[int, int, int]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]
WORDS = ("make it blue", "darker", "same but green", "lighter", "red red darker", "")


def color_of(channels: list[int]) -> Color:
    red, green, blue = channels
    return red, green, blue


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> list[Path]:
    random = np.random.default_rng(7)
    colors = {f"c{n}": color_of(random.integers(0, 256, 3).tolist()) for n in range(60)}
    return write_solid_images(tmp_path_factory.mktemp("pictures"), colors)


@pytest.fixture(scope="module")
def retriever(tiny_bundle: Path, pictures: list[Path]) -> Iterator[Retriever]:
    bundle = load_bundle(tiny_bundle)
    client = QdrantClient(":memory:")
    collection = Collection.create(ServerStore(client), "colors", bundle)
    records = [ImageRecord(path.stem, path, payload={"n": n}, source=None) for n, path in enumerate(pictures)]
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    with Retriever.open("colors", store=client, bundle=tiny_bundle, provider="cpu") as retriever:
        yield retriever


@pytest.fixture(scope="module")
def queries(pictures: list[Path]) -> list[Query]:
    """Composed, image-only, text-only, from files, bytes and the gallery, all mixed; more than one batch."""
    mixed = [Query(picture, WORDS[n % 6]) for n, picture in enumerate(pictures[:24])]
    mixed += [Query(GalleryImage(f"c{n}"), WORDS[n % 6]) for n in range(24)]
    mixed += [Query(pictures[n].read_bytes(), WORDS[n % 6]) for n in range(12)]
    return [*mixed, Query(modification_text="blue"), Query(modification_text="make it " + "red " * 30)]


@pytest.mark.parametrize("rerank_depth", [0, 7, 40])
@pytest.mark.parametrize("exclude_reference", [False, True])
def test_search_many_is_search_of_each(
    retriever: Retriever, queries: list[Query], rerank_depth: int, exclude_reference: bool
) -> None:
    batch = retriever.search_many(queries, limit=10, rerank_depth=rerank_depth, exclude_reference=exclude_reference)
    assert len(batch) == len(queries)
    for query, together in zip(queries, batch, strict=True):
        alone = retriever.search(query, limit=10, rerank_depth=rerank_depth, exclude_reference=exclude_reference)
        assert [c.image_id for c in together.candidates] == [c.image_id for c in alone.candidates]
        assert (together.notes, together.rerank_mode) == (alone.notes, alone.rerank_mode)
        for one, other in zip(together.candidates, alone.candidates, strict=True):
            assert (one.payload, one.retrieval_rank, one.rerank_rank) == (
                other.payload,
                other.retrieval_rank,
                other.rerank_rank,
            )
            assert one.retrieval_score == pytest.approx(other.retrieval_score, abs=1e-5)
            assert one.rerank_score == other.rerank_score


def test_no_queries_give_no_results(retriever: Retriever) -> None:
    assert retriever.search_many([]) == []


def test_one_bad_query_refuses_the_batch_before_anything_is_computed(retriever: Retriever) -> None:
    with pytest.raises(InputError, match="neither"):
        retriever.search_many([Query(modification_text="blue"), Query()])
