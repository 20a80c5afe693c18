"""One update at a time, on weights whose way a person can compute: the rate, the clipping, the decay."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from torch import Tensor, nn  # noqa: E402

from onnx_export.training.loop import train  # noqa: E402
from onnx_export.training.updates import Schedule  # noqa: E402

SCHEDULE = Schedule(steps=6, learning_rate=0.1, warmup=2, weight_decay=0.0)
RATES = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps)]


def way_of_a_weight(folder: Path, gradient: Callable[[int], float]) -> list[float]:
    """Train one weight from 0 by gradients that are given, and return where it stands after each update."""
    modules = nn.ModuleDict({"toy": nn.Linear(1, 1, bias=False)})
    nn.init.zeros_(modules["toy"].weight)
    way = []

    def losses(step: int) -> dict[str, Tensor]:
        way.append(modules["toy"].weight.item())
        return {"loss": modules["toy"].weight.sum() * gradient(step)}

    train("toy", run_folder=folder, modules=modules, schedule=SCHEDULE, batch_losses=losses)
    return [*way[1:], modules["toy"].weight.item()]


def test_the_rate_rises_evenly_and_falls_along_a_cosine_to_a_twentieth() -> None:
    schedule = Schedule(steps=12, learning_rate=2.0, warmup=4)
    assert [schedule.rate(step) for step in (0, 1, 3, 4)] == [0.5, 1.0, 2.0, 2.0]
    # half of the way from step 4 to 12 the cosine is 0, so that half of the upper 0.95 is left
    assert schedule.rate(8) == pytest.approx(2.0 * (0.05 + 0.95 / 2))
    assert schedule.rate(12) == pytest.approx(0.1)


def test_every_update_has_the_rate_of_its_step(tmp_path: Path) -> None:
    # on a constant gradient Adam moves a weight by its rate
    assert len(set(RATES)) > 3
    assert way_of_a_weight(tmp_path, lambda _: -1.0) == pytest.approx(list(accumulate(RATES)), abs=1e-4)


def test_a_gradient_that_explodes_moves_weights_no_further_than_one_of_length_one(tmp_path: Path) -> None:
    def exploding(step: int) -> float:
        return -1000.0 if step == 2 else -1.0

    assert way_of_a_weight(tmp_path, exploding) == pytest.approx(list(accumulate(RATES)), abs=1e-4)


def test_decay_shrinks_matrices_and_leaves_biases_and_norms_as_they_are(tmp_path: Path) -> None:
    modules = nn.ModuleDict({"linear": nn.Linear(3, 2), "norm": nn.LayerNorm(2), "words": nn.Embedding(2, 3)})
    for parameter in modules.parameters():
        nn.init.ones_(parameter)

    def losses(_: int) -> dict[str, Tensor]:
        return {"nothing": torch.stack([parameter.sum() for parameter in modules.parameters()]).sum() * 0.0}

    schedule = Schedule(steps=1, learning_rate=0.1, warmup=0, weight_decay=0.5)
    train("toy", run_folder=tmp_path, modules=modules, schedule=schedule, batch_losses=losses)
    found = {name: value.detach().unique().tolist() for name, value in modules.named_parameters()}
    shrunk = [pytest.approx(1 - 0.1 * 0.5)]
    assert found == {
        "linear.weight": shrunk,
        "linear.bias": [1.0],
        "norm.weight": [1.0],
        "norm.bias": [1.0],
        "words.weight": shrunk,
    }
