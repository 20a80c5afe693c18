"""Equal scores: the order of an answer follows from ids and from stage one alone, never from how a store keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import QdrantClient

from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import Query, SearchResult

Color = tuple[int, int, int]
WHITE = Query(modification_text="white")
"""Composed with a blank picture: the query is (1, 1, 1) over its length."""


@contextmanager
def gallery(bundle_path: Path, colors: Mapping[str, Color]) -> Iterator[Retriever]:
    """Search pictures of one colour each, indexed in the order given."""
    bundle, client = load_bundle(bundle_path), QdrantClient(":memory:")
    collection = Collection.create(ServerStore(client), "colors", bundle)
    encoder = ImageEncoder.open(bundle, Compute("cpu", 1))
    records = [
        ImageRecord(name, Image.new("RGB", (20, 20), color), payload={}, source=None) for name, color in colors.items()
    ]
    Indexer(collection, encoder, bundle).index(records)
    with Retriever.open("colors", store=client, bundle=bundle_path, provider="cpu", threads=1) as retriever:
        yield retriever
    client.close()


def ids(result: SearchResult) -> list[str]:
    return [candidate.image_id for candidate in result.candidates]


@pytest.mark.parametrize("names", ["gbfahced", "hgfedcba"])
def test_equal_scores_of_stage_one_go_by_image_id(tiny_bundle: Path, names: str) -> None:
    with gallery(tiny_bundle, dict.fromkeys(names, (255, 0, 0))) as retriever:
        result = retriever.search(WHITE, rerank_depth=0)
    assert len({candidate.retrieval_score for candidate in result.candidates}) == 1
    assert ids(result) == sorted(names)


def test_equal_scores_of_stage_two_go_by_stage_ones_order(tiny_bundle: Path) -> None:
    # from -1 to 1 both colours sum up to 1, which is stage two's dot product with (1, 1, 1); "z" is the shorter one,
    # so that stage one's cosine is larger
    with gallery(tiny_bundle, {"a": (255, 255, 0), "z": (255, 128, 127)}) as retriever:
        result = retriever.search(WHITE)
    assert result.candidates[0].rerank_score == result.candidates[1].rerank_score
    assert [(c.image_id, c.retrieval_rank, c.rerank_rank) for c in result.candidates] == [("z", 1, 1), ("a", 2, 2)]
