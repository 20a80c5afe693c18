"""Damaged pictures: each is read or refused with a named error, and nothing else.

``python -m benchmarks.trust.pictures [--count 12000] [--seed 0]``; the last line is JSON.
The exit code is 1 where an error was raw.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter

import numpy as np

from benchmarks.trust.damage import damaged, foreign_pictures, whole_pictures
from qdrant_cir.errors import ImageError
from qdrant_cir.model.preprocess import load_image

__all__ = ["count_outcomes", "main"]


def count_outcomes(count: int, seed: int) -> tuple[Counter[str], Counter[str], float]:
    """Read damaged pictures.

    Returns:
        How many were ``read``, ``refused`` or ``raw``; the raw errors by format and class; the longest seconds of one.
    """
    files = {**whole_pictures(), **foreign_pictures()}
    names = sorted(files)
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter(read=0, refused=0, raw=0)
    raw: Counter[str] = Counter()
    longest = 0.0
    for _ in range(count):
        name, content = damaged(files, names, random)
        started = time.perf_counter()
        try:
            load_image(content)
            outcome = "read"
        except ImageError:
            outcome = "refused"
        except Exception as error:
            outcome = "raw"
            raw[f"{name}: {type(error).__name__}"] += 1
        longest = max(longest, time.perf_counter() - started)
        outcomes[outcome] += 1
    return outcomes, raw, longest


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes, raw, longest = count_outcomes(arguments.count, arguments.seed)
    for place, times in raw.most_common():
        print(f"{times:6} {place}")
    print(json.dumps({**outcomes, "longest_s": round(longest, 3)}))
    raise SystemExit(1 if raw else 0)


if __name__ == "__main__":
    main()
