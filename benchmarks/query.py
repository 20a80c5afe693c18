"""Milliseconds of one query, step by step, on Qdrant Edge and on a server.

    make demo && .venv/bin/python -m benchmarks.query --demo demo
    .venv/bin/python -m benchmarks.query --demo demo --store large --grow-to 100000     # indexes first; resumes
    .venv/bin/python -m benchmarks.query --demo demo --url http://localhost:6333        # indexes there first

Takes the catalogue and the store that the demonstration leaves, and asks its first queries one at a time,
by picture and by gallery image, at each depth in turn. Prints the machine, the median per step, the 95th and 99th
percentile in total, and how many times the total of stage one alone a re-ranked query takes. A larger store is filled
with sections of the demonstration's pictures, mirrored or not, each encoded like any other: good for times, not for
quality.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from qdrant_client import QdrantClient

from benchmarks.machine import LoadMeter, describe_machine
from qdrant_cir.cli.answering import read_effort
from qdrant_cir.cli.demo import COLLECTION
from qdrant_cir.indexer import Indexer, IndexProgress
from qdrant_cir.indexing.sources import ImageRecord, read_images
from qdrant_cir.model.cores import available_threads
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.effort import Effort
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore, connect
from qdrant_cir.types import GalleryImage, Query, Timings

STEPS = ("encode", "compose", "retrieve", "fetch", "rerank", "total")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `qdrant-cir demo`")
    parser.add_argument("--store", type=Path, help="another store, filled as --grow-to says")
    parser.add_argument("--grow-to", type=int, metavar="PICTURES", help="how many the other store is to hold")
    parser.add_argument(
        "--url", help="a Qdrant server: over REST, over gRPC, and with a plain client, beside the folder"
    )
    parser.add_argument("--grpc-port", type=int, help="of that server, where it is not 6334")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--bundle", type=Path, help="that the store was made with; the bundle `drawn` by default")
    parser.add_argument("--precision", choices=["float32", "float16", "int8"], default="float32", help="of stage two")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 50, 100])
    parser.add_argument("--confidence", type=float, help="end re-ranking early, as the calibration says")
    parser.add_argument("--calibration", type=Path, help="of `qdrant-cir calibrate`, for --confidence")
    arguments = parser.parse_args()
    effort = read_effort(arguments.confidence, arguments.calibration, None)
    if (arguments.store is None) != (arguments.grow_to is None):
        parser.error("--store and --grow-to are given together")
    catalog, store = arguments.demo / "catalog", arguments.store or arguments.demo / "store"
    if arguments.grow_to:
        grow(store, catalog / "images", arguments.grow_to, arguments.bundle)
    lines = (catalog / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: arguments.queries]]
    print(describe_machine(available_threads(), packages=("onnxruntime", "qdrant-edge-py", "numpy")))
    print(
        f"{'store':9} {'reference':9} {'K':>4}  "
        + "".join(f"{step:>10}" for step in STEPS)
        + f"{'p95':>10}{'p99':>10}{'ratio':>8}"
    )
    load = LoadMeter()
    ways: dict[str, Path | QdrantClient] = {"embedded": store}
    if arguments.url:
        ways |= clients(arguments.url, arguments.grpc_port)
        with Indexer.open(COLLECTION, store=arguments.url, bundle=arguments.bundle or "drawn") as indexer:
            indexer.index(read_images(catalog / "gallery.csv"))
    for name, way in ways.items():
        with Retriever.open(COLLECTION, store=way, bundle=arguments.bundle, precision=arguments.precision) as retriever:
            for by_id in (False, True):
                base = 0.0
                for depth in arguments.depths:
                    timings = [measure(retriever, row, catalog, depth, effort, by_id=by_id) for row in rows]
                    medians = {
                        step: 1000 * statistics.median(asdict(timing)[step] for timing in timings) for step in STEPS
                    }
                    base = base or medians["total"]
                    high = np.percentile([1000 * timing.total for timing in timings], [95, 99])
                    print(
                        f"{name:9} {'in store' if by_id else 'picture':9} {depth:>4}  "
                        + "".join(f"{medians[step]:>8.1f}ms" for step in STEPS)
                        + "".join(f"{value:>8.1f}ms" for value in high)
                        + f"{medians['total'] / base:>7.1f}x",
                        flush=True,
                    )
    print(f"other processes took {load.cores_taken():.1f} cores meanwhile")


def clients(url: str, grpc_port: int | None) -> dict[str, QdrantClient]:
    """Make the clients to compare: REST and gRPC as :func:`connect` sets them, and one of nothing but the address."""
    preferred = connect(url, grpc_port=grpc_port)
    rest = QdrantClient(**{**preferred.init_options, "prefer_grpc": False, "grpc_options": None})
    found = {"REST": rest, "plain": QdrantClient(url=url, check_compatibility=False)}
    if preferred.init_options["prefer_grpc"]:
        return {"REST": rest, "gRPC": preferred, "plain": found["plain"]}
    print("gRPC does not answer, so it is left out; --grpc-port names its port")
    return found


def grow(store: Path, images: Path, count: int, bundle: Path | None) -> None:
    """Fill a store with a folder's pictures, and sections of them, up to ``count``."""

    def show(at: IndexProgress) -> None:
        print(f"\r{at.done:,} of {count:,} pictures, {at.images_per_second or 0:.0f}/s ", end="", flush=True)

    if store.exists():
        with EdgeStore(store) as opened:
            if Collection.open(opened, COLLECTION).info().images >= count:
                return
    with Indexer.open(COLLECTION, store=store, bundle=bundle) as indexer:
        report = indexer.index(sections(sorted(images.iterdir()), count), total=count, progress=show)
    print(f"\r{report.indexed:,} pictures indexed, {report.unchanged:,} were there, in {report.seconds:.0f} s")


def sections(paths: list[Path], count: int) -> Iterator[ImageRecord]:
    """Every picture whole, under its own name, then nine tenths of its width and height at random places."""
    rng = np.random.default_rng(0)
    for number in range(count):
        turn, place = divmod(number, len(paths))
        path = paths[place]
        if turn == 0:
            yield ImageRecord(path.stem, path, payload={}, source=None)
            continue
        left, top = rng.uniform(0, 0.1, 2)
        with Image.open(path) as whole:
            picture = ImageOps.mirror(whole) if turn % 2 else whole
            width, height = whole.size
            box = (left * width, top * height, (left + 0.9) * width, (top + 0.9) * height)
            section = picture.resize(whole.size, box=box)
        yield ImageRecord(f"{path.stem}-{turn}", section, payload={}, source=None)


def measure(
    retriever: Retriever, row: dict[str, str], catalog: Path, depth: int, effort: Effort, *, by_id: bool
) -> Timings:
    """Ask one query and give its timings."""
    image_id = row["reference"].removeprefix("images/").removesuffix(".jpg")
    reference = GalleryImage(image_id) if by_id else catalog / "images" / f"{image_id}.jpg"
    query = Query(reference, row["modification_text"])
    return retriever.search(query, limit=10, rerank_depth=depth, effort=effort).timings


if __name__ == "__main__":
    main()
