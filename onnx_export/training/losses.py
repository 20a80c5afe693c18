"""Losses that several stages share."""

from __future__ import annotations

import torch
from torch import Tensor


def similarities(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Scaled dot products float32 [A, B] of [A, D] and [B, D], in full precision whatever surrounds them."""
    with torch.autocast(left.device.type, enabled=False):
        return scale.float() * left.float() @ right.float().T


def positives_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Softmax cross-entropy [B, T] against any of several positives; rows without one are left out."""
    has = positives.any(1)
    log_probabilities = logits.log_softmax(1)[has].masked_fill(~positives[has], -1e4)
    return -log_probabilities.logsumexp(1).mean()
