"""The command line; see the package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

import benchmarks.binding as package
from benchmarks.binding.contestants import CONTESTANTS, train_contestants
from benchmarks.binding.pictures import open_pictures
from onnx_export.bundle.weights import load_start

TRAINING_SEED, CATALOG_SEEDS = 11, (101, 102, 103)


def main(arguments: list[str] | None = None) -> None:
    """Train or measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.binding", description=(package.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints, logs and features are kept")
    parser.add_argument("--names", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="which to train")
    parser.add_argument("--steps", type=int, default=3000, help="of each contestant")
    parser.add_argument("--families", type=int, default=400, help="to train on")
    parser.add_argument("--catalog-families", type=int, default=120, help="of each catalogue to measure on")
    parser.add_argument("--queries", type=int, default=360, help="of each catalogue")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    start = load_start(Path("drawn"))
    if asked.what == "train":
        pictures = open_pictures(asked.out, start.model, seed=TRAINING_SEED, families=asked.families)
        train_contestants(asked.out, start, pictures, steps=asked.steps, names=asked.names)
        return
    from benchmarks.binding.measuring import measure, table

    catalogs = [
        open_pictures(asked.out, start.model, seed=seed, families=asked.catalog_families) for seed in CATALOG_SEEDS
    ]
    print(table(measure(asked.out, start, catalogs, queries=asked.queries)))


if __name__ == "__main__":
    main()
