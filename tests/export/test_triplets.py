"""A query is never taught that one of its right answers is wrong."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.models import CATALOG_SMALL, build_model  # noqa: E402
from onnx_export.training.attributes import NOT_OF_THIS_KIND, attribute_codes  # noqa: E402
from onnx_export.training.features import PictureFeatures  # noqa: E402
from onnx_export.training.stages import StageTwo  # noqa: E402
from onnx_export.training.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.triplets import Triplet, TripletSet  # noqa: E402


def two_queries() -> TripletSet:
    """Twelve pictures of six scenes, two rows each; the first query wants scene 1, the second scene 4."""
    vectors = torch.nn.functional.normalize(torch.randn(12, 128, generator=torch.Generator().manual_seed(1)), dim=-1)
    features = PictureFeatures(np.zeros((12, 65, 192), np.float16), vectors, torch.zeros(65, 192))
    triplets = [Triplet(0, (2,), (0, 4), ("in red",)), Triplet(6, (8,), (6,), ("in blue",))]
    return TripletSet(triplets, features, np.arange(12) // 2)


def test_the_first_candidate_is_a_target_and_no_other_shows_its_scene() -> None:
    data = two_queries()
    stage = StageTwo(build_model(CATALOG_SMALL), data, build_tokenizer(), seed=1, batch=2, near=1, mined=3, others=1)
    for seed in range(50):
        rows = stage._candidates(0, list(data.triplets), np.arange(12), np.random.default_rng(seed))
        assert rows[0] == 2
        assert len(rows) == 6
        assert not {2, 3} & set(rows[1:].tolist())


def test_a_weight_of_the_cosine_adds_a_loss_of_the_sum_that_a_large_one_decides() -> None:
    data, model = two_queries(), build_model(CATALOG_SMALL).eval()

    def losses(weight: float) -> dict[str, torch.Tensor]:
        near = {"near": 1, "mined": 3, "others": 1}
        stage = StageTwo(model, data, build_tokenizer(), seed=1, batch=2, similarity_weight=weight, **near)
        with torch.no_grad():
            return stage.step(0)

    without, small, large = losses(0.0), losses(1e-6), losses(1e6)
    assert "summed_loss" not in without
    assert small["loss"] == large["loss"] == without["loss"]
    assert torch.isclose(small["summed_loss"], small["loss"], atol=1e-4)
    # A million times the cosine: right where the target's cosine is the largest, and as wrong as the margin elsewhere.
    assert (large["summed_loss"] > 1e3) == (large["_summed_accuracy"] < 1)


def test_an_attribute_that_a_picture_lacks_has_no_value() -> None:
    keys, codes = attribute_codes([{"body.color": "red"}, {"body.color": "blue", "hem.color": "red"}])
    assert keys == ["body.color", "hem.color"]
    assert codes.tolist() == [[0, NOT_OF_THIS_KIND], [1, 0]]
