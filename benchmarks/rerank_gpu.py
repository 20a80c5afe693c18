"""The float16 re-ranker on a GPU against PyTorch compiled in float16, on the same card.

    python -m benchmarks.rerank_gpu                      # full size: K=100, L=12; goal p50 <= 10 ms and 3x
    python -m benchmarks.rerank_gpu --size small -K 50 100 200 -L 8 12 24
    python -m benchmarks.rerank_gpu --device cpu --size small -K 4   # only to see that the script runs

Needs `qdrant-cir[gpu]` and a torch that sees the card. Both forms begin with tokens in the computer's memory, where a
store leaves them, and end with scores there. PyTorch is given float16 tokens in pinned memory; ours the int8 tokens and
scales that a store holds, through io binding, all K in one run. Weights are random, runs alternate.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor

from benchmarks.machine import alternate, describe_machine, median_ratio, write_json
from benchmarks.rerank import SIZES, Candidates, draw_candidates, export_reranker
from onnx_export.bundle.precisions import CONVERSIONS
from onnx_export.models import CirModel, build_model
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import open_session
from qdrant_cir.types import Float32

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Row:
    """One form at one K and L; ``difference`` is the largest of a score over the spread of PyTorch's float32 scores."""

    form: str
    candidates: int
    length: int
    p50_milliseconds: float
    p95_milliseconds: float
    ratio: float
    difference: float

    def __str__(self) -> str:
        return (
            f"K={self.candidates:<4} L={self.length:<3} {self.form:<14} p50 {self.p50_milliseconds:8.2f} ms  "
            f"p95 {self.p95_milliseconds:8.2f} ms  {self.ratio:5.2f}x  difference {self.difference:.1e}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("-K", "--candidates", type=int, nargs="+", default=[100])
    parser.add_argument("-L", "--length", type=int, nargs="+", default=[12])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; on a machine without one, --device cpu shows that the script runs.")
    card = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
    machine = describe_machine(2, packages=("onnxruntime-gpu", "onnxruntime", "torch", "numpy"))
    print(f"{card}; {machine}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(SIZES[arguments.size])
        graph = export_half(model, Path(folder))
        for count in arguments.candidates:
            for length in arguments.length:
                given = draw_candidates(model.sizes, count, length)
                for row in measure(model, graph, given, arguments.device, arguments.rounds):
                    print(row, flush=True)
                    rows.append(row)
    if arguments.json:
        write_json(arguments.json, machine, [{"card": card, **asdict(row)} for row in rows])


def export_half(model: CirModel, folder: Path) -> Path:
    """Export the re-ranker that reads int8 tokens, in float16."""
    made = folder / "reranker_float16.onnx"
    converted = CONVERSIONS["float16"](onnx.load(str(export_reranker(model, "int8", folder))))
    onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
    return made


def measure(model: CirModel, graph: Path, given: Candidates, device: Device, rounds: int) -> list[Row]:
    """Compare both forms at one K and L."""
    count, length = len(given.tokens), len(given.query.input_ids)
    exact = plain(model, given, "cpu", torch.float32)()
    reranker = Reranker(open_session(graph, provider=device), chunk=count)
    half = torch.float16 if device == "cuda" else torch.float32
    forms = {
        "torch.compile": plain(model, given, device, half),
        "graph, float16": lambda: reranker.score(given.query, given.stored["int8"]),
    }
    scores = {name: run() for name, run in forms.items()}  # compiles and warms up
    seconds = alternate(forms, rounds=rounds, seconds_at_most=120)
    return [
        Row(
            form=name,
            candidates=count,
            length=length,
            p50_milliseconds=statistics.median(seconds[name]) * 1e3,
            p95_milliseconds=float(np.percentile(seconds[name], 95)) * 1e3,
            ratio=median_ratio(seconds["torch.compile"], seconds[name]),
            difference=float(np.abs(scores[name] - exact).max() / exact.std()),
        )
        for name in forms
    ]


def plain(model: CirModel, given: Candidates, device: Device, dtype: torch.dtype) -> Callable[[], Float32]:
    """The paper's form in PyTorch on a device; on the GPU compiled, from tokens in pinned memory."""
    count = len(given.tokens)
    reranker = copy.deepcopy(model.reranker).eval().to(device, dtype)
    score: Callable[..., Tensor] = torch.compile(reranker) if device == "cuda" else reranker
    ids = torch.from_numpy(given.query.input_ids)[None]
    states, tokens = torch.from_numpy(given.query.fusion_states)[None].to(dtype), given.tokens.to(dtype)
    if device == "cuda":
        ids, states, tokens = ids.pin_memory(), states.pin_memory(), tokens.pin_memory()

    @torch.inference_mode()
    def run() -> Float32:
        on_card = ids.to(device, non_blocking=True).expand(count, -1)
        fused = states.to(device, non_blocking=True).expand(count, -1, -1)
        found = score(on_card, torch.ones_like(on_card), fused, tokens.to(device, non_blocking=True))
        scores: Float32 = found.float().cpu().numpy()
        return scores

    return run


if __name__ == "__main__":
    main()
