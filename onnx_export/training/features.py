"""Features of pictures from the frozen image encoder, computed once and read by stage one and stage two."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.kept import reading

logger = logging.getLogger(__name__)

BATCH = 120

PixelReader = Callable[[slice], Tensor]
"""Function from rows to their preprocessed pixels, float32 [B, 3, S, S]."""


class JoinedRows:
    """Several arrays [P, N, C], read as if they were one."""

    def __init__(self, arrays: Sequence[NDArray[np.float16]]) -> None:
        self._arrays = tuple(arrays)
        self._ends = np.cumsum([len(array) for array in arrays])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        found = np.empty((len(rows), *self._arrays[0].shape[1:]), np.float16)
        owners = np.searchsorted(self._ends, rows, side="right")
        for number, array in enumerate(self._arrays):
            found[owners == number] = array[rows[owners == number] - (self._ends[number] - len(array))]
        return found


@dataclass(frozen=True, slots=True)
class PictureFeatures:
    """Frozen features of P pictures.

    Attributes:
        tokens: float16 [P, N, C], memory-mapped, or several such arrays; only the rows that a batch needs go to the
            model's device.
        vectors: float32 [P, D], unit length, on the model's device.
        blank: float32 [N, C], on the same device: tokens of the blank picture that replaces a missing reference.
    """

    tokens: NDArray[np.float16] | JoinedRows
    vectors: Tensor
    blank: Tensor

    def tokens_of(self, rows: NDArray[np.int64]) -> Tensor:
        """Read the tokens of some pictures as float32 [B, N, C], on the device of the vectors."""
        return torch.from_numpy(self.tokens[rows]).to(self.vectors.device).float()


def join_features(parts: Sequence[PictureFeatures]) -> PictureFeatures:
    """Join features in order. The tokens of each must be one array."""
    arrays = [part.tokens for part in parts if isinstance(part.tokens, np.ndarray)]
    return PictureFeatures(JoinedRows(arrays), torch.cat([part.vectors for part in parts]), parts[0].blank)


@torch.inference_mode()
def compute_features(model: CirModel, read_pixels: PixelReader, count: int, folder: Path) -> PictureFeatures:
    """Encode ``count`` pictures on the model's device and keep the features in ``folder``; open them where they exist.

    With several processes, the main one must call it first.
    """
    sizes, device = model.sizes, model.device
    tokens_file, vectors_file = folder / "tokens.npy", folder / "vectors.npy"
    if not vectors_file.exists():
        shape = (count, sizes.token_rows, sizes.image_width)
        tokens = np.lib.format.open_memmap(tokens_file, "w+", np.float16, shape)
        vectors = np.empty((count, sizes.vector_size), np.float32)
        begin = time.monotonic()
        for start in range(0, count, BATCH):
            rows = slice(start, min(start + BATCH, count))
            batch_tokens, batch_vectors = model.image_encoder(read_pixels(rows).to(device))
            tokens[rows], vectors[rows] = batch_tokens.cpu().numpy(), batch_vectors.cpu().numpy()
            if start % (BATCH * 50) == 0:
                logger.info("encoded %d of %d, %.0f s", start, count, time.monotonic() - begin)
        tokens.flush()
        # the vectors say that all is there
        partial = vectors_file.with_suffix(".part.npy")
        np.save(partial, vectors)
        partial.replace(vectors_file)
    blank = model.image_encoder(torch.zeros(1, 3, sizes.image_size, sizes.image_size, device=device))[0][0]
    advice = f"Remove {folder}: its pictures are encoded again."
    with reading(vectors_file, advice=advice):
        found = torch.from_numpy(np.load(vectors_file)).to(device)
    with reading(tokens_file, advice=advice):
        kept = np.load(tokens_file, mmap_mode="c")
        if len(kept) != len(found):
            raise ValueError(f"it holds {len(kept)} pictures, and the vectors are of {len(found)}")
    return PictureFeatures(kept, found, blank.clone())
