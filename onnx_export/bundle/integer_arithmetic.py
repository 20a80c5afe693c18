"""Matrix products of the re-ranker and of the image encoder in 8-bit integers.

Three kinds of product take most of the time, and each is replaced by ``MatMulInteger``, for which CPUs have 8-bit dot
products:

* states times weights: weights become whole numbers to +-64 with a scale per output column (and head), states uint8
  with one scale, computed in every run;
* queries times stored tokens: the tokens are int8 already and enter the product as they are stored; each row of queries
  becomes whole numbers to +-63, scaled by its largest value;
* attention times stored tokens: each row of attention becomes whole numbers to 127, scaled by its largest value. With a
  common scale a flat row would round to zero beside a peaked one.

One side of every product has 7 bits, because processors without 8-bit dot products (x86 before VNNI) add pairs of
products in 16 bits and cut off what is above: 255 * 64 * 2 and 127 * 128 * 2 fit, so the sums are exact everywhere.

The rest (normalisation, softmax, GELU, the short self-attention, the head) stays float32. In a compressed bundle the
class token is restored to all its dimensions, for stage one's cosine, by a product of the first kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_export.errors import ExportError

STORED_TOKENS = "candidate_tokens"
LARGEST_WEIGHT, LARGEST_QUERY, LARGEST_ATTENTION = 64, 63, 127


def with_integer_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph with integer arithmetic in its large matrix products.

    Args:
        model: an image encoder of a bundle, or the re-ranker of one whose tokens are stored as int8, external weights
            loaded.

    Returns:
        The graph with the same inputs and outputs.

    Raises:
        ExportError: the graph reads stored tokens that are not int8.
    """
    _check_codec(model)
    rewriting = _Rewriting.of(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += rewriting.replace(node)
    return rewriting.rebuilt(nodes)


def _check_codec(model: onnx.ModelProto) -> None:
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    if types.get(STORED_TOKENS, TensorProto.INT8) != TensorProto.INT8:
        found = TensorProto.DataType.Name(types[STORED_TOKENS])
        raise ExportError(
            f"Integer products need a re-ranker that reads int8 tokens; {STORED_TOKENS} is {found} in this graph. "
            "Export the bundle with --codec int8."
        )


@dataclass(slots=True)
class _Rewriting:
    """A graph while its products are replaced.

    Attributes:
        model: the float graph.
        weights: constant values by name, transposed ones included.
        tokens: names of the stored tokens as float32.
        columns: names of their transpose; the int8 form has the same name with ``_int8``.
        quantised: names of float values, to those of their uint8 form (values, scale, zero point).
        constants: of the new graph.
    """

    model: onnx.ModelProto
    weights: dict[str, NDArray[np.float32]]
    tokens: set[str]
    columns: set[str]
    quantised: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Rewriting:
        weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
        tokens: set[str] = set()
        columns: set[str] = set()
        for node in model.graph.node:
            if node.op_type == "Cast" and node.input[0] == STORED_TOKENS:
                tokens.add(node.output[0])
            elif node.op_type == "Transpose" and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]].transpose(_permutation(node))
            elif node.op_type == "Transpose" and node.input[0] in tokens:
                columns.add(node.output[0])
        return cls(model, weights, tokens, columns)

    def replace(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that replace a node: the node itself unless it is one of the three kinds of product."""
        if node.output[0] in self.columns:
            columns = [f"{node.output[0]}_int8"]
            return [node, helper.make_node("Transpose", [STORED_TOKENS], columns, perm=_permutation(node))]
        if node.op_type != "MatMul":
            return [node]
        left, right = node.input
        if right in self.weights and self.weights[right].ndim >= 2:
            return self._by_weights(node, left, right)
        if right in self.tokens:
            return self._attention_by_tokens(node, left)
        if right in self.columns:
            return self._queries_by_tokens(node, left, f"{right}_int8")
        return [node]

    def _by_weights(self, node: NodeProto, left: str, right: str) -> list[NodeProto]:
        weight, out = self.weights[right], node.output[0]
        scale = np.abs(weight).max(axis=-2, keepdims=True) / LARGEST_WEIGHT
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        self._add(f"{right}_int8", np.rint(weight / scale).astype(np.int8))
        self._add(f"{right}_scale", (scale[0] if weight.ndim == 2 else scale).astype(np.float32))
        nodes, (values, left_scale, zero) = self._quantise(left)
        return [
            *nodes,
            helper.make_node("MatMulInteger", [values, f"{right}_int8", zero], [f"{out}_int32"]),
            helper.make_node("Cast", [f"{out}_int32"], [f"{out}_sum"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [left_scale, f"{right}_scale"], [f"{out}_scale"]),
            helper.make_node("Mul", [f"{out}_sum", f"{out}_scale"], [out]),
        ]

    def _queries_by_tokens(self, node: NodeProto, left: str, columns: str) -> list[NodeProto]:
        return [
            helper.make_node("Abs", [left], [f"{left}_size"]),
            *self._share_of_its_row(left, f"{left}_size", LARGEST_QUERY, zero=LARGEST_QUERY + 1),
            *self._product(node.output[0], f"{left}_row", columns, zero=self._whole(LARGEST_QUERY + 1)),
        ]

    def _attention_by_tokens(self, node: NodeProto, left: str) -> list[NodeProto]:
        nodes = self._share_of_its_row(left, left, LARGEST_ATTENTION, zero=0)
        return [*nodes, *self._product(node.output[0], f"{left}_row", STORED_TOKENS, zero=self._whole(0))]

    def _share_of_its_row(self, values: str, sizes: str, largest: int, *, zero: int) -> list[NodeProto]:
        """Make ``{values}_row``, uint8, and ``{values}_row_scale``: each row scaled by the largest of its sizes."""
        self._add("last_axis", np.array([-1], np.int64))
        self._add("tiny", np.array(np.finfo(np.float32).tiny, np.float32))
        self._add(f"one_{largest}th", np.array(1 / largest, np.float32))
        row = f"{values}_row"
        return [
            helper.make_node("ReduceMax", [sizes, "last_axis"], [f"{row}_most"], keepdims=1),
            # a row of zeros stays zeros
            helper.make_node("Max", [f"{row}_most", "tiny"], [f"{row}_largest"]),
            helper.make_node("Div", [values, f"{row}_largest"], [f"{row}_share"]),
            helper.make_node("QuantizeLinear", [f"{row}_share", f"one_{largest}th", self._whole(zero)], [row]),
            helper.make_node("Mul", [f"{row}_largest", f"one_{largest}th"], [f"{row}_scale"]),
        ]

    def _product(self, out: str, rows: str, right: str, *, zero: str) -> list[NodeProto]:
        return [
            helper.make_node("MatMulInteger", [rows, right, zero], [f"{out}_int32"]),
            helper.make_node("Cast", [f"{out}_int32"], [f"{out}_sum"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_sum", f"{rows}_scale"], [out]),
        ]

    def _whole(self, number: int) -> str:
        """Return the name of a uint8 constant."""
        self._add(f"uint8_{number}", np.array(number, np.uint8))
        return f"uint8_{number}"

    def _quantise(self, name: str) -> tuple[list[NodeProto], tuple[str, str, str]]:
        """Return a float value's uint8 form, and the node that computes it where none does yet."""
        if name in self.quantised:
            return [], self.quantised[name]
        form = (f"{name}_uint8", f"{name}_uint8_scale", f"{name}_uint8_zero")
        self.quantised[name] = form
        return [helper.make_node("DynamicQuantizeLinear", [name], list(form))], form

    def _add(self, name: str, value: NDArray[np.generic]) -> None:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)

    def rebuilt(self, nodes: list[NodeProto]) -> onnx.ModelProto:
        """Return the graph of these nodes, without unused ones."""
        outputs = {value.name for value in self.model.graph.output}
        nodes = _reachable(nodes, outputs)
        used = {name for node in nodes for name in node.input}
        initializers = [w for w in self.model.graph.initializer if w.name in used]
        initializers += [w for w in self.constants.values() if w.name in used]
        graph = helper.make_graph(
            nodes, self.model.graph.name, self.model.graph.input, self.model.graph.output, initializers
        )
        rebuilt = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        onnx.checker.check_model(rebuilt)
        return rebuilt


def _permutation(node: NodeProto) -> list[int]:
    return next(list(a.ints) for a in node.attribute if a.name == "perm")


def _reachable(nodes: Iterable[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Return the nodes that the wanted values depend on, in order."""
    needed, kept = set(wanted), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
