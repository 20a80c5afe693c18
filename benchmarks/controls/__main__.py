"""The command line; see the package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import benchmarks.controls as package
from benchmarks.controls.training import train_controls


def main(arguments: list[str] | None = None) -> None:
    """Train both controls."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls", description=(package.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--run", type=Path, required=True, help="a training run's folder, grounding done; only read")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints and logs are kept")
    parser.add_argument("--steps", type=int, help="of each control; those of the run's stage one by default")
    parser.add_argument("--round-steps", type=int, help="on the groups of the run's rounds; as stage two's by default")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_controls(asked.run, asked.out, steps=asked.steps, round_steps=asked.round_steps)


if __name__ == "__main__":
    main()
