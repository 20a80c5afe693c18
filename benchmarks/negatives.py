"""Which wrong candidates teach the re-ranker more, at equal cost: those of the batch, or near and mined ones.

    python -m benchmarks.negatives --out OUT [--steps 500] [--groups 2000]

Pictures are drawn anew. Both re-rankers start from the text encoder of a bundle's composer, which is grounded in
pictures, with a fresh head, and see the same queries with as many candidates each. A stopped comparison goes on where
it was.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnx_export.bundle.weights import load_start
from onnx_export.model_folder import ModelFolder
from onnx_export.models import build_model
from onnx_export.training.drawn.recipe import BUNDLED
from onnx_export.training.drawn.rounds import HELD_OUT_SEED, drawn_triplets
from onnx_export.training.loop import train
from onnx_export.training.similarity import paired_scores
from onnx_export.training.stages import StageTwo, start_reranker_from_text_encoder
from onnx_export.training.triplets import TripletSet
from onnx_export.training.updates import Schedule
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Negatives:
    """Wrong candidates of a query by kind, as :class:`StageTwo` counts them."""

    near: int
    mined: int
    others: int


def main(arguments: list[str] | None = None) -> None:
    """Train both re-rankers, and rank the candidates of triplets that nothing has learnt."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.negatives", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where pictures, checkpoints and the result are kept")
    parser.add_argument("--bundle", type=Path, help="whose stage one is used; the bundled model by default")
    parser.add_argument("--steps", type=int, default=500, help="of each re-ranker")
    parser.add_argument("--groups", type=int, default=2000, help="triplets to learn from, six pictures each")
    parser.add_argument("--unseen-groups", type=int, default=500, help="triplets to compare on")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = load_start(asked.bundle)
    learnt = drawn_triplets(folder.model, asked.out / "pool", groups=asked.groups, seed=BUNDLED.seed)
    seed = BUNDLED.seed + HELD_OUT_SEED
    unseen = drawn_triplets(folder.model, asked.out / "unseen", groups=asked.unseen_groups, seed=seed)
    count = BUNDLED.stage_two_near + BUNDLED.stage_two_mined + BUNDLED.stage_two_others
    ways = {
        "in-batch": Negatives(0, 0, count),
        "near and mined": Negatives(BUNDLED.stage_two_near, BUNDLED.stage_two_mined, BUNDLED.stage_two_others),
    }
    hits = {name: measure(folder, learnt, unseen, name, way, asked.out, asked.steps) for name, way in ways.items()}
    print(write_result(hits, asked.out, asked.steps))


def measure(
    folder: ModelFolder, learnt: TripletSet, unseen: TripletSet, name: str, way: Negatives, out: Path, steps: int
) -> Tensor:
    """Train one re-ranker; gives bool [Q, 2]: is the target first by stage one, and by this re-ranker alone?"""
    model = build_model(folder.model.sizes, seed=BUNDLED.seed)
    model.image_encoder.load_state_dict(folder.model.image_encoder.state_dict())
    model.composer.load_state_dict(folder.model.composer.state_dict())
    start_reranker_from_text_encoder(model, model.composer.text_encoder.state_dict())
    stage = StageTwo(
        model,
        learnt,
        folder.tokenizer,
        seed=BUNDLED.seed,
        batch=BUNDLED.stage_two_batch,
        near=way.near,
        mined=way.mined,
        others=way.others,
    )
    stage.modules.train()
    schedule = Schedule(steps, BUNDLED.stage_two_rate)
    train(name.replace(" ", "-"), run_folder=out, modules=stage.modules, schedule=schedule, batch_losses=stage.step)
    stage.modules.eval()
    return first_places(*paired_scores(model, unseen, folder.tokenizer), unseen)


def first_places(rescored: Tensor, cosines: Tensor, right: Tensor, data: TripletSet) -> Tensor:
    """Is the first place right, bool [Q, 2]: by cosines [Q, K], and by scores [Q, K]."""
    rows = torch.arange(len(data.triplets))
    return torch.stack([right[rows, ranking.argmax(1)] for ranking in (cosines, rescored)], dim=1)


def write_result(hits: dict[str, Tensor], out: Path, steps: int) -> str:
    """Compare recall@1 in a table; intervals are 95%, by bootstrap over queries, each of a reference of its own."""
    stage_one = next(iter(hits.values()))[:, 0]
    columns = torch.stack([stage_one, *(found[:, 1] for found in hits.values())], dim=1).numpy() * 100.0
    names, first, last = ["stage one", *hits], 1, columns.shape[1] - 1
    table = np.column_stack((columns, columns[:, last] - columns[:, first]))
    draws = bootstrap_means([table], [np.arange(len(table))], resamples=RESAMPLES, seed=0)
    found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
    result = dict(zip([*names, "gain"], map(asdict, found), strict=True))
    (out / "negatives.json").write_text(json.dumps({"steps": steps, **result}, indent=2) + "\n", encoding="utf-8")
    lines = [f"{len(table)} unseen triplets, {steps} steps each; R@1 among stage one's best 50", ""]
    lines += ["| ranked by | R@1, % |", "| --- | ---: |"]
    lines += [
        f"| {name} | {value.value:.1f} [{value.low:.1f}, {value.high:.1f}] |"
        for name, value in zip(names, found, strict=False)
    ]
    lines += [
        f"| {names[last]} over {names[first]} | {found[-1].value:+.1f} [{found[-1].low:+.1f}, {found[-1].high:+.1f}] |"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
