"""Resident memory while many queries re-rank 200 candidates each, beside what ``info`` says to expect.

    python -m benchmarks.memory [--bundle DIR] [--precision int8] [--queries 1000] [-K 200] [--threads 2]

Pictures of random numbers are encoded, composed with texts of 4 to 32 tokens in a fixed random order, for runs that
differ in size are what makes an allocator grow, and random tokens in the bundle's stored form are re-ranked, read from
base64 as they come from Qdrant. A bundle of the paper's sizes with random weights:

    python -m onnx_export convert random --out MODEL && python -m onnx_export export MODEL --out DIR

Prints by how many MB the process rose above its level with everything imported and nothing loaded: with the graphs
loaded, after the first query, at most (the kernel's own high-water mark), after the last, and what the second half of
the queries added; and ``expected_memory``, which must be above the most. Ends with 1 where it is not.
"""

from __future__ import annotations

import argparse
import base64
import gc
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401 - part of the level before
from tokenizers import Tokenizer

from benchmarks.machine import LoadMeter, describe_machine, status_megabytes
from qdrant_cir.model.bundle import Bundle, load_bundle, packaged_bundle_path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.search.demands import TEXT_TOKENS, expected_memory
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.points import HitTokens
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Query

SHORTEST = 4
DIFFERENT = 4
"""Different candidates; the others are copies of their text."""


def main() -> int:
    """Measure, print and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=packaged_bundle_path("drawn"))
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("-K", "--candidates", type=int, default=200)
    parser.add_argument("--threads", type=int, default=available_threads())
    arguments = parser.parse_args()
    bundle, compute = load_bundle(arguments.bundle), Compute("cpu", arguments.threads, arguments.precision)
    expected = expected_memory(bundle, compute, rerank_depth=arguments.candidates)
    if expected is None:
        parser.error("the bundle's manifest does not hold the sizes of its layers")
    random = np.random.default_rng(0)
    lengths = random.integers(SHORTEST, TEXT_TOKENS + 1, arguments.queries).tolist()
    texts = stored_texts(bundle, random)
    print(describe_machine(arguments.threads, packages=("onnxruntime",)))
    load = LoadMeter()
    gc.collect()
    before = status_megabytes("VmRSS")
    ask = asker(bundle, compute, arguments.candidates, texts, random)
    loaded = status_megabytes("VmRSS")
    levels = []
    started = time.perf_counter()
    for length in lengths:
        ask(length)
        levels.append(status_megabytes("VmRSS") - before)
    seconds = time.perf_counter() - started
    most, half = status_megabytes("VmHWM") - before, len(levels) // 2
    added = max(levels[half:]) - max(levels[:half])
    print(
        f"{arguments.bundle.name} in {arguments.precision}, {len(levels)} queries, K={arguments.candidates}: "
        f"{before:.0f} MB before; +{loaded - before:.0f} loaded, +{levels[0]:.0f} after the first, "
        f"+{most:.0f} at most, +{levels[-1]:.0f} after the last; the second half added {added:+.1f} MB; "
        f"{1000 * seconds / len(levels):.0f} ms/query; other processes kept {load.cores_taken():.1f} cores busy\n"
        f"expected: at most +{expected / 1e6:.0f} MB, {expected / 1e6 / most:.2f} times what was measured"
    )
    return int(most > expected / 1e6)


def stored_texts(bundle: Bundle, random: np.random.Generator) -> list[bytes]:
    """Return random tokens as Qdrant holds them."""
    sizes, form = bundle.manifest.sizes, TokenForm(bundle)
    shape = (DIFFERENT, sizes.token_rows, sizes.token_dims)
    drawn = random.standard_normal(shape, dtype=np.float32)
    return [base64.b64encode(form.encode(tokens)) for tokens in drawn]


def asker(
    bundle: Bundle, compute: Compute, candidates: int, texts: list[bytes], random: np.random.Generator
) -> Callable[[int], None]:
    """Load the model and return a function that answers a query with a text of so many tokens."""
    model = QueryModel(bundle, compute)
    vocabulary = sorted(Tokenizer.from_file(str(bundle.tokenizer_path)).get_vocab())
    words = [word for word in vocabulary if word.isalpha()]

    def ask(length: int) -> None:
        picture = random.integers(0, 255, (300, 200, 3), dtype=np.uint8)
        query = Query(reference=picture, modification_text=" ".join(random.choice(words, length - 2)))
        composed = model.compose(query, model.encode(query, {}), using="vector")
        read = [bytearray(texts[place % len(texts)]) for place in range(candidates)]
        hits = [HitTokens(place, base64.b64decode(text), None) for place, text in enumerate(read)]
        model.score(composed, hits)

    return ask


if __name__ == "__main__":
    raise SystemExit(main())
