"""Training goes on exactly where it was stopped, and goes through from pictures to a model folder."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import load_model_folder  # noqa: E402
from onnx_export.training.loop import Schedule, train  # noqa: E402
from onnx_export.training.recipe import Recipe, Run  # noqa: E402

SCHEDULE = Schedule(steps=12, learning_rate=1e-2, warmup=3)
TINY = Recipe(
    groups=250,
    pretrain_steps=2,
    pretrain_groups=2,
    stage_one_steps=2,
    stage_one_batch=4,
    stage_two_steps=2,
    stage_two_batch=3,
)


def toy_weights(folder: Path, *, stop_at: int | None) -> list[float]:
    """Train a toy to the end; with ``stop_at`` it is interrupted before that step and started again."""
    folder.mkdir()

    def run(stop: int | None) -> list[float]:
        torch.manual_seed(7)
        modules = torch.nn.ModuleDict({"toy": torch.nn.Linear(4, 1)})

        def losses(step: int) -> dict[str, torch.Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return {"square": (modules["toy"](inputs) - inputs.sum(1, keepdim=True)).square().mean()}

        train("toy", run_folder=folder, modules=modules, schedule=SCHEDULE, step_losses=losses)
        return [float(value) for parameter in modules.parameters() for value in parameter.detach().flatten()]

    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(stop_at)
    return run(None)


def test_an_interrupted_training_ends_with_the_same_weights_bit_by_bit(tmp_path: Path) -> None:
    whole = toy_weights(tmp_path / "whole", stop_at=None)
    assert toy_weights(tmp_path / "stopped", stop_at=5) == whole


def test_all_stages_run_from_nothing_to_a_model_folder_and_are_not_repeated(tmp_path: Path) -> None:
    Run(tmp_path, TINY).train()
    folder = load_model_folder(tmp_path / "model")
    assert set(folder.provenance["wall_seconds"]) == {"pretrain", "stage-one", "stage-two"}
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    Run(tmp_path, TINY).train()
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_a_run_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, TINY)
    with pytest.raises(TrainingError, match="another recipe"):
        Run(tmp_path, Recipe())
