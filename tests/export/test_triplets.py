"""What stages learn from: right answers that are never taught as wrong, joined features, attributes of states."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.models import DRAWN_SMALL, build_model  # noqa: E402
from onnx_export.training.attributes import NOT_OF_THIS_KIND, AttributeVocabulary, StateReader, attribute_codes  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.features import PictureFeatures, join_features  # noqa: E402
from onnx_export.training.stages import StageTwo  # noqa: E402
from onnx_export.training.triplets import Triplet, TripletSet  # noqa: E402


def two_queries() -> TripletSet:
    """Twelve pictures of six scenes, two rows each; the first query wants scene 1, the second scene 4."""
    vectors = torch.nn.functional.normalize(torch.randn(12, 128, generator=torch.Generator().manual_seed(1)), dim=-1)
    features = PictureFeatures(np.zeros((12, 65, 192), np.float16), vectors, torch.zeros(65, 192))
    triplets = [Triplet(0, (2,), (0, 4), ("in red",)), Triplet(6, (8,), (6,), ("in blue",))]
    return TripletSet(triplets, features, np.arange(12) // 2)


def test_the_first_candidate_is_a_target_and_no_other_shows_its_scene() -> None:
    data = two_queries()
    stage = StageTwo(build_model(DRAWN_SMALL), data, build_tokenizer(), seed=1, batch=2, near=1, mined=3, others=1)
    for seed in range(50):
        rows = stage._candidates(0, list(data.triplets), np.arange(12), np.random.default_rng(seed))
        assert rows[0] == 2
        assert len(rows) == 6
        assert not {2, 3} & set(rows[1:].tolist())


def test_a_weight_of_the_cosine_adds_a_loss_of_the_sum_that_a_large_one_decides() -> None:
    data, model = two_queries(), build_model(DRAWN_SMALL).eval()

    def losses(weight: float) -> dict[str, torch.Tensor]:
        near = {"near": 1, "mined": 3, "others": 1}
        stage = StageTwo(model, data, build_tokenizer(), seed=1, batch=2, **near)
        stage.go_on_with(data, similarity_weight=weight)
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


def test_joined_features_are_read_as_one_array() -> None:
    rng = np.random.default_rng(0)
    parts = [
        PictureFeatures(
            rng.standard_normal((count, 2, 3)).astype(np.float16),
            torch.from_numpy(rng.standard_normal((count, 4), dtype=np.float32)),
            torch.zeros(2, 3),
        )
        for count in (3, 5, 2)
    ]
    joined, rows = join_features(parts), np.array([9, 0, 7, 2, 3, 3])
    whole = np.concatenate([np.asarray(part.tokens) for part in parts])
    assert torch.equal(joined.tokens_of(rows), torch.from_numpy(whole[rows]).float())
    assert torch.equal(joined.vectors, torch.cat([part.vectors for part in parts]))


def test_attributes_are_read_off_every_state_but_not_off_padding() -> None:
    wanted = [{"family": "mug", "body.color": "red", "handle.size": "small"}, {"family": "mug", "body.color": "blue"}]
    vocabulary = AttributeVocabulary(wanted)
    reader = StateReader(DRAWN_SMALL, vocabulary)
    states = torch.randn(2, 4, DRAWN_SMALL.text_width, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    reader(states, mask, wanted).backward()
    assert states.grad is not None
    moved = states.grad.abs().sum(dim=-1) > 0
    assert torch.equal(moved, mask.bool())
