"""Variants of a bundle's graphs in other precisions, beside the exact ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from onnx_export.bundle.calibration import Inputs, calibration_pictures, graph_inputs, value_ranges
from onnx_export.bundle.integer_arithmetic import scaled_activations, with_integer_products
from onnx_export.errors import ExportError
from qdrant_cir.model.bundle import Bundle, GraphName, GraphVariant, load_bundle, sha256_of, write_manifest
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import open_session
from qdrant_cir.search.demands import processor_ratio
from qdrant_cir.types import Precision

_CHECKED = 4
"""Every so many-th input is kept to compare the outputs on, and does not calibrate."""
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class AddedPrecision:
    """A variant that was added, and how far its outputs are from the exact graph's.

    Compared are a re-ranker's scores or an image encoder's tokens, on pictures that did not calibrate.

    Attributes:
        file: the graph inside the bundle.
        deviation: root mean square of the differences, as a share of the exact outputs' standard deviation within a
            query or picture.
        largest: the largest difference, as the same share.
        speed: how many times as fast as the exact graph on this machine, by the processor time of one thread.
    """

    file: str
    deviation: float
    largest: float
    speed: float


def add_precision(
    folder: Path, precision: Precision, graph: GraphName = "reranker", *, pictures: Path | None = None
) -> AddedPrecision:
    """Add a graph in another precision to a bundle. Stored tokens and the fingerprint do not change.

    Args:
        folder: the bundle; a variant of the same precision is replaced.
        precision: ``int8`` or ``float16``.
        graph: ``reranker``, or an image encoder: ``image_encoder``, or ``candidate_encoder`` where there is one.
        pictures: a folder or manifest of pictures like the gallery's, to calibrate int8 on and to compare on; None for
            drawn products.

    Raises:
        BundleError: the bundle cannot be read.
        InputError: there are no pictures.
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
        inputs = graph_inputs(bundle, graph, calibration_pictures(pictures))
        calibrating = [each for place, each in enumerate(inputs) if place % _CHECKED]
        converted = convert(onnx.load(str(exact_graph)), calibrating)
        onnx.save_model(converted, str(made), save_as_external_data=True, location=f"{made.name}.data")
        added = _compared(bundle, graph, made, file, inputs[::_CHECKED])
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


def with_calibrated_integers(model: onnx.ModelProto, inputs: Sequence[Inputs]) -> onnx.ModelProto:
    """Return the graph with integer products, for CPUs, scaled by the values that it computes on some inputs."""
    return with_integer_products(model, value_ranges(model, scaled_activations(model), inputs))


def _with_half_floats(model: onnx.ModelProto, inputs: Sequence[Inputs]) -> onnx.ModelProto:
    """Return the graph with weights and arithmetic in float16, for GPUs; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


Conversion = Callable[[onnx.ModelProto, Sequence[Inputs]], onnx.ModelProto]
"""From a float32 graph, weights loaded, and inputs like those that it will see."""

CONVERSIONS: dict[Precision, Conversion] = {
    "int8": with_calibrated_integers,
    "float16": _with_half_floats,
}


def _compared(bundle: Bundle, graph: GraphName, made: Path, file: str, inputs: Sequence[Inputs]) -> AddedPrecision:
    exact, fast = (open_session(path, Compute("cpu", 1)) for path in (bundle.graph_path(graph), made))
    output = "scores" if graph == "reranker" else "tokens"
    wanted, found = ([session.run(each)[output] for each in inputs] for session in (exact, fast))
    if not all(np.isfinite(each).all() for each in found):
        raise ExportError(
            f"{file} was not added to {bundle.folder}: its outputs are not finite: the model's activations do not fit "
            f"this precision. Use the exact {graph}."
        )
    spread = np.sqrt(np.mean([each.var() for each in wanted]))
    differences = np.abs(np.concatenate(found) - np.concatenate(wanted)) / spread
    deviation, largest = float(np.sqrt(np.mean(differences**2))), float(differences.max())
    speed = median(
        processor_ratio(partial(exact.run, each), partial(fast.run, each), rounds=_ROUNDS) for each in inputs
    )
    return AddedPrecision(file, deviation, largest, speed)
