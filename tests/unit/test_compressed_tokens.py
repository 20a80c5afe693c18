"""Compressed tokens from end to end: written by the indexer, read by both stages, told from those of another form.

The compressed tiny model stores three rows of two dimensions: red and green of a colour, blue is lost. A picture of one
colour has five equal tokens, so that merging loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdrant_cir.errors import BundleError, CollectionMismatchError, TokensError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.report import IndexReport
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import (
    Bundle,
    Compression,
    graph_entry,
    load_bundle,
    sha256_of,
    sorted_digests,
    write_manifest,
)
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.storage.stores.protocol import StoredPoint
from qdrant_cir.tokens.compression import TokenProjection, write_projection
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import GalleryImage, Query, SearchResult

WriteImages = Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]

RED_AND_GREEN = np.array([[1, 0], [0, 1], [0, 0]], np.float32)

# The mean of the five tokens that the rows stand for, brought back to three dimensions, times the first fusion state.
RERANKER = """
<ir_version: 8, opset_import: ["": 17]>
reranker (int64[1,length] input_ids, float[1,length,3] fusion_states, int8[candidates,3,2] candidate_tokens,
          float[candidates,3] candidate_scales, float[candidates,3] candidate_weights) => (float[candidates] scores)
<int64 first = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] flat = {-1}, float fifth = {0.2},
 float[2,3] up = {1, 0, 0, 0, 1, 0}> {
    values = Cast <to = 1> (candidate_tokens)
    factors = Mul (candidate_scales, candidate_weights)
    columns = Unsqueeze (factors, last)
    rows = Mul (values, columns)
    total = ReduceSum <keepdims = 0> (rows, one)
    small_mean = Mul (total, fifth)
    mean = MatMul (small_mean, up)
    state = Gather <axis = 1> (fusion_states, first)
    column = Transpose <perm = [1, 0]> (state)
    products = MatMul (mean, column)
    scores = Reshape (products, flat)
}
"""


def compressed(bundle: Path, out: Path, version: int = 1) -> Bundle:
    onnx = pytest.importorskip("onnx.parser", reason="needs torch: pip install 'qdrant-cir[export]'")
    exact = load_bundle(bundle).manifest
    folder = Path(shutil.copytree(bundle, out))
    (folder / "onnx" / "reranker.onnx").write_bytes(onnx.parse_model(RERANKER).SerializeToString())
    projection = TokenProjection(np.zeros(3, np.float32), RED_AND_GREEN, RED_AND_GREEN.T.copy())
    write_projection(folder / "projection.npz", projection)
    compression = Compression(
        rows=3,
        dims=2,
        version=version,
        file="projection.npz",
        sha256=sha256_of(folder / "projection.npz"),
        exact_reranker=sorted_digests(exact.graphs["reranker"]),
    )
    manifest = replace(exact, compression=compression)
    entry = graph_entry(folder, "reranker", ["onnx/reranker.onnx"], manifest.sizes)
    write_manifest(folder, replace(manifest, graphs={**manifest.graphs, "reranker": entry}))
    return load_bundle(folder)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return compressed(tiny_bundle, tmp_path / "compressed")


@pytest.fixture
def pictures(tmp_path: Path, write_solid_images: WriteImages) -> list[Path]:
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    return write_solid_images(tmp_path / "pictures", colours)


def index(store: EdgeStore, bundle: Bundle, pictures: list[Path]) -> IndexReport:
    collection = Collection.create(store, "colours", bundle)
    records = [ImageRecord(path.stem, str(path), payload={}, source=str(path)) for path in pictures]
    return Indexer(collection, ImageEncoder.open(bundle, Compute("cpu", 1)), bundle).index(records)


def search(store: EdgeStore, bundle: Bundle, reference: Path | GalleryImage) -> SearchResult:
    retriever = Retriever(Collection.open(store, "colours", bundle), QueryModel(bundle, Compute("cpu", 1)))
    return retriever.search(Query(reference, "make it green"))


def scores(result: SearchResult) -> dict[str, float | None]:
    return {candidate.image_id: candidate.rerank_score for candidate in result.candidates}


# red + green's word = (1, -1, -1) + (-3, 3, -3) = (-2, 2, -4), of length sqrt(24); products with red and green alone
EXPECTED = {"green": 4 / 24**0.5, "blue": 0.0, "red": -4 / 24**0.5}


def test_search_reads_what_the_indexer_compressed(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    with EdgeStore(tmp_path / "store") as store:
        assert index(store, bundle, pictures).indexed == 3
        result = search(store, bundle, pictures[0])
        info = Collection.open(store, "colours").info()
    assert scores(result) == pytest.approx(EXPECTED, abs=1e-5)
    assert [candidate.image_id for candidate in result.candidates] == ["green", "blue", "red"]
    assert (result.rerank_mode, result.notes) == ("compressed", ())
    assert info.token_bytes == 20 + 3 * (2 + 6)


def test_a_reference_in_the_collection_is_brought_back_to_all_its_tokens(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    with EdgeStore(tmp_path / "store") as store:
        index(store, bundle, pictures)
        result = search(store, bundle, GalleryImage("red"))
    # without its blue, red is (1, -1, 0): the query (-2, 2, -3) of length sqrt(17), green is (-1, 1, -1) / sqrt(3)
    green = next(candidate for candidate in result.candidates if candidate.image_id == "green")
    assert green.retrieval_score == pytest.approx(7 / 51**0.5, abs=1e-5)


def test_tokens_in_another_form_count_as_missing_until_indexing_encodes_them_again(
    bundle: Bundle, tiny_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    exact, second = load_bundle(tiny_bundle), compressed(tiny_bundle, tmp_path / "second", version=2)
    with EdgeStore(tmp_path / "store") as store:
        for earlier, now in ((None, exact), (exact, bundle), (bundle, second), (second, exact)):
            if earlier is not None:
                unread = search(store, now, pictures[0])
                assert (unread.rerank_mode, unread.scored) == ("none", 0)
                assert unread.notes[0].startswith("3 candidates without valid tokens come after the re-ranked ones")
                assert "`qdrant-cir index`" in unread.notes[1]
                with pytest.raises(TokensError, match=r"the bundle reads tokens that are .*`qdrant-cir index`"):
                    search(store, now, GalleryImage("green"))
            assert index(store, now, pictures[:1]).indexed == 1
            assert search(store, now, pictures[0]).scored == 1
            assert index(store, now, pictures).indexed == 2
            assert index(store, now, pictures).unchanged == 3
            result = search(store, now, pictures[0])
            assert (result.scored, result.notes) == (3, ())


def test_a_compressed_image_of_an_earlier_release_is_searched_as_it_is_and_encoded_again_by_indexing(
    bundle: Bundle, tiny_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    def written_before(store: EdgeStore, name: str) -> None:
        points = store.scroll(name, filter=None, limit=10, after=None)
        records = store.fetch(name, [point.point_id for point in points], with_vectors=name == "colours")
        for record in records:
            reserved = record.payload["_cir"]
            assert isinstance(reserved, dict)
            reserved |= {"bundle": load_bundle(tiny_bundle).fingerprint, "compression": 1}
            record.payload.pop("crc", None)
        store.upsert(name, [StoredPoint(record.point_id, record.vector, record.payload) for record in records])

    with EdgeStore(tmp_path / "store") as store:
        index(store, bundle, pictures)
        for name in ("colours", "colours__tokens"):
            written_before(store, name)
        assert scores(search(store, bundle, pictures[0])) == pytest.approx(EXPECTED, abs=1e-5)
        assert index(store, bundle, pictures).indexed == 3
        assert index(store, bundle, pictures).unchanged == 3


def test_another_reranker_makes_another_gallery(
    bundle: Bundle, pictures: list[Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    manifest = bundle.manifest
    assert manifest.compression is not None
    other = replace(bundle, manifest=replace(manifest, compression=replace(manifest.compression, exact_reranker="0")))
    with EdgeStore(tmp_path / "store") as store:
        index(store, load_bundle(tiny_bundle), pictures)
        with pytest.raises(CollectionMismatchError):
            Collection.open(store, "colours", other)


def test_what_the_form_restores_is_what_it_was_given_where_nothing_is_lost(bundle: Bundle) -> None:
    tokens = np.array([[1, -1, 0], [0.5, 1, 0], [0.5, 1, 0], [-1, 0, 0], [-1, 0, 0]], np.float32)
    form = TokenForm(bundle)
    restored = form.restore(form.decode([form.encode(tokens)]))
    assert restored.shape == (1, 5, 3)
    np.testing.assert_allclose(restored[0], tokens, atol=0.5 / 127)


def test_a_changed_or_wrong_projection_is_refused(bundle: Bundle) -> None:
    path = bundle.folder / "projection.npz"
    write_projection(path, TokenProjection(np.zeros(4, np.float32), RED_AND_GREEN, RED_AND_GREEN.T.copy()))
    with pytest.raises(BundleError, match=r"projection\.npz is not the file"):
        load_bundle(bundle.folder)
    with pytest.raises(BundleError, match=r"mean is float32 \[4\]; expected float32 \[3\]"):
        TokenForm(bundle)
    path.write_bytes(b"PK")
    with pytest.raises(BundleError, match="is not a projection"):
        TokenForm(bundle)


def test_merged_cells_share_what_their_row_adds_and_need_the_picture_that_was_indexed(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "halves").mkdir()
    path = tmp_path / "halves" / "halves.png"
    halves = Image.new("RGB", (16, 16), (255, 0, 0))
    halves.paste((0, 255, 0), (8, 0, 16, 16))
    halves.save(path)
    red = tmp_path / "red.png"
    Image.new("RGB", (16, 16), (255, 0, 0)).save(red)
    with EdgeStore(tmp_path / "store") as store:
        index(store, bundle, [path])
        retriever = Retriever(Collection.open(store, "colours", bundle), QueryModel(bundle, Compute("cpu", 1)))
        told = retriever.explain(Query(red, "make it green"), "halves")
        Image.new("RGB", (16, 16), (0, 0, 255)).save(path)
        changed = retriever.explain(Query(red, "make it green"), "halves")
    # the four quadrants are two rows of two; each is a fifth of the mean
    green = EXPECTED["green"] / 5
    assert told.cells is not None
    assert np.array(told.cells.drops) == pytest.approx(np.array([[-green, green], [-green, green]]), abs=1e-3)
    assert (changed.cells, changed.words) == (None, told.words)
    assert "no longer the picture" in changed.notes[-1]
