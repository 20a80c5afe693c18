"""Fitting of the projection of compressed tokens, weighted by how the re-ranker reads them."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from onnx_export.errors import ExportError
from onnx_export.models import CirModel
from onnx_export.models.triplet_reranker import TripletLayer
from qdrant_cir.tokens.compression import TokenProjection
from qdrant_cir.types import Float32

_DAMPING = 1e-3


def reading_metric(model: CirModel) -> Float32:
    """Return how much an error in a token matters to the final score, by direction: float32 [C, C], trace about C.

    This is the mean of ``W^T W`` over the key and value weights of every layer and stream, each scaled to the same
    trace: the squared length of an error after these projections. Where the score includes stage one's cosine, its
    projection of the class token counts as much as all of them together. A little of the identity is added, so that
    every direction counts.
    """
    reads = [
        _read(projection.weight)
        for layer in model.reranker.text_encoder.encoder.layer
        for stream in (cast(TripletLayer, layer).crossattention.self0, cast(TripletLayer, layer).crossattention.self1)
        for projection in (stream.key, stream.value)
    ]
    metric = torch.stack(reads).mean(0)
    if model.similarity() is not None:
        metric = metric + _read(model.image_encoder.vision_proj.weight)
    width = len(metric)
    scaled: Float32 = (metric * width + _DAMPING * torch.eye(width)).numpy().astype(np.float32)
    return scaled


def _read(weight: Tensor) -> Tensor:
    read = weight.detach().double().T @ weight.detach().double()
    return read / torch.trace(read)


def fit_projection(tokens: Float32, dims: int, metric: Float32) -> TokenProjection:
    """Fit the projection to ``dims`` dimensions that loses least of the tokens, measured by a metric.

    These are the principal components of ``(tokens - mean) A``, with ``A A = metric``.

    Args:
        tokens: float32 [T, C], of many images.
        dims: R, at most C.
        metric: float32 [C, C], of :func:`reading_metric`; the identity for plain principal components.

    Raises:
        ExportError: ``dims`` is not from 1 to C, or there are fewer tokens than dimensions.
    """
    count, width = tokens.shape
    if not 1 <= dims <= width:
        raise ExportError(f"Cannot project {width} dimensions to {dims}; give 1 to {width}.")
    if count < width:
        raise ExportError(f"{count} tokens are too few to fit {width} dimensions; give at least {width}.")
    values, vectors = np.linalg.eigh(metric.astype(np.float64))
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    mean = tokens.mean(axis=0, dtype=np.float64)
    centred = tokens - mean
    _, components = np.linalg.eigh(root @ (centred.T @ centred) @ root)
    basis = components[:, ::-1][:, :dims]
    return TokenProjection(
        mean=mean.astype(np.float32),
        down=(root @ basis).astype(np.float32),
        up=np.ascontiguousarray(basis.T @ inverse).astype(np.float32),
    )
