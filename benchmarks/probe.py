"""What a training run's frozen tokens and grounded text encoder can tell, on pictures it has not seen.

    python -m benchmarks.probe --run runs/main

Draws 250 fresh groups of near-duplicates (1,500 pictures) and reads them with the heads that pre-training left in its
checkpoints: every attribute of every part from the tokens in its box, every attribute of the scene from the embedding,
true and false statements, hidden words. Look at this before training anything on top: what the tokens do not hold, no
stage can find.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnx_export.training.attributes import head_name
from onnx_export.training.drawn.grounding import Grounding
from onnx_export.training.drawn.pool import PICTURES_PER_GROUP, Pool, open_pool
from onnx_export.training.drawn.pretrain import Pretraining, normalised_pixels
from onnx_export.training.drawn.recipe import Run, read_recipe
from onnx_export.training.drawn.rounds import pool_triplets
from onnx_export.training.features import compute_features

FRESH_SEED = 1_000_003
GROUPS_PER_STEP = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Probe a training run on pictures it has not seen.")
    parser.add_argument("--run", type=Path, required=True)
    folder = parser.parse_args().run
    run = Run(folder, read_recipe(folder / "recipe.json"))
    pool, model = run.pool(), run.fresh_model()
    pretraining = Pretraining(model, pool, seed=run.recipe.seed, groups_per_step=GROUPS_PER_STEP)
    step = load(pretraining.modules, folder / "pretrain.ckpt")
    model.eval()
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        fresh = open_pool(Path(place), groups=250, size=model.sizes.image_size, seed=FRESH_SEED, workers=2)
        print(f"image encoder after {step} steps, {len(fresh.pictures)} fresh pictures; share read right:")
        print_shares(read_pictures(pretraining, fresh))
        if (folder / "grounding.ckpt").exists():
            features = compute_features(
                model, lambda rows: normalised_pixels(fresh.pictures[rows]), len(fresh.pictures), Path(place)
            )
            grounding = Grounding(
                model,
                fresh,
                pool_triplets(fresh.groups, features),
                run.tokenizer,
                seed=1,
                groups_per_step=GROUPS_PER_STEP,
            )
            step = load(grounding.modules, folder / "grounding.ckpt")
            model.eval()
            losses = [grounding.step(n) for n in range(25)]
            print(f"text encoder after {step} steps:")
            for name in ("_match_accuracy", "_fill_accuracy"):
                print(f"  {name.strip('_')}: {100 * float(torch.stack([x[name] for x in losses]).mean()):.1f} %")


def load(modules: torch.nn.ModuleDict, checkpoint: Path) -> int:
    """Load a stage's weights; gives the step they are of."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    modules.load_state_dict(state["modules"])
    return int(state["step"])


def read_pictures(stage: Pretraining, fresh: Pool) -> dict[str, list[bool]]:
    """Give, per kind of attribute, whether each was read right: from parts (``part color``), from the embedding."""
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(fresh.groups), GROUPS_PER_STEP):
        rows = slice(start * PICTURES_PER_GROUP, (start + GROUPS_PER_STEP) * PICTURES_PER_GROUP)
        facts = [p for group in fresh.groups[start : start + GROUPS_PER_STEP] for p in group.pictures]
        tokens = stage.model.image_encoder.visual_encoder(normalised_pixels(fresh.pictures[rows]))
        embedding = stage.model.image_encoder.vision_proj(tokens[:, 0])
        for number, picture in enumerate(facts):
            for key, value in picture.attributes.items():
                kind = key.rpartition(".")[2]
                answer = stage.heads.whole[head_name(key)](embedding[number])
                right[f"whole {kind}"].append(said(answer, stage.attributes.values[key]) == value)
        where, hidden = stage.part_states(tokens, facts)
        for state, (number, part) in zip(hidden, where, strict=True):
            for kind, values in stage.attributes.kinds.items():
                wanted = facts[number].attributes.get(f"{part}.{kind}")
                if wanted is not None:
                    right[f"part {kind}"].append(said(stage.heads.part[kind](state), values) == wanted)
    return right


def said(logits: Tensor, values: list[str]) -> str:
    """Give the value that scores best."""
    return values[int(logits.argmax())]


def print_shares(right: dict[str, list[bool]]) -> None:
    """Print one line per kind."""
    for name, answers in sorted(right.items()):
        print(f"  {name}: {100 * float(np.mean(answers)):.1f} % of {len(answers)}")


if __name__ == "__main__":
    main()
