"""Matrix products of the re-ranker and of the image encoder in 8-bit integers.

Three kinds of product take most of the time. Each is computed from integers, for which CPUs have 8-bit dot products:

* states times weights: weights become whole numbers to +-64 with a scale per output column (and head), states uint8
  with one scale and zero point, calibrated once (``calibration.py``);
* queries times stored tokens: the tokens are int8 already and enter the product as they are stored; each row of queries
  becomes whole numbers to +-63, scaled by its largest value;
* attention times stored tokens: each row of attention becomes whole numbers to 127, scaled by its largest value. With a
  common scale a flat row would round to zero beside a peaked one.

One side of every product has 7 bits, because processors without 8-bit dot products (x86 before VNNI) add pairs of
products in 16 bits and cut off what is above: 255 * 64 * 2 and 127 * 128 * 2 fit, so the sums are exact everywhere.

The rest (normalisation, softmax, GELU, the short self-attention, the head) stays float32. In a compressed bundle the
class token is restored to all its dimensions, for stage one's cosine, by a product of the first kind.

No number of a candidate or picture depends on its neighbours in the run: no scale is taken from the whole run, sums of
integers are exact in any order, and the head's products, which libraries add up differently for one row and for many,
are computed for each candidate alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_export.errors import ExportError

STORED_TOKENS = "candidate_tokens"
LARGEST_STATE, LARGEST_WEIGHT, LARGEST_QUERY, LARGEST_ATTENTION = 255, 64, 63, 127


_CONTRIB = "com.microsoft"
"""Domain of the product with scales and bias in one node; from the standard's nodes onnxruntime makes it itself, but
only where scales are computed in the run."""


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The least and the largest value of an activation that are expected."""

    low: float
    high: float


def scaled_activations(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the values that are multiplied by weights, in order, each once."""
    rewriting = _Rewriting.of(model, {})
    return tuple(dict.fromkeys(node.input[0] for node in model.graph.node if rewriting.is_by_weights(node)))


def with_integer_products(model: onnx.ModelProto, ranges: Mapping[str, ValueRange]) -> onnx.ModelProto:
    """Return a copy of a graph with integer arithmetic in its large matrix products.

    Args:
        model: an image encoder of a bundle, or the re-ranker of one whose tokens are stored as int8, external weights
            loaded.
        ranges: of every value that :func:`scaled_activations` names; what lies outside is cut off.

    Returns:
        The graph with the same inputs and outputs.

    Raises:
        ExportError: the graph reads stored tokens that are not int8.
    """
    _check_codec(model)
    rewriting = _Rewriting.of(model, ranges)
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
        ranges: of values that are multiplied by weights.
        weights: constant values by name, transposed ones included.
        tokens: names of the stored tokens as float32.
        columns: names of their transpose; the int8 form has the same name with ``_int8``.
        biases: names of products to the addition of a constant that alone reads them.
        folded: identities of those additions that a product does already.
        quantised: names of float values, to those of their uint8 form (values, scale, zero point).
        constants: of the new graph.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, ValueRange]
    weights: dict[str, NDArray[np.float32]]
    tokens: set[str]
    columns: set[str]
    biases: dict[str, NodeProto]
    folded: set[int] = field(default_factory=set)
    quantised: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto, ranges: Mapping[str, ValueRange]) -> _Rewriting:
        weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
        tokens: set[str] = set()
        columns: set[str] = set()
        readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            if node.op_type == "Cast" and node.input[0] == STORED_TOKENS:
                tokens.add(node.output[0])
            elif node.op_type == "Transpose" and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]].transpose(_permutation(node))
            elif node.op_type == "Transpose" and node.input[0] in tokens:
                columns.add(node.output[0])
            for name in node.input:
                readers.setdefault(name, []).append(node)
        biases = {
            name: of_value[0]
            for name, of_value in readers.items()
            if len(of_value) == 1 and of_value[0].op_type == "Add" and _added_constant(of_value[0], weights) is not None
        }
        return cls(model, ranges, weights, tokens, columns, biases)

    def is_by_weights(self, node: NodeProto) -> bool:
        """Return whether a node multiplies values by weights."""
        return node.op_type == "MatMul" and node.input[1] in self.weights and self.weights[node.input[1]].ndim >= 2

    def replace(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that replace a node: the node itself unless it is one of the products."""
        if node.output[0] in self.columns:
            columns = [f"{node.output[0]}_int8"]
            return [node, helper.make_node("Transpose", [STORED_TOKENS], columns, perm=_permutation(node))]
        if node.op_type == "Gemm":
            return self._rows_alone(node)
        if self.is_by_weights(node):
            return self._by_weights(node)
        if id(node) in self.folded:
            return []
        if node.op_type != "MatMul":
            return [node]
        left, right = node.input
        if right in self.tokens:
            return self._attention_by_tokens(node, left)
        if right in self.columns:
            return self._queries_by_tokens(node, left, f"{right}_int8")
        return [node]

    def _by_weights(self, node: NodeProto) -> list[NodeProto]:
        left, right = node.input
        weight, out = self.weights[right], node.output[0]
        scale = np.abs(weight).max(axis=-2, keepdims=True) / LARGEST_WEIGHT
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        self._add(f"{right}_int8", np.rint(weight / scale).astype(np.int8))
        self._add(f"{right}_scale", (scale[0] if weight.ndim == 2 else scale).astype(np.float32))
        nodes, (values, left_scale, zero) = self._quantise(left)
        addition = self.biases.get(out)
        bias = [] if addition is None else ["", _added_constant(addition, self.weights) or ""]
        if addition is not None:
            self.folded.add(id(addition))
            out = addition.output[0]
        return [*nodes, _product([values, f"{right}_int8", left_scale, f"{right}_scale", zero, *bias], out)]

    def _rows_alone(self, node: NodeProto) -> list[NodeProto]:
        """Compute ``x W + b`` of rows [B, n] as ``W x + b`` of columns [B, n, 1]: each in a product of its own."""
        left, right, *bias = node.input
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if right not in self.weights or attributes.get("transA", 0):
            return [node]
        weight, out = self.weights[right], node.output[0]
        self._add(f"{right}_rows", weight if attributes.get("transB", 0) else weight.T)
        self._add("last_axis", np.array([-1], np.int64))
        return [
            helper.make_node("Unsqueeze", [left, "last_axis"], [f"{out}_column"]),
            helper.make_node("MatMul", [f"{right}_rows", f"{out}_column"], [f"{out}_columns"]),
            helper.make_node("Squeeze", [f"{out}_columns", "last_axis"], [f"{out}_row" if bias else out]),
            *([helper.make_node("Add", [f"{out}_row", *bias], [out])] if bias else []),
        ]

    def _queries_by_tokens(self, node: NodeProto, left: str, columns: str) -> list[NodeProto]:
        size = helper.make_node("Abs", [left], [f"{left}_size"])
        of_rows = self._by_rows(node, left, f"{left}_size", columns, largest=LARGEST_QUERY, zero=LARGEST_QUERY + 1)
        return [size, *of_rows]

    def _attention_by_tokens(self, node: NodeProto, left: str) -> list[NodeProto]:
        return self._by_rows(node, left, left, STORED_TOKENS, largest=LARGEST_ATTENTION, zero=0)

    def _by_rows(
        self, node: NodeProto, values: str, sizes: str, right: str, *, largest: int, zero: int
    ) -> list[NodeProto]:
        """Multiply int8 ``right`` by values of which each row is scaled by the largest of its sizes."""
        self._add("last_axis", np.array([-1], np.int64))
        self._add("tiny", np.array(np.finfo(np.float32).tiny, np.float32))
        self._add("one", np.array(1, np.float32))
        self._add(f"one_{largest}th", np.array(1 / largest, np.float32))
        row, out, of_largest = f"{values}_row", node.output[0], [f"one_{largest}th", self._whole(zero)]
        return [
            helper.make_node("ReduceMax", [sizes, "last_axis"], [f"{row}_most"], keepdims=1),
            # a row of zeros stays zeros
            helper.make_node("Max", [f"{row}_most", "tiny"], [f"{row}_largest"]),
            helper.make_node("Div", [values, f"{row}_largest"], [f"{row}_share"]),
            helper.make_node("QuantizeLinear", [f"{row}_share", *of_largest], [row]),
            _product([row, right, of_largest[0], "one", of_largest[1]], f"{out}_share"),
            helper.make_node("Mul", [f"{out}_share", f"{row}_largest"], [out]),
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
        # zero stays exactly zero
        low, high = min(self.ranges[name].low, 0.0), max(self.ranges[name].high, 0.0)
        scale = max((high - low) / LARGEST_STATE, float(np.finfo(np.float32).tiny))
        self._add(form[1], np.array(scale, np.float32))
        self._add(form[2], np.array(np.rint(-low / scale), np.uint8))
        return [helper.make_node("QuantizeLinear", [name, *form[1:]], [form[0]])], form

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
        opsets = [*self.model.opset_import, helper.make_opsetid(_CONTRIB, 1)]
        rebuilt = helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version)
        onnx.checker.check_model(rebuilt)
        return rebuilt


def _product(inputs: list[str], out: str) -> NodeProto:
    """Multiply (values, weights, scale, scale, zero point[, zero point, bias]) to float32."""
    return helper.make_node("MatMulIntegerToFloat", inputs, [out], domain=_CONTRIB)


def _added_constant(node: NodeProto, constants: Mapping[str, NDArray[np.float32]]) -> str | None:
    """Return the name of the vector of constants that a node adds; None where it adds something else."""
    return next((name for name in node.input if name in constants and constants[name].ndim == 1), None)


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
