"""The re-ranker of a finished bundle once more in another arithmetic, beside the exact one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from onnx_export.errors import ExportError
from onnx_export.integer_arithmetic import with_integer_products
from qdrant_cir.bundle import Bundle, GraphVariant, load_bundle, sha256_of, write_manifest
from qdrant_cir.reranker import Reranker
from qdrant_cir.token_codec import quantize
from qdrant_cir.types import ComposedQuery, Float32, Precision

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
    file = f"onnx/reranker_{precision}.onnx"
    converted = convert(onnx.load(str(bundle.graph_path("reranker"))))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".add-precision-") as scratch:
        made = Path(scratch) / Path(file).name
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
        for path in Path(scratch).iterdir():
            path.chmod(bundle.graph_path("reranker").stat().st_mode)  # onnx writes weights for the owner alone
            shutil.move(path, folder / "onnx" / path.name)
    files = {name: sha256_of(folder / name) for name in (file, f"{file}.data") if (folder / name).exists()}
    entry = bundle.manifest.graphs["reranker"]
    variants = {**entry.variants, precision: GraphVariant(file, files)}
    graphs = {**bundle.manifest.graphs, "reranker": replace(entry, variants=variants)}
    write_manifest(folder, replace(bundle.manifest, graphs=graphs))
    return _compared(load_bundle(folder), precision, file)


def _with_half_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16, for GPUs; inputs and outputs stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


CONVERSIONS: Mapping[Precision, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "int8": with_integer_products,
    "float16": _with_half_floats,
}


def _compared(bundle: Bundle, precision: Precision, file: str) -> AddedPrecision:
    exact, fast = (_scores(bundle, which) for which in ("float32", precision))
    if not np.isfinite(fast).all():
        raise ExportError(
            f"The {precision} re-ranker of {bundle.folder} gives scores that are no numbers; its activations do not "
            "fit. Do not use it: export the bundle again."
        )
    differences = np.abs(fast - exact) / exact.std()
    return AddedPrecision(file, float(np.sqrt(np.mean(differences**2))), float(differences.max()))


def _scores(bundle: Bundle, precision: Precision) -> Float32:
    sizes, rng = bundle.manifest.sizes, np.random.default_rng(0)
    shape = (CHECKED_CANDIDATES, sizes.token_rows, sizes.token_dims)
    query = ComposedQuery(
        vector=np.zeros(sizes.vector_size, dtype=np.float32),
        input_ids=rng.integers(1, 100, CHECKED_LENGTH),
        fusion_states=rng.standard_normal((CHECKED_LENGTH, sizes.fusion_dims), dtype=np.float32),
    )
    stored = quantize(rng.standard_normal(shape, dtype=np.float32), sizes.token_codec)
    return Reranker.open(bundle, provider="cpu", precision=precision).score(query, stored)
