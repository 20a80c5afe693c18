"""Pixels to tokens and vectors: the ``image_encoder`` graph, and ``candidate_encoder`` where a bundle has one."""

from __future__ import annotations

import numpy as np

from qdrant_cir.model.bundle import Bundle, GraphName
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import Session, open_graph
from qdrant_cir.types import EncodedImages, Float32, Precision

__all__ = ["ImageEncoder"]


class ImageEncoder:
    """The image encoder of a bundle. Safe to share between threads."""

    def __init__(
        self, session: Session, candidate_session: Session | None = None, *, precision: Precision = "float32"
    ) -> None:
        """Use a session of the ``image_encoder`` graph, and one of ``candidate_encoder`` where the bundle has it.

        Both compute in ``precision``.
        """
        self._session = session
        self._candidate_session = candidate_session
        self._precision: Precision = precision

    @classmethod
    def open(cls, bundle: Bundle, compute: Compute) -> ImageEncoder:
        """Load the encoder graphs of a bundle; arguments and errors as :func:`qdrant_cir.model.sessions.open_graph`."""
        names: list[GraphName] = ["image_encoder"]
        if bundle.has_candidate_encoder:
            names.append("candidate_encoder")
        sessions = [open_graph(bundle, name, compute, shrinks_arena=True) for name in names]
        return cls(*sessions, precision=compute.precision)

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""
        return self._precision

    @property
    def provider(self) -> str:
        """The onnxruntime provider that it runs on."""
        return self._session.provider

    def encode(self, pixel_values: Float32) -> EncodedImages:
        """Encode a batch in one run of each graph.

        Args:
            pixel_values: float32 [B, 3, H, W], each as :func:`qdrant_cir.model.preprocess.preprocess` returns it;
                B may be 0.

        Returns:
            Tokens float32 [B, N, C] and unit vectors float32 [B, D], in the order given.

        Raises:
            InputError: the pixels have another shape or element type than the graph reads.
            ProviderError: the computation failed.
        """
        if not len(pixel_values):
            shapes = {
                tensor.name: (0, *(axis for axis in tensor.shape[1:] if isinstance(axis, int)))
                for tensor in self._session.outputs
            }
            nothing = np.zeros(shapes["tokens"], np.float32)
            return EncodedImages(nothing, np.zeros(shapes["vectors"], np.float32), nothing)
        outputs = self._session.run({"pixel_values": pixel_values})
        tokens = candidate_tokens = outputs["tokens"]
        if self._candidate_session is not None:
            candidate_tokens = self._candidate_session.run({"pixel_values": pixel_values})["tokens"]
        return EncodedImages(tokens, outputs["vectors"], candidate_tokens)
