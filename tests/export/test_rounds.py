"""Rounds over families: any two variants are a query with an exact answer, and the composer may go along."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder  # noqa: E402
from onnx_export.models import CATALOG_SMALL, build_model  # noqa: E402
from onnx_export.training import similarity  # noqa: E402
from onnx_export.training.families import FamilyQueries, family_scenes, open_families  # noqa: E402
from onnx_export.training.features import PictureFeatures  # noqa: E402
from onnx_export.training.recipe import BUNDLED, Recipe, last_round  # noqa: E402
from onnx_export.training.rounds import FurtherRound, Round, train_further_round  # noqa: E402
from onnx_export.training.stages import StageTwo  # noqa: E402
from onnx_export.training.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.triplets import Triplet, TripletSet  # noqa: E402
from qdrant_cir.catalog.dataset import is_held_out  # noqa: E402
from qdrant_cir.catalog.edit import edit_between  # noqa: E402


def test_every_query_of_families_asks_for_what_its_target_is_and_stays_in_its_family() -> None:
    families = [family_scenes(5, number) for number in range(3)]
    scenes = [scene for family in families for scene in family]
    starts = np.cumsum([0, *map(len, families)])
    queries = FamilyQueries(scenes, starts, seed=5)
    assert not any(is_held_out(scene) for scene in scenes)
    assert len(queries) > 5 * len(scenes)
    steps = []
    for query in queries:
        (target,) = query.targets
        edit = edit_between(scenes[query.reference], scenes[target])
        assert edit is not None
        assert np.searchsorted(starts, target, "right") == np.searchsorted(starts, query.reference, "right")
        steps.append(len(edit.steps))
    assert steps.count(2) <= steps.count(1)


def test_a_query_is_worded_the_same_whenever_it_is_asked_for() -> None:
    scenes = family_scenes(5, 0)
    queries = FamilyQueries(scenes, np.array([0, len(scenes)]), seed=5)
    assert queries[3] == queries[3]
    assert queries[:2] == [queries[0], queries[1]]
    assert len({query.texts for query in queries}) > 0.9 * len(queries)


def test_drawn_families_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    whole = open_families(tmp_path / "whole", families=1, size=16, seed=5, workers=1)
    stopped = open_families(tmp_path / "stopped", families=1, size=16, seed=5, workers=1)
    pictures = np.lib.format.open_memmap(tmp_path / "stopped" / "pictures.npy", "r+")
    pictures[:] = 0
    pictures.flush()
    (tmp_path / "stopped" / "drawn_000000").unlink()
    again = open_families(tmp_path / "stopped", families=1, size=16, seed=5, workers=1)
    assert whole.scenes == stopped.scenes == again.scenes
    assert np.array_equal(whole.pictures, again.pictures)


def composer_gradients(
    *, trains_composer: bool, has_moved: bool = False
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    model = build_model(CATALOG_SMALL, seed=3)
    vectors = torch.nn.functional.normalize(torch.randn(12, 128, generator=torch.Generator().manual_seed(1)), dim=-1)
    features = PictureFeatures(
        np.random.default_rng(0).standard_normal((12, 65, 192)).astype(np.float16), vectors, torch.zeros(65, 192)
    )
    triplets = [Triplet(0, (2,), (0, 4), ("in red",)), Triplet(6, (8,), (6,), ("in blue",))]
    data = TripletSet(triplets, features, np.arange(12) // 2)
    stage = StageTwo(model, data, build_tokenizer(), seed=1, batch=2, near=1, mined=3, others=1)
    stage.go_on_with(data, similarity_weight=0.0, trains_composer=trains_composer)
    if has_moved:
        with torch.no_grad():
            model.composer.text_proj.weight.neg_()
    losses = stage.step(0)
    torch.stack([value for name, value in losses.items() if not name.startswith("_")]).sum().backward()
    return losses, [p.grad for p in model.composer.text_encoder.parameters() if p.grad is not None]


def test_the_composer_learns_from_stage_two_where_it_is_asked_to_and_its_vectors_are_held() -> None:
    frozen, nothing = composer_gradients(trains_composer=False)
    assert "vectors" not in frozen
    assert nothing == []
    moving, gradients = composer_gradients(trains_composer=True)
    assert float(moving["vectors"].detach()) == pytest.approx(0, abs=1e-5)  # nothing has moved yet
    assert any(float(gradient.abs().sum()) > 0 for gradient in gradients)
    assert float(moving["loss"].detach()) == pytest.approx(float(frozen["loss"].detach()))
    moved, _ = composer_gradients(trains_composer=True, has_moved=True)
    assert float(moved["vectors"].detach()) > 0.1  # compared with what the composer gave before the round


def test_a_round_from_a_finished_model_gives_one_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "CANDIDATES", 4)
    further = FurtherRound(Round(0, 1, families=2, trains_composer=True), 5, 1e-4, 3, 3, 5, 1, unseen_groups=12)

    def start() -> ModelFolder:
        return ModelFolder(build_model(CATALOG_SMALL, seed=3), build_tokenizer(), {"quality": "of the start"})

    found = load_model_folder(train_further_round(tmp_path, start(), further))
    assert "quality" not in found.provenance
    assert found.provenance["further_rounds"][0]["round_"]["families"] == 2
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    train_further_round(tmp_path, start(), further)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    with pytest.raises(TrainingError, match="other settings"):
        train_further_round(tmp_path, start(), replace(further, seed=6))


def test_the_last_round_of_the_bundled_recipe_can_be_trained_by_itself() -> None:
    further = last_round(BUNDLED)
    assert further.round_ == BUNDLED.rounds[-1]
    assert further.seed == BUNDLED.seed + 3
    with pytest.raises(TrainingError, match="stage two alone"):
        last_round(Recipe())
