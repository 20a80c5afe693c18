"""Variants of a bundle's graphs in other precisions, beside the exact ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from tokenizers import Tokenizer

from onnx_export.bundle.integer_arithmetic import with_integer_products
from onnx_export.errors import ExportError
from qdrant_cir.drawn.dataset import draw_item, sample_drawn
from qdrant_cir.model.bundle import Bundle, GraphName, GraphVariant, load_bundle, sha256_of, write_manifest
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.preprocess import preprocess
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import open_session
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, Float32, Precision, StoredTokens

CHECKED_CANDIDATES, CHECKED_LENGTH, CHECKED_PICTURES = 32, 12, 12


@dataclass(frozen=True, slots=True)
class AddedPrecision:
    """A variant that was added, and how far its outputs are from the exact graph's.

    Compared are a re-ranker's scores of random tokens, or an image encoder's tokens of a few drawn products.

    Attributes:
        file: the graph inside the bundle.
        deviation: root mean square of the differences, as a share of the exact outputs' standard deviation.
        largest: the largest difference, as the same share.
    """

    file: str
    deviation: float
    largest: float


def add_precision(folder: Path, precision: Precision, graph: GraphName = "reranker") -> AddedPrecision:
    """Add a graph in another precision to a bundle. Stored tokens and the fingerprint do not change.

    Args:
        folder: the bundle; a variant of the same precision is replaced.
        precision: ``int8`` or ``float16``.
        graph: ``reranker``, or an image encoder: ``image_encoder``, or ``candidate_encoder`` where there is one.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: the graph cannot be converted, or its outputs are not finite.
    """
    convert = CONVERSIONS.get(precision)
    if convert is None:
        raise ExportError(f"A bundle is exported in {precision} already; add one of {', '.join(CONVERSIONS)}.")
    bundle = load_bundle(folder)
    if graph not in bundle.manifest.graphs or graph == "composer":
        others = ", ".join(name for name in bundle.manifest.graphs if name != "composer")
        raise ExportError(f"{folder} has no {graph} to add a precision of; give one of {others}.")
    exact_graph = bundle.graph_path(graph)
    file = f"onnx/{graph}_{precision}.onnx"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".add-precision-") as scratch:
        made = Path(scratch) / Path(file).name
        converted = convert(onnx.load(str(exact_graph)))
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
        added = _compared(bundle, graph, made, file)
        _name_variant(bundle, graph, precision, None)  # the manifest must not name files while they are replaced
        for path in Path(scratch).iterdir():
            path.chmod(exact_graph.stat().st_mode)  # onnx makes weights readable by their owner alone
            shutil.move(path, folder / "onnx" / path.name)
    files = {name: sha256_of(folder / name) for name in (file, f"{file}.data") if (folder / name).exists()}
    _name_variant(bundle, graph, precision, GraphVariant(file, files))
    return added


def _name_variant(bundle: Bundle, graph: GraphName, precision: Precision, variant: GraphVariant | None) -> None:
    """Write the manifest with this variant, or without it."""
    entry = bundle.manifest.graphs[graph]
    others = {name: found for name, found in entry.variants.items() if name != precision}
    variants = others if variant is None else {**others, precision: variant}
    graphs = {**bundle.manifest.graphs, graph: replace(entry, variants=variants)}
    write_manifest(bundle.folder, replace(bundle.manifest, graphs=graphs))


def _with_half_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with weights and arithmetic in float16, for GPUs; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


CONVERSIONS: dict[Precision, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "int8": with_integer_products,
    "float16": _with_half_floats,
}


def _compared(bundle: Bundle, graph: GraphName, made: Path, file: str) -> AddedPrecision:
    exact, fast = (open_session(path, Compute("cpu")) for path in (bundle.graph_path(graph), made))
    if graph == "reranker":
        query, stored = random_triplets(bundle)
        found = [Reranker(session).score(query, stored) for session in (exact, fast)]
    else:
        pixels = {"pixel_values": _drawn_pixels(bundle)}
        found = [session.run(pixels)["tokens"] for session in (exact, fast)]
    if not np.isfinite(found[1]).all():
        raise ExportError(
            f"{file} was not added to {bundle.folder}: its outputs are not finite: the model's activations do not fit "
            f"this precision. Use the exact {graph}."
        )
    differences = np.abs(found[1] - found[0]) / found[0].std()
    return AddedPrecision(file, float(np.sqrt(np.mean(differences**2))), float(differences.max()))


def _drawn_pixels(bundle: Bundle) -> Float32:
    """Return some drawn products, preprocessed: float32 [B, 3, S, S]."""
    catalog = sample_drawn(0, products=4 * CHECKED_PICTURES, queries=1)
    pictures = [draw_item(catalog, number).image for number in range(CHECKED_PICTURES)]
    return np.stack([preprocess(picture, bundle.manifest.preprocessing) for picture in pictures])


def random_triplets(bundle: Bundle) -> tuple[Composition, StoredTokens]:
    """Return a query and candidates of random numbers, to compare two forms of a re-ranker with."""
    rng, sizes = np.random.default_rng(0), bundle.manifest.sizes
    words = Tokenizer.from_file(str(bundle.tokenizer_path)).get_vocab_size()
    shape = (CHECKED_CANDIDATES, sizes.stored_rows, sizes.stored_dims)
    query = Composition(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=rng.integers(1, min(100, words), CHECKED_LENGTH),
        fusion_states=rng.standard_normal((CHECKED_LENGTH, sizes.fusion_dims), dtype=np.float32),
    )
    stored = quantize(rng.standard_normal(shape, dtype=np.float32), sizes.token_codec)
    if sizes.compression is None:
        return query, stored
    weights = np.full(shape[:2], sizes.token_rows / sizes.stored_rows, dtype=np.float32)
    return query, replace(stored, weights=weights)
