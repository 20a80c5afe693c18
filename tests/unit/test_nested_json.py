"""A JSON file that is nested by the thousand is damaged like any other: Python's RecursionError reaches nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from qdrant_cir.errors import CirError, EvaluationError, InputError, StoreError
from qdrant_cir.evaluation.datasets.annotation_files import read_json, read_json_lines
from qdrant_cir.evaluation.runs.run_file import read_run
from qdrant_cir.gallery import Gallery
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.search.effort import EffortCalibration
from qdrant_cir.storage.collection_options import CollectionOptions
from qdrant_cir.storage.stores import EdgeStore

NESTED = '{"a": ' + "[" * 5000 + "]" * 5000 + "}\n"


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (read_json, InputError),
        (read_json_lines, InputError),
        (read_run, EvaluationError),
        (EffortCalibration.read, InputError),
        (CollectionOptions.read, InputError),
    ],
)
def test_a_nested_file_is_refused(tmp_path: Path, read: Callable[[Path], object], expected: type[CirError]) -> None:
    path = tmp_path / "nested.json"
    path.write_text(NESTED)
    with pytest.raises(expected):
        read(path)


def test_a_collection_whose_description_is_nested_is_refused_and_can_be_dropped(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    with Indexer.open("colors", store=tmp_path / "store", bundle=tiny_bundle) as indexer:
        indexer.index([ImageRecord("red", Image.new("RGB", (8, 8), "red"), {}, None)])
    (tmp_path / "store" / "colors" / "collection.json").write_text(NESTED)
    with pytest.raises(StoreError, match="is damaged or cannot be read"):
        Gallery.open("colors", store=tmp_path / "store", bundle=tiny_bundle)
    with EdgeStore(tmp_path / "store") as store:
        store.drop("colors")
        assert not (tmp_path / "store" / "colors").exists()
