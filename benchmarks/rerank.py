"""The exported re-ranker against plain PyTorch, side by side in one process, on one thread each.

    python -m benchmarks.rerank                                   # full size: K=10, L=12 (a few minutes, 6 GB)
    python -m benchmarks.rerank --size small                      # the size of `drawn`: K=50, 100
    python -m benchmarks.rerank -K 1 10 50 -L 8 12 16 24 40       # any grid
    python -m benchmarks.rerank --size small --chunks 1 4 8 16 50 # which chunk of candidates to run at a time

Plain PyTorch is ``onnx_export/models/triplet_reranker.py``, the paper's own form, on all K candidates in one batch of
float32 tokens. Ours is the exported graph as the retriever runs it, every thread with candidates of its own
(``qdrant_cir.search.scoring.SharedReranker``): reading float32 tokens, reading int8 tokens with their scales, and
the latter with integer products (``onnx_export/bundle/integer_arithmetic.py``), calibrated on other random queries.
torch is given the same tokens, so the first two must give its scores; the third is close to them. The last two read
compressed tokens, 97 rows of 240 dimensions for 577 of 768 (23.9 KB), of a random projection: they say what the form
costs in time, and `python -m benchmarks.quality --only compression` what it costs in recall. Weights are random.

Runs alternate. Times are medians, ratios medians over paired runs. Processor time is that of all threads of the
process. Time on the clock is left out where other processes and these threads together need more cores than there are:
threads that wait for each other, as PyTorch's do, then lose more than others. ``others`` is how many cores other
processes kept busy meanwhile. GFLOP/s are per core, of processor time. PyTorch's threads wait without spinning. The
loss of a form is Kendall's rank correlation with plain PyTorch's order and whether the same candidate is first; with
random weights the candidates' scores hardly differ, so that it is larger than with trained ones.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import numpy as np
import onnx
import torch

from benchmarks.machine import (
    LoadMeter,
    Timing,
    alternate_timings,
    describe_machine,
    gemm_ceiling,
    measure_peak,
    median_ratio,
    write_json,
)
from benchmarks.rerank_work import plain_macs, served_macs
from onnx_export.bundle.calibration import reranker_inputs
from onnx_export.bundle.precisions import with_calibrated_integers
from onnx_export.export import export_graph, runtime_sizes
from onnx_export.graphs import RerankerGraph, graph_modules
from onnx_export.models import BLIP_BASE, DRAWN_SMALL, CirModel, ModelSizes, build_model
from qdrant_cir.model.bundle import CompressionSizes, TokenCodec
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import DEFAULT_CHUNK, Reranker
from qdrant_cir.model.sessions import open_session
from qdrant_cir.search.scoring import SharedReranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.tokens.compression import TokenProjection
from qdrant_cir.types import Composition, Float32, StoredTokens

SIZES = {"full": BLIP_BASE, "small": DRAWN_SMALL}
QUICK_CANDIDATES = {"full": [10], "small": [50, 100]}
CODECS: tuple[TokenCodec, ...] = ("float32", "int8")
INTEGER = "int8 products"
COMPRESSED, COMPRESSED_INTEGER = "compressed", "compressed int8"
CALIBRATING, CALIBRATING_LENGTHS = 4, (8, 12, 16)
"""Candidates of a query that int8 is calibrated on, and how long these queries' texts are."""

ROWS_SHARE, DIMS_SHARE = 1 / 6, 5 / 16
"""The default of `python -m onnx_export fit-codec`."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An exported re-ranker and the form of tokens that it reads."""

    path: Path
    form: TokenCodec | Literal["compressed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One form at one K and L."""

    form: str
    candidates: int
    length: int
    chunk: int
    processor_seconds: float
    processor_ratio: float
    seconds: float | None
    ratio: float | None
    gflops_per_core: float
    share_of_ceiling: float
    peak_megabytes: float
    difference: float | None
    kendall: float | None
    first_is_same: bool | None
    others: float

    def __str__(self) -> str:
        compared = "other tokens"
        if self.difference is not None and self.kendall is not None:
            first = "same" if self.first_is_same else "ANOTHER"
            compared = f"difference {self.difference:.1e}  Kendall {self.kendall:.3f}  first {first}"
        clock = "clock: refused, too few cores were free"
        if self.seconds is not None and self.ratio is not None:
            clock = f"clock {self.seconds * 1e3:.0f} ms, {self.ratio:.2f}x"
        return (
            f"K={self.candidates:<4} L={self.length:<3} {self.form:<15} "
            f"processor {self.processor_seconds * 1e3:9.1f} ms/query "
            f"{self.processor_seconds * 1e3 / self.candidates:8.3f} ms/candidate  {self.processor_ratio:5.2f}x  "
            f"{self.gflops_per_core:6.1f} GFLOP/s ({self.share_of_ceiling:4.0%} of GEMM)  {clock}  "
            f"peak +{self.peak_megabytes:.0f} MB  {compared}  others {self.others:.1f}"
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query and K candidates: as the graphs read them, and as plain torch does."""

    query: Composition
    stored: dict[str, StoredTokens]
    tokens: torch.Tensor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("-K", "--candidates", type=int, nargs="+")
    parser.add_argument("-L", "--length", type=int, nargs="+", default=[12])
    parser.add_argument("--chunks", type=int, nargs="+", help="compare chunk sizes instead of forms")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=120, help="no new round of a row after this long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--graphs", type=Path, help="keep the exported graphs here for the next run")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(arguments.threads)
    ceiling = gemm_ceiling()
    asked = Asked(arguments.rounds, arguments.seconds, arguments.threads)
    model = build_model(SIZES[arguments.size])
    print(f"{machine}\n{arguments.size} size, random weights; float32 GEMM ceiling {ceiling:.0f} GFLOP/s per core")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.graphs or Path(scratch)) / arguments.size
        graphs: dict[str, Graph] = {codec: Graph(export_reranker(model, codec, folder), codec) for codec in CODECS}
        graphs[INTEGER] = Graph(integer_reranker(graphs["int8"], model.sizes), "int8")
        graphs[COMPRESSED] = Graph(export_compressed(model, folder), "compressed")
        graphs[COMPRESSED_INTEGER] = Graph(integer_reranker(graphs[COMPRESSED], model.sizes), "compressed")
        for count in arguments.candidates or QUICK_CANDIDATES[arguments.size]:
            for length in arguments.length:
                given = draw_candidates(model.sizes, count, length)
                forms = (
                    chunk_forms(graphs["int8"].path, given, arguments.chunks, arguments.threads)
                    if arguments.chunks
                    else comparison_forms(model, graphs, given, arguments.threads)
                )
                for row in measure(model.sizes, given, forms, ceiling, asked):
                    print(row, flush=True)
                    rows.append(row)
    if arguments.json:
        write_json(arguments.json, machine, [asdict(row) for row in rows])


def export_reranker(model: CirModel, codec: TokenCodec, folder: Path) -> Path:
    """Export the re-ranker for one codec, unless it lies there already."""
    graph = folder / codec / "onnx" / "reranker.onnx"
    if not graph.exists():
        graph.parent.mkdir(parents=True, exist_ok=True)
        export_graph("reranker", graph_modules(model)["reranker"], folder / codec, runtime_sizes(model, codec))
    return graph


def export_compressed(model: CirModel, folder: Path) -> Path:
    """Export the re-ranker for compressed tokens of a random projection, unless it lies there already."""
    graph = folder / "compressed" / "onnx" / "reranker.onnx"
    if not graph.exists():
        graph.parent.mkdir(parents=True, exist_ok=True)
        rows, dims = compressed_shape(model.sizes)
        up = np.linalg.qr(np.random.default_rng(0).standard_normal((model.sizes.image_width, dims)))[0].T
        up = np.ascontiguousarray(up, dtype=np.float32)
        projection = TokenProjection(np.zeros(up.shape[1], dtype=np.float32), up.T.copy(), up)
        module = RerankerGraph(model.reranker, model.similarity(), projection).eval()
        sizes = replace(runtime_sizes(model, "int8"), compression=CompressionSizes(rows, dims, 1))
        export_graph("reranker", module, folder / "compressed", sizes)
    return graph


def compressed_shape(sizes: ModelSizes) -> tuple[int, int]:
    """Return rows and dimensions of compressed tokens."""
    return math.ceil(sizes.token_rows * ROWS_SHARE), int(sizes.image_width * DIMS_SHARE)


def integer_reranker(graph: Graph, sizes: ModelSizes) -> Path:
    """Write the graph with integer products beside its own, unless it lies there already."""
    made = graph.path.with_name("reranker_int8.onnx")
    if not made.exists():
        drawn = [draw_candidates(sizes, CALIBRATING, length, seed=length) for length in CALIBRATING_LENGTHS]
        inputs = [reranker_inputs(each.query, each.stored[graph.form]) for each in drawn]
        converted = with_calibrated_integers(onnx.load(str(graph.path)), inputs)
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
    return made


def draw_candidates(sizes: ModelSizes, count: int, length: int, *, seed: int = 0) -> Candidates:
    """Draw a random query and tokens that int8 holds exactly, so that every form is given the same numbers."""
    rng = np.random.default_rng(seed)
    query = Composition(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=rng.integers(5, min(sizes.vocabulary, 30000), length),
        fusion_states=rng.standard_normal((length, sizes.text_width), dtype=np.float32),
    )
    drawn = rng.standard_normal((count, sizes.token_rows, sizes.image_width), dtype=np.float32)
    small = quantize(drawn, "int8")
    tokens: Float32 = small.values.astype(np.float32) * small.scales[..., None]
    rows, dims = compressed_shape(sizes)
    compressed = quantize(rng.standard_normal((count, rows, dims), dtype=np.float32), "int8")
    weights = np.full((count, rows), sizes.token_rows / rows, dtype=np.float32)
    stored = {
        "int8": small,
        "float32": quantize(tokens, "float32"),
        "compressed": replace(compressed, weights=weights),
    }
    return Candidates(query, stored, torch.from_numpy(tokens))


@dataclass(frozen=True, slots=True)
class Asked:
    """How often to run, for how many seconds at most, and on how many threads."""

    rounds: int
    seconds: float
    threads: int


Form = tuple[Callable[[], Float32], int]
"""What to run, and its chunk."""


def comparison_forms(model: CirModel, graphs: Mapping[str, Graph], given: Candidates, threads: int) -> dict[str, Form]:
    """Plain torch, then the exported graphs; the first is the yardstick."""
    count = len(given.tokens)
    ids = torch.from_numpy(given.query.input_ids)[None].expand(count, -1)
    states = torch.from_numpy(given.query.fusion_states)[None].expand(count, -1, -1)

    @torch.inference_mode()
    def plain() -> Float32:
        scores: Float32 = model.reranker(ids, torch.ones_like(ids), states, given.tokens).numpy()
        return scores

    forms: dict[str, Form] = {"torch": (plain, count)}
    for name, graph in graphs.items():
        forms[name] = (scoring(graph.path, given, graph.form, DEFAULT_CHUNK, threads), DEFAULT_CHUNK)
    return forms


def chunk_forms(graph: Path, given: Candidates, chunks: list[int], threads: int) -> dict[str, Form]:
    """The exported int8 graph at several chunk sizes; the first is the yardstick."""
    return {f"chunk {c}": (scoring(graph, given, "int8", c, threads), c) for c in chunks}


def scoring(graph: Path, given: Candidates, form: str, chunk: int, threads: int) -> Callable[[], Float32]:
    """Open a re-ranker, so that its memory is its own, and bind it to its query and candidates."""
    session = open_session(graph, Compute("cpu", 1))
    reranker = SharedReranker(Reranker(session, chunk=chunk), threads=threads)
    return lambda: reranker.score(given.query, given.stored[form])


def measure(sizes: ModelSizes, given: Candidates, forms: dict[str, Form], ceiling: float, asked: Asked) -> list[Row]:
    """Compare forms at one K and L, the first form being what the others are compared with."""
    count, length = len(given.tokens), len(given.query.input_ids)
    once = {name: measure_peak(run) for name, (run, _) in forms.items()}
    scores = {name: measured.result for name, measured in once.items()}
    load = LoadMeter()
    runs = {name: run for name, (run, _) in forms.items()}
    timings = alternate_timings(runs, rounds=asked.rounds, seconds_at_most=asked.seconds)
    others = load.cores_taken()
    is_free = clock_counts(others, asked.threads, cores=available_threads())
    first = next(iter(forms))
    rows = []
    for name, (_, chunk) in forms.items():
        processor, clock = processor_times(timings[name]), [timing.wall for timing in timings[name]]
        median = statistics.median(processor)
        is_compressed = name in (COMPRESSED, COMPRESSED_INTEGER)
        stored = compressed_shape(sizes) if is_compressed else None
        macs = plain_macs(sizes, length) * count
        if name != "torch":
            macs = served_macs(sizes, length, count, chunk, stored=stored)
        gflops = 2 * macs / median / 1e9
        rows.append(
            Row(
                form=name,
                candidates=count,
                length=length,
                chunk=chunk,
                processor_seconds=median,
                processor_ratio=median_ratio(processor_times(timings[first]), processor),
                seconds=statistics.median(clock) if is_free else None,
                ratio=median_ratio([timing.wall for timing in timings[first]], clock) if is_free else None,
                gflops_per_core=gflops,
                share_of_ceiling=gflops / ceiling,
                peak_megabytes=once[name].peak_megabytes,
                difference=None if is_compressed else float(np.abs(scores[name] - scores[first]).max()),
                kendall=None if is_compressed else kendall(scores[first], scores[name]),
                first_is_same=None if is_compressed else bool(scores[first].argmax() == scores[name].argmax()),
                others=others,
            )
        )
    return rows


def kendall(first: Float32, second: Float32) -> float:
    """Return Kendall's rank correlation of two scorings of the same candidates: 1 for the same order."""
    left, right = np.triu_indices(len(first), 1)
    agreed = np.sign(first[left] - first[right]) * np.sign(second[left] - second[right])
    return float(agreed.mean()) if len(agreed) else 1.0


def processor_times(timings: Sequence[Timing]) -> list[float]:
    """Return the processor seconds of runs."""
    return [timing.processor for timing in timings]


def clock_counts(others: float, threads: int, *, cores: int) -> bool:
    """Return whether time on the clock can be compared: every thread had a core of its own, within a tenth."""
    return others + threads <= cores + 0.1


if __name__ == "__main__":
    main()
