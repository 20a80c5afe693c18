"""Which exporter makes the better graphs: the same torch modules exported in several ways, timed in turn.

    python -m benchmarks.export_variants                                 # the bundled model's size
    python -m benchmarks.export_variants --size full --graph reranker    # full size, K=4

Variants: ``dynamo`` is ``onnx_export/export.py`` as it stands; ``ort_fusions`` adds onnxscript's rewriter for
onnxruntime; ``transformers`` adds onnxruntime's offline optimiser (also what optimum's ORTOptimizer runs);
``torchscript`` is the legacy exporter. Each is compared with torch at dynamic sizes (batch or K in 1, 2, 50;
1, 2, 4 at full size; text length in 1, 2, 33), then timed through ``qdrant_cir.model.sessions``. A ratio above 1 is
faster than the first variant. ``others`` is how many cores other processes kept busy, and should be near 0.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.exporters import EXPORTERS, Arrays, Subject, build_subject, draw_inputs
from benchmarks.machine import LoadMeter, alternate, describe_machine, median_ratio, write_json
from onnx_export.models import BLIP_BASE, DRAWN_SMALL
from qdrant_cir.model.bundle import REQUIRED_GRAPHS, GraphName
from qdrant_cir.model.sessions import Session, open_session

SIZES = {"full": BLIP_BASE, "small": DRAWN_SMALL}
CHECKED_COUNTS = {"full": (1, 2, 4), "small": (1, 2, 50)}
CHECKED_LENGTHS = (1, 2, 33)
TIMED_COUNTS: Mapping[str, Mapping[GraphName, tuple[int, ...]]] = {
    "full": {"image_encoder": (1,), "composer": (1,), "reranker": (4,)},
    "small": {"image_encoder": (1, 32), "composer": (1,), "reranker": (8, 50)},
}
TIMED_LENGTHS = (8, 16)


@dataclass(frozen=True, slots=True)
class Variant:
    """One exported graph: its file, what it differs from torch by, and what it is made of."""

    name: str
    path: Path
    difference: float

    def __str__(self) -> str:
        nodes = onnx.load(str(self.path), load_external_data=False).graph.node
        fused = Counter(node.op_type for node in nodes if node.domain == "com.microsoft")
        return (
            f"{self.name:12} {len(nodes):5} nodes {self.megabytes:7.1f} MB  difference {self.difference:.1e}  "
            f"{', '.join(f'{count} {kind}' for kind, count in fused.most_common()) or 'nothing fused'}"
        )

    @property
    def megabytes(self) -> float:
        """Size of the graph with its weights."""
        return sum(file.stat().st_size for file in self.path.parent.iterdir()) / 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of one graph at one size."""

    graph: str
    variant: str
    count: int
    length: int
    milliseconds: float
    ratio: float
    load_milliseconds: float
    megabytes: float
    difference: float
    others: float

    def __str__(self) -> str:
        return (
            f"{self.graph:13} K={self.count:<3} L={self.length:<3} {self.variant:12} {self.milliseconds:9.2f} ms "
            f"{self.ratio:5.2f}x  load {self.load_milliseconds:6.0f} ms  others {self.others:.1f}"
        )


def main() -> None:
    """Export, check, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--graph", choices=REQUIRED_GRAPHS, nargs="+", default=REQUIRED_GRAPHS)
    parser.add_argument("--variant", choices=list(EXPORTERS), nargs="+", default=list(EXPORTERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(arguments.threads, packages=("torch", "onnx", "onnxscript", "onnxruntime"))
    print(f"{machine}\n{arguments.size} size, random weights")
    rows: list[Row] = []
    for graph in arguments.graph:
        with tempfile.TemporaryDirectory() as scratch:
            subject = build_subject(graph, SIZES[arguments.size], Path(scratch))
            variants = sound_variants(subject, arguments.variant, CHECKED_COUNTS[arguments.size])
            counts = TIMED_COUNTS[arguments.size][graph]
            for row in measure(subject, variants, counts, arguments.threads, arguments.rounds):
                print(row, flush=True)
                rows.append(row)
    if arguments.json:
        write_json(arguments.json, machine, [asdict(row) for row in rows])


def sound_variants(subject: Subject, names: list[str], counts: tuple[int, ...]) -> list[Variant]:
    """Export in every way and print each; what fails to export or to run at some size is left out."""
    variants = []
    for name in names:
        try:
            path = EXPORTERS[name](subject)
            variant = Variant(name, path, largest_difference(subject, open_session(path, provider="cpu"), counts))
        except Exception as error:  # whatever foreign exporters raise is their result
            print(f"{subject.graph:13} {name}: {type(error).__name__}: {str(error).strip()[:400]}", flush=True)
        else:
            print(f"{subject.graph:13} {variant}", flush=True)
            variants.append(variant)
    return variants


@torch.inference_mode()
def largest_difference(subject: Subject, session: Session, counts: tuple[int, ...]) -> float:
    """Compare with torch at every size. Raises what onnxruntime raises where the graph refuses one."""
    worst = 0.0
    for count in counts:
        for length in (0,) if subject.graph == "image_encoder" else CHECKED_LENGTHS:
            inputs = draw_inputs(subject, count=count, length=length)
            given = subject.module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
            expected = (given,) if isinstance(given, torch.Tensor) else given
            found = session.run(inputs)
            for output, tensor in zip(subject.contract.outputs, expected, strict=True):
                if found[output.name].shape != tuple(tensor.shape):
                    shape = found[output.name].shape
                    raise ValueError(f"{output.name} is {shape}, torch gives {tuple(tensor.shape)}")
                worst = max(worst, float(np.abs(found[output.name] - tensor.numpy()).max()))
    return worst


def measure(
    subject: Subject, variants: list[Variant], counts: tuple[int, ...], threads: int, rounds: int
) -> Iterator[Row]:
    """Time loading, then every size, the variants in turn."""
    loads = alternate({variant.name: opening(variant, threads) for variant in variants}, rounds=3)
    sessions = {variant.name: opening(variant, threads)() for variant in variants}
    for count in counts:
        for length in (0,) if subject.graph == "image_encoder" else TIMED_LENGTHS:
            inputs = draw_inputs(subject, count=count, length=length)
            runs = {name: running(session, inputs) for name, session in sessions.items()}
            for run in runs.values():
                run()
            load = LoadMeter()
            seconds = alternate(runs, rounds=rounds, seconds_at_most=120)
            others = load.cores_taken()
            for variant in variants:
                yield Row(
                    graph=subject.graph,
                    variant=variant.name,
                    count=count,
                    length=length,
                    milliseconds=statistics.median(seconds[variant.name]) * 1e3,
                    ratio=median_ratio(seconds[variants[0].name], seconds[variant.name]),
                    load_milliseconds=statistics.median(loads[variant.name]) * 1e3,
                    megabytes=variant.megabytes,
                    difference=variant.difference,
                    others=others,
                )


def opening(variant: Variant, threads: int) -> Callable[[], Session]:
    """Bind a variant to be loaded."""
    return lambda: open_session(variant.path, provider="cpu", threads=threads)


def running(session: Session, inputs: Arrays) -> Callable[[], Arrays]:
    """Bind a session to its inputs."""
    return lambda: session.run(inputs)


if __name__ == "__main__":
    main()
