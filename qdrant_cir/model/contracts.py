"""Inputs and outputs of a bundle's graphs. The runtime defines these contracts; the exporter follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

__all__ = [
    "GRAPH_CONTRACTS",
    "REQUIRED_GRAPHS",
    "CompressionSizes",
    "GraphContract",
    "GraphName",
    "ModelSizes",
    "TensorSpec",
    "TokenCodec",
    "contract_tensors",
]

GraphName: TypeAlias = Literal["image_encoder", "composer", "reranker", "candidate_encoder"]
"""A bundle has ``candidate_encoder`` only if stage two was trained with another image encoder than stage one:
it encodes candidates for stage two. Otherwise ``image_encoder`` serves both."""

REQUIRED_GRAPHS: tuple[GraphName, ...] = ("image_encoder", "composer", "reranker")
"""The graphs that every bundle holds."""

TokenCodec: TypeAlias = Literal["int8", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of its element type.
        shape: numbers are fixed axes, words are dynamic ones.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphContract:
    """Inputs and outputs of a graph.

    In :data:`GRAPH_CONTRACTS` upper-case axes and the dtype ``codec`` stand for the model's sizes.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_IDS = TensorSpec("input_ids", "int64", ("batch", "length"))
_MASK = TensorSpec("attention_mask", "int64", ("batch", "length"))

GRAPH_CONTRACTS: Mapping[GraphName, GraphContract] = MappingProxyType(
    {
        "image_encoder": GraphContract(
            inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, "S", "S")),),
            outputs=(
                TensorSpec("tokens", "float32", ("batch", "N", "C")),
                TensorSpec("vectors", "float32", ("batch", "D")),
            ),
        ),
        "composer": GraphContract(
            inputs=(_IDS, _MASK, TensorSpec("reference_tokens", "float32", ("batch", "N", "C"))),
            outputs=(
                TensorSpec("query_vectors", "float32", ("batch", "D")),
                TensorSpec("fusion_states", "float32", ("batch", "length", "H")),
            ),
        ),
        "reranker": GraphContract(
            inputs=(
                TensorSpec("input_ids", "int64", (1, "length")),
                TensorSpec("fusion_states", "float32", (1, "length", "H")),
                TensorSpec("candidate_tokens", "codec", ("candidates", "M", "R")),
                TensorSpec("candidate_scales", "float32", ("candidates", "M")),
            ),
            outputs=(TensorSpec("scores", "float32", ("candidates",)),),
        ),
        "candidate_encoder": GraphContract(
            inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, "S", "S")),),
            outputs=(TensorSpec("tokens", "float32", ("batch", "N", "C")),),
        ),
    }
)
"""Names, element types and axes of the graphs. Lower-case axes are dynamic."""

_CANDIDATE_WEIGHTS = TensorSpec("candidate_weights", "float32", ("candidates", "M"))
"""The re-ranker's last input where tokens are compressed, and of its weighted form: how many tokens a row stands for,
0 for none."""


@dataclass(frozen=True, slots=True)
class CompressionSizes:
    """The compressed form of one image's tokens.

    Attributes:
        rows: M, rows that are stored, the class token included.
        dims: R, dimensions of one row.
        version: which fitting of the projection, from 1 to 65535; stored tokens carry it.
    """

    rows: int
    dims: int
    version: int


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The numbers that all graphs share.

    Attributes:
        image_size: S, side of the square input in pixels.
        token_rows: N, tokens per image, the class token included.
        token_dims: C, dimensions of one image token.
        vector_size: D, dimensions of the vectors that Qdrant searches.
        fusion_dims: H, dimensions of one fusion state.
        token_codec: the form in which candidate tokens are stored and read by the re-ranker.
        compression: the rows and dimensions that are stored where tokens are compressed; None where all are stored.
    """

    image_size: int
    token_rows: int
    token_dims: int
    vector_size: int
    fusion_dims: int
    token_codec: TokenCodec
    compression: CompressionSizes | None = None

    @property
    def stored_rows(self) -> int:
        """M, rows that are stored of an image."""
        return self.token_rows if self.compression is None else self.compression.rows

    @property
    def stored_dims(self) -> int:
        """R, dimensions of a stored row."""
        return self.token_dims if self.compression is None else self.compression.dims


def contract_tensors(name: GraphName, sizes: ModelSizes, *, weighted: bool = False) -> GraphContract:
    """Fill in a graph's contract with a model's sizes; words that remain in shapes are dynamic axes.

    ``weighted`` is the re-ranker's form that takes weights whether tokens are compressed or not.
    """
    axes = {
        "S": sizes.image_size,
        "N": sizes.token_rows,
        "C": sizes.token_dims,
        "M": sizes.stored_rows,
        "R": sizes.stored_dims,
        "D": sizes.vector_size,
        "H": sizes.fusion_dims,
    }

    def fill(tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                tensor.name,
                sizes.token_codec if tensor.dtype == "codec" else tensor.dtype,
                tuple(axes.get(axis, axis) if isinstance(axis, str) else axis for axis in tensor.shape),
            )
            for tensor in tensors
        )

    contract = GRAPH_CONTRACTS[name]
    has_weights = name == "reranker" and (weighted or sizes.compression is not None)
    weights = (_CANDIDATE_WEIGHTS,) if has_weights else ()
    return GraphContract(inputs=fill((*contract.inputs, *weights)), outputs=fill(contract.outputs))
