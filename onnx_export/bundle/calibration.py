"""Inputs like those that a graph will see, and the ranges that its values take on them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_export.bundle.integer_arithmetic import LARGEST_STATE, ValueRange
from onnx_export.errors import ExportError
from qdrant_cir.drawn.dataset import draw_item, sample_drawn
from qdrant_cir.errors import ImageError
from qdrant_cir.indexing.sources import ImageRecord, sample_images
from qdrant_cir.model.bundle import Bundle, GraphName
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.model.sessions import open_session
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Composition, Float32, ImageSource, StoredTokens

PICTURES = 32
"""Pictures that are looked at; every other one is also a reference, with a text."""

LEAST_PICTURES = 8

Inputs = Mapping[str, NDArray[np.generic]]

_CANDIDATES = 8
_SHARES = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76, 0.73, 0.7)
"""Of the range from the least to the largest value; the best one is taken."""

_BINS = 4096
_SEED = 0


def calibration_pictures(gallery: Path | None) -> list[ImageSource]:
    """Return some pictures of a folder or manifest, spread over it; without one, drawn products.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if gallery is None:
        catalog = sample_drawn(_SEED, products=4 * PICTURES, queries=1)
        return [draw_item(catalog, number).image for number in range(PICTURES)]
    return [record.image for record in sample_images(gallery, PICTURES) if isinstance(record, ImageRecord)]


def _pixels(bundle: Bundle, pictures: Sequence[ImageSource]) -> list[Float32]:
    """Read pictures as float32 [1, 3, S, S] each, without those that cannot be read."""
    found = []
    for picture in pictures:
        with suppress(ImageError):
            found.append(read_pixels(picture, bundle.manifest.preprocessing)[None])
    if len(found) < LEAST_PICTURES:
        raise ExportError(f"{len(found)} pictures could be read; give a folder with at least {LEAST_PICTURES}.")
    return found


def _triplets(bundle: Bundle, pictures: Sequence[ImageSource]) -> list[tuple[Composition, StoredTokens]]:
    """Compose every other picture with the text of a drawn query, each with the next pictures as candidates."""
    encoder, form = ImageEncoder.open(bundle, Compute("cpu")), TokenForm(bundle)
    encoded = [encoder.encode(pixels) for pixels in _pixels(bundle, pictures)]
    catalog = sample_drawn(_SEED, products=4 * PICTURES, queries=PICTURES // 2)
    texts = [query.modification_text for query in catalog.queries]
    stored = [form.encode(each.candidate_tokens[0]) for each in encoded]
    composer, found = Composer.open(bundle, Compute("cpu")), []
    for place, text in zip(range(0, len(encoded), 2), texts, strict=False):
        (query,) = composer.compose(encoded[place].tokens, [text])
        chosen = [stored[(place + step) % len(stored)] for step in range(_CANDIDATES)]
        found.append((query, form.decode(chosen)))
    return found


def reranker_inputs(query: Composition, candidates: StoredTokens) -> Inputs:
    """Return the re-ranker's inputs for one query and its candidates."""
    inputs: dict[str, NDArray[np.generic]] = {
        "input_ids": query.input_ids[None],
        "fusion_states": query.fusion_states[None],
        "candidate_tokens": candidates.values,
        "candidate_scales": candidates.scales,
    }
    return inputs if candidates.weights is None else {**inputs, "candidate_weights": candidates.weights}


def graph_inputs(bundle: Bundle, graph: GraphName, pictures: Sequence[ImageSource]) -> list[Inputs]:
    """Return inputs of the re-ranker or of an image encoder of a bundle, a query or a picture each.

    Raises:
        ExportError: too few of the pictures can be read.
    """
    if graph == "reranker":
        return [reranker_inputs(*triplet) for triplet in _triplets(bundle, pictures)]
    return [{"pixel_values": pixels} for pixels in _pixels(bundle, pictures)]


def value_ranges(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Inputs]) -> dict[str, ValueRange]:
    """Run a graph, external weights loaded, and return the best range for each of some of its values.

    It is the one with the least square error of numbers that are rounded to its 256 steps and cut off outside: a rare
    large number may cost less than the coarser steps that would hold it.
    """
    measured = onnx.ModelProto()
    measured.CopyFrom(model)
    del measured.graph.output[:]
    measured.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "measured.onnx"
        onnx.save_model(measured, str(path), save_as_external_data=True, location="measured.data")
        session = open_session(path, Compute("cpu"))
        ends: dict[str, list[ValueRange]] = {name: [] for name in names}
        for each in inputs:
            for name, values in session.run(each).items():
                ends[name].append(ValueRange(float(values.min()), float(values.max())))
        widest = {
            name: ValueRange(min(0.0, *(end.low for end in of)), max(0.0, *(end.high for end in of)))
            for name, of in ends.items()
        }
        errors = {name: np.zeros(len(_SHARES)) for name in names}
        for each in inputs:
            for name, values in session.run(each).items():
                errors[name] += _rounding_errors(values, widest[name])
    shares = {name: _SHARES[int(np.argmin(of_shares))] for name, of_shares in errors.items()}
    return {name: ValueRange(share * widest[name].low, share * widest[name].high) for name, share in shares.items()}


def _rounding_errors(values: Float32, widest: ValueRange) -> NDArray[np.float64]:
    """Return the mean square error of values in each share of a range, from a histogram of them."""
    counts, edges = np.histogram(values, bins=_BINS, range=(widest.low, widest.high))
    centres, weights = (edges[1:] + edges[:-1]) / 2, counts / values.size
    found = []
    for share in _SHARES:
        step = max(share * (widest.high - widest.low) / LARGEST_STATE, float(np.finfo(np.float32).tiny))
        outside = centres - np.clip(centres, share * widest.low, share * widest.high)
        found.append(np.sum(weights * np.where(outside == 0, step**2 / 12, outside**2)))
    return np.array(found)
