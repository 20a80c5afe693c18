"""Pixels to tokens and vectors: the ``image_encoder`` graph."""

from __future__ import annotations

import numpy as np

from qdrant_cir.bundle import Bundle
from qdrant_cir.sessions import ExecutionProvider, Session, open_graph
from qdrant_cir.types import EncodedImages, Float32

__all__ = ["ImageEncoder"]


class ImageEncoder:
    """The image encoder of a bundle. Safe to share between threads."""

    def __init__(self, session: Session) -> None:
        """Run a session of the ``image_encoder`` graph."""
        self._session = session

    @classmethod
    def open(cls, bundle: Bundle, *, provider: ExecutionProvider = "auto", threads: int | None = None) -> ImageEncoder:
        """Load the graph of a bundle; arguments and errors as :func:`qdrant_cir.sessions.open_graph`."""
        return cls(open_graph(bundle, "image_encoder", provider=provider, threads=threads, shrinks_arena=True))

    def encode(self, pixel_values: Float32) -> EncodedImages:
        """Encode a batch in one run.

        Args:
            pixel_values: float32 [B, 3, H, W], each as :func:`qdrant_cir.preprocess.preprocess` gives it;
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
            return EncodedImages(
                tokens=np.zeros(shapes["tokens"], np.float32), vectors=np.zeros(shapes["vectors"], np.float32)
            )
        outputs = self._session.run({"pixel_values": pixel_values})
        return EncodedImages(tokens=outputs["tokens"], vectors=outputs["vectors"])
