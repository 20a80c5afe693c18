"""What stage one loses to the index and to quantization: how many of the exactly nearest are found, on Qdrant Edge.

    .venv/bin/python -m benchmarks.index_recall --pictures photos --grow-to 20000

Encodes the pictures of a folder with a packaged bundle, and composes queries of some of them with texts about colours.
The vectors are grown to the number asked for with noise, so that every picture has near-duplicates, which are the
hardest for a graph. Prints how many of the nearest 50, 100 and 200 of an exact search are found, by how widely the
graph is searched, and of the nearest 100 for every kind of quantization, alone and with rescoring.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from benchmarks.machine import describe_machine
from qdrant_cir import Gallery, load_bundle
from qdrant_cir.indexing.sources import ImageRecord, read_folder
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.storage.stores.protocol import hnsw_ef
from qdrant_cir.types import Float32

DEPTHS = (50, 100, 200)
NAME = "image"
TEXTS = ("in red", "in black", "with long sleeves", "in blue with white stripes", "in green", "in white")
_BATCH = 32
_DEFAULT_EF = 128

QUANTIZATIONS: Mapping[str, object] = {
    "none": None,
    "scalar int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99),
    "turbo 8 bits": edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits8),
    "turbo 4 bits": edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4),
    "turbo 2 bits": edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits2),
    "turbo 1 bit": edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits1),
    "binary 2 bits": edge.BinaryQuantizationConfig(encoding=edge.BinaryQuantizationEncoding.TwoBits),
    "binary 1 bit": edge.BinaryQuantizationConfig(encoding=edge.BinaryQuantizationEncoding.OneBit),
    "product x8": edge.ProductQuantizationConfig(edge.CompressionRatio.X8),
    "product x16": edge.ProductQuantizationConfig(edge.CompressionRatio.X16),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="a folder")
    parser.add_argument("--bundle", choices=["photos", "drawn"], default="photos")
    parser.add_argument("--grow-to", type=int, default=20_000, metavar="VECTORS")
    parser.add_argument("--noise", type=float, default=0.3, help="length of the noise beside a vector's own of 1")
    parser.add_argument("--encode", type=int, metavar="PICTURES", help="only so many of the folder's")
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()
    print(describe_machine(available_threads(), packages=("onnxruntime", "qdrant-edge-py", "numpy")))
    pictures = list(read_folder(arguments.pictures))[: arguments.encode]
    own = encoded(pictures, arguments.bundle)
    vectors = grown(own, arguments.grow_to, arguments.noise)
    queries = composed(pictures, arguments.bundle, arguments.queries)
    print(f"{len(own):,} pictures grown to {len(vectors):,} vectors of {vectors.shape[1]}; {len(queries)} queries")
    print("\nThe graph against exact search:")
    print(f"{'hnsw_ef':>24}" + "".join(f"{f'recall@{depth}':>13}" for depth in DEPTHS) + f"{'ms a query':>12}")
    with tempfile.TemporaryDirectory() as folder:
        shard = made(Path(folder) / "graph", vectors, None)
        exact = {depth: asked(shard, queries, depth, edge.SearchParams(exact=True))[0] for depth in DEPTHS}
        for name, width in (("default 128", lambda _: _DEFAULT_EF), ("2 x limit", lambda n: 2 * n), ("ours", hnsw_ef)):
            rows = [asked(shard, queries, depth, edge.SearchParams(hnsw_ef=width(depth))) for depth in DEPTHS]
            shares = [recall(found, exact[depth]) for (found, _), depth in zip(rows, DEPTHS, strict=True)]
            print(f"{name:>24}" + "".join(f"{share:>13.4f}" for share in shares) + f"{1000 * rows[1][1]:>12.2f}")
        shard.close()
        print("\nQuantization, recall@100 with our hnsw_ef:")
        print(f"{'kind':>24}{'alone':>10}{'rescored':>10}{'rescored, 3 x':>15}{'ms a query':>12}")
        for name, config in QUANTIZATIONS.items():
            shard = made(Path(folder) / name.replace(" ", "-"), vectors, config)
            ways = [
                edge.QuantizationSearchParams(rescore=False),
                edge.QuantizationSearchParams(rescore=True),
                edge.QuantizationSearchParams(rescore=True, oversampling=3.0),
            ]
            given = [edge.SearchParams(hnsw_ef=hnsw_ef(100), quantization=way) for way in ways]
            results = [asked(shard, queries, 100, each) for each in given]
            alone, rescored, wide = (recall(found, exact[100]) for found, _ in results)
            print(f"{name:>24}{alone:>10.4f}{rescored:>10.4f}{wide:>15.4f}{1000 * results[1][1]:>12.2f}", flush=True)
            shard.close()


def encoded(pictures: Sequence[ImageRecord], name: str) -> Float32:
    """Encode pictures with a packaged bundle, float32 [P, D]."""
    bundle = load_bundle(name)
    encoder, spec = ImageEncoder.open(bundle, Compute("cpu")), bundle.manifest.preprocessing
    records = iter(pictures)
    rows = []
    while batch := list(islice(records, _BATCH)):
        rows.append(encoder.encode(np.stack([read_pixels(record.image, spec) for record in batch])).vectors)
    return np.concatenate(rows)


def grown(own: Float32, count: int, noise: float) -> Float32:
    """Return as many unit vectors as asked for: those given, and then those given with noise."""
    rng = np.random.default_rng(0)
    rows = own[np.arange(max(count, len(own))) % len(own)].copy()
    added = rng.normal(size=(len(rows) - len(own), own.shape[1])).astype(np.float32)
    rows[len(own) :] += noise * added / np.linalg.norm(added, axis=1, keepdims=True)
    unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def composed(pictures: Sequence[ImageRecord], name: str, count: int) -> Float32:
    """Compose queries of pictures spread over those given, float32 [Q, D]."""
    chosen = pictures[:: max(1, len(pictures) // count)][:count]
    with Gallery.create("index-recall", store=":memory:", bundle=name, provider="cpu") as gallery:
        texts = [TEXTS[n % len(TEXTS)] for n in range(len(chosen))]
        return np.stack([gallery.compose(each.image, text).vector for each, text in zip(chosen, texts, strict=True)])


def made(folder: Path, vectors: Float32, quantization: object) -> edge.EdgeShard:
    """Make a shard with a graph, whatever its size."""
    folder.mkdir()
    params = edge.EdgeVectorParams(vectors.shape[1], edge.Distance.Cosine, quantization_config=quantization)
    graph = edge.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=1)
    optimizers = edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)
    config = edge.EdgeConfig(vectors={NAME: params}, hnsw_config=graph, optimizers=optimizers)
    shard = edge.EdgeShard.create(str(folder), config)
    for start in range(0, len(vectors), 1000):
        part = vectors[start : start + 1000].astype(float).tolist()
        points = [edge.Point(start + n, {NAME: vector}, {}) for n, vector in enumerate(part)]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    return shard


def asked(
    shard: edge.EdgeShard, queries: Float32, depth: int, params: edge.SearchParams
) -> tuple[list[set[object]], float]:
    """Return what each query finds, and the seconds of one query."""
    started = time.perf_counter()
    found = []
    for vector in queries.astype(float).tolist():
        request = edge.QueryRequest(limit=depth, query=edge.Query.Nearest(vector, using=NAME), params=params)
        found.append({hit.id for hit in shard.query(request)})
    return found, (time.perf_counter() - started) / len(queries)


def recall(found: list[set[object]], exact: list[set[object]]) -> float:
    """Return the mean share of the exactly nearest that were found."""
    return float(np.mean([len(some & all_) / len(all_) for some, all_ in zip(found, exact, strict=True)]))


if __name__ == "__main__":
    main()
