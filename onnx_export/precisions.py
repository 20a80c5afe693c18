"""The re-ranker of a finished bundle once more in another arithmetic, beside the exact one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from onnx_export.errors import ExportError
from onnx_export.integer_arithmetic import with_integer_products
from qdrant_cir.bundle import Bundle, GraphVariant, ModelSizes, load_bundle, sha256_of, write_manifest
from qdrant_cir.reranker import Reranker
from qdrant_cir.sessions import open_session
from qdrant_cir.token_codec import quantize
from qdrant_cir.types import ComposedQuery, Precision, StoredTokens

CHECKED_CANDIDATES, CHECKED_LENGTH = 32, 12


@dataclass(frozen=True, slots=True)
class AddedPrecision:
    """What was added, and how far its scores are from the exact ones on random tokens.

    Attributes:
        file: the graph inside the bundle.
        deviation: root mean square of the scores' differences, as a share of the exact scores' standard deviation.
        largest: the largest difference, likewise.
    """

    file: str
    deviation: float
    largest: float


def add_precision(folder: Path, precision: Precision) -> AddedPrecision:
    """Write the re-ranker in another precision into a bundle; stored tokens and the fingerprint stay what they are.

    Args:
        folder: the bundle; its manifest gains the variant, or has it replaced.
        precision: ``int8`` or ``float16``.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: the graph cannot be brought into that precision, or gives scores that are no numbers.
    """
    convert = CONVERSIONS.get(precision)
    if convert is None:
        raise ExportError(f"A bundle is {precision} as it is exported; add one of {', '.join(CONVERSIONS)}.")
    bundle = load_bundle(folder)
    exact_graph = bundle.graph_path("reranker")
    file = f"onnx/reranker_{precision}.onnx"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".add-precision-") as scratch:
        made = Path(scratch) / Path(file).name
        converted = convert(onnx.load(str(exact_graph)))
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
        added = _compared(bundle, made, file)
        _name_variant(bundle, precision, None)  # no manifest names files while they are replaced
        for path in Path(scratch).iterdir():
            path.chmod(exact_graph.stat().st_mode)  # onnx writes weights for the owner alone
            shutil.move(path, folder / "onnx" / path.name)
    files = {name: sha256_of(folder / name) for name in (file, f"{file}.data") if (folder / name).exists()}
    _name_variant(bundle, precision, GraphVariant(file, files))
    return added


def _name_variant(bundle: Bundle, precision: Precision, variant: GraphVariant | None) -> None:
    """Write the manifest with this variant, or without it."""
    entry = bundle.manifest.graphs["reranker"]
    others = {name: found for name, found in entry.variants.items() if name != precision}
    variants = others if variant is None else {**others, precision: variant}
    graphs = {**bundle.manifest.graphs, "reranker": replace(entry, variants=variants)}
    write_manifest(bundle.folder, replace(bundle.manifest, graphs=graphs))


def _with_half_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16, for GPUs; inputs and outputs stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


CONVERSIONS: dict[Precision, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "int8": with_integer_products,
    "float16": _with_half_floats,
}


def _compared(bundle: Bundle, made: Path, file: str) -> AddedPrecision:
    query, stored = _random_triplets(bundle.manifest.sizes)
    exact, fast = (
        Reranker(open_session(graph, provider="cpu")).score(query, stored)
        for graph in (bundle.graph_path("reranker"), made)
    )
    if not np.isfinite(fast).all():
        raise ExportError(
            f"{file} was not added to {bundle.folder}: its scores are no numbers, for the model's activations do not "
            "fit this precision. Use the exact re-ranker."
        )
    differences = np.abs(fast - exact) / exact.std()
    return AddedPrecision(file, float(np.sqrt(np.mean(differences**2))), float(differences.max()))


def _random_triplets(sizes: ModelSizes) -> tuple[ComposedQuery, StoredTokens]:
    rng = np.random.default_rng(0)
    shape = (CHECKED_CANDIDATES, sizes.stored_rows, sizes.stored_dims)
    query = ComposedQuery(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=rng.integers(1, 100, CHECKED_LENGTH),
        fusion_states=rng.standard_normal((CHECKED_LENGTH, sizes.fusion_dims), dtype=np.float32),
    )
    stored = quantize(rng.standard_normal(shape, dtype=np.float32), sizes.token_codec)
    if sizes.compression is None:
        return query, stored
    weights = np.full(shape[:2], sizes.token_rows / sizes.stored_rows, dtype=np.float32)
    return query, replace(stored, weights=weights)
