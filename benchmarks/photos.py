"""What ``qdrant-cir evaluate photos`` cannot measure without torch: the raw trunk as a control; and speed.

    python -m benchmarks.photos --root PHOTOS [--queries 300]

The control compares pooled features of the frozen trunk by cosine: alone, which knows no text, and added to stage one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from onnx_export.bundle.weights import load_start
from onnx_export.training.photos.stages import pooled, stem_of
from qdrant_cir.evaluation.datasets.photos import EYE_LABELS, PhotoBenchmark, photo_benchmark, read_eye_labels
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of, number_clusters
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.photographs.labels import read_photographs
from qdrant_cir.tokens.codec import quantize

SYSTEMS = ("stage one", "raw trunk", "stage one + raw trunk")
TIMED_PICTURES, TIMED_QUERIES, CANDIDATES = 96, 40, 50
TEXT = "the same but in navy blue, with long sleeves"


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="labelled photographs")
    parser.add_argument("--queries", type=int, default=300, help="of a group, at most")
    parser.add_argument("--bundle", type=Path, default=Path("photos"), help="the packaged one by default")
    asked = parser.parse_args()
    benchmark = photo_benchmark(
        read_photographs(asked.root), eye_labels=read_eye_labels(EYE_LABELS), queries_per_group=asked.queries
    )
    print(_controls(benchmark, asked.bundle))
    print(_speed(benchmark, (asked.bundle, Path("drawn"))))


@torch.no_grad()
def _controls(benchmark: PhotoBenchmark, folder: Path) -> str:
    """Answer every query by the vectors, by the raw trunk, and by the sum of both cosines."""
    bundle = load_bundle(folder)
    stem = stem_of(load_start(bundle.folder).model)
    encoder, composer = ImageEncoder.open(bundle, Compute()), Composer.open(bundle, Compute())
    vectors, tokens, raw = [], [], []
    for picture in benchmark.pictures:
        pixels = read_pixels(picture.picture, bundle.manifest.preprocessing)[None]
        encoded = encoder.encode(pixels)
        vectors.append(encoded.vectors[0])
        tokens.append(encoded.tokens[0].astype(np.float16))
        raw.append(pooled(stem.features(torch.from_numpy(pixels)).flatten(2))[0])
    centred = torch.stack(raw)
    centred = functional.normalize((centred - centred.mean(0)) / centred.std(0), dim=-1)
    own, trunk = np.stack(vectors), centred.numpy()
    values: dict[str, list[list[float]]] = {}
    references: dict[str, list[int]] = {}
    for query in benchmark.queries:
        text = composer.compose(tokens[query.reference][None].astype(np.float32), [query.text])[0].vector
        composed, alike = own[query.gallery] @ text, trunk[query.gallery] @ trunk[query.reference]
        places = 1 if query.group.startswith("same garment") else 5

        def share(
            scores: NDArray[np.float32], places: int = places, gallery: NDArray[np.int64] = query.gallery
        ) -> float:
            return float(np.isin(gallery[np.argsort(-scores, kind="stable")[:places]], query.right).mean())  # noqa: B023

        row = [share(composed), share(alike), share(composed + alike)]
        values.setdefault(query.group, []).append(row)
        references.setdefault(query.group, []).append(query.reference)
    lines = [f"| asked for | queries | {' | '.join(SYSTEMS)} |", f"|---|---:|{'---:|' * len(SYSTEMS)}"]
    for group, rows in values.items():
        columns = np.array(rows)
        draws = bootstrap_means([columns], [number_clusters(references[group])], resamples=2000, seed=1)
        cells = []
        for number in range(len(SYSTEMS)):
            found = interval_of(float(columns[:, number].mean()), draws[:, number])
            cells.append(f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]")
        lines.append(f"| {group} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _speed(benchmark: PhotoBenchmark, folders: tuple[Path, ...]) -> str:
    """Time what indexing and a query cost, medians, the bundles taking turns."""
    lines = ["| bundle | pictures encoded per second | ms per query, 50 candidates |", "|---|---:|---:|"]
    for folder in folders:
        bundle = load_bundle(folder)
        encoder, composer = ImageEncoder.open(bundle, Compute()), Composer.open(bundle, Compute())
        reranker = Reranker.open(bundle, Compute())
        spec = bundle.manifest.preprocessing
        began, tokens = time.perf_counter(), []
        for start in range(0, TIMED_PICTURES, 8):
            part = benchmark.pictures[start : start + 8]
            tokens.append(encoder.encode(np.stack([read_pixels(p.picture, spec) for p in part])).tokens)
        rate = TIMED_PICTURES / (time.perf_counter() - began)
        stored = quantize(np.concatenate(tokens)[:CANDIDATES], bundle.manifest.token_codec)
        taken = []
        for picture in benchmark.pictures[:TIMED_QUERIES]:
            began = time.perf_counter()
            reference = encoder.encode(read_pixels(picture.picture, spec)[None]).tokens
            reranker.score(composer.compose(reference, [TEXT])[0], stored)
            taken.append(1000 * (time.perf_counter() - began))
        lines.append(f"| {bundle.manifest.name} | {rate:.0f} | {np.median(taken):.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
