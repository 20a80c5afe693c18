"""The command line; see the package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

import benchmarks.binding as package
from benchmarks.binding.contestants import CONTESTANTS, train_contestants
from benchmarks.binding.pictures import PLACES, BoundPictures, open_pictures
from benchmarks.binding.scenes import TASKS
from onnx_export.bundle.weights import load_start

TRAINING_SEED, CATALOG_SEEDS = 11, (101, 102, 103)


def main(arguments: list[str] | None = None) -> None:
    """Train or measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.binding", description=(package.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--out", type=Path, required=True, help="where runs and features are kept")
    parser.add_argument("--names", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="which to train")
    parser.add_argument("--task", choices=list(TASKS), required=True, help="which queries")
    parser.add_argument("--places", choices=list(PLACES), default="free", help="where products stand in pictures")
    parser.add_argument("--run", required=True, help="folder in OUT of checkpoints and logs")
    parser.add_argument("--after", help="folder in OUT of the run that contestants go on from")
    parser.add_argument("--rate", type=float, default=3e-4, help="peak of the learning rate")
    parser.add_argument("--steps", type=int, default=3000, help="of each contestant")
    parser.add_argument("--families", type=int, default=400, help="to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=CATALOG_SEEDS, help="of the catalogues to measure on")
    parser.add_argument("--catalog-families", type=int, default=120, help="of each catalogue to measure on")
    parser.add_argument("--queries", type=int, default=360, help="of each catalogue")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    start = load_start(Path("drawn"))
    run = asked.out / asked.run

    def opened(seed: int, families: int) -> BoundPictures:
        return open_pictures(asked.out, start.model, places=asked.places, seed=seed, families=families)

    if asked.what == "train":
        after = None if asked.after is None else asked.out / asked.after
        train_contestants(
            run,
            start,
            opened(TRAINING_SEED, asked.families),
            task=asked.task,
            after=after,
            steps=asked.steps,
            rate=asked.rate,
            names=asked.names,
        )
        return
    from benchmarks.binding.measuring import measure, table

    catalogs = [opened(seed, asked.catalog_families) for seed in asked.seeds]
    print(table(measure(run, start, catalogs, task=asked.task, queries=asked.queries)))


if __name__ == "__main__":
    main()
