"""The command line; see the package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import benchmarks.controls as package
from benchmarks.controls.heads import KINDS
from benchmarks.controls.training import train_controls

STEPS = 1_500


def main(arguments: list[str] | None = None) -> None:
    """Train the controls."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls", description=(package.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--round", type=Path, required=True, help="folder of `onnx_export train round`; only read")
    parser.add_argument("--start", type=Path, help="model folder or bundle that it started from; the bundle `drawn`")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="which")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints and logs are kept")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each control")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_controls(asked.round, asked.out, start=asked.start, steps=asked.steps, kinds=asked.kinds)


if __name__ == "__main__":
    main()
