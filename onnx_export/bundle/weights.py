"""Reading of a bundle's weights back into torch, so that training can start from a bundle.

The graphs hold all weights, but not by name: constants are folded, transposed, and stored once where they are equal.
The order of the layers is kept. So the model is built without weights, each traced module is run on empty tensors to
record the order in which it calls its layers, and the n-th layer takes the weights of the n-th such node. Three things
are changed in the graphs and come back in an equivalent form:

* batch normalisation, folded into its convolution, becomes the convolution's offset alone;
* the re-ranker's key and value projections, absorbed by ``onnx_export/graphs.py``, are separated again;
* its key biases, which cancel in the softmax, become zero.

The model is compared with the bundle before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from onnx_export.bundle.graph_layers import GraphLayer, ReadGraph, read_graph
from onnx_export.errors import CheckpointError, VerificationError
from onnx_export.export import preprocessing_of
from onnx_export.graphs import graph_modules
from onnx_export.model_folder import ModelFolder, load_model_folder
from onnx_export.models import CirModel, ModelSizes
from onnx_export.models.triplet_reranker import TripletLayer
from onnx_export.models.vit import VisionTransformer
from onnx_export.verify import verify_bundle
from qdrant_cir.model.bundle import (
    MANIFEST_FILE,
    PACKAGED_BUNDLES,
    SIZES_KEY,
    Bundle,
    GraphName,
    contract_tensors,
    load_bundle,
)
from qdrant_cir.types import JsonObject

VERIFIED_CANDIDATES = (2,)
_LAYERS = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Embedding, nn.BatchNorm2d)


def load_start(start: Path | None) -> ModelFolder:
    """Read the model that training starts from.

    Args:
        start: a model folder, a bundle, or the name of a packaged one; None for the packaged default.

    Raises:
        CheckpointError: the folder is neither, or cannot be read back into torch.
        BundleError: the bundle is damaged.
    """
    if start is None or str(start) in PACKAGED_BUNDLES or (start / MANIFEST_FILE).exists():
        return read_bundle_model(load_bundle(start))
    return load_model_folder(start)


def read_bundle_model(bundle: Bundle) -> ModelFolder:
    """Read a bundle's model back into torch. Exported again, it computes the same scores.

    Raises:
        CheckpointError: the graphs are not as ``python -m onnx_export export`` writes them (another tool, quantised
            weights, another preprocessing), or the model that was read does not compute what the bundle computes.
    """
    if bundle.manifest.compression is not None:
        raise CheckpointError(
            f"{_refusal(bundle.folder)}: its tokens are compressed. Give the bundle that it was fitted from."
        )
    sizes = _sizes_of(bundle)
    with torch.device("meta"):
        model = CirModel(sizes).eval()
        second = VisionTransformer(sizes).eval() if bundle.has_candidate_encoder else None
        modules = cast("dict[GraphName, nn.Module]", graph_modules(model))
    if second is not None:
        modules["candidate_encoder"] = second
    # before any weight is set, because graphs may share layers
    orders = {name: _call_order(name, module, bundle) for name, module in modules.items()}
    for name, module in modules.items():
        graph = read_graph(bundle.graph_path(name))
        taken = _fill(module, orders[name], graph)
        if name == "reranker":
            _take_apart(model, graph, taken)
    provenance: JsonObject = {
        "source": f"the bundle {bundle.manifest.name}",
        "fingerprint": bundle.fingerprint,
        "licence": bundle.manifest.licence,
        "made_of": {name: value for name, value in bundle.manifest.provenance.items() if name != "quality"},
    }
    folder = ModelFolder(model, Tokenizer.from_file(str(bundle.tokenizer_path)), provenance, second)
    try:
        verify_bundle(bundle, folder, candidates=VERIFIED_CANDIDATES)
    except VerificationError as error:
        raise CheckpointError(f"{_refusal(bundle.folder)}: the model that was read differs from it. {error}") from error
    return folder


def _refusal(path: Path) -> str:
    return (
        f"{path} cannot be read back into torch; that takes a bundle with float32 graphs, as `python -m onnx_export "
        "export` writes it. Give such a bundle, or a model folder"
    )


def _sizes_of(bundle: Bundle) -> ModelSizes:
    """Return the sizes that the exporter wrote down; refuse a bundle that prepares pictures otherwise than training."""
    manifest = bundle.manifest
    try:
        sizes = ModelSizes(**cast("dict[str, int]", manifest.provenance[SIZES_KEY]))  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{_refusal(bundle.folder)}: its manifest lacks the model's sizes.") from error
    expected = preprocessing_of(sizes)
    if replace(manifest.preprocessing, version=expected.version) != expected:
        raise CheckpointError(f"{_refusal(bundle.folder)}: it preprocesses pictures differently from training.")
    return sizes


def _call_order(name: GraphName, module: nn.Module, bundle: Bundle) -> list[nn.Module]:
    """Run a module on meta tensors and return its layers in the order in which it calls them."""
    called: list[nn.Module] = []
    layers = [layer for layer in module.modules() if isinstance(layer, _LAYERS)]
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.append(layer)) for layer in layers]
    inputs = {
        spec.name: torch.empty(
            [axis if isinstance(axis, int) else 2 for axis in spec.shape],
            dtype=getattr(torch, spec.dtype),
            device="meta",
        )
        for spec in contract_tensors(name, bundle.manifest.sizes).inputs
    }
    with torch.no_grad():
        module(**inputs)
    for hook in hooks:
        hook.remove()
    return called


def _fill(module: nn.Module, called: list[nn.Module], graph: ReadGraph) -> dict[nn.Module, GraphLayer]:
    """Fill a module with a graph's weights and return the graph's layer of each module layer."""
    taken: dict[nn.Module, GraphLayer] = {}
    nodes = iter(graph.layers)
    node: GraphLayer | None = None
    for layer in called:
        if isinstance(layer, nn.BatchNorm2d):
            _become_offset(layer, node, graph)
            continue
        node = next(nodes, None)
        if node is None or node.kind != type(layer).__name__:
            raise CheckpointError(
                f"{_refusal(graph.path)}: where the model has a {type(layer).__name__}, the graph has "
                f"{'nothing more' if node is None else f'a {node.kind}'}."
            )
        _set(layer, "weight", node.weight, graph.path)
        if getattr(layer, "bias", None) is not None:
            bias = torch.zeros(len(node.weight)) if node.bias is None else node.bias
            _set(layer, "bias", bias, graph.path)
        taken[layer] = node
    if next(nodes, None) is not None:
        raise CheckpointError(f"{_refusal(graph.path)}: the graph has more layers than the model.")
    for path, parameter in list(module.named_parameters()):
        if parameter.is_meta:
            owner, _, name = path.rpartition(".")
            _set(module.get_submodule(owner), name, _constant(graph, path), graph.path)
    return taken


def _become_offset(layer: nn.BatchNorm2d, convolution: GraphLayer | None, graph: ReadGraph) -> None:
    """Make a batch normalisation add only the offset of the convolution that it was folded into."""
    offset = None if convolution is None else convolution.bias
    ones = torch.ones(layer.num_features)
    _set(layer, "weight", ones, graph.path)
    _set(layer, "bias", torch.zeros_like(ones) if offset is None else offset, graph.path)
    layer.running_mean, layer.running_var = torch.zeros_like(ones), ones - layer.eps
    layer.num_batches_tracked = torch.tensor(0)


def _take_apart(model: CirModel, graph: ReadGraph, taken: Mapping[nn.Module, GraphLayer]) -> None:
    """Fill the re-ranker's cross-attention with the projections that its graph absorbed."""
    for place, layer in enumerate(model.reranker.text_encoder.encoder.layer):
        cross = cast(TripletLayer, layer).crossattention
        keys, values = (_constant(graph, f"layers.{place}.cross.{name}") for name in ("keys", "values"))
        streams = ((cross.self0, cross.output.dense0), (cross.self1, cross.output.dense1))
        for own_keys, own_values, (projections, dense) in zip(keys.chunk(2), values.chunk(2), streams, strict=True):
            key = (own_keys * own_keys.shape[1] ** 0.5).flatten(0, 1)
            value = own_values.transpose(1, 2).flatten(0, 1)
            nothing = torch.zeros(len(key))
            bias = taken[dense].added_before
            for linear, weight, offset in ((projections.key, key, nothing), (projections.value, value, bias)):
                _set(linear, "weight", weight, graph.path)
                _set(linear, "bias", nothing if offset is None else offset, graph.path)


def _constant(graph: ReadGraph, name: str) -> Tensor:
    if name not in graph.constants:
        raise CheckpointError(f"{_refusal(graph.path)}: the graph has no {name}.")
    return graph.constants[name]


def _set(layer: nn.Module, name: str, value: Tensor, source: Path) -> None:
    before = getattr(layer, name)
    expected = before.shape
    if expected != value.shape or value.dtype != torch.float32:
        raise CheckpointError(
            f"{_refusal(source)}: a {name} of a {type(layer).__name__} is {value.dtype} {list(value.shape)}, expected "
            f"{torch.float32} {list(expected)}."
        )
    # copied, because graphs store equal constants once and training must be able to change each
    own = value.clone(memory_format=torch.contiguous_format)
    setattr(layer, name, nn.Parameter(own, requires_grad=before.requires_grad))
