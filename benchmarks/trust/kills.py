"""Kills at random moments while a gallery is indexed, deleted from, repaired and dropped: nothing is lost.

``python -m benchmarks.trust.kills [--kills 100] [--seed 0] [--bundle FOLDER]``; the last line is JSON. Every run is a
process of its own that is ended with SIGKILL. The exit code is 1 where an image that was told as written is not there,
one that was told as deleted is, or a gallery is not whole after the same command was run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

import qdrant_cir
from qdrant_cir.storage.points import point_id_of
from qdrant_cir.storage.stores import EdgeStore

__all__ = ["count_outcomes", "main"]

NAME = "shop"
TASKS = ("index", "delete", "repair", "drop")

CHILD = """
import sys
import qdrant_cir

task, store, pictures, bundle, *ids = sys.argv[1:]
opened = qdrant_cir.Gallery.create("shop", store=store, bundle=bundle, provider="cpu", threads=1)
with opened as gallery:
    print("ready", flush=True)
    if task == "index":
        gallery.index(pictures, progress=lambda progress: print(progress.done, flush=True))
    for image_id in ids:
        gallery.delete([image_id])
        print(image_id, flush=True)
    if task == "repair":
        gallery.check(repair=True)
        gallery.index(pictures)
    if task == "drop":
        gallery.drop()
print("whole", flush=True)
"""


def count_outcomes(kills: int, seed: int, bundle: str, pictures: int = 120) -> Counter[str]:
    """Kill runs, and look at what each has left.

    Returns:
        How many runs of each task were ``killed`` and how many were ``faster``; images ``lost`` and ``back``; findings
        after a kill by kind; galleries ``not whole`` after the same command was run again.
    """
    outcomes: Counter[str] = Counter({"lost": 0, "back": 0, "not whole": 0})
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        shown, place = Path(folder, "pictures"), Path(folder, "store")
        shown.mkdir()
        for n in range(pictures):
            Image.new("RGB", (24, 24), (n * 37 % 256, n * 91 % 256, n * 53 % 256)).save(shown / f"{n}.png")
        for number in range(kills):
            task = TASKS[number % len(TASKS)]
            there = _ids(place, bundle)
            chosen = chance.sample(sorted(there), min(20, len(there))) if task in ("delete", "repair") else []
            if task == "repair":
                _damage(place, chosen[:10], chance)
            told = _killed([task, str(place), str(shown), bundle, *(chosen if task == "delete" else [])], chance)
            outcomes[f"{task} {'faster' if 'whole' in told else 'killed'}"] += 1
            if task == "drop":
                _delete_all(place)
                with EdgeStore(place) as store:
                    outcomes["not whole"] += bool(store.collection_names())
                continue
            with qdrant_cir.Gallery.create(NAME, store=place, bundle=bundle, provider="cpu", threads=1) as gallery:
                report = gallery.check()
                for finding in report.findings:
                    outcomes[f"left: {finding.kind}"] += 1
                left = _ids_in(gallery)
                if task == "index":
                    written = max((int(line) for line in told if line.isdigit()), default=0)
                    outcomes["lost"] += max(0, max(written, len(there)) - len(left))
                if task == "delete":
                    gone = {line for line in told if line.endswith(".png")}
                    outcomes["back"] += len(gone & left)
                    # the one that was being deleted may be gone or not
                    outcomes["lost"] += max(0, len(there - left - gone) - 1)
                gallery.check(repair=True)
                gallery.index(shown)
                outcomes["not whole"] += not (gallery.check().is_whole and len(_ids_in(gallery)) == pictures)
                gallery.delete(sorted(_ids_in(gallery))[: chance.randrange(pictures)] if task == "repair" else [])
    return outcomes


def _killed(arguments: list[str], chance: random.Random) -> set[str]:
    """Kill a run at a random moment after it has opened the gallery, and return what it had told."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True
    )
    stdout = child.stdout
    if stdout is None or stdout.readline() != "ready\n":
        raise RuntimeError("The run did not open the gallery.")
    time.sleep(chance.uniform(0, 0.02 if arguments[0] == "drop" else 0.8))
    child.send_signal(signal.SIGKILL)
    told = set(stdout.read().split())
    child.wait()
    return told


def _ids(place: Path, bundle: str) -> set[str]:
    with qdrant_cir.Gallery.create(NAME, store=place, bundle=bundle, provider="cpu", threads=1) as gallery:
        return _ids_in(gallery)


def _ids_in(gallery: qdrant_cir.Gallery) -> set[str]:
    records = gallery.collection.store.scroll(NAME, filter=None, limit=10_000, after=None)
    return {image.image_id for record in records if (image := gallery.collection.layout.known(record)) is not None}


def _damage(place: Path, ids: list[str], chance: random.Random) -> None:
    with EdgeStore(place) as store:
        for image_id in ids:
            if chance.random() < 0.5:
                store.set_payloads(f"{NAME}__tokens", {point_id_of(image_id): {"tokens": "AAAA"}})
            else:
                store.delete(NAME, [point_id_of(image_id)])


def _delete_all(place: Path) -> None:
    command = ["-c", "from qdrant_cir.cli.app import main; main()", "delete", "--all", "--yes", "-c", NAME]
    # where the killed run was through, there is nothing left to delete
    subprocess.run([sys.executable, "-W", "ignore", *command, "--path", str(place)], capture_output=True, check=False)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", default="drawn")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes = count_outcomes(arguments.kills, arguments.seed, arguments.bundle)
    print(json.dumps(dict(sorted(outcomes.items()))))
    raise SystemExit(bool(outcomes["lost"] or outcomes["back"] or outcomes["not whole"]))


if __name__ == "__main__":
    main()
