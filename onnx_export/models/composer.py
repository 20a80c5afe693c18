"""Stage one: reference tokens and modification text to one query vector (paper, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models.sizes import ModelSizes
from onnx_export.models.text_encoder import TextEncoder


class Composed(NamedTuple):
    """Query vectors float32 [B, D], unit length, and fusion states float32 [B, L, H] (``z_t``)."""

    query_vectors: Tensor
    fusion_states: Tensor


class Composer(nn.Module):
    """A text encoder that reads the reference image, and the projection of its first state."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.text_encoder = TextEncoder(sizes)
        self.text_proj = nn.Linear(sizes.text_width, sizes.vector_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, reference_tokens: Tensor) -> Composed:
        """Compose B queries from int64 [B, L], int64 [B, L] and float32 [B, N, C]."""
        states = self.text_encoder(input_ids, attention_mask, reference_tokens)
        return Composed(functional.normalize(self.text_proj(states[:, 0]), dim=-1), states)
