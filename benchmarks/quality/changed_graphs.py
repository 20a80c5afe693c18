"""The re-ranker's graph once more, changed in one respect; the bundle itself stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qdrant_cir.errors import BundleError
from qdrant_cir.model.bundle import Bundle, TokenCodec
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import Session, open_session
from qdrant_cir.types import Float32

Change = Callable[[onnx.ModelProto], onnx.ModelProto]
"""A re-ranker's graph, weights loaded, to another that takes and gives the same."""

_CODEC_TYPES: dict[TokenCodec, int] = {
    "int8": TensorProto.INT8,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
}


def open_changed(bundle: Bundle, change: Change, path: Path, *, threads: int) -> Reranker:
    """Write the changed graph to ``path`` and open it."""
    return Reranker(write_changed(bundle, change, path, threads=threads))


def write_changed(bundle: Bundle, change: Change, path: Path, *, threads: int) -> Session:
    """Write the changed graph to ``path`` and load it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(change(onnx.load(str(bundle.graph_path("reranker")))), str(path))
    return open_session(path, Compute("cpu", threads))


def with_first_states(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add the states that the score is read from as outputs ``stream_0`` and ``stream_1``, float32 [K, H]."""
    join = _join(model)
    for stream, name in enumerate(join.input):
        model.graph.node.append(helper.make_node("Identity", [name], [f"stream_{stream}"]))
        model.graph.output.append(helper.make_tensor_value_info(f"stream_{stream}", TensorProto.FLOAT, None))
    return model


def without_stream(model: onnx.ModelProto, stream: int, mean: Float32) -> onnx.ModelProto:
    """Let the score read one stream alone.

    Args:
        model: the graph.
        stream: 0, which starts from the fusion states, or 1, which starts from the text: the one that is not read.
        mean: float32 [H], stands for that stream's first state, whatever query and candidate are.
    """
    join = _join(model)
    name = join.input[stream]
    constants = {f"{name}_nothing": np.zeros_like(mean), f"{name}_mean": mean}
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    nodes = list(model.graph.node)
    place = nodes.index(join)
    nodes[place:place] = [
        helper.make_node("Mul", [name, f"{name}_nothing"], [f"{name}_emptied"]),
        helper.make_node("Add", [f"{name}_emptied", f"{name}_mean"], [f"{name}_replaced"]),
    ]
    join.input[stream] = f"{name}_replaced"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_codec(model: onnx.ModelProto, codec: TokenCodec) -> onnx.ModelProto:
    """Read stored tokens of another type; the graph turns them into float32 first, as it does its own."""
    tokens = next(value for value in model.graph.input if value.name == "candidate_tokens")
    tokens.type.tensor_type.elem_type = _CODEC_TYPES[codec]
    return model


def _join(model: onnx.ModelProto) -> NodeProto:
    """Find where both streams' first states come together, going up from the score."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get("scores")
    while node is not None and node.op_type != "Concat":
        node = makers.get(node.input[0])
    if node is None or len(node.input) != 2:
        raise BundleError("The re-ranker's score is not read from two streams; this graph was not exported by us.")
    return node
