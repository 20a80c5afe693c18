"""Indexing in a process of its own that is killed with SIGKILL in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import read_folder
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.types import EncodedImages, Float32, Precision

IMAGES = 60

INDEXING = """
import sys, time
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.storage.collection import Collection
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.indexing.sources import read_folder
from qdrant_cir.indexer import Indexer
from qdrant_cir.storage.stores.edge import EdgeStore

bundle = load_bundle(sys.argv[1])
encoder = ImageEncoder.open(bundle, Compute("cpu", 1))

class SlowEncoder:
    precision = "float32"

    def encode(self, pixel_values):
        time.sleep(0.05)
        return encoder.encode(pixel_values)

collection = Collection.create(EdgeStore(sys.argv[2]), "pictures", bundle)
Indexer(collection, SlowEncoder(), bundle, batch_size=4, decode_threads=1).index(
    read_folder(sys.argv[3]), progress=lambda progress: print(progress.indexed, flush=True)
)
"""


def test_after_a_kill_nothing_is_lost_and_nothing_is_encoded_twice(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place in range(IMAGES):
        Image.new("RGB", (20, 20), (200, place, 4 * place)).save(tmp_path / "photos" / f"{place:02}.png")
    told = kill_after_images(16, [str(tiny_bundle), str(tmp_path / "store"), str(tmp_path / "photos")])

    bundle = load_bundle(tiny_bundle)
    store = EdgeStore(tmp_path / "store")
    collection = Collection.open(store, "pictures", bundle)
    stored = collection.count(None)
    assert told <= stored < IMAGES
    encoder = ImageEncoder.open(bundle, Compute("cpu", 1))
    encoded: list[int] = []

    class CountingEncoder:
        precision: Precision = "float32"

        def encode(self, pixel_values: Float32) -> EncodedImages:
            encoded.append(len(pixel_values))
            return encoder.encode(pixel_values)

    report = Indexer(collection, CountingEncoder(), bundle, batch_size=4).index(read_folder(tmp_path / "photos"))
    assert (report.indexed, report.unchanged, report.failed) == (IMAGES - stored, stored, ())
    assert sum(encoded) == IMAGES - stored
    ids = [record.image_id for record in read_folder(tmp_path / "photos")]
    assert collection.known(ids).keys() == set(ids)
    assert len(collection.tokens(ids)) == IMAGES
    store.close()


def kill_after_images(images: int, arguments: list[str]) -> int:
    """Run the indexing until it says that so many are stored, kill it, and give the last count it told."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", INDEXING, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        told = next((int(line) for line in process.stdout if int(line) >= images), 0)
        process.kill()
    assert told >= images
    return told
