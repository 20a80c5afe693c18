"""Kills an index of an attached collection again and again, and compares the user's data byte by byte afterwards.

``python -m benchmarks.trust.attach_kills`` does it in the embedded engine, on a shard of the user's own, and over HTTP;
``--url`` on a server. The collection has two other vectors, nested payload and mixed ids. Every run is a process of its
own that is killed with SIGKILL somewhere behind the batches that it should have written; then one run completes, and
detaching must leave what was there before.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import qdrant_edge as edge
from PIL import Image
from qdrant_client import QdrantClient, models

import qdrant_cir

NAME = "products"
SIZES = {"image": 8, "text": 4}
PICTURES = 100

INDEXING = """
import sys
import qdrant_cir

place, root, bundle = sys.argv[1], sys.argv[2], sys.argv[3] or None
with qdrant_cir.attach(place, "products", picture="media.main", root=root, bundle=bundle, provider="cpu") as gallery:
    print("attached", flush=True)
    gallery.index(progress=lambda progress: print(progress.indexed, flush=True))
print("whole", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the kills left.

    Attributes:
        points: of the collection.
        kills: runs that were killed.
        told: images that each killed run said it had written.
        left: images that the last run had to write.
        without_tokens: candidates of a search that had none, after the last run.
        is_equal: whether all of the user's points are as before, after detaching.
        seconds: all of it.
    """

    points: int
    kills: int
    told: tuple[int, ...]
    left: int
    without_tokens: int
    is_equal: bool
    seconds: float


def kill_and_compare(
    place: str, fill: Callable[[int], None], dump: Callable[[], str], *, points: int, kills: int, bundle: str = ""
) -> Outcome:
    """Fill a collection, kill indexing ``kills`` times, complete it, detach, and compare.

    Args:
        place: address of the server or folder of the store.
        fill: makes the collection with so many points.
        dump: returns everything in it as text, called while no store is open.
        points: of the collection.
        kills: of a run each.
        bundle: the model folder; empty for the bundled model.
    """
    start, chance = time.monotonic(), random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        for n in range(PICTURES):
            color = (n * 37 % 256, n * 91 % 256, n * 53 % 256)
            Image.new("RGB", (64, 64), color).save(Path(folder) / f"p{n}.png")
        fill(points)
        before = dump()
        told = []
        for _ in range(kills):
            # what was written before takes a moment as well: each run is let to write its share
            told.append(_killed([place, folder, bundle], share=points // (kills + 3), delay=chance.uniform(0, 0.2)))
        with qdrant_cir.attach(
            place, NAME, picture="media.main", root=folder, bundle=bundle or None, provider="cpu"
        ) as gallery:
            left = gallery.index().indexed
            found = gallery.search(None, "red", limit=points, rerank_depth=points)
            without = points - sum(candidate.rerank_score is not None for candidate in found)
            gallery.detach()
        return Outcome(points, kills, tuple(told), left, without, dump() == before, round(time.monotonic() - start, 1))


def _killed(arguments: list[str], *, share: int, delay: float) -> int:
    """Kill a run ``delay`` seconds after it has told of its share, and return of how many it had told."""
    child = subprocess.Popen([sys.executable, "-c", INDEXING, *arguments], stdout=subprocess.PIPE, text=True)
    told = 0
    for line in child.stdout or ():
        told = int(line) if line.strip().isdigit() else told
        if told >= share or line == "whole\n":
            break
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    if child.wait() != -signal.SIGKILL:
        raise RuntimeError(f"The run ended by itself, with exit status {child.returncode}, and was not killed.")
    return told


def _payload(n: int) -> dict[str, Any]:
    tags = ["a", {"deep": [1, 2.5, None, True, "ä"]}]
    return {"media": {"main": f"p{n % PICTURES}.png", "tags": tags}, "brand": f"b{n % 7}", "n": n}


def _vectors(n: int) -> dict[str, list[float]]:
    return {name: [1.0 + n % 11, *(float((n + k) % 5) for k in range(1, size))] for name, size in SIZES.items()}


def own_shard(folder: Path) -> tuple[Callable[[int], None], Callable[[], str]]:
    """Return how a shard of the user's own is filled and read, below a folder, with Qdrant Edge alone."""

    def fill(points: int) -> None:
        vectors = {name: edge.EdgeVectorParams(size, edge.Distance.Cosine) for name, size in SIZES.items()}
        shard = edge.EdgeShard.create(str(folder / NAME), edge.EdgeConfig(vectors=vectors))
        made = [
            edge.Point(n if n % 2 else uuid5(NAMESPACE_DNS, str(n)), dict(_vectors(n)), _payload(n))
            for n in range(points)
        ]
        shard.update(edge.UpdateOperation.upsert_points(made))
        shard.flush()
        shard.close()

    def dump() -> str:
        shard = edge.EdgeShard.load(str(folder / NAME))
        request = edge.ScrollRequest(limit=10**6, with_payload=True, with_vector=True)
        found = {str(point.id): [point.payload, point.vector] for point in shard.scroll(request)[0]}
        shard.close()
        return json.dumps(found, sort_keys=True)

    return fill, dump


def collection(client: QdrantClient) -> tuple[Callable[[int], None], Callable[[], str]]:
    """Return how a collection of a server's is filled and read by its owner."""

    def fill(points: int) -> None:
        vectors = {
            name: models.VectorParams(size=size, distance=models.Distance.COSINE) for name, size in SIZES.items()
        }
        client.create_collection(NAME, vectors, metadata={"mine": [1, None]})
        for start in range(0, points, 500):
            client.upsert(
                NAME,
                [
                    models.PointStruct(
                        id=n if n % 2 else str(uuid5(NAMESPACE_DNS, str(n))),
                        vector=dict(_vectors(n)),  # type: ignore[arg-type]
                        payload=_payload(n),
                    )
                    for n in range(start, min(start + 500, points))
                ],
                wait=True,
            )

    def dump() -> str:
        found, after = [], None
        while True:
            page, after = client.scroll(NAME, limit=1000, offset=after, with_payload=True, with_vectors=True)
            found += [[str(point.id), point.payload, point.vector] for point in page]
            if after is None:
                break
        config = client.get_collection(NAME).config
        return json.dumps([found, config.metadata, str(config.params.vectors)], sort_keys=True)

    return fill, dump


def _front() -> AbstractContextManager[Any]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from qdrant_front import rest_front

    return rest_front()


def main() -> None:
    """Run both, print what was counted, and fail where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--bundle", default="")
    parser.add_argument("--url", default="", help="of a server with no collection 'products'; else the tests' front")
    options = parser.parse_args()
    outcomes = {}
    given = {"points": options.points, "kills": options.kills, "bundle": options.bundle}
    with tempfile.TemporaryDirectory() as folder:
        outcomes["the user's own shard"] = kill_and_compare(folder, *own_shard(Path(folder)), **given)
    if options.url:
        outcomes[options.url] = kill_and_compare(options.url, *collection(QdrantClient(options.url)), **given)
    else:
        with _front() as front:
            client = QdrantClient(front.url, check_compatibility=False)
            outcomes["over HTTP"] = kill_and_compare(front.url, *collection(client), **given)
    for where, outcome in outcomes.items():
        print(f"{where}: {outcome}")
    sys.exit(not all(outcome.is_equal and not outcome.without_tokens for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
