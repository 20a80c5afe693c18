"""How much of the encoder's own speed is left when pictures are read, decoded, encoded and stored.

    python -m benchmarks.indexing --images DIR [--bundle DIR] [--batch-size 8 32 128]
    python -m benchmarks.indexing --images DIR --precisions [--full-size] [--json FILE]

For each batch size, in one process and in turn: the encoder alone over pixels that are ready, then an
indexing run of the same pictures into a fresh Qdrant Edge store, then the encoder alone again. Prints the
machine, images per second of both, their ratio, and the ratio to what the cores allow: decoding needs the
same cores as encoding, so one image takes at least the sum of both times.

``--precisions`` compares the encoder alone in float32 and in int8 instead, in turn on the same pixels, then
indexes some batches of pictures with each, in turn, too; with ``--full-size`` one of the paper's sizes and random
weights.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.machine import LoadMeter, alternate, describe_machine, median_ratio, processor_name, write_json
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord, read_folder
from qdrant_cir.model.bundle import Bundle, load_bundle, packaged_bundle_path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.types import Float32, Precision

COMPARED: tuple[Precision, ...] = ("float32", "int8")
INDEXED_BATCHES, INDEXED_ROUNDS = 8, 3
"""How many batches of pictures each precision indexes, and how often."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--bundle", type=Path, default=packaged_bundle_path("drawn"))
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--limit", type=int, default=600, help="pictures at most")
    parser.add_argument("--precisions", action="store_true", help="compare float32 with int8")
    parser.add_argument("--full-size", action="store_true", help="with --precisions: the paper's sizes")
    parser.add_argument("--json", type=Path, help="with --precisions: write the rows here too")
    arguments = parser.parse_args()
    if arguments.precisions:
        with tempfile.TemporaryDirectory() as folder:
            bundle = with_int8_encoder(arguments, Path(folder) / "bundle")
            rows = compare_precisions(bundle, arguments.images)
        if arguments.json is not None:
            write_json(arguments.json, describe_machine(available_threads(), packages=("onnxruntime",)), rows)
        return
    bundle = load_bundle(arguments.bundle)
    encoder = ImageEncoder.open(bundle, Compute("cpu"))
    records = list(islice(read_folder(arguments.images), arguments.limit))
    start = time.perf_counter()
    pixels = [read_pixels(record.image, bundle.manifest.preprocessing) for record in records]
    decoding = len(records) / (time.perf_counter() - start)
    print(f"{platform.machine()}, {processor_name()}, {available_threads()} cores used")
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


def with_int8_encoder(arguments: argparse.Namespace, folder: Path) -> Bundle:
    """Copy the bundle, or make one of the paper's sizes, and add the encoder in int8."""
    from onnx_export.bundle.precisions import add_precision
    from onnx_export.export import BundleDescription, export_bundle
    from onnx_export.models import BLIP_BASE, build_model
    from onnx_export.training.drawn.tokenizer import build_tokenizer

    if arguments.full_size:
        described = BundleDescription("random weights", "Apache-2.0", {})
        export_bundle(build_model(BLIP_BASE), build_tokenizer(), folder, codec="int8", description=described)
    else:
        shutil.copytree(arguments.bundle, folder)
    added = add_precision(folder, "int8", "image_encoder")
    print(f"tokens of drawn products differ by {added.deviation:.1%} of their standard deviation")
    return load_bundle(folder)


def compare_precisions(bundle: Bundle, images: Path) -> list[dict[str, object]]:
    """Encode the same pictures in turn, in both precisions, then index some in turn; print and give a row for each."""
    batch = 4 if bundle.manifest.preprocessing.size > 200 else 32
    records = list(islice(read_folder(images), INDEXED_BATCHES * batch))
    spec = bundle.manifest.preprocessing
    pixels = np.stack([read_pixels(record.image, spec) for record in records[:batch]])
    encoders = {name: ImageEncoder.open(bundle, Compute("cpu", precision=name)) for name in COMPARED}
    exact, fast = (encoder.encode(pixels).vectors for encoder in encoders.values())
    load = LoadMeter()
    alone = alternate(
        {name: partial(encoder.encode, pixels) for name, encoder in encoders.items()}, rounds=15, seconds_at_most=90
    )
    indexed: dict[Precision, list[float]] = {name: [] for name in COMPARED}
    for _ in range(INDEXED_ROUNDS):
        for name, encoder in encoders.items():
            indexed[name].append(indexing_rate(records, bundle, encoder, batch))
    print(describe_machine(available_threads(), packages=("onnxruntime",)))
    rows: list[dict[str, object]] = []
    for name in COMPARED:
        encoding = len(pixels) / statistics.median(alone[name])
        indexing = statistics.median(indexed[name])
        faster = median_ratio(alone["float32"], alone[name])
        print(
            f"{name:8} encoder alone {encoding:8.2f} images/s, {faster:5.2f}x; {len(records)} images indexed "
            f"{indexing:8.2f} images/s, ratio {indexing / encoding:.2f}"
        )
        rows.append(
            {
                "precision": name,
                "batch": batch,
                "encoder_images_per_second": encoding,
                "times_float32": faster,
                "indexed": len(records),
                "indexed_images_per_second": indexing,
                "indexing_share_of_encoder": indexing / encoding,
            }
        )
    least, others = float((exact * fast).sum(1).min()), load.cores_taken()
    print(f"least cosine of a vector {least:.4f}; other processes took {others:.1f} cores")
    return [*rows, {"least_cosine": least, "cores_taken_by_others": others}]


def indexing_rate(records: Sequence[ImageRecord], bundle: Bundle, encoder: ImageEncoder, batch: int) -> float:
    """Measure images per second of indexing pictures into a store of their own."""
    with tempfile.TemporaryDirectory() as folder, EdgeStore(Path(folder) / "store") as store:
        collection = Collection.create(store, "benchmark", bundle)
        return Indexer(collection, encoder, bundle, batch_size=batch).index(records).images_per_second


def encoder_rate(encoder: ImageEncoder, pixels: list[Float32], batch_size: int) -> float:
    """Measure images per second of the encoder by itself, stacking included."""
    encoder.encode(np.stack(pixels[:batch_size]))
    start = time.perf_counter()
    for first in range(0, len(pixels), batch_size):
        encoder.encode(np.stack(pixels[first : first + batch_size]))
    return len(pixels) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
