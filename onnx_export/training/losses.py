"""Losses that several stages share."""

from __future__ import annotations

import torch
from torch import Tensor


def similarities(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Return scaled dot products float32 [A, B] of [A, D] and [B, D], in float32 even inside autocast."""
    with torch.autocast(left.device.type, enabled=False):
        return scale.float() * left.float() @ right.float().T


def positives_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Return the mean softmax cross-entropy of logits [B, T], where any positive counts as right.

    Rows without a positive are left out.
    """
    has = positives.any(1)
    log_probabilities = logits.log_softmax(1)[has].masked_fill(~positives[has], -1e4)
    return -log_probabilities.logsumexp(1).mean()
