"""The text encoder: post-norm BERT layers with cross-attention to image tokens (paper, section 3.1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models.sizes import ModelSizes


def additive_mask(attention_mask: Tensor) -> Tensor:
    """Turn int64 [B, L] of ones and zeros into a float32 [B, 1, 1, L] of 0 and -10000, as BERT does."""
    return (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * -10000.0


class Embeddings(nn.Module):
    """Word plus position embedding and LayerNorm; no token types."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocabulary, sizes.text_width)
        self.position_embeddings = nn.Embedding(sizes.max_positions, sizes.text_width)
        self.LayerNorm = nn.LayerNorm(sizes.text_width, eps=sizes.text_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed int64 [B, L] to float32 [B, L, H]."""
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        return cast(Tensor, self.LayerNorm(self.word_embeddings(input_ids) + positions))


class Projections(nn.Module):
    """Query, key and value projections of one attention; ``context`` is what keys and values read."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)

    def split(self, states: Tensor) -> Tensor:
        """Split [B, L, H] into heads: [B, heads, L, H / heads]."""
        return torch.unflatten(states, -1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context: Tensor) -> Tensor:
        """Project [B, N, C] to stacked keys and values: [2, B, heads, N, H / heads]."""
        return torch.stack((self.split(self.key(context)), self.split(self.value(context))))

    def attend(self, states: Tensor, keys_values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from [B, L, H]; return [B, L, H] before the output projection."""
        query = self.split(self.query(states))
        mixed = functional.scaled_dot_product_attention(query, keys_values[0], keys_values[1], attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)

    def forward(self, states: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from [B, L, H] to [B, N, C]."""
        return self.attend(states, self.keys_values(context), mask)


class ResidualOutput(nn.Module):
    """Projection, residual, LayerNorm: the end of every post-norm block."""

    def __init__(self, inner: int, width: int, *, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """Return ``LayerNorm(dense(inner) + residual)``."""
        return cast(Tensor, self.LayerNorm(self.dense(inner) + residual))


class Intermediate(nn.Module):
    """The first half of a feed-forward block, with exact GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, states: Tensor) -> Tensor:
        """Transform [B, L, H] to [B, L, inner]."""
        return functional.gelu(self.dense(states))


class AttentionBlock(nn.Module):
    """One attention with its output projection, residual and LayerNorm."""

    def __init__(self, width: int, context_width: int, heads: int, *, eps: float) -> None:
        super().__init__()
        self.self = Projections(width, context_width, heads)
        self.output = ResidualOutput(width, width, eps=eps)

    def forward(self, states: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from [B, L, H] to ``context`` [B, N, C]."""
        return cast(Tensor, self.output(self.self(states, context, mask), states))


class TextLayer(nn.Module):
    """Self-attention, cross-attention to the image, feed-forward."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width, eps = sizes.text_width, sizes.text_norm_eps
        self.attention = AttentionBlock(width, width, sizes.text_heads, eps=eps)
        self.crossattention = AttentionBlock(width, sizes.image_width, sizes.text_heads, eps=eps)
        self.intermediate = Intermediate(width, sizes.feed_forward)
        self.output = ResidualOutput(sizes.feed_forward, width, eps=eps)

    def forward(self, states: Tensor, mask: Tensor, image_tokens: Tensor | None) -> Tensor:
        """Transform [B, L, H]; without image tokens there is no cross-attention (plain BERT)."""
        states = self.attention(states, states, mask)
        if image_tokens is not None:
            states = self.crossattention(states, image_tokens)
        return cast(Tensor, self.output(self.intermediate(states), states))


class LayerStack(nn.Module):
    """The layers, under the name that checkpoints give them."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class TextEncoder(nn.Module):
    """Token ids and image tokens to the last hidden states."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(sizes)
        self.encoder = LayerStack([TextLayer(sizes) for _ in range(sizes.text_depth)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor | None) -> Tensor:
        """Encode int64 [B, L] with mask int64 [B, L] and float32 [B, N, C]; return float32 [B, L, H]."""
        mask = additive_mask(attention_mask)
        states = self.embeddings(input_ids)
        for layer in self.encoder.layer:
            states = layer(states, mask, image_tokens)
        return cast(Tensor, states)
