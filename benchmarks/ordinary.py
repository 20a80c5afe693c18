"""Ordinary queries, "in navy": what re-ranking does to kind and colour of the first five.

    python -m benchmarks.ordinary

Such a text names a colour alone, and people expect products of the reference's kind in it. The reference is left out.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.quality.figures import gain_in_words, in_words
from qdrant_cir.drawn.dataset import draw_item, sample_drawn
from qdrant_cir.drawn.scene import main_part
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import preprocess
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import StoredTokens

COLORS, FIRST, DEPTH, BATCH, RESAMPLES = ("navy", "red"), 5, 100, 40, 2000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--products", type=int, default=1200)
    parser.add_argument("--references", type=int, default=80)
    asked = parser.parse_args()
    bundle, compute = load_bundle("drawn"), Compute("cpu", 1)
    encoder, composer, reranker = (each.open(bundle, compute) for each in (ImageEncoder, Composer, Reranker))
    catalog, spec = sample_drawn(7, products=asked.products, queries=1), bundle.manifest.preprocessing
    encoded = [
        encoder.encode(np.stack([preprocess(draw_item(catalog, row).image, spec) for row in rows]))
        for rows in np.array_split(np.arange(asked.products), -(-asked.products // BATCH))
    ]
    tokens, vectors = (np.concatenate([getattr(part, name) for part in encoded]) for name in ("tokens", "vectors"))
    stored = quantize(tokens, "int8")
    kinds = np.array([item.scene.family for item in catalog.items])
    colors = np.array([main_part(item.scene).color for item in catalog.items])
    references = np.random.default_rng(0).choice(asked.products, asked.references, replace=False)
    print(f"| text | first {FIRST} | stage one | re-ranked | difference, paired |\n|---|---|---:|---:|---:|")
    for color in COLORS:
        shares: dict[str, list[list[float]]] = {"of the reference's kind": [], f"main part {color}": []}
        for row in references:
            (query,) = composer.compose(tokens[row : row + 1], [f"in {color}"])
            near = np.argsort(-(vectors @ query.vector))[: DEPTH + 1]
            near = near[near != row][:DEPTH]
            scores = reranker.score(query, StoredTokens(stored.values[near], stored.scales[near]))
            orders = (near[:FIRST], near[np.argsort(-scores)][:FIRST])
            for of, right in zip(shares.values(), (kinds == kinds[row], colors == color), strict=True):
                of.append([100 * float(right[order].mean()) for order in orders])
        for title, of in shares.items():
            before, after = np.array(of).T
            table = np.stack((before, after, after - before), axis=1)
            draws = bootstrap_means([table], [np.arange(len(table))], resamples=RESAMPLES, seed=0)
            found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
            cells = (in_words(found[0]), in_words(found[1]), gain_in_words(found[2]))
            print(f"| in {color} | {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
