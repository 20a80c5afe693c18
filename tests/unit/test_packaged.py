"""A collection opens with the packaged bundle that made it; a new one is made with the default."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from qdrant_cir import Gallery, Indexer, Retriever
from qdrant_cir.errors import CollectionMismatchError, InputError
from qdrant_cir.model.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.packaged import with_bundle
from qdrant_cir.storage.stores import open_store


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.mark.parametrize("name", ["photos", "drawn"])
def test_a_collection_opens_with_the_packaged_bundle_that_made_it(client: QdrantClient, name: str) -> None:
    made = load_bundle(name)
    Collection.create(open_store(client), "shop", made)
    with Retriever.open("shop", store=client, provider="cpu") as retriever:
        assert retriever.collection.spec.fingerprint == made.fingerprint
    with Indexer.open("shop", store=client, provider="cpu"):
        pass


def test_a_new_collection_is_made_with_the_default(client: QdrantClient) -> None:
    with Indexer.open("shop", store=client, provider="cpu"):
        pass
    assert Collection.open(open_store(client), "shop").spec.fingerprint == load_bundle(DEFAULT_BUNDLE).fingerprint


def test_a_collection_of_a_bundle_that_is_not_packaged_names_it(client: QdrantClient, tiny_bundle: Path) -> None:
    Collection.create(open_store(client), "shop", load_bundle(tiny_bundle))
    with pytest.raises(CollectionMismatchError, match="'tiny'"):
        Retriever.open("shop", store=client, provider="cpu")


def test_a_given_bundle_is_the_only_one_that_is_tried(tiny_bundle: Path) -> None:
    tried: list[Bundle] = []

    def refuse(bundle: Bundle) -> None:
        tried.append(bundle)
        raise CollectionMismatchError(f"not {bundle.manifest.name}")

    with pytest.raises(CollectionMismatchError, match="not tiny"):
        with_bundle(load_bundle(tiny_bundle), refuse)
    assert len(tried) == 1


def test_a_gallery_says_what_searching_it_takes(client: QdrantClient, tiny_bundle: Path) -> None:
    gallery = Gallery.create("drawn products", store=client, bundle="drawn", threads=1)
    shallow, deep = (gallery.info(rerank_depth=depth).expected_memory for depth in (10, 20))
    assert shallow is not None
    assert deep is not None
    # ten candidates more, of 65 tokens of 192 bytes and a scale each, and a header, five times
    assert deep - shallow == 10 * 5 * (65 * 192 + 65 * 4 + 20)
    # at least the weights of the three graphs
    graphs = gallery.bundle.manifest.graphs.values()
    assert shallow > sum((gallery.bundle.folder / file).stat().st_size for graph in graphs for file in graph.files)
    assert gallery.collection.info().expected_memory is None
    assert Gallery.create("tiny", store=client, bundle=tiny_bundle).info().expected_memory is None
    with pytest.raises(InputError, match="at least 0"):
        gallery.info(rerank_depth=-1)
