"""Heads that read the attributes of a product's parts from states; only training uses them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models import ModelSizes
from onnx_export.training.attributes import NOT_OF_THIS_KIND
from onnx_export.training.drawn.families import KINDS, PARTS


class AttributeReader(nn.Module):
    """Reads the attributes of every part from one state each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.Embedding(len(PARTS), width)
        self.hidden = nn.Linear(width, width)
        self.values = nn.Linear(width, sum(map(len, KINDS.values())))

    def forward(self, states: Tensor, codes: Tensor) -> Tensor:
        """Return the mean cross-entropy over all known codes int64 [B, parts, kinds], for states [B, parts, H]."""
        hidden = functional.gelu(self.hidden(states + self.parts.weight))
        return code_loss(self.values(hidden), codes)


def code_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the mean cross-entropy over all known codes int64 [B, parts, kinds], for logits [B, parts, values]."""
    each = torch.split(logits.float(), [len(values) for values in KINDS.values()], dim=-1)
    losses = [
        functional.cross_entropy(
            of_kind.flatten(0, 1), codes[..., kind].flatten(), ignore_index=NOT_OF_THIS_KIND, reduction="sum"
        )
        for kind, of_kind in enumerate(each)
    ]
    return torch.stack(losses).sum() / (codes != NOT_OF_THIS_KIND).sum()


class QuestionReader(nn.Module):
    """Reads attributes from any number of states, by one learnt query per part."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(sizes.text_width, sizes.text_heads, batch_first=True)
        self.reader = AttributeReader(sizes.text_width)

    def forward(self, states: Tensor, mask: Tensor, codes: Tensor) -> Tensor:
        """Return the cross-entropy of :class:`AttributeReader` for states [B, L, H] with mask int64 [B, L]."""
        questions = self.reader.parts.weight.expand(len(states), -1, -1)
        answers, _ = self.attention(questions, states, states, key_padding_mask=mask == 0, need_weights=False)
        return cast(Tensor, self.reader(answers, codes))


def box_shares(boxes: Tensor, grid: int) -> Tensor:
    """Return the share of each patch in boxes float32 [..., 4]: float32 [..., grid * grid] in row order, sum 1."""
    edges = torch.arange(grid + 1, device=boxes.device) / grid
    low, high = torch.maximum(boxes[..., :2, None], edges[:-1]), torch.minimum(boxes[..., 2:, None], edges[1:])
    inside = (high - low).clamp(min=1e-4)
    shares = (inside[..., 1, :, None] * inside[..., 0, None, :]).flatten(-2)
    return shares / shares.sum(-1, keepdim=True)
