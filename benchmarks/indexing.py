"""How much of the encoder's own speed is left when pictures are read, decoded, encoded and stored.

    python benchmarks/indexing.py --images DIR [--bundle DIR] [--batch-size 8 32 128]

For each batch size, in one process and in turn: the encoder alone over pixels that are ready, then an
indexing run of the same pictures into a fresh Qdrant Edge store, then the encoder alone again. Prints the
machine, images per second of both, their ratio, and the ratio to what the cores allow: decoding needs the
same cores as encoding, so one image takes at least the sum of both times.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from qdrant_cir.bundle import default_bundle_path, load_bundle
from qdrant_cir.collection import Collection
from qdrant_cir.image_encoder import ImageEncoder
from qdrant_cir.image_sources import read_folder
from qdrant_cir.indexer import Indexer
from qdrant_cir.preprocess import load_image, preprocess
from qdrant_cir.sessions import available_threads
from qdrant_cir.stores.edge import EdgeStore
from qdrant_cir.types import Float32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--limit", type=int, default=600, help="pictures at most")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    encoder = ImageEncoder.open(bundle, provider="cpu")
    records = list(islice(read_folder(arguments.images), arguments.limit))
    start = time.perf_counter()
    pixels = [preprocess(load_image(record.image), bundle.manifest.preprocessing) for record in records]
    decoding = len(records) / (time.perf_counter() - start)
    print(f"{platform.machine()}, {processor()}, {available_threads()} cores used")
    print(f"{len(records)} pictures of {arguments.images}; bundle {bundle.manifest.name}")
    print(f"read and decoded by one thread: {decoding:.1f} images/s")
    for batch_size in arguments.batch_size:
        before = encoder_rate(encoder, pixels, batch_size)
        with tempfile.TemporaryDirectory() as folder:
            store = EdgeStore(Path(folder) / "store")
            collection = Collection.create(store, "benchmark", bundle)
            indexer = Indexer(collection, encoder, bundle, batch_size=batch_size)
            report = indexer.index(records)
            again = indexer.index(records)
            store.close()
        alone = (before + encoder_rate(encoder, pixels, batch_size)) / 2
        ceiling = 1 / (1 / alone + 1 / (decoding * available_threads()))
        print(
            f"batch {batch_size:4}: encoder alone {alone:7.1f} images/s, indexed "
            f"{report.images_per_second:7.1f} images/s, ratio {report.images_per_second / alone:.2f} "
            f"({report.images_per_second / ceiling:.2f} of what the cores allow); "
            f"unchanged images passed over at {again.unchanged / again.seconds:.0f} images/s"
        )


def encoder_rate(encoder: ImageEncoder, pixels: list[Float32], batch_size: int) -> float:
    """Measure images per second of the encoder by itself, stacking included."""
    encoder.encode(np.stack(pixels[:batch_size]))
    start = time.perf_counter()
    for first in range(0, len(pixels), batch_size):
        encoder.encode(np.stack(pixels[first : first + batch_size]))
    return len(pixels) / (time.perf_counter() - start)


def processor() -> str:
    """Name the processor as the kernel does, where it does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
