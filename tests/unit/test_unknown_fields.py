"""A filter on a field that no image has is refused wherever it would be met in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import models as m

from qdrant_cir.errors import InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import GalleryImage, Query

QUERY = Query(GalleryImage("red"))


def color(field: str, name: str) -> m.FieldCondition:
    return m.FieldCondition(key=field, match=m.MatchValue(value=name))


@pytest.fixture
def retriever(tmp_path: Path, tiny_bundle: Path) -> Iterator[Retriever]:
    bundle = load_bundle(tiny_bundle)
    with EdgeStore(tmp_path / "store") as store:
        collection = Collection.create(store, "colors", bundle)
        records = [ImageRecord(name, Image.new("RGB", (8, 8), name), {"color": name}, None) for name in ("red", "blue")]
        Indexer(collection, ImageEncoder.open(bundle, Compute("cpu", 1)), bundle).index(records)
        with Retriever.open("colors", store=store, bundle=tiny_bundle, provider="cpu") as retriever:
            yield retriever


def test_must_not_on_an_unknown_field_is_refused_by_name(retriever: Retriever) -> None:
    with pytest.raises(InputError, match=r"'colour', which no image .* have: color"):
        retriever.search(QUERY, filter=m.Filter(must_not=[color("colour", "red")]))


def test_must_not_on_a_field_that_images_have_leaves_those_out(retriever: Retriever) -> None:
    result = retriever.search(QUERY, filter=m.Filter(must_not=[color("color", "red")]))
    assert [candidate.image_id for candidate in result.candidates] == ["blue"]


@pytest.mark.parametrize("group_by", [None, "price.usd"])
def test_a_field_with_a_dot_is_not_denied_and_listed_in_one_sentence(
    tmp_path: Path, tiny_bundle: Path, group_by: str | None
) -> None:
    records = [ImageRecord(name, Image.new("RGB", (8, 8), name), {"price.usd": 3}, None) for name in ("red", "blue")]
    with Indexer.open("prices", store=tmp_path / "store", bundle=tiny_bundle) as indexer:
        indexer.index(records)
    priced = m.FieldCondition(key="price.usd", match=m.MatchValue(value=3))
    with Retriever.open("prices", store=tmp_path / "store", bundle=tiny_bundle) as retriever:
        with pytest.raises(InputError, match=r'have: "price\.usd"\. Give a name in double quotes with them'):
            retriever.search(QUERY, filter=None if group_by else m.Filter(must=[priced]), group_by=group_by)
        quoted = m.FieldCondition(key='"price.usd"', match=m.MatchValue(value=3))
        assert len(retriever.search(QUERY, filter=m.Filter(must=[quoted])).candidates) == 2
