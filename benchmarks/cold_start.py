"""Seconds of one `qdrant-cir search` on an existing embedded store, process start included.

    .venv/bin/qdrant-cir demo --products 300 && .venv/bin/python -m benchmarks.cold_start --demo demo

Asks one query of the demonstration's catalogue in fresh processes, in turn with the same command in a process
that loads qdrant-client first. Prints medians in wall clock and in processor time, and their paired ratio.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import LoadMeter, describe_machine, median_ratio
from qdrant_cir.model.cores import available_threads

_LAZY = "from qdrant_cir.cli import main; main()"
VARIANTS = {"as it is": _LAZY, "qdrant-client loaded": f"import qdrant_client; {_LAZY}"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `qdrant-cir demo`")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    picture = min((arguments.demo / "catalog" / "images").iterdir())
    command = ["search", "-c", "catalog", "--path", str(arguments.demo / "store"), "-i", str(picture), "-t", "in blue"]
    print(describe_machine(available_threads(), packages=("onnxruntime", "qdrant-client", "qdrant-edge-py")))
    load = LoadMeter()
    walls: dict[str, list[float]] = {name: [] for name in VARIANTS}
    processor: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(arguments.rounds + 1):
        for name, code in list(VARIANTS.items())[:: 1 if turn % 2 == 0 else -1]:
            before, started = _children_seconds(), time.perf_counter()
            subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True)
            # the first round reads files that the later ones find in memory
            if turn:
                walls[name].append(time.perf_counter() - started)
                processor[name].append(_children_seconds() - before)
    for name in VARIANTS:
        print(
            f"{name:22} {statistics.median(walls[name]):5.2f} s, fastest {min(walls[name]):5.2f} s, "
            f"{statistics.median(processor[name]):5.2f} s of processor time"
        )
    as_it_is, loaded = VARIANTS
    print(
        f"ratio {median_ratio(walls[loaded], walls[as_it_is]):.2f}x in time, "
        f"{median_ratio(processor[loaded], processor[as_it_is]):.2f}x of processor; "
        f"other processes kept {load.cores_taken():.1f} cores busy"
    )


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
