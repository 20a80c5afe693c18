"""Is it a match at all: how well the probability fits, and what is marked as no good match, on queries left out.

    .venv/bin/qdrant-cir catalog build --out match/catalog --products 4000 --queries 600 --seed 11
    .venv/bin/qdrant-cir index match/catalog/gallery.csv -c drawn --path match/store --bundle drawn
    .venv/bin/python -m benchmarks.match --catalog match/catalog --store match/store

Every query is answered with its right answers in the gallery and without them. Half of the queries calibrate, the
others are measured: the expected calibration error, and the share that the calibration's own threshold marks of the
answers whose right one was taken out, and of the others. Nothing is written to the store.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qdrant_cir.evaluation.match_queries import examples_of_edits, examples_of_queries
from qdrant_cir.gallery import Gallery
from qdrant_cir.search.match import MatchCalibration, MatchExample, calibration_error, fit_match

HALVES = 20
NAMES = ("expected calibration error", "marked, answer taken out", "marked, answer there")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--catalog", type=Path, help="folder with queries.jsonl; none for recoloured pictures")
    parser.add_argument("--store", type=Path, required=True, help="embedded store")
    parser.add_argument("--collection", default="drawn")
    parser.add_argument("--edits", type=int, default=200, help="pictures to recolour where there is no catalogue")
    parser.add_argument("-K", "--rerank-depth", type=int, default=100)
    given = parser.parse_args()
    with Gallery.open(given.collection, store=str(given.store)) as gallery:
        if given.catalog is None:
            examples = examples_of_edits(
                gallery,
                count=given.edits,
                seed=0,
                rerank_depth=given.rerank_depth,
                opener=None,
                progress=lambda done, total: None,
            )
        else:
            examples = examples_of_queries(
                given.catalog / "queries.jsonl",
                gallery,
                rerank_depth=given.rerank_depth,
                exclude_reference=True,
                progress=lambda done, total: None,
            )
        fingerprint = gallery.bundle.fingerprint
    answerable = [each for each in examples if each.is_answerable]
    right = sum(each.is_right for each in answerable)
    print(f"{given.collection}: {len(answerable)} queries, K = {given.rerank_depth}; right first place {right}")
    measured = []
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(max(each.query for each in examples) + 1)
        half = set(order[: len(order) // 2].tolist())
        found = fit_match(
            [each for each in examples if each.query in half], fingerprint=fingerprint, rerank_depth=given.rerank_depth
        )
        measured.append(_measured(found, [each for each in examples if each.query not in half]))
    print(f"learnt from one half of the queries, measured on the other; mean and deviation of {HALVES} halvings:")
    for name, values in zip(NAMES, np.array(measured).T, strict=True):
        print(f"{name}: {values.mean():.3f} +- {values.std():.3f}")


def _measured(found: MatchCalibration, others: Sequence[MatchExample]) -> list[float]:
    features = np.array([each.features for each in others])
    probabilities = 1 / (1 + np.exp(-(features @ np.array(found.weights) + found.bias)))
    right = np.array([each.is_right for each in others], dtype=np.float64)
    answerable = np.array([each.is_answerable for each in others])
    marked = probabilities < found.min_match
    shares = [float(marked[chosen].mean()) for chosen in (~answerable, answerable)]
    return [calibration_error(probabilities, right), *shares]


if __name__ == "__main__":
    main()
