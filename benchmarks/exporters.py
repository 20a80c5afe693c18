"""The ways to export a graph that ``export_variants.py`` compares; ``onnx_export/export.py`` is the first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnx_export.export import OPSET, export_graph, runtime_sizes
from onnx_export.graphs import graph_modules
from onnx_export.models import ModelSizes, build_model
from qdrant_cir.model.bundle import GraphContract, GraphName, contract_tensors
from qdrant_cir.model.bundle import ModelSizes as RuntimeSizes
from qdrant_cir.tokens.codec import quantize

Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One graph of a model with random weights, to be exported in several ways under one folder."""

    graph: GraphName
    sizes: ModelSizes
    module: nn.Module
    runtime_sizes: RuntimeSizes
    contract: GraphContract
    folder: Path

    def place(self, variant: str) -> Path:
        """Make the folder of a variant and name its ONNX file, in a folder of its own."""
        path = self.folder / variant / "onnx" / f"{self.graph}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def build_subject(graph: GraphName, sizes: ModelSizes, folder: Path) -> Subject:
    """Build the module to trace; candidate tokens are int8."""
    model = build_model(sizes)
    described = runtime_sizes(model, "int8")
    module = graph_modules(model)[graph]
    return Subject(graph, sizes, module, described, contract_tensors(graph, described), folder)


def draw_inputs(subject: Subject, *, count: int, length: int) -> Arrays:
    """Draw the inputs of a graph: ``count`` is its batch or K; the second text of a batch is padded."""
    rng = np.random.default_rng(count * 100 + length)
    sizes = subject.sizes
    if subject.graph == "image_encoder":
        side = sizes.image_size
        return {"pixel_values": rng.standard_normal((count, 3, side, side), dtype=np.float32)}
    tokens = rng.standard_normal((count, sizes.token_rows, sizes.image_width), dtype=np.float32)
    if subject.graph == "composer":
        mask = np.ones((count, length), np.int64)
        mask[1:2, 1:] = 0
        ids = rng.integers(5, sizes.vocabulary, (count, length))
        return {"input_ids": ids, "attention_mask": mask, "reference_tokens": tokens}
    stored = quantize(tokens, "int8")
    return {
        "input_ids": rng.integers(5, sizes.vocabulary, (1, length)),
        "fusion_states": rng.standard_normal((1, length, sizes.text_width), dtype=np.float32),
        "candidate_tokens": stored.values,
        "candidate_scales": stored.scales,
    }


def dynamo(subject: Subject) -> Path:
    """Export as the project does."""
    path = subject.place("dynamo")
    if not path.exists():
        export_graph(subject.graph, subject.module, path.parent.parent, subject.runtime_sizes)
    return path


def ort_fusions(subject: Subject) -> Path:
    """Rewrite the dynamo graph by onnxscript's fusions for onnxruntime."""
    import onnx_ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    path = subject.place("ort_fusions")
    model, _ = optimize_for_ort(onnx_ir.load(str(dynamo(subject))), clear_metadata=True)
    onnx_ir.save(model, str(path), external_data=f"{path.name}.data")
    return path


def transformers_optimizer(subject: Subject) -> Path:
    """Rewrite the dynamo graph by onnxruntime's transformer optimiser, which optimum's ORTOptimizer calls too."""
    from onnxruntime.transformers.optimizer import optimize_model

    path = subject.place("transformers")
    image = subject.graph == "image_encoder"
    optimized = optimize_model(
        str(dynamo(subject)),
        model_type="vit" if image else "bert",
        num_heads=subject.sizes.image_heads if image else subject.sizes.text_heads,
        hidden_size=subject.sizes.image_width if image else subject.sizes.text_width,
        opt_level=0,
    )
    optimized.save_model_to_file(str(path), use_external_data_format=True)
    return path


def torchscript(subject: Subject) -> Path:
    """Export by the legacy exporter."""
    path = subject.place("torchscript")
    example = {k: torch.from_numpy(v) for k, v in draw_inputs(subject, count=3, length=7).items()}
    tensors = (*subject.contract.inputs, *subject.contract.outputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            subject.module,
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=[tensor.name for tensor in subject.contract.outputs],
            dynamic_axes={t.name: {i: a for i, a in enumerate(t.shape) if isinstance(a, str)} for t in tensors},
            opset_version=OPSET,
            dynamo=False,
        )
    return path


EXPORTERS: Mapping[str, Callable[[Subject], Path]] = {
    "dynamo": dynamo,
    "ort_fusions": ort_fusions,
    "transformers": transformers_optimizer,
    "torchscript": torchscript,
}
