"""The control that sees no text: the reference, which its own vector always finds first, is no result.

From red (1, -1, -1), black (-1, -1, -1) has the cosine 1/3 and navy (-1, -1, 0) has 0, so that black is first
and navy second where the reference is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from recording_store import RecordingStore

from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, EvaluationQuery
from qdrant_cir.evaluation.metrics import Recall, Truth
from qdrant_cir.evaluation.runs.controls import run_controls
from qdrant_cir.evaluation.runs.run_file import RunHeader
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.types import GalleryImage

COLORS = {"red": (255, 0, 0), "black": (0, 0, 0), "navy": (0, 0, 128), "blue": (0, 0, 255)}
QUERIES = tuple(EvaluationQuery(f"to {name}", GalleryImage("red"), "make it blue") for name in ("black", "navy"))
TRUTH = {f"to {name}": Truth(frozenset({name})) for name in ("black", "navy")}
HEADER = RunHeader(
    benchmark="colors",
    split="queries",
    part="own",
    bundle="tiny",
    limit=10,
    rerank_depth=0,
    excludes_reference=False,
    queries=len(QUERIES),
    queries_sha256="",
    gallery=len(COLORS),
    gallery_sha256="",
)


@pytest.fixture
def retriever(
    tiny_bundle: Path,
    tmp_path: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> Retriever:
    bundle = load_bundle(tiny_bundle)
    collection = Collection.create(RecordingStore(), "colors", bundle)
    files = write_solid_images(tmp_path / "pictures", COLORS)
    records = [ImageRecord(path.stem, path, {}, str(path)) for path in files]
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu", 1)), bundle).index(records)
    return Retriever(collection, QueryModel(bundle, Compute("cpu", 1)))


@pytest.mark.parametrize("excludes_reference", [False, True])
def test_the_reference_is_no_result_of_the_image_only_control_whether_or_not_it_is_one_of_the_whole_query(
    retriever: Retriever, tmp_path: Path, *, excludes_reference: bool
) -> None:
    part = EvaluationPart("own", QUERIES, gallery=None, excludes_reference=excludes_reference)
    image_only, _ = run_controls(
        retriever, part, TRUTH, list(TRUTH), metrics=[Recall(1), Recall(2)], folder=tmp_path / "runs", header=HEADER
    )
    assert image_only.control == "image-only"
    # black is first and navy second
    assert image_only.scores.values.tolist() == [[1.0, 1.0], [0.0, 1.0]]
