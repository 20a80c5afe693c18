"""Reading of an exported graph: its layers in order, and its constants by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

_BLOCK = 3
"""Layers of a feed-forward block: two products and the normalisation."""

LayerKind = Literal["Linear", "LayerNorm", "Conv2d", "Embedding"]


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """One layer of torch, which is one node or two of the graph.

    Attributes:
        kind: torch's name of the layer.
        weight: in torch's layout, [out, in] of a linear layer.
        bias: [out]; None where nothing is added.
        added_before: the constant [in] that is added to the layer's input; None where there is none.
    """

    kind: LayerKind
    weight: Tensor
    bias: Tensor | None
    added_before: Tensor | None


@dataclass(frozen=True, slots=True)
class ReadGraph:
    """The content of a graph.

    Attributes:
        path: of the ONNX file.
        layers: in the order in which they are computed.
        constants: every stored tensor, by its name in the graph.
    """

    path: Path
    layers: tuple[GraphLayer, ...]
    constants: Mapping[str, Tensor]


def read_graph(path: Path) -> ReadGraph:
    """Read a graph. Nodes without stored weights and quantised nodes are left out."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {
        stored.name: torch.from_numpy(numpy_helper.to_array(stored, base_dir=str(path.parent)).copy())
        for stored in graph.initializer
    }
    for node in graph.node:  # constants that are stored in half the bytes (half_constants.py)
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].float()
    return ReadGraph(path, _once_for_both(_layers(list(graph.node), constants)), constants)


def _once_for_both(layers: Sequence[GraphLayer]) -> tuple[GraphLayer, ...]:
    """Leave out each feed-forward block that a graph of an earlier version computes again for the other stream."""
    kept: list[GraphLayer] = []
    for layer in layers:
        kept.append(layer)
        weights = [each.weight.data_ptr() for each in kept[-2 * _BLOCK :]]
        if len(weights) == 2 * _BLOCK and weights[:_BLOCK] == weights[_BLOCK:]:
            del kept[-_BLOCK:]
    return tuple(kept)


def _layers(nodes: list[onnx.NodeProto], constants: Mapping[str, Tensor]) -> list[GraphLayer]:
    matrices = {name: value for name, value in constants.items() if value.ndim == 2 and value.is_floating_point()}
    transposed = {
        node.output[0]: matrices[node.input[0]]
        for node in nodes
        if node.op_type == "Transpose" and node.input[0] in matrices
    }
    additions = [node for node in nodes if node.op_type == "Add" and node.input[1] in constants]
    added_to = {node.input[0]: constants[node.input[1]] for node in additions}
    added_in = {node.output[0]: constants[node.input[1]] for node in additions}
    layers: list[GraphLayer] = []

    def append(kind: LayerKind, node: onnx.NodeProto, weight: Tensor, bias: Tensor | None) -> None:
        layers.append(GraphLayer(kind, weight, bias, added_in.get(node.input[0])))

    for node in nodes:
        inputs = [constants.get(name) for name in node.input]
        match node.op_type, inputs:
            case "Conv", [None, weight, *rest] if weight is not None:
                append("Conv2d", node, weight, rest[0] if rest else None)
            case "LayerNormalization", [None, weight, *rest] if weight is not None:
                append("LayerNorm", node, weight, rest[0] if rest else None)
            case "Gemm", [None, weight, *rest] if weight is not None:
                append("Linear", node, weight, rest[0] if rest else None)
            case "Gather", [weight, None] if node.input[0] in matrices and weight is not None:
                append("Embedding", node, weight, None)
            case "MatMul", [None, weight] if node.input[1] in matrices and weight is not None:
                append("Linear", node, weight.T, added_to.get(node.output[0]))
            case "MatMul", [None, None] if node.input[1] in transposed:
                append("Linear", node, transposed[node.input[1]], added_to.get(node.output[0]))
    return layers
