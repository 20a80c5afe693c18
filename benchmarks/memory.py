"""Resident memory while many queries re-rank 200 candidates each.

    .venv/bin/python -m benchmarks.memory [--bundle DIR] [--queries 1000] [--shrinks-arena]
    .venv/bin/python -m benchmarks.memory --full-size --queries 40   # the paper's sizes, random weights, int8 tokens

Texts of 4 to 30 tokens in a fixed random order, for runs that differ in size are what makes an allocator grow,
over drawn tokens in the bundle's stored form, with as many threads as a search uses. Prints the level before the
first query, the highest, the level after the last and what the second half added to the first; with
``--shrinks-arena`` the same for a session that gives memory back after every run, which costs time.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.machine import LoadMeter, describe_machine
from qdrant_cir.model.bundle import ModelSizes, load_bundle, packaged_bundle_path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import Session, open_graph, open_session
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, StoredTokens

LENGTHS = (4, 31)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=packaged_bundle_path("drawn"))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("-K", "--candidates", type=int, default=200)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--shrinks-arena", action="store_true")
    parser.add_argument("--full-size", action="store_true", help="not a bundle but the paper's sizes; needs torch")
    arguments = parser.parse_args()
    if arguments.full_size:
        session, sizes = open_full_size(shrinks_arena=arguments.shrinks_arena)
    else:
        bundle = load_bundle(arguments.bundle)
        session = open_graph(bundle, "reranker", Compute("cpu", 1), shrinks_arena=arguments.shrinks_arena)
        sizes = bundle.manifest.sizes
    random = np.random.default_rng(0)
    ask = asker(Reranker(session), sizes, arguments.candidates, arguments.threads, random)
    lengths = random.integers(*LENGTHS, arguments.queries).tolist()
    print(describe_machine(arguments.threads, packages=("onnxruntime",)))
    load = LoadMeter()
    gc.collect()
    before = resident_megabytes()
    levels = []
    started = time.perf_counter()
    for length in lengths:
        ask(length)
        levels.append(resident_megabytes())
    seconds = time.perf_counter() - started
    half = len(levels) // 2
    print(
        f"{len(levels)} queries, K={arguments.candidates}, arena {'shrunk' if arguments.shrinks_arena else 'kept'}: "
        f"{before:.0f} MB before, {levels[0]:.0f} after the first, at most {max(levels):.0f}, {levels[-1]:.0f} after "
        f"the last; the second half added {max(levels[half:]) - max(levels[:half]):+.1f} MB to the highest; "
        f"{1000 * seconds / len(levels):.0f} ms/query; other processes kept {load.cores_taken():.1f} cores busy"
    )


def open_full_size(*, shrinks_arena: bool) -> tuple[Session, ModelSizes]:
    """Export a re-ranker of the paper's sizes and load it; what the export took is not in this process."""
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            path, sizes = executor.submit(export_full_size, Path(folder)).result()
        return open_session(path, Compute("cpu", 1), shrinks_arena=shrinks_arena), sizes


def export_full_size(folder: Path) -> tuple[Path, ModelSizes]:
    """Export a re-ranker with random weights that reads int8 tokens."""
    from benchmarks.rerank import export_reranker
    from onnx_export.export import runtime_sizes
    from onnx_export.models import BLIP_BASE, build_model

    model = build_model(BLIP_BASE)
    return export_reranker(model, "int8", folder), runtime_sizes(model, "int8")


def asker(
    reranker: Reranker, sizes: ModelSizes, candidates: int, threads: int, random: np.random.Generator
) -> Callable[[int], None]:
    """Return a function that re-ranks fresh candidates for a text of so many tokens, a share in each thread."""
    pool = ThreadPoolExecutor(threads)
    share = -(-candidates // threads)

    def ask(length: int) -> None:
        tokens = random.standard_normal((candidates, sizes.token_rows, sizes.token_dims), dtype=np.float32)
        stored = quantize(tokens, sizes.token_codec)
        query = Composition(
            vector=np.zeros(sizes.vector_size, dtype=np.float32),
            input_ids=random.integers(1, 100, length),
            fusion_states=random.standard_normal((length, sizes.fusion_dims), dtype=np.float32),
        )
        parts = [
            StoredTokens(stored.values[start : start + share], stored.scales[start : start + share])
            for start in range(0, candidates, share)
        ]
        list(pool.map(lambda part: reranker.score(query, part), parts))

    return ask


def resident_megabytes() -> float:
    """Read this process's resident memory; Linux alone."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
