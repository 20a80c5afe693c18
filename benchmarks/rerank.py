"""The exported re-ranker against plain PyTorch, side by side in one process.

    python -m benchmarks.rerank                                   # full size: K=10, L=12 (a few minutes, 6 GB)
    python -m benchmarks.rerank --size small                      # the size of `drawn`: K=50, 100
    python -m benchmarks.rerank -K 1 10 50 -L 8 12 16 24 40       # any grid
    python -m benchmarks.rerank --size small --chunks 1 4 8 16 50 # which chunk of candidates to run at a time

Plain PyTorch is ``onnx_export/models/triplet_reranker.py``, the paper's own form, on all K candidates in one batch of
float32 tokens. Ours is the exported graph as the retriever runs it, every thread with candidates of its own
(``qdrant_cir.search.scoring.SharedReranker``): reading float32 tokens, reading int8 tokens with their scales, and
the latter with integer products (``onnx_export/bundle/integer_arithmetic.py``). torch is given the same tokens, so
the first two must give its scores; the third is close to them. The last two read compressed tokens, 97 rows of 240
dimensions for 577 of 768 (23.9 KB), of a random projection: they say what the form costs in time, and `python -m
benchmarks.quality --only compression` what it costs in recall.
Weights are random. Runs alternate; times are medians, ratios medians over paired runs; ``others`` is how many cores
other processes kept busy meanwhile, and should be near 0.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch

from benchmarks.machine import (
    LoadMeter,
    alternate,
    describe_machine,
    gemm_ceiling,
    measure_peak,
    median_ratio,
    write_json,
)
from benchmarks.rerank_work import plain_macs, served_macs
from onnx_export.bundle.integer_arithmetic import with_integer_products
from onnx_export.export import export_graph, runtime_sizes
from onnx_export.graphs import RerankerGraph, graph_modules
from onnx_export.models import BLIP_BASE, DRAWN_SMALL, CirModel, ModelSizes, build_model
from qdrant_cir.model.bundle import CompressionSizes, TokenCodec
from qdrant_cir.model.compute import Compute
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
    seconds: float
    ratio: float
    gflops: float
    share_of_ceiling: float
    peak_megabytes: float
    difference: float | None
    order_identical: bool | None
    others: float

    def __str__(self) -> str:
        compared = "other tokens"
        if self.difference is not None:
            order = "identical" if self.order_identical else "DIFFERS"
            compared = f"difference {self.difference:.1e}  order {order}"
        return (
            f"K={self.candidates:<4} L={self.length:<3} {self.form:<15} {self.seconds * 1e3:9.1f} ms "
            f"{self.seconds * 1e3 / self.candidates:8.3f} ms/candidate  {self.ratio:5.2f}x  {self.gflops:6.1f} GFLOP/s "
            f"({self.share_of_ceiling:4.0%} of GEMM)  peak +{self.peak_megabytes:6.0f} MB  "
            f"{compared}  others {self.others:.1f}"
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graphs", type=Path, help="keep the exported graphs here for the next run")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(arguments.threads)
    ceiling = gemm_ceiling(arguments.threads)
    model = build_model(SIZES[arguments.size])
    print(f"{machine}\n{arguments.size} size, random weights; float32 GEMM ceiling {ceiling:.0f} GFLOP/s")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.graphs or Path(scratch)) / arguments.size
        graphs: dict[str, Graph] = {codec: Graph(export_reranker(model, codec, folder), codec) for codec in CODECS}
        graphs[INTEGER] = Graph(integer_reranker(graphs["int8"].path), "int8")
        graphs[COMPRESSED] = Graph(export_compressed(model, folder), "compressed")
        graphs[COMPRESSED_INTEGER] = Graph(integer_reranker(graphs[COMPRESSED].path), "compressed")
        for count in arguments.candidates or QUICK_CANDIDATES[arguments.size]:
            for length in arguments.length:
                given = draw_candidates(model.sizes, count, length)
                forms = (
                    chunk_forms(graphs["int8"].path, given, arguments.chunks, arguments.threads)
                    if arguments.chunks
                    else comparison_forms(model, graphs, given, arguments.threads)
                )
                for row in measure(model.sizes, given, forms, ceiling, arguments.rounds):
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


def integer_reranker(graph: Path) -> Path:
    """Write the graph with integer products beside its own, unless it lies there already."""
    made = graph.with_name("reranker_int8.onnx")
    if not made.exists():
        converted = with_integer_products(onnx.load(str(graph)))
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
    return made


def draw_candidates(sizes: ModelSizes, count: int, length: int) -> Candidates:
    """Draw a random query and tokens that int8 holds exactly, so that every form is given the same numbers."""
    rng = np.random.default_rng(0)
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


def measure(sizes: ModelSizes, given: Candidates, forms: dict[str, Form], ceiling: float, rounds: int) -> list[Row]:
    """Compare forms at one K and L, the first form being what the others are compared with."""
    count, length = len(given.tokens), len(given.query.input_ids)
    once = {name: measure_peak(run) for name, (run, _) in forms.items()}
    scores = {name: measured.result for name, measured in once.items()}
    load = LoadMeter()
    seconds = alternate({name: run for name, (run, _) in forms.items()}, rounds=rounds, seconds_at_most=120)
    others = load.cores_taken()
    first = next(iter(forms))
    rows = []
    for name, (_, chunk) in forms.items():
        median = statistics.median(seconds[name])
        is_compressed = name in (COMPRESSED, COMPRESSED_INTEGER)
        stored = compressed_shape(sizes) if is_compressed else None
        macs = plain_macs(sizes, length) * count
        if name != "torch":
            macs = served_macs(sizes, length, count, chunk, stored=stored)
        gflops = 2 * macs / median / 1e9
        equal_order = bool(np.array_equal(np.argsort(-scores[name]), np.argsort(-scores[first])))
        rows.append(
            Row(
                form=name,
                candidates=count,
                length=length,
                chunk=chunk,
                seconds=median,
                ratio=median_ratio(seconds[first], seconds[name]),
                gflops=gflops,
                share_of_ceiling=gflops / ceiling,
                peak_megabytes=once[name].peak_megabytes,
                difference=None if is_compressed else float(np.abs(scores[name] - scores[first]).max()),
                order_identical=None if is_compressed else equal_order,
                others=others,
            )
        )
    return rows


if __name__ == "__main__":
    main()
