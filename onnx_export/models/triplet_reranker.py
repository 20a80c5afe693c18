"""Stage two: the dual-stream triplet re-ranker, in the paper's own form (section 3.2).

Stream 0 (``x0``) starts from the fusion states, stream 1 (``x1``) from the text embeddings.
This is the form to train and to compare with. ``onnx_export/graphs.py`` rewrites it exactly for serving.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from onnx_export.models.sizes import ModelSizes
from onnx_export.models.text_encoder import (
    Embeddings,
    Intermediate,
    LayerStack,
    Projections,
    ResidualOutput,
    additive_mask,
)


class DualOutput(nn.Module):
    """Output projections and LayerNorms of both streams; :meth:`merge` joins the outputs of cross-attention first."""

    def __init__(self, width: int, *, eps: float, learnt_merge: bool) -> None:
        super().__init__()
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.LayerNormA = nn.LayerNorm(width, eps=eps)
        self.LayerNormB = nn.LayerNorm(width, eps=eps)
        self.merge_layer = nn.Linear(2 * width, width) if learnt_merge else None

    def merge(self, mixed0: Tensor, mixed1: Tensor) -> Tensor:
        """Join both streams' cross-attention outputs [B, L, H]: their mean, or the learnt projection."""
        if self.merge_layer is None:
            return (mixed0 + mixed1) / 2
        return cast(Tensor, self.merge_layer(torch.cat((mixed0, mixed1), dim=-1)))


class DualAttention(nn.Module):
    """Attention with separate weights per stream."""

    def __init__(self, width: int, context_width: int, heads: int, *, eps: float, learnt_merge: bool) -> None:
        super().__init__()
        self.self0 = Projections(width, context_width, heads)
        self.self1 = Projections(width, context_width, heads)
        self.output = DualOutput(width, eps=eps, learnt_merge=learnt_merge)


class TripletLayer(nn.Module):
    """Per stream self-attention, merged cross-attention to the candidate, one shared feed-forward block."""

    def __init__(self, sizes: ModelSizes, *, learnt_merge: bool) -> None:
        super().__init__()
        width, heads, eps = sizes.text_width, sizes.text_heads, sizes.text_norm_eps
        self.attention = DualAttention(width, width, heads, eps=eps, learnt_merge=False)
        self.crossattention = DualAttention(width, sizes.image_width, heads, eps=eps, learnt_merge=learnt_merge)
        self.intermediate = Intermediate(width, sizes.feed_forward)
        self.output = ResidualOutput(sizes.feed_forward, width, eps=eps)

    def forward(
        self,
        x0: Tensor,
        x1: Tensor,
        mask: Tensor,
        candidate_tokens: Tensor,
        candidate_index: Tensor | None,
        *,
        only_first: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Transform both streams [P, L, H] against candidate tokens [T, N, C] picked by index [P].

        Without an index the P / T pairs of a candidate are adjacent. Cross-attention has no mask, so that their texts
        can attend to it as one long text. With ``only_first``, as in the last layer, return [P, 1, H].
        """
        own = self.attention.output
        y0, y1 = (x0[:, :1], x1[:, :1]) if only_first else (x0, x1)  # [P, L or 1, H]
        x0 = own.LayerNormA(own.dense0(self.attention.self0(y0, x0, mask)) + y0)
        x1 = own.LayerNormB(own.dense1(self.attention.self1(y1, x1, mask)) + y1)

        cross = self.crossattention
        # keys and values of every candidate, [2, T, heads, N, H / heads]; by index, of every pair, [2, P, ...]
        keys_values0 = cross.self0.keys_values(candidate_tokens)
        keys_values1 = cross.self1.keys_values(candidate_tokens)
        if candidate_index is not None:
            keys_values0, keys_values1 = keys_values0[:, candidate_index], keys_values1[:, candidate_index]
        # [P, L, H] to [T, P / T * L, H]: the texts of a candidate's pairs as one; by index T is P and nothing changes
        of_candidate = (keys_values0.shape[1], -1, x0.shape[-1])
        merged = cross.output.merge(
            cross.output.dense0(cross.self0.attend(x0.reshape(of_candidate), keys_values0, None)),
            cross.output.dense1(cross.self1.attend(x1.reshape(of_candidate), keys_values1, None)),
        ).view_as(x0)  # [P, L, H] again
        x0 = cross.output.LayerNormA(merged + x0)
        x1 = cross.output.LayerNormB(merged + x1)
        return self.output(self.intermediate(x0), x0), self.output(self.intermediate(x1), x1)


class TripletEncoder(nn.Module):
    """Embeddings and layers, under the names that checkpoints give them."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(sizes)
        self.encoder = LayerStack(
            [TripletLayer(sizes, learnt_merge=i >= sizes.merge_layers_from) for i in range(sizes.text_depth)]
        )


class TripletReranker(nn.Module):
    """Scores (reference, text, candidate) triplets."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.text_encoder = TripletEncoder(sizes)
        self.cls_head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        fusion_states: Tensor,
        candidate_tokens: Tensor,
        candidate_index: Tensor | None = None,
    ) -> Tensor:
        """Score P pairs of a query and a candidate.

        Args:
            input_ids: int64 [P, L].
            attention_mask: int64 [P, L].
            fusion_states: float32 [P, L, H] from the composer.
            candidate_tokens: float32 [T, N, C].
            candidate_index: int64 [P], which of the T candidates each pair takes; None means P / T pairs of each, in
                order. Keys and values are projected once per candidate, so that B x B in-batch scoring projects B.

        Returns:
            float32 [P], higher is better.
        """
        features = self.features(input_ids, attention_mask, fusion_states, candidate_tokens, candidate_index)
        return cast(Tensor, self.cls_head(features)[:, 0])

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        fusion_states: Tensor,
        candidate_tokens: Tensor,
        candidate_index: Tensor | None = None,
    ) -> Tensor:
        """Return the input of the scoring head, the first states of both streams: float32 [P, 2 H]."""
        mask = additive_mask(attention_mask)
        x0, x1 = fusion_states, self.text_encoder.embeddings(input_ids)
        layers = self.text_encoder.encoder.layer
        for number, layer in enumerate(layers, start=1):
            x0, x1 = layer(x0, x1, mask, candidate_tokens, candidate_index, only_first=number == len(layers))
        return torch.cat((x0[:, 0], x1[:, 0]), dim=-1)
