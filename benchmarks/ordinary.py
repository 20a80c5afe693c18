"""Ordinary queries, "in navy": what re-ranking does to kind and look of the first five.

    python -m benchmarks.ordinary

Such a text names a look alone, and people expect products of the reference's kind that have it. The reference is left
out. "Possible" is what the best order of the candidates would give. No ordinary query that ``drawn`` was
trained on asks for red or has the words "a ... one" (``qdrant_cir.drawn.ordinary``).
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

TEXTS = {"in navy": "navy", "in red": "red", "a green one": "green", "striped": "striped"}
"""Texts, each with the colour or pattern that it names."""
FIRST, DEPTH, BATCH, RESAMPLES = 5, 100, 40, 2000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--products", type=int, default=1200)
    parser.add_argument("--references", type=int, default=80)
    parser.add_argument("--seed", type=int, default=7, help="of the catalogue")
    parser.add_argument("--bundle", default="drawn", help="folder or name of a packaged bundle")
    asked = parser.parse_args()
    bundle, compute = load_bundle(asked.bundle), Compute("cpu", 1)
    encoder, composer, reranker = (each.open(bundle, compute) for each in (ImageEncoder, Composer, Reranker))
    catalog, spec = sample_drawn(asked.seed, products=asked.products, queries=1), bundle.manifest.preprocessing
    encoded = [
        encoder.encode(np.stack([preprocess(draw_item(catalog, row).image, spec) for row in rows]))
        for rows in np.array_split(np.arange(asked.products), -(-asked.products // BATCH))
    ]
    tokens, vectors = (np.concatenate([getattr(part, name) for part in encoded]) for name in ("tokens", "vectors"))
    stored = quantize(tokens, "int8")
    kinds = np.array([item.scene.family for item in catalog.items])
    looks = [{main_part(item.scene).color, main_part(item.scene).pattern} for item in catalog.items]
    references = np.random.default_rng(0).choice(asked.products, asked.references, replace=False)
    print(f"| text | first {FIRST} | stage one | re-ranked | difference, paired | possible |")
    print("|---|---|---:|---:|---:|---:|")
    for text, look in TEXTS.items():
        shares: dict[str, list[list[float]]] = {"of the reference's kind": [], f"main part {look}": [], "both": []}
        has_look = np.array([look in of for of in looks])
        for row in references:
            (query,) = composer.compose(tokens[row : row + 1], [text])
            near = np.argsort(-(vectors @ query.vector))[: DEPTH + 1]
            near = near[near != row][:DEPTH]
            scores = reranker.score(query, StoredTokens(stored.values[near], stored.scales[near]))
            orders = (near[:FIRST], near[np.argsort(-scores)][:FIRST])
            is_of_kind = kinds == kinds[row]
            for of, right in zip(shares.values(), (is_of_kind, has_look, is_of_kind & has_look), strict=True):
                possible = min(FIRST, int(right[near].sum())) / FIRST
                of.append([100 * share for share in (*(float(right[order].mean()) for order in orders), possible)])
        for title, of in shares.items():
            before, after, possible = np.array(of).T
            table = np.stack((before, after, after - before), axis=1)
            draws = bootstrap_means([table], [np.arange(len(table))], resamples=RESAMPLES, seed=0)
            found = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(table.mean(axis=0))]
            cells = (in_words(found[0]), in_words(found[1]), gain_in_words(found[2]), f"{possible.mean():.1f}")
            print(f"| {text} | {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
