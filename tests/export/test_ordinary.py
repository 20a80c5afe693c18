"""The round of ordinary queries: only the re-ranker learns, and candidates of every kind are ranked."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES, TINY_ORDINARY, TINY_ROUND  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder  # noqa: E402
from onnx_export.models import CirModel, build_model  # noqa: E402
from onnx_export.training.drawn.families import VARIANTS, family_scenes  # noqa: E402
from onnx_export.training.drawn.further import train_round_from  # noqa: E402
from onnx_export.training.drawn.ordinary_round import (  # noqa: E402
    OrdinaryStage,
    edit_triplets,
    open_ordinary,
)
from onnx_export.training.drawn.recipe import BUNDLED, Recipe, Run, ordinary_round  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.triplets import TripletSet  # noqa: E402

Pair = tuple[TripletSet, TripletSet]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder, model, round_ = tmp_path_factory.mktemp("ordinary"), build_model(SIZES, seed=3), TINY_ORDINARY
    return open_ordinary(folder, model, build_tokenizer(), round_)


def stage_of(opened: Pair) -> tuple[CirModel, OrdinaryStage]:
    model = build_model(SIZES, seed=3)
    return model, OrdinaryStage(model, *opened, build_tokenizer(), TINY_ORDINARY)


def test_queries_of_families_stay_in_their_family_and_all_others_of_it_are_wrong(opened: Pair) -> None:
    edits, _ = opened
    scenes = [scene for number in range(TINY_ORDINARY.families) for scene in family_scenes(TINY_ORDINARY.seed, number)]
    assert len(edits.triplets) == TINY_ORDINARY.families * TINY_ORDINARY.edits
    for triplet in edits.triplets:
        family = triplet.reference // VARIANTS
        assert sorted((*triplet.targets, *triplet.near)) == list(range(family * VARIANTS, (family + 1) * VARIANTS))
        (wanted,) = {scenes[row] for row in triplet.targets}
        assert wanted not in {scenes[row] for row in triplet.near}
    again = edit_triplets(scenes, edits.scenes, TINY_ORDINARY.seed, TINY_ORDINARY.edits)
    assert again == edits.triplets


def test_candidates_of_an_ordinary_query_are_one_right_picture_and_wrong_ones_of_every_kind(opened: Pair) -> None:
    _, stage = stage_of(opened)
    ordinary, rng = opened[1], np.random.default_rng(0)
    best = np.arange(len(ordinary.scenes))
    batch = list(ordinary.triplets[::7])
    scenes = [scene for number in range(TINY_ORDINARY.families) for scene in family_scenes(TINY_ORDINARY.seed, number)]
    of_other_kinds = []
    for place, triplet in enumerate(batch):
        first, *others = stage.ordinary._candidates(place, batch, best, rng).tolist()
        assert len(others) == TINY_ORDINARY.candidates - 1
        assert first in triplet.targets
        assert not ordinary.are_right(triplet, np.array(others)).any()
        of_other_kinds += [scenes[row].family != scenes[triplet.reference].family for row in others]
    assert 0.2 < np.mean(of_other_kinds) < 0.9


def test_both_sorts_of_queries_are_also_ranked_by_the_sum_with_stage_one(opened: Pair) -> None:
    model = build_model(replace(SIZES, similarity_weight=3.0), seed=3)
    losses = OrdinaryStage(model, *opened, build_tokenizer(), TINY_ORDINARY).step(0)
    assert {"loss", "summed_loss", "held", "ordinary_loss", "ordinary_summed_loss"} <= losses.keys()
    assert not any(name.startswith("summed") for name in stage_of(opened)[1].step(0))


def test_the_target_is_one_that_stage_one_ranks_high(opened: Pair) -> None:
    _, stage = stage_of(opened)
    triplet = max(opened[1].triplets, key=lambda triplet: len(triplet.targets))
    best = np.array([row for row in range(len(opened[1].scenes)) if row not in triplet.targets[3:]])
    drawn = {stage.ordinary._target(triplet, best, np.random.default_rng(seed)) for seed in range(40)}
    assert drawn <= set(triplet.targets[:3])
    assert stage.ordinary._target(triplet, np.array([triplet.reference]), np.random.default_rng(0)) in triplet.targets


def test_scores_are_held_on_queries_of_families_alone(opened: Pair) -> None:
    model, stage = stage_of(opened)
    losses = stage.step(0)
    assert float(losses["held"].detach()) == pytest.approx(0, abs=1e-6)
    assert not any(name.startswith("ordinary_held") for name in losses)
    with torch.no_grad():
        for parameter in model.reranker.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert float(stage.step(0)["held"].detach()) > 1e-4


def start() -> ModelFolder:
    return ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {"quality": "of the start"})


def test_only_the_re_ranker_is_trained_and_a_stopped_round_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_round_from(tmp_path / "whole", start(), TINY_ORDINARY)
    found, before = load_model_folder(whole), start().model.state_dict()
    changed = {name for name, value in found.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("reranker.") for name in changed)
    assert "quality" not in found.provenance
    assert list(found.provenance["further_rounds"][0]["wall_seconds"]) == ["ordinary"]
    take_step = OrdinaryStage.step

    def interrupted(self: OrdinaryStage, batch: int) -> dict[str, torch.Tensor]:
        if batch == 1:
            raise KeyboardInterrupt
        return take_step(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(OrdinaryStage, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_round_from(tmp_path / "stopped", start(), TINY_ORDINARY)
    again = train_round_from(tmp_path / "stopped", start(), TINY_ORDINARY)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="other settings"):
        train_round_from(tmp_path / "whole", start(), replace(TINY_ORDINARY, seed=6))


def test_what_is_kept_is_a_mean_of_the_weights_before_and_after(
    tmp_path: Path,
) -> None:
    def kept(share: float) -> torch.Tensor:
        folder = train_round_from(tmp_path / str(share), start(), replace(TINY_ORDINARY, share=share))
        return load_model_folder(folder).model.reranker.cls_head[0].weight.detach()

    before, after = kept(0.0), kept(1.0)
    assert torch.equal(before, start().model.reranker.cls_head[0].weight)
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(kept(0.25), 0.25 * after + 0.75 * before)


def test_a_recipe_without_the_round_says_so_before_it_trains(tmp_path: Path) -> None:
    assert ordinary_round(BUNDLED) == BUNDLED.ordinary
    with pytest.raises(TrainingError, match="no round of ordinary queries"):
        Run(tmp_path, replace(BUNDLED, ordinary=None)).train("ordinary")
    with pytest.raises(TrainingError, match="no round of families"):
        Run(tmp_path / "none", Recipe()).train("ordinary")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("candidates", 3),
        *(("share", value) for value in (-0.1, 1.1, float("nan"), "x")),
        *(("rate", value) for value in (-1e-4, float("nan"), float("inf"), "x", True)),
        *(("families", value) for value in (0, -1, "4", 4.5, True)),
        *((name, 0) for name in ("steps", "edits", "batch", "edit_batch")),
        *((name, -1) for name in ("seed", "edit_near", "edit_mined", "steps")),
    ],
)
def test_a_number_that_a_round_cannot_use_is_refused(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"{name} is"):
        replace(TINY_ORDINARY, **{name: value})  # type: ignore[arg-type]
    if hasattr(TINY_ROUND, name):
        with pytest.raises(TrainingError, match=f"{name} is"):
            replace(TINY_ROUND, **{name: value})  # type: ignore[arg-type]


def test_one_query_a_step_and_one_family_are_enough(tmp_path: Path) -> None:
    small = replace(TINY_ORDINARY, families=1, batch=1, edit_batch=1)
    assert (train_round_from(tmp_path, start(), small) / "model.safetensors").exists()


def test_a_folder_is_of_one_start(tmp_path: Path) -> None:
    train_round_from(tmp_path, start(), TINY_ORDINARY)
    other = ModelFolder(build_model(SIZES, seed=4), build_tokenizer(), {})
    with pytest.raises(TrainingError, match="another start"):
        train_round_from(tmp_path, other, TINY_ORDINARY)


def test_pictures_that_were_removed_are_drawn_again(tmp_path: Path, opened: Pair) -> None:
    model, tokenizer = build_model(SIZES, seed=3), build_tokenizer()
    first = open_ordinary(tmp_path, model, tokenizer, TINY_ORDINARY)[0].features.vectors.clone()
    (tmp_path / "families" / "pictures.npy").unlink()
    shutil.rmtree(tmp_path / "features")
    again = open_ordinary(tmp_path, model, tokenizer, TINY_ORDINARY)[0].features.vectors
    assert torch.equal(first, again)
    assert len(torch.unique(again, dim=0)) > 100


def test_a_recipe_that_cannot_be_used_leaves_no_folder_behind(tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.json", tmp_path / "run"
    for content, words in (
        ("{}", "no round of families"),
        ('{"ordinary": {"steps": 3, "stepz": 1}}', "exactly the fields seed, families, edits, steps"),
        ('{"ordinary": 3}', "exactly the fields"),
    ):
        recipe.write_text(content)
        refused = CliRunner().invoke(app, ["train", "ordinary", "--run", str(run), "--recipe", str(recipe)])
        assert isinstance(refused.exception, TrainingError)
        assert words in str(refused.exception)
        assert not run.exists()


def test_a_file_is_no_folder_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TrainingError, match="cannot be the folder of a run"):
        train_round_from(file, start(), TINY_ORDINARY)
    with pytest.raises(TrainingError, match="cannot be the folder of a run"):
        Run(file, Recipe())
