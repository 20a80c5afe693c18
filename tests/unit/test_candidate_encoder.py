"""A bundle whose stage two has an image encoder of its own: references by one, candidates by the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qdrant_cir.errors import BundleError, InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import Bundle, graph_entry, load_bundle, write_manifest
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.tokens.codec import decode_tokens
from qdrant_cir.types import GalleryImage, Query

WriteImages = Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]

# Five tokens of the mean colour, as the tiny model's first encoder, but of the negative: what is red is cyan here.
NEGATIVE = """
<ir_version: 8, opset_import: ["": 17]>
candidate_encoder (float[batch,3,16,16] pixel_values) => (float[batch,5,3] tokens)
<int64[2] sides = {2, 3}, int64[1] one = {1}, int64[3] five = {1, 5, 1}> {
    mean = ReduceMean <axes = [2, 3], keepdims = 0> (pixel_values)
    negative = Neg (mean)
    row = Unsqueeze (negative, one)
    tokens = Tile (row, five)
}
"""


def add_candidate_encoder(folder: Path, text: str = NEGATIVE) -> Path:
    onnx = pytest.importorskip("onnx.parser", reason="needs torch: pip install 'qdrant-cir[export]'")
    model = onnx.parse_model(text)
    (folder / "onnx" / "candidate_encoder.onnx").write_bytes(model.SerializeToString())
    manifest = load_bundle(folder).manifest
    entry = graph_entry(folder, "candidate_encoder", ["onnx/candidate_encoder.onnx"], manifest.sizes)
    write_manifest(folder, replace(manifest, graphs={**manifest.graphs, "candidate_encoder": entry}))
    return folder


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return load_bundle(add_candidate_encoder(Path(shutil.copytree(tiny_bundle, tmp_path / "two_encoders"))))


@pytest.fixture
def pictures(tmp_path: Path, write_solid_images: WriteImages) -> list[Path]:
    return write_solid_images(tmp_path / "pictures", {"red": (255, 0, 0), "blue": (0, 0, 255)})


def index(store: EdgeStore, bundle: Bundle, pictures: list[Path], *, with_source: bool) -> Collection:
    collection = Collection.create(store, "colours", bundle)
    records = [
        ImageRecord(path.stem, str(path), payload={}, source=str(path) if with_source else None) for path in pictures
    ]
    report = Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    assert report.indexed == 2
    return collection


def test_a_second_encoder_makes_another_bundle(bundle: Bundle, tiny_bundle: Path) -> None:
    assert bundle.has_candidate_encoder
    assert not load_bundle(tiny_bundle).has_candidate_encoder
    assert bundle.fingerprint != load_bundle(tiny_bundle).fingerprint


def test_a_damaged_second_encoder_is_refused(bundle: Bundle) -> None:
    with bundle.graph_path("candidate_encoder").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"candidate_encoder\.onnx is not the file"):
        load_bundle(bundle.folder)


def test_references_and_candidates_are_read_by_their_own_encoders(bundle: Bundle) -> None:
    red = np.tile(np.array([1, -1, -1], np.float32)[None, :, None, None], (1, 1, 16, 16))
    encoded = ImageEncoder.open(bundle, Compute("cpu")).encode(red)
    np.testing.assert_allclose(encoded.tokens[0], [[1, -1, -1]] * 5, atol=1e-6)
    np.testing.assert_allclose(encoded.candidate_tokens[0], [[-1, 1, 1]] * 5, atol=1e-6)


def test_one_encoder_serves_both_where_there_is_no_second(tiny_bundle: Path) -> None:
    encoded = ImageEncoder.open(load_bundle(tiny_bundle), Compute("cpu")).encode(np.ones((2, 3, 16, 16), np.float32))
    assert encoded.candidate_tokens is encoded.tokens


def test_what_is_stored_is_what_stage_two_reads(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    with EdgeStore(tmp_path / "store") as store:
        data = index(store, bundle, pictures, with_source=True).stored(["red"])["red"].tokens.data
    assert data is not None
    stored = decode_tokens([data], bundle.manifest.sizes)
    np.testing.assert_allclose(stored.values[0] * stored.scales[0, :, None], [[-1, 1, 1]] * 5, atol=1e-2)


def test_a_gallery_image_as_reference_is_encoded_anew_and_gives_what_its_picture_gives(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    with EdgeStore(tmp_path / "store") as store:
        retriever = Retriever(index(store, bundle, pictures, with_source=True), QueryModel(bundle, Compute("cpu", 1)))
        by_id, by_picture = retriever.search_many(
            [Query(GalleryImage("red"), "make it blue"), Query(pictures[0], "make it blue")]
        )
        assert by_id.candidates == by_picture.candidates
        # Stage one: red + blue's word = (-2, -4, 2), nearest to blue. Stage two sees negatives: red, as (-1, 1, 1).
        assert [c.image_id for c in sorted(by_id.candidates, key=lambda c: c.retrieval_rank)] == ["blue", "red"]
        assert [c.image_id for c in by_id.candidates] == ["red", "blue"]


def test_a_gallery_image_whose_picture_is_not_at_hand_is_refused_with_what_to_do(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    query = Query(GalleryImage("red"), "make it blue")
    with EdgeStore(tmp_path / "store") as store:
        model = QueryModel(bundle, Compute("cpu", 1))
        retriever = Retriever(index(store, bundle, pictures, with_source=True), model)
        pictures[0].write_bytes(pictures[1].read_bytes())
        with pytest.raises(InputError, match=r"no longer the picture that was indexed as 'red'.*Give the picture"):
            retriever.search(query)
        pictures[0].unlink()
        with pytest.raises(InputError, match=r"'red' cannot be read again: There is no image file .*Give the picture"):
            retriever.search(query)
        assert retriever.search(Query(GalleryImage("red"))).candidates[0].image_id == "red"
    with EdgeStore(tmp_path / "other") as store:
        pictures[0].write_bytes(pictures[1].read_bytes())
        retriever = Retriever(index(store, bundle, pictures, with_source=False), model)
        with pytest.raises(InputError, match="The file of the reference 'red' is not known"):
            retriever.search(query)
