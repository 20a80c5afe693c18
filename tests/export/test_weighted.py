"""The re-ranker with weights: removal is exact, and nothing else of a bundle changes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
import onnx

from onnx_export.bundle.weighted import add_weighted, random_triplets, with_weights
from onnx_export.errors import ExportError
from qdrant_cir.model.bundle import load_bundle, packaged_bundle_path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import open_weighted

BUNDLES = ("drawn", "photos")


@pytest.mark.parametrize("name", BUNDLES)
def test_weights_of_one_change_nothing_and_a_row_without_weight_cannot_be_told_from_none(name: str) -> None:
    bundle = load_bundle(name)
    query, stored = random_triplets(bundle)
    exact = Reranker.open(bundle, Compute("cpu", 1)).score(query, stored)
    weighted = Reranker(open_weighted(bundle, Compute("cpu", 1)))
    ones = np.ones(stored.scales.shape, np.float32)
    assert weighted.score(query, replace(stored, weights=ones)) == pytest.approx(exact, abs=1e-6)
    # without row 7, whatever it holds; and as row 3 twice over
    twice = ones.copy()
    twice[:, 7], twice[:, 3] = 0, 2
    copied = replace(stored, values=stored.values.copy(), scales=stored.scales.copy())
    copied.values[:, 7], copied.scales[:, 7] = copied.values[:, 3], copied.scales[:, 3]
    expected = Reranker.open(bundle, Compute("cpu", 1)).score(query, copied)
    assert weighted.score(query, replace(stored, weights=twice)) == pytest.approx(expected, abs=2e-5)
    if name == "drawn":  # the other one reads little but the class token
        assert not np.allclose(exact, expected, atol=1e-3)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_standing_bundle_gets_weights_without_a_new_fingerprint(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_bundle_path(name), tmp_path / name))
    before = load_bundle(folder)
    added = add_weighted(folder)
    after = load_bundle(folder)
    assert after.fingerprint == before.fingerprint
    assert after.manifest == before.manifest  # the packaged ones were made by this very call
    assert added.ones <= 1e-6
    assert added.removed <= 2e-5
    assert (folder / added.file).stat().st_size < 200_000


def test_a_graph_without_attention_to_candidates_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ExportError, match="no softmax over candidate tokens"):
        with_weights(onnx.load(str(tiny_bundle / "onnx" / "reranker.onnx")))
