"""The pool seen through the frozen image encoder: computed once, read by stage one and stage two."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.pool import PICTURES_PER_GROUP, Pool
from onnx_export.training.pretrain import normalised_pixels, same_scene

logger = logging.getLogger(__name__)

BATCH = 120


@dataclass(frozen=True, slots=True)
class PoolFeatures:
    """Frozen features of every pool picture.

    Attributes:
        tokens: float16 [P, N, C], memory-mapped.
        vectors: float32 [P, D], unit length.
        is_target: bool [groups, PICTURES_PER_GROUP], which pictures of a group show its target scene.
        blank: float32 [N, C], tokens of the blank picture that stands in for a missing reference.
    """

    tokens: NDArray[np.float16]
    vectors: Tensor
    is_target: NDArray[np.bool_]
    blank: Tensor

    def tokens_of(self, rows: NDArray[np.int64]) -> Tensor:
        """Read the tokens of some pictures as float32 [B, N, C]."""
        return torch.from_numpy(self.tokens[rows].astype(np.float32))


@torch.inference_mode()
def compute_features(model: CirModel, pool: Pool, folder: Path) -> PoolFeatures:
    """Encode the pool, or open what an earlier call encoded."""
    sizes, count = model.sizes, len(pool.pictures)
    tokens_file, vectors_file = folder / "tokens.npy", folder / "vectors.npy"
    if not vectors_file.exists():
        shape = (count, sizes.token_rows, sizes.image_width)
        tokens = np.lib.format.open_memmap(tokens_file, "w+", np.float16, shape)
        vectors = np.empty((count, sizes.vector_size), np.float32)
        begin = time.monotonic()
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            batch_tokens, batch_vectors = model.image_encoder(normalised_pixels(pool.pictures[rows]))
            tokens[rows], vectors[rows] = batch_tokens.numpy(), batch_vectors.numpy()
            if start % (BATCH * 50) == 0:
                logger.info("encoded %d of %d, %.0f s", start, count, time.monotonic() - begin)
        np.save(vectors_file, vectors)
    is_target = np.array([same_scene(group.pictures)[1] for group in pool.groups])
    blank = model.image_encoder(torch.zeros(1, 3, sizes.image_size, sizes.image_size))[0][0]
    return PoolFeatures(
        np.load(tokens_file, mmap_mode="r"), torch.from_numpy(np.load(vectors_file)), is_target, blank.clone()
    )


def rows_of(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Picture rows of groups, int64 [G, PICTURES_PER_GROUP]."""
    rows: NDArray[np.int64] = groups[:, None] * PICTURES_PER_GROUP + np.arange(PICTURES_PER_GROUP)
    return rows
