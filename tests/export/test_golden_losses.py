"""Five updates of every stage of training, and the losses that they had when these numbers were written.

What is wrong in a stage's losses or in the updates that all stages share changes them. They are computed in float32
on the CPU, with rates and a decay so large that a fault shows: a constant rate, no clipping, and decay on biases each
move a loss of every stage by at least twenty times the tolerance. Another number of threads or another instruction
set moves none by a tenth of it. Where a change of training is meant, take the new numbers from the test's message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from accelerate.state import AcceleratorState  # noqa: E402
from tiny_sizes import SIZES, TINY_ROUND  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from onnx_export.models import CirModel, build_model  # noqa: E402
from onnx_export.training import processes  # noqa: E402
from onnx_export.training.drawn.families import VARIANTS, Families  # noqa: E402
from onnx_export.training.drawn.family_batches import Gallery, open_gallery  # noqa: E402
from onnx_export.training.drawn.family_round import EncoderStage, JointStage, open_round_families  # noqa: E402
from onnx_export.training.drawn.grounding import Grounding  # noqa: E402
from onnx_export.training.drawn.pool import Pool, open_pool  # noqa: E402
from onnx_export.training.drawn.pretrain import Pretraining  # noqa: E402
from onnx_export.training.drawn.rounds import pool_features, pool_triplets  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.loop import train  # noqa: E402
from onnx_export.training.stages import StageOne, StageTwo  # noqa: E402
from onnx_export.training.triplets import TripletSet  # noqa: E402
from onnx_export.training.updates import BatchLosses, Schedule  # noqa: E402

TOLERANCE = 2e-4


@dataclass(frozen=True, slots=True)
class Drawn:
    """What all stages learn from; features are those of the untrained model."""

    pool: Pool
    triplets: TripletSet
    families: Families
    gallery: Gallery


def model() -> CirModel:
    return build_model(SIZES, seed=3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    pool = open_pool(folder / "pool", groups=12, size=SIZES.image_size, seed=1, workers=1)
    families = open_round_families(folder, TINY_ROUND, SIZES, build_tokenizer())
    triplets = pool_triplets(pool.groups, pool_features(model(), pool, folder))
    return Drawn(pool, triplets, families, open_gallery(folder / "gallery", model().eval(), families))


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on the CPU in float32 on every machine; bfloat16 rounds by how products are shared out."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr(processes, "_computes_in_bfloat16", lambda: False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def pretraining(drawn: Drawn) -> Pretraining:
    return Pretraining(model(), drawn.pool, seed=1, groups_per_step=2, pictures_per_group=4, shift=2)


def grounding(drawn: Drawn) -> Grounding:
    return Grounding(model(), drawn.pool, drawn.triplets, build_tokenizer(), seed=1, groups_per_step=2)


def stage_one(drawn: Drawn) -> StageOne:
    stage, heads = (
        StageOne(model(), drawn.triplets, build_tokenizer(), seed=1, batch=6, negatives=16),
        pretraining(drawn),
    )
    stage.read_with(heads.attributes, heads.heads.whole)
    stage.read_states()
    return stage


def stage_two(drawn: Drawn) -> StageTwo:
    stage = StageTwo(model(), drawn.triplets, build_tokenizer(), seed=1, batch=4, near=2, mined=2, others=1)
    stage.go_on_with(drawn.triplets, similarity_weight=2.0)
    return stage


def seeing(drawn: Drawn) -> EncoderStage:
    # an embedding that stands where it is held has no gradient but rounding, of which Adam makes whole steps
    return EncoderStage(
        model(), drawn.families, drawn.gallery.vectors.roll(1, 0), replace(TINY_ROUND, encoder_batch=16)
    )


def answering(drawn: Drawn) -> JointStage:
    # vectors of an untrained model are so alike that the last digit decides which are mined
    random = torch.Generator().manual_seed(1)
    tokens = torch.randn(2 * VARIANTS, 5, SIZES.image_width, generator=random).half()
    vectors = functional.normalize(torch.randn(2 * VARIANTS, SIZES.vector_size, generator=random), dim=-1)
    gallery = Gallery(tokens, vectors, torch.zeros(5, SIZES.image_width))
    before = build_model(SIZES, seed=4).composer.eval()  # another, as the held embedding of another picture above
    before.requires_grad_(False)
    return JointStage(
        model(),
        drawn.families,
        build_tokenizer(),
        before=gallery,
        gallery=gallery,
        round_=TINY_ROUND,
        stage_one=before,
    )


def losses_of(folder: Path, modules: nn.ModuleDict, step: BatchLosses, *, rate: float) -> list[float]:
    """Take five updates, and return the sum of the losses before each."""
    sums = []

    def noted(batch: int) -> dict[str, Tensor]:
        losses = step(batch)
        sums.append(sum(float(loss.detach()) for name, loss in losses.items() if not name.startswith("_")))
        return losses

    schedule = Schedule(steps=5, learning_rate=rate, warmup=2, weight_decay=4.0)
    train("golden", run_folder=folder, modules=modules.train(), schedule=schedule, batch_losses=noted)
    return sums


Stage = Pretraining | Grounding | StageOne | StageTwo | EncoderStage | JointStage
STAGES: Mapping[str, tuple[Callable[[Drawn], Stage], float]] = {
    "pretraining": (pretraining, 1e-2),
    "grounding": (grounding, 1e-2),
    "stage_one": (stage_one, 1e-2),
    "stage_two": (stage_two, 1e-2),
    "seeing": (seeing, 2e-3),
    "answering": (answering, 2e-3),
}
GOLDEN = {
    "pretraining": [4.87687, 4.70156, 4.46564, 4.59422, 4.34727],
    "grounding": [15.6423, 15.9563, 14.76777, 14.63101, 14.71962],
    "stage_one": [6.41594, 6.2876, 6.3972, 6.19771, 5.99567],
    "stage_two": [5.84505, 5.75331, 5.70963, 5.71953, 5.69885],
    "seeing": [2.40928, 4.49085, 3.47313, 2.61703, 2.47315],
    "answering": [43.44848, 35.22638, 24.23661, 17.64455, 13.87542],
}


@pytest.mark.parametrize("name", STAGES)
def test_five_updates_of_a_stage_have_the_losses_that_they_had(drawn: Drawn, tmp_path: Path, name: str) -> None:
    build, rate = STAGES[name]
    stage = build(drawn)
    found = losses_of(tmp_path, stage.modules, stage.step, rate=rate)
    assert found == pytest.approx(GOLDEN[name], abs=TOLERANCE)
