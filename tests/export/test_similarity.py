"""The final score may hold stage one's cosine beside the re-ranker's own; the paper's model does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES  # noqa: E402

from onnx_export.export import BundleDescription, export_bundle  # noqa: E402
from onnx_export.graphs import RerankerGraph  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import DRAWN_SMALL, CirModel, ModelSizes, build_model  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.similarity import fit_similarity_weight  # noqa: E402
from onnx_export.verify import verify_bundle  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402

IDS = torch.arange(5, 12)[None]


def model_with(weight: float, sizes: ModelSizes = DRAWN_SMALL) -> CirModel:
    return build_model(replace(sizes, similarity_weight=weight), seed=3)


@torch.no_grad()
def test_the_score_is_the_rerankers_plus_the_weighted_cosine_of_stage_one() -> None:
    model = model_with(2.5)
    pictures = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    tokens, vectors = model.image_encoder(pictures)
    composed = model.composer(IDS, torch.ones_like(IDS), tokens[:1])
    each = (4, -1)
    states = composed.fusion_states.expand(4, -1, -1)
    inputs = (IDS.expand(each), torch.ones_like(IDS).expand(each), states, tokens)
    expected = model.reranker(*inputs) + 2.5 * (vectors @ composed.query_vectors[0])
    torch.testing.assert_close(model.score(*inputs), expected)
    served = RerankerGraph(model.reranker, model.similarity())
    torch.testing.assert_close(served(IDS, composed.fusion_states, tokens, torch.ones(4, 65)), expected)


def test_a_weight_of_zero_is_the_papers_model() -> None:
    assert model_with(0.0).similarity() is None


def test_the_weight_survives_the_model_folder_and_the_export(tmp_path: Path) -> None:
    save_model_folder(tmp_path / "model", ModelFolder(model_with(7.0, SIZES), build_tokenizer(), {}))
    folder = load_model_folder(tmp_path / "model")
    assert folder.model.sizes.similarity_weight == 7.0
    export_bundle(
        folder.model,
        folder.tokenizer,
        tmp_path / "bundle",
        codec="int8",
        description=BundleDescription("x", "Apache-2.0", {}),
    )
    assert verify_bundle(load_bundle(tmp_path / "bundle"), folder, candidates=(1, 5)).scores < 1e-4


def drawn_scores(*, informative: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """400 queries, 10 candidates, the first of them right; one of the two scores knows it, the other is noise."""
    rng = np.random.default_rng(0)
    knows, noise = rng.standard_normal((2, 400, 10)).astype(np.float32)
    knows[:, 0] += 2
    right = np.zeros((400, 10), bool)
    right[:, 0] = True
    pair = (knows, noise) if informative == "reranker" else (noise, knows)
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1]), torch.from_numpy(right)


def test_the_fit_leaves_a_useless_cosine_out_and_leans_on_a_useful_one() -> None:
    assert fit_similarity_weight(*drawn_scores(informative="reranker")) < 0.15
    assert fit_similarity_weight(*drawn_scores(informative="cosine")) > 5


def test_two_scores_that_know_equally_much_are_weighed_by_their_scale() -> None:
    rng = np.random.default_rng(1)
    rescored, cosines = rng.standard_normal((2, 2000, 10)).astype(np.float32)
    rescored[:, 0] += 1
    cosines[:, 0] += 1
    right = torch.zeros(2000, 10, dtype=torch.bool)
    right[:, 0] = True
    # a cosine on a tenth of the scale says the same when it weighs ten times as much
    weight = fit_similarity_weight(torch.from_numpy(rescored), torch.from_numpy(cosines / 10), right)
    assert weight == pytest.approx(10, rel=0.2)
