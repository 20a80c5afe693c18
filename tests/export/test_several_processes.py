"""Training on several processes and with accumulation: the same law as one process over the same batches.

Run by `accelerate launch` this file is the training itself. Every process writes the weights of the toy into the folder
of the first argument; the command in the other arguments comes next.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
pytest.importorskip("accelerate", reason="needs accelerate: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import build_model  # noqa: E402
from onnx_export.training.custom.data import read_custom_data  # noqa: E402
from onnx_export.training.custom.training import CustomRecipe, CustomRun  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.loop import train  # noqa: E402
from onnx_export.training.processes import processes  # noqa: E402
from onnx_export.training.updates import Schedule  # noqa: E402
from onnx_export.training.validation import Validation  # noqa: E402
from qdrant_cir.drawn.dataset import sample_drawn  # noqa: E402
from qdrant_cir.drawn.files import write_drawn  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 5


def toy_weights(folder: Path, *, accumulation: int, rows: int = 8, has_odd_bias: bool = True) -> dict[str, list[float]]:
    """Train a weight on batches of ``rows`` numbered rows, and a bias that only batches of odd number use."""
    folder.mkdir(exist_ok=True)
    modules = torch.nn.ModuleDict({"weight": torch.nn.Linear(4, 1, bias=False), "odd": torch.nn.Linear(1, 1)})
    for parameter in modules.parameters():
        torch.nn.init.constant_(parameter, 0.1)

    def losses(batch: int) -> dict[str, torch.Tensor]:
        numbers = range(batch * rows, (batch + 1) * rows)
        inputs = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(n)) for n in numbers])
        found = (inputs * modules["weight"].weight).sum(1)
        if has_odd_bias and batch % 2:
            found = found + modules["odd"].bias
        return {"square": (found - inputs.sum(1)).square().mean()}

    def score() -> float:
        assert processes().is_main_process
        return float(modules["weight"].weight.detach().sum())

    schedule = Schedule(steps=STEPS, learning_rate=1e-2, warmup=2, accumulation=accumulation)
    validation = Validation("sum", score, every=2, patience=3)
    train("toy", run_folder=folder, modules=modules, schedule=schedule, batch_losses=losses, validation=validation)
    return {name: value.detach().flatten().tolist() for name, value in modules.named_parameters()}


RECIPE = {
    "steps_one": 2,
    "batch_one": 4,
    "rate_one": 1e-3,
    "steps_two": 2,
    "batch_two": 3,
    "rate_two": 1e-3,
    "negatives": 16,
    "held_out": 0,
    "warmup": 1,
}


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the toy and a tiny model in two processes on the CPU, as `accelerate launch` does on two GPUs."""
    folder = tmp_path_factory.mktemp("two_processes")
    write_drawn(sample_drawn(5, products=120, queries=12), folder / "shop", size=32)
    save_model_folder(folder / "start", ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}))
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    launch += " --mixed_precision no --dynamo_backend no --main_process_port 0"
    command = "train own --data own --root shop --start start --run two --recipe recipe.json"
    words = [sys.executable, *launch.split(), __file__, "toy", *command.split()]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return folder


def test_two_processes_learn_what_one_learns_from_the_same_batches(trained_by_two: Path, tmp_path: Path) -> None:
    toy = trained_by_two / "toy"
    first, second = (json.loads((toy / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    alone = toy_weights(tmp_path / "one", accumulation=2)
    assert alone.keys() == first.keys()
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, abs=1e-6)
    log = (toy / "toy.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log if "sum" in line] == [0, 2, 4, STEPS]
    assert torch.load(toy / "toy.ckpt", weights_only=True)["processes"] == 2


def test_two_batches_of_eight_teach_what_one_of_sixteen_does(tmp_path: Path) -> None:
    halves = toy_weights(tmp_path / "halves", accumulation=2, has_odd_bias=False)
    whole = toy_weights(tmp_path / "whole", accumulation=1, rows=16, has_odd_bias=False)
    assert halves["weight.weight"] == pytest.approx(whole["weight.weight"], abs=1e-6)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As each of two processes has: bfloat16 products round by how they are shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_fine_tuning_in_two_processes_gives_the_model_of_one_that_accumulates_two_batches(
    trained_by_two: Path, tmp_path: Path
) -> None:
    data, alone = read_custom_data("own", trained_by_two / "shop"), CustomRecipe(**RECIPE, accumulation=2)  # type: ignore[arg-type]
    run = CustomRun(tmp_path / "one", alone, start=trained_by_two / "start", data=data)
    folders = run.train(), trained_by_two / "two" / "model"
    one, two = (load_model_folder(folder).model.state_dict() for folder in folders)
    assert any(not torch.equal(value, two[name]) for name, value in build_model(SIZES, seed=3).state_dict().items())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)


def test_a_step_without_batches_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least 1"):
        Schedule(steps=1, learning_rate=1.0, accumulation=0)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(exist_ok=True)
    found = toy_weights(out, accumulation=1)
    (out / f"{processes().process_index}.json").write_text(json.dumps(found))
    app(sys.argv[2:])
