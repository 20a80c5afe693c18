"""Every tensor of a training step is on the model's device: on a device that refuses to mix with the CPU.

No GPU is needed. ``Elsewhere`` holds its values in CPU memory but says that they are on another device. An operation
that gets tensors of both fails, as it does on a GPU, and so does reading one with numpy. The device stays registered
with torch, so this file runs itself in a process of its own.
"""

# ruff: noqa: ANN401 - operations of torch take anything

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES as TINY_SIZES  # noqa: E402
from tiny_sizes import TINY_ORDINARY, TINY_ROUND  # noqa: E402
from torch.utils import backend_registration  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from onnx_export.models import CirModel, build_model  # noqa: E402
from onnx_export.training.custom.validation import HeldOut  # noqa: E402
from onnx_export.training.drawn import pool as pools  # noqa: E402
from onnx_export.training.drawn.families import Families  # noqa: E402
from onnx_export.training.drawn.family_batches import Gallery, on_device  # noqa: E402
from onnx_export.training.drawn.family_round import EncoderStage, JointStage, open_round_families  # noqa: E402
from onnx_export.training.drawn.grounding import Grounding  # noqa: E402
from onnx_export.training.drawn.ordinary_round import OrdinaryStage  # noqa: E402
from onnx_export.training.drawn.pretrain import Pretraining, normalised_pixels  # noqa: E402
from onnx_export.training.drawn.rounds import pool_triplets  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.features import PictureFeatures, compute_features  # noqa: E402
from onnx_export.training.stages import StageOne, StageTwo, start_reranker_from_text_encoder  # noqa: E402
from onnx_export.training.triplets import TripletSet  # noqa: E402

ROOT = Path(__file__).parents[2]
MAY_MIX = ("aten._to_copy", "aten.copy_", "aten.index.Tensor", "aten.index_put_", "aten._index_put_impl_")
SIZES = replace(TINY_SIZES, stem="convolutional", text_depth=3)


def elsewhere() -> torch.device:
    return torch.device("elsewhere:0")


class Backend(backend_registration._DummyBackendModule):  # type: ignore[misc]
    """What torch asks a device about."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Elsewhere(torch.Tensor):
    """A tensor that says it is elsewhere; its values are in ``held``, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type[Elsewhere], held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=elsewhere()
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class WithElsewhere(TorchDispatchMode):
    """Makes tensors elsewhere where that is asked for by name."""

    def __enter__(self) -> WithElsewhere:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) then goes through here
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; its result is elsewhere if that was asked for, or if its tensors are."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
    mixed = [tuple(tensor.shape) for tensor in here if tensor.dim()]
    if there and mixed and not str(function).startswith(MAY_MIX):
        raise AssertionError(f"{function} mixes {[tuple(t.shape) for t in there]} with {mixed} of the CPU")
    wanted = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    is_there = wanted[0] == elsewhere() if wanted else bool(there)
    known = {id(tensor.held): tensor for tensor in there}
    if function._schema.is_mutable:
        known |= {id(tensor): tensor for tensor in here}

    def fetch(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        return leaf.held if isinstance(leaf, Elsewhere) else leaf

    args, kwargs = tree_map(fetch, (args, kwargs))
    result = function(*args, **kwargs)

    def place(leaf: Any) -> Any:
        if not is_there or not isinstance(leaf, torch.Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else Elsewhere(leaf)

    return tree_map(place, result)


def check_the_device() -> None:
    """A tensor elsewhere computes, comes back, and is told from one on the CPU."""
    there = torch.ones(2, device=elsewhere())
    assert (there + 1).device == elsewhere()
    assert (there + torch.tensor([1.0, 2.0], device=elsewhere())).cpu().tolist() == [2, 3]
    with pytest.raises(AssertionError, match="mixes"):
        there + torch.ones(2)


def check_stages(
    model: CirModel, pool: pools.Pool, data: TripletSet, families: Families, features: PictureFeatures
) -> None:
    """Every stage's weights and losses are elsewhere."""
    tokenizer = build_tokenizer()
    gallery = Gallery(on_device(features.tokens, elsewhere()), features.vectors, features.blank)  # type: ignore[arg-type]
    encoder = EncoderStage(model, families, features.vectors, TINY_ROUND)
    joint = JointStage(
        model, families, tokenizer, before=gallery, gallery=gallery, round_=TINY_ROUND, stage_one=model.composer
    )
    pretraining = Pretraining(model, pool, seed=1, groups_per_step=2, pictures_per_group=4, shift=2)
    grounding = Grounding(model, pool, data, tokenizer, seed=1, groups_per_step=2)
    stage_one = StageOne(model, data, tokenizer, seed=1, batch=3, negatives=8)
    stage_one.read_with(pretraining.attributes, pretraining.heads.whole)
    stage_two = StageTwo(model, data, tokenizer, seed=1, batch=3, near=2, mined=2, others=1)
    ordinary = OrdinaryStage(model, data, data, tokenizer, TINY_ORDINARY)
    start_reranker_from_text_encoder(model, dict(model.composer.text_encoder.state_dict()))
    for stage in (pretraining, grounding, stage_one, stage_two, encoder, joint, ordinary):
        assert {value.device for value in stage.modules.state_dict().values()} == {elsewhere()}
        for name, loss in stage.step(1).items():
            assert loss.device == elsewhere(), name
            assert name.startswith("_") or loss.cpu().isfinite(), name


def check_validation(model: CirModel, data: TripletSet) -> None:
    """Rankings are read back from elsewhere."""
    for excludes_reference in (False, True):
        held_out = HeldOut(model, data, build_tokenizer(), excludes_reference=excludes_reference)
        held_out.retrieve()
        for is_reranked in (False, True):
            assert all(0 <= recall <= 1 for recall in held_out.recalls(is_reranked=is_reranked).values())


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend("elsewhere", Backend())
    pools.CHUNK_GROUPS = 4
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        pool = pools.open_pool(folder / "pool", groups=4, size=32, seed=1, workers=1)
        families = open_round_families(folder, TINY_ROUND, SIZES, build_tokenizer())
        compute = compute_features.__wrapped__  # inference mode takes no tensors that wrap others
        with WithElsewhere():
            check_the_device()
            model = build_model(SIZES, seed=1).to(elsewhere())
            assert model.device == elsewhere()
            features = compute(model, lambda rows: normalised_pixels(pool.pictures[rows]), len(pool.pictures), folder)
            data = pool_triplets(pool.groups, features)
            of_families = compute(
                model,
                lambda rows: normalised_pixels(families.pictures[rows]),
                len(families.pictures),
                folder / "families",
            )
            check_stages(model, pool, data, families, of_families)
            check_validation(model, data)


def test_training_steps_and_validation_mix_no_tensors_of_two_devices() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


if __name__ == "__main__":
    main()
