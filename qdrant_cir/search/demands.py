"""What searches with a bundle take of a machine, before any is run: memory; and whether int8 arithmetic is faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import SIZES_KEY, Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import DEFAULT_CHUNK, Reranker
from qdrant_cir.tokens.codec import encoded_bytes, quantize
from qdrant_cir.types import Composition, StoredTokens

__all__ = ["INT8_IS_WORTH", "TEXT_TOKENS", "expected_memory", "int8_speed", "processor_ratio"]

INT8_IS_WORTH = 1.05
"""Times as fast as the exact graph from which another precision is worth what it loses."""

TEXT_TOKENS = 32
"""Length of the text that memory is expected for: some 25 words. What a re-ranking takes grows with it."""

_FLOAT = 4
_ARENA = 5
"""Times the values of one run that onnxruntime keeps for it: inputs and outputs of products beside each other, and
what blocks of other sizes leave unused (measured, `python -m benchmarks.memory`)."""
_SESSIONS = 25_000_000
"""onnxruntime itself and three graphs without weights."""
_COPIES = 5
"""Of a candidate's stored bytes: the answer, its base64 text, the bytes, and the batch that the graph reads."""
_FROM_STEM = 24
"""Values per pixel of a picture in the first layers of an encoder that begins with convolutions: 96 channels at half
the side."""
_ROUNDS, _LENGTH = 7, 12


def expected_memory(bundle: Bundle, compute: Compute, *, rerank_depth: int) -> int | None:
    """Return how many bytes searches of a process take at most, beside Python and its libraries, on the CPU.

    The weights, for every thread what onnxruntime keeps of re-ranking a chunk of candidates, and the candidates' tokens
    on their way from Qdrant. For one search at a time and a text of up to :data:`TEXT_TOKENS` tokens. None for a bundle
    whose manifest does not hold the sizes of its layers.

    Raises:
        InputError: ``rerank_depth`` is below 0.
        BundleError: the bundle has no re-ranker in that precision.
    """
    if rerank_depth < 0:
        raise InputError(f"rerank_depth is {rerank_depth}; it must be at least 0.")
    made, sizes = bundle.manifest.provenance.get(SIZES_KEY), bundle.manifest.sizes
    if not isinstance(made, dict):
        return None
    try:
        heads, image_heads, inner = (int(str(made[key])) for key in ("text_heads", "image_heads", "feed_forward"))
    except (KeyError, ValueError):
        return None
    rows, dims, width, length = sizes.token_rows, sizes.token_dims, sizes.fusion_dims, TEXT_TOKENS
    stored_rows, stored_dims = sizes.stored_rows, sizes.stored_dims
    encoder = image_heads * rows**2 + 8 * rows * dims + _FROM_STEM * sizes.image_size**2
    composer = 2 * rows * width + heads * length * rows + 2 * length * (4 * width + inner)
    # tokens, scores and mixed tokens of both streams' heads, and both streams' states, of one candidate
    attention = 2 * heads * length * (stored_rows + stored_dims)
    candidate = stored_rows * stored_dims + attention + 2 * length * (4 * width + 2 * inner)
    threads = compute.threads or available_threads()
    values = encoder + composer + threads * min(DEFAULT_CHUNK, rerank_depth) * candidate
    tokens = rerank_depth * encoded_bytes(sizes)
    return _SESSIONS + _weight_bytes(bundle, compute) + _ARENA * _FLOAT * values + _COPIES * tokens


def _weight_bytes(bundle: Bundle, compute: Compute) -> int:
    """Return the bytes of the graphs' files that a search loads. Raises BundleError as ``graph_path``."""
    graphs = bundle.manifest.graphs
    exact = [set(entry.files) for name, entry in graphs.items() if name != "reranker"]
    reranker = graphs["reranker"]
    bundle.graph_path("reranker", compute.precision)
    found = reranker.files if compute.precision == "float32" else reranker.variants[compute.precision].files
    return sum((bundle.folder / file).stat().st_size for files in (*exact, set(found)) for file in files)


def int8_speed(bundle: Bundle) -> float | None:
    """Measure how many times as fast re-ranking in int8 is here as in float32; None where the bundle has no int8.

    A few runs of either in turn, on one thread, by processor time, of random candidates.

    Raises:
        BundleError, MissingExtraError: a graph cannot be loaded.
    """
    if "int8" not in bundle.manifest.graphs["reranker"].variants:
        return None
    query, candidates = _drawn(bundle)
    exact, fast = (Reranker.open(bundle, Compute("cpu", 1, precision)).score for precision in ("float32", "int8"))
    return processor_ratio(partial(exact, query, candidates), partial(fast, query, candidates), rounds=_ROUNDS)


def processor_ratio(slow: Callable[[], object], fast: Callable[[], object], *, rounds: int) -> float:
    """Return how many times as fast the second is, by processor time: the median of rounds in turn, after one each."""
    ratios = []
    for turn in range(rounds + 1):
        marks = [time.process_time()]
        for run in (slow, fast):
            run()
            marks.append(time.process_time())
        if turn:
            ratios.append((marks[1] - marks[0]) / max(marks[2] - marks[1], 1e-9))
    return median(ratios)


def _drawn(bundle: Bundle) -> tuple[Composition, StoredTokens]:
    """Return a query and candidates of random numbers."""
    random, sizes = np.random.default_rng(0), bundle.manifest.sizes
    query = Composition(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=np.full(_LENGTH, bundle.manifest.tokenizer.first_token_id, dtype=np.int64),
        fusion_states=random.standard_normal((_LENGTH, sizes.fusion_dims), dtype=np.float32),
    )
    shape = (2 * DEFAULT_CHUNK, sizes.stored_rows, sizes.stored_dims)
    stored = quantize(random.standard_normal(shape, dtype=np.float32), sizes.token_codec)
    weights = None if sizes.compression is None else np.ones(shape[:2], dtype=np.float32)
    return query, replace(stored, weights=weights)
