"""Training goes on exactly where it was stopped, and goes through from pictures to a model folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import TINY_ROUND  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: E402

from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import load_model_folder  # noqa: E402
from onnx_export.models import DRAWN_SMALL, build_model  # noqa: E402
from onnx_export.training import similarity  # noqa: E402
from onnx_export.training.drawn.pool import PictureFacts  # noqa: E402
from onnx_export.training.drawn.pretrain import Pretraining, shifted  # noqa: E402
from onnx_export.training.drawn.recipe import Recipe, Round, Run  # noqa: E402
from onnx_export.training.loop import train  # noqa: E402
from onnx_export.training.updates import Schedule  # noqa: E402
from onnx_export.training.validation import Validation  # noqa: E402

SCHEDULE = Schedule(steps=12, learning_rate=1e-2, warmup=3)
TINY = Recipe(
    groups=24,
    pretrain_steps=1,
    pretrain_groups=2,
    grounding_steps=1,
    grounding_groups=2,
    stage_one_steps=1,
    stage_one_batch=4,
    stage_two_steps=1,
    stage_two_batch=3,
    rounds=(Round(0, 1, groups=24), Round(1, 1, groups=24)),
    families=TINY_ROUND,
    unseen_groups=12,
)


def toy_weights(folder: Path, *, stop_at: int | None) -> list[float]:
    """Train a toy to the end; with ``stop_at`` it is interrupted before that step and started again."""
    folder.mkdir(exist_ok=True)

    def run(stop: int | None) -> list[float]:
        torch.manual_seed(7)
        modules = torch.nn.ModuleDict({"toy": torch.nn.Linear(4, 1)})

        def losses(step: int) -> dict[str, torch.Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return {"square": (modules["toy"](inputs) - inputs.sum(1, keepdim=True)).square().mean()}

        train("toy", run_folder=folder, modules=modules, schedule=SCHEDULE, batch_losses=losses)
        return [float(value) for parameter in modules.parameters() for value in parameter.detach().flatten()]

    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(stop_at)
    return run(None)


def test_an_interrupted_training_ends_with_the_same_weights_bit_by_bit(tmp_path: Path) -> None:
    whole = toy_weights(tmp_path / "whole", stop_at=None)
    assert toy_weights(tmp_path / "stopped", stop_at=5) == whole


def test_an_interrupt_inside_an_update_repeats_no_half_of_it(tmp_path: Path) -> None:
    whole = toy_weights(tmp_path / "whole", stop_at=None)
    updates = iter(range(100))

    def interrupt_sixth(*_: object) -> None:
        if next(updates) == 5:
            raise KeyboardInterrupt

    hook = register_optimizer_step_post_hook(interrupt_sixth)
    try:
        with pytest.raises(KeyboardInterrupt):
            toy_weights(tmp_path / "stopped", stop_at=None)
    finally:
        hook.remove()
    assert toy_weights(tmp_path / "stopped", stop_at=None) == whole


def judged_toy(folder: Path, *, stop_at: int | None) -> tuple[float, int, list[int]]:
    """A weight that grows by its rate every step, judged by scores 0, 1, 3, 2, 2, 9: gives it, its step, all steps."""
    folder.mkdir(exist_ok=True)
    scores, steps = [0.0, 1.0, 3.0, 2.0, 2.0, 9.0], []

    def run(stop: int | None) -> tuple[float, int]:
        modules = torch.nn.ModuleDict({"toy": torch.nn.Linear(1, 1)})
        torch.nn.init.zeros_(modules["toy"].weight)

        def losses(step: int) -> dict[str, torch.Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            steps.append(step)
            return {"loss": -modules["toy"].weight.sum()}

        def score() -> float:
            return scores[round(modules["toy"].weight.item() / 2)]

        validation = Validation("score", score, every=2, patience=2)
        train(
            "toy",
            run_folder=folder,
            modules=modules,
            schedule=_Steady(),
            batch_losses=losses,
            validation=validation,
        )
        return modules["toy"].weight.item(), validation.best_step

    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(stop_at)
    weight, best_step = run(None)
    return weight, best_step, steps


class _Steady(Schedule):
    """Rate 1 at every step: Adam on a constant gradient then moves a weight by 1."""

    def __init__(self) -> None:
        super().__init__(steps=10, learning_rate=1.0, weight_decay=0.0)

    def rate(self, step: int) -> float:
        return 1.0


@pytest.mark.parametrize("stop_at", [None, 2, 5, 7])
def test_early_stopping_keeps_the_best_weights_also_across_an_interruption(tmp_path: Path, stop_at: int | None) -> None:
    weight, best_step, steps = judged_toy(tmp_path / "toy", stop_at=stop_at)
    assert weight == pytest.approx(4, abs=1e-3)
    assert best_step == 4
    assert steps == list(range(8))


def test_the_recipes_seed_decides_every_fresh_weight(tmp_path: Path) -> None:
    pool = Run(tmp_path, TINY).pool()

    def heads(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        stage = Pretraining(build_model(DRAWN_SMALL, seed=1), pool, seed=1, groups_per_step=2)
        return list(stage.modules.state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(heads(3), heads(4), strict=True))


def test_all_stages_run_from_nothing_to_a_model_folder_and_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "CANDIDATES", 4)  # the cosine's weight is of no use here
    Run(tmp_path, TINY).train("round")
    folder = load_model_folder(tmp_path / "model")
    stages = [
        "pretrain",
        "grounding",
        "stage-one",
        "stage-two",
        "stage-two-2",
        "stage-one-3",
        "stage-two-3",
        "families",
    ]
    assert list(folder.provenance["wall_seconds"]) == stages
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    Run(tmp_path, TINY).train("round")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_a_run_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, TINY)
    with pytest.raises(TrainingError, match="another recipe"):
        Run(tmp_path, Recipe())


def test_a_run_goes_on_from_the_weights_and_the_pool_of_its_start(tmp_path: Path) -> None:
    recipe = replace(
        TINY, seed=2, pretrain_steps=0, grounding_steps=0, pretrain_pictures=3, pretrain_shift=4, start=TINY
    )
    seconds = Run(tmp_path, recipe).train("pretrain")
    before = load_model_folder(tmp_path / "start" / "model").model.state_dict()
    after = load_model_folder(tmp_path / "model").model.state_dict()
    assert not (tmp_path / "pool").exists()
    assert list(seconds) == ["start", "pretrain", "grounding"]
    # No step was taken: what the start trained is unchanged, and what it did not train is of this run's own seed.
    trained = [name for name in before if name.startswith(("image_encoder.", "composer."))]
    assert all(torch.equal(before[name], after[name]) for name in trained)
    assert not torch.equal(before["reranker.cls_head.0.weight"], after["reranker.cls_head.0.weight"])


def test_moving_a_picture_moves_its_boxes_with_it(tmp_path: Path) -> None:
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, 8:16, 12:20] = 255
    facts = PictureFacts({}, {"part": (12 / 32, 8 / 32, 20 / 32, 16 / 32)}, [], [], [], [], [], [])
    moves = set()
    for seed in range(20):
        moved, [fact] = shifted(picture, [facts], 4, np.random.default_rng(seed))
        ys, xs = np.nonzero(moved[0, :, :, 0])
        left, top, right, bottom = (round(edge * 32) for edge in fact.boxes["part"])
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (left, top, right, bottom)
        moves.add((left - 12, top - 8))
    assert len(moves) > 10
    assert max(abs(step) for move in moves for step in move) <= 4
