"""The re-ranker with a weight for every token of a candidate, beside the one that searches use.

``candidate_weights`` says how many tokens a row stands for: its logarithm is added to the row's attention scores, so
that weight 0 removes the row exactly (a scale of 0 would leave it its share of the softmax). Explanations need it. The
graph shares the exact re-ranker's weights, and so costs no more than its nodes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from onnx_export.errors import ExportError
from qdrant_cir.model.bundle import Bundle, GraphVariant, load_bundle, sha256_of, write_manifest
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import open_session
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, Float32, StoredTokens

_CHECKED_CANDIDATES, _CHECKED_LENGTH = 32, 12
_INPUT, _LOGARITHMS, _AXIS = "candidate_weights", "candidate_log_weights", "candidate_weights_axis"
_TOLERANCE = 1e-5
"""Of scores, as a share of their standard deviation: rounding, where the runtime fuses the two graphs otherwise."""
_ROUNDING = 1e-6
"""Of scores, as a share of the largest."""


@dataclass(frozen=True, slots=True)
class AddedWeights:
    """A weighted re-ranker that was added, and how far its scores are from the exact one's, in the scores' own unit.

    Attributes:
        file: the graph inside the bundle.
        ones: the largest difference with all weights 1, to the exact graph.
        removed: the largest difference with some weights 0, to the exact graph on the other rows alone.
    """

    file: str
    ones: float
    removed: float


def add_weighted(folder: Path) -> AddedWeights:
    """Add the weighted re-ranker to a bundle. Stored tokens, scores and the fingerprint do not change.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: the bundle compresses tokens, whose re-ranker has weights already, or the graph is not one that
            :func:`onnx_export.export.export_graph` wrote.
    """
    bundle = load_bundle(folder)
    if bundle.manifest.compression is not None:
        raise ExportError(f"{folder} stores compressed tokens: its re-ranker takes weights already.")
    exact = bundle.graph_path("reranker")
    entry = bundle.manifest.graphs["reranker"]
    file = f"{entry.file.removesuffix('.onnx')}_weighted.onnx"
    model = with_weights(onnx.load(str(exact), load_external_data=False))
    # beside the graph whose weights it shares
    with tempfile.NamedTemporaryFile(dir=exact.parent, suffix=".onnx", delete=False) as made:
        path = Path(made.name)
    try:
        onnx.save_model(model, str(path))
        added = _compared(bundle, path, file)
        path.chmod(exact.stat().st_mode)
        path.replace(folder / file)
    finally:
        path.unlink(missing_ok=True)
    shared = {name: digest for name, digest in entry.files.items() if name != entry.file}
    weighted = GraphVariant(file, {file: sha256_of(folder / file), **shared})
    graphs = {**bundle.manifest.graphs, "reranker": replace(entry, weighted=weighted)}
    write_manifest(folder, replace(bundle.manifest, graphs=graphs))
    return added


def with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a re-ranker's graph with weights: every softmax over candidate tokens adds their logarithms.

    Raises:
        ExportError: there is no such softmax.
    """
    graph = model.graph
    given = next((each for each in graph.input if each.name == "candidate_scales"), None)
    # where scales [K, N] become [K, 1, N], and where they multiply the attention scores
    rows = {
        node.output[0] for node in graph.node if node.op_type == "Unsqueeze" and node.input[0] == "candidate_scales"
    }
    scaled = {node.output[0] for node in graph.node if node.op_type == "Mul" and rows & set(node.input)}
    nodes = [
        helper.make_node("Log", [_INPUT], [f"{_INPUT}_log"], name=f"{_INPUT}_log"),
        helper.make_node("Unsqueeze", [f"{_INPUT}_log", _AXIS], [_LOGARITHMS], name=_LOGARITHMS),
    ]
    count = len(nodes)
    for node in graph.node:
        kept = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Softmax" and node.input[0] in scaled:
            kept.input[0] = f"{node.input[0]}_weighted"
            nodes.append(helper.make_node("Add", [node.input[0], _LOGARITHMS], [kept.input[0]], name=kept.input[0]))
            count += 1
        nodes.append(kept)
    if given is None or count == 2:
        raise ExportError("The re-ranker's graph has no softmax over candidate tokens. Export the bundle again.")
    weights = graph.input.add()
    weights.CopyFrom(given)
    weights.name = _INPUT
    graph.initializer.append(helper.make_tensor(_AXIS, TensorProto.INT64, [1], [1]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _compared(bundle: Bundle, made: Path, file: str) -> AddedWeights:
    """Compare the graph with the exact one: with all weights 1, and with every third row removed."""
    query, stored = random_triplets(bundle)
    rows = np.arange(stored.values.shape[1])
    kept = rows[rows % 3 != 1]  # the class token, row 0, is always there
    ones = np.ones(stored.scales.shape, dtype=np.float32)
    zeros = ones.copy()
    zeros[:, rows % 3 == 1] = 0
    weighted = Reranker(open_session(made, Compute("cpu")))
    exact = Reranker(open_session(bundle.graph_path("reranker"), Compute("cpu"))).score(query, stored)
    fewer = _score_fewer(bundle, query, StoredTokens(stored.values[:, kept], stored.scales[:, kept]))
    differences = [
        float(np.abs(weighted.score(query, replace(stored, weights=weights)) - scores).max())
        for weights, scores in ((ones, exact), (zeros, fewer))
    ]
    # scores that hardly differ, as of a model that was trained for two steps, are compared up to float32's rounding of
    # the states that they are summed from, which are about 1
    allowed = max(_TOLERANCE * float(exact.std()), _ROUNDING * max(1.0, float(np.abs(exact).max())))
    if not max(differences) <= allowed:
        raise ExportError(
            f"{file} was not added to {bundle.folder}: its scores differ from the exact ones by {max(differences):.1e}."
        )
    return AddedWeights(file, *differences)


def _score_fewer(bundle: Bundle, query: Composition, stored: StoredTokens) -> Float32:
    """Score candidates of fewer rows than the exact graph declares."""
    path = bundle.graph_path("reranker")
    model = onnx.load(str(path), load_external_data=False)
    for each in model.graph.input:
        if each.name.startswith("candidate_"):
            each.type.tensor_type.shape.dim[1].dim_param = "rows"
    del model.graph.value_info[:]
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".onnx") as fewer:
        fewer.write(model.SerializeToString())
        fewer.flush()
        return Reranker(open_session(Path(fewer.name), Compute("cpu"))).score(query, stored)


def random_triplets(bundle: Bundle) -> tuple[Composition, StoredTokens]:
    """Return a query and candidates of random numbers, to compare two forms of a re-ranker with."""
    rng, sizes = np.random.default_rng(0), bundle.manifest.sizes
    words = Tokenizer.from_file(str(bundle.tokenizer_path)).get_vocab_size()
    shape = (_CHECKED_CANDIDATES, sizes.token_rows, sizes.token_dims)
    query = Composition(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=rng.integers(1, min(100, words), _CHECKED_LENGTH),
        fusion_states=rng.standard_normal((_CHECKED_LENGTH, sizes.fusion_dims), dtype=np.float32),
    )
    return query, quantize(rng.standard_normal(shape, dtype=np.float32), sizes.token_codec)
