"""The command line; see the package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import benchmarks.controls as package
from benchmarks.controls.heads import KINDS
from benchmarks.controls.training import train_controls, train_on_round

ROUND_STEPS = 1_500


def main(arguments: list[str] | None = None) -> None:
    """Train both controls."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls", description=(package.__doc__ or "").splitlines()[0]
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="a training run's folder, grounding done; only read")
    source.add_argument("--round", type=Path, help="the folder of `python -m onnx_export train round`; only read")
    parser.add_argument("--start", type=Path, help="with --round: the bundle it started from; the bundled model")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="with --round: which")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints and logs are kept")
    parser.add_argument("--steps", type=int, help="of each control; those of the run's stage one by default")
    parser.add_argument("--round-steps", type=int, help="on the groups of the run's rounds; as stage two's by default")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if asked.round is not None:
        steps = asked.steps or ROUND_STEPS
        train_on_round(asked.round, asked.out, start=asked.start, steps=steps, kinds=asked.kinds)
        return
    train_controls(asked.run, asked.out, steps=asked.steps, round_steps=asked.round_steps)


if __name__ == "__main__":
    main()
