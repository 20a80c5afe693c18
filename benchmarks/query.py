"""Milliseconds of one query, step by step, on Qdrant Edge.

    make demo && .venv/bin/python benchmarks/query.py --demo demo

Takes the catalogue and the store that the demonstration leaves, and asks its first queries one at a time,
by picture and by gallery image, at each depth in turn. Prints the machine, the median per step, the 95th
percentile in total, and how many times the total of stage one alone a re-ranked query takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from dataclasses import asdict
from pathlib import Path

from qdrant_cir.cli.demo import COLLECTION
from qdrant_cir.retriever import Retriever
from qdrant_cir.sessions import available_threads
from qdrant_cir.types import GalleryImage, Query, Timings

STEPS = ("encode", "compose", "retrieve", "fetch", "rerank", "total")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `qdrant-cir demo`")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--bundle", type=Path, help="that the store was made with; the bundled model by default")
    parser.add_argument("--precision", choices=["float32", "float16", "int8"], default="float32", help="of stage two")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 50, 100])
    arguments = parser.parse_args()
    catalog = arguments.demo / "catalog"
    lines = (catalog / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: arguments.queries]]
    print(f"{platform.machine()}, {available_threads()} threads, {len(rows)} queries each")
    print(f"{'reference':9} {'K':>4}  " + "".join(f"{step:>10}" for step in STEPS) + f"{'total p95':>11}{'ratio':>7}")
    store, bundle = arguments.demo / "store", arguments.bundle
    with Retriever.open(COLLECTION, store=store, bundle=bundle, precision=arguments.precision) as retriever:
        for by_id in (False, True):
            base = 0.0
            for depth in arguments.depths:
                timings = [measure(retriever, row, catalog, depth=depth, by_id=by_id) for row in rows]
                medians = {step: 1000 * statistics.median(asdict(timing)[step] for timing in timings) for step in STEPS}
                base = base or medians["total"]
                p95 = 1000 * sorted(timing.total for timing in timings)[int(0.95 * len(timings))]
                print(
                    f"{'in store' if by_id else 'picture':9} {depth:>4}  "
                    + "".join(f"{medians[step]:>8.1f}ms" for step in STEPS)
                    + f"{p95:>9.1f}ms{medians['total'] / base:>6.1f}x"
                )


def measure(retriever: Retriever, row: dict[str, str], catalog: Path, *, depth: int, by_id: bool) -> Timings:
    """Ask one query and give its timings."""
    image_id = row["reference"].removeprefix("images/").removesuffix(".jpg")
    reference = GalleryImage(image_id) if by_id else catalog / "images" / f"{image_id}.jpg"
    query = Query(reference, row["modification_text"])
    return retriever.search(query, limit=10, rerank_depth=depth).timings


if __name__ == "__main__":
    main()
