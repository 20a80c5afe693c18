"""The modules that are traced, one per graph contract, with exact rewrites for serving.

The re-ranker is rewritten so that a candidate's tokens are never projected (PAPER: "Exact work, and where it goes"):

* ``q (E W_K)^T = (q W_K^T) E^T``: the key projection moves to the query side. The key bias adds the same number to a
  whole softmax row and cancels.
* ``P (E W_V) = (P E) W_V``: the value projection comes after the mixing; rows of P sum to one, so the value bias is
  added once.
* the last layer is computed for the first token alone, the only one the score reads;
* what does not depend on the candidate (embeddings, first self-attention) is computed once for all K;
* the feed-forward block, which both streams share, is computed once for both.

Stored tokens come as they are (int8 with a scale per token, or float): the scales multiply the attention scores and
probabilities, [heads x L, N], rather than the tokens, [N, C].

Compressed tokens (``qdrant_cir/tokens/compression.py``) are read in their small form. With ``e = mean + z up``, ``up``
is absorbed into the weights, too; the mean adds the same number to a whole softmax row, which cancels, and a bias to
the values. A row that stands for several tokens gets the logarithm of their number added to its scores.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from onnx_export.models.build import CirModel, ImageEncoder, StageOneSimilarity
from onnx_export.models.composer import Composer
from onnx_export.models.text_encoder import Projections
from onnx_export.models.triplet_reranker import DualAttention, TripletLayer, TripletReranker
from qdrant_cir.tokens.compression import TokenProjection


class ImageEncoderGraph(nn.Module):
    """``pixel_values`` [B, 3, S, S] to ``tokens`` [B, N, C] and ``vectors`` [B, D]."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Trace the encoder."""
        tokens, vectors = self.encoder(pixel_values)
        return tokens, vectors


class ComposerGraph(nn.Module):
    """Texts and reference tokens to ``query_vectors`` [B, D] and ``fusion_states`` [B, L, H]."""

    def __init__(self, composer: Composer) -> None:
        super().__init__()
        self.composer = composer

    def forward(self, input_ids: Tensor, attention_mask: Tensor, reference_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Trace the composer."""
        composed = self.composer(input_ids, attention_mask, reference_tokens)
        return composed.query_vectors, composed.fusion_states


class AbsorbedCrossAttention(nn.Module):
    """Both streams' cross-attention to stored tokens, with the key and value projections absorbed.

    Heads of both streams are stacked, [2 * heads, ...], so that a candidate's tokens are read by one matrix product for
    the scores and one for the mixing. Of compressed tokens, N is M and C is R in the shapes below.
    """

    def __init__(self, cross: DualAttention, projection: TokenProjection | None) -> None:
        super().__init__()
        self.output = cross.output
        self.heads = cross.self0.heads
        self.query0, self.query1 = cross.self0.query, cross.self1.query
        streams = (cross.self0, cross.self1)
        self.keys: Tensor
        self.values: Tensor
        self.value_bias: Tensor
        # d = H / heads, the width of one head
        keys = torch.cat([self._keys(s) for s in streams])  # [2 * heads, d, C]
        values = torch.cat([self._values(s) for s in streams])  # [2 * heads, C, d]
        value_bias = torch.stack([s.value.bias.detach() for s in streams])  # [2, H]
        if projection is not None:
            mean, up = torch.from_numpy(projection.mean), torch.from_numpy(projection.up)
            # mean [C] @ values: [2 * heads, d], the heads of a stream one after the other: [2, H]
            value_bias = value_bias + torch.matmul(mean, values).view_as(value_bias)
            keys, values = torch.matmul(keys, up.T), torch.matmul(up, values)  # [2 * heads, d, R], [2 * heads, R, d]
        self.register_buffer("keys", keys)
        self.register_buffer("values", values)
        self.register_buffer("value_bias", value_bias)

    def _keys(self, projections: Projections) -> Tensor:
        """Key weights as [heads, H / heads, C], the softmax scale folded in."""
        weight = torch.unflatten(projections.key.weight.detach(), 0, (self.heads, -1))  # [H, C] to [heads, d, C]
        scaled: Tensor = weight * weight.shape[1] ** -0.5
        return scaled

    def _values(self, projections: Projections) -> Tensor:
        """Value weights as [heads, C, H / heads]."""
        # [H, C] to [heads, d, C] to [heads, C, d]
        return torch.unflatten(projections.value.weight.detach(), 0, (self.heads, -1)).transpose(1, 2)

    def _split(self, states: Tensor) -> Tensor:
        # [B, L, H] to [B, L, heads, d] to [B, heads, L, d]
        return torch.unflatten(states, -1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, x0: Tensor, x1: Tensor, tokens: Tensor, scales: Tensor, log_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend from streams [1 or K, L, H] to tokens float32 [K, N, C] with scales and log-weights [K, 1, N]."""
        heads = torch.cat((self._split(self.query0(x0)), self._split(self.query1(x1))), dim=1)
        # heads [1 or K, 2 * heads, L, d] @ keys: [1 or K, 2 * heads, L, C], as one matrix [.., 2 * heads * L, C]
        queries = torch.matmul(heads, self.keys).flatten(1, 2)
        similarities = torch.matmul(queries, tokens.transpose(1, 2)) * scales  # [K, 2 * heads * L, N]
        attention = torch.softmax(similarities if log_weights is None else similarities + log_weights, dim=-1)
        # [K, 2 * heads * L, C] to [K, 2 * heads, L, C]
        mixed = torch.unflatten(torch.matmul(attention * scales, tokens), 1, (2 * self.heads, -1))
        heads = torch.matmul(mixed, self.values).transpose(1, 2)  # [K, L, 2 * heads, d]
        # the heads of each stream [K, L, heads, d] side by side: [K, L, H]
        merged = self.output.merge(
            self.output.dense0(heads[:, :, : self.heads].flatten(2) + self.value_bias[0]),
            self.output.dense1(heads[:, :, self.heads :].flatten(2) + self.value_bias[1]),
        )
        return self.output.LayerNormA(merged + x0), self.output.LayerNormB(merged + x1)


class AbsorbedLayer(nn.Module):
    """One layer of the re-ranker; ``last`` computes the first row only."""

    def __init__(self, layer: TripletLayer, projection: TokenProjection | None, *, last: bool) -> None:
        super().__init__()
        self.attention = layer.attention
        self.cross = AbsorbedCrossAttention(layer.crossattention, projection)
        self.intermediate, self.output = layer.intermediate, layer.output
        self.last = last

    def forward(
        self, x0: Tensor, x1: Tensor, tokens: Tensor, scales: Tensor, log_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Transform streams [1 or K, L, H] to [K, L, H], or [K, 1, H] in the last layer."""
        rows0, rows1 = (x0[:, :1], x1[:, :1]) if self.last else (x0, x1)
        own = self.attention.output
        rows0 = own.LayerNormA(own.dense0(self.attention.self0(rows0, x0)) + rows0)
        rows1 = own.LayerNormB(own.dense1(self.attention.self1(rows1, x1)) + rows1)
        both = torch.stack(self.cross(rows0, rows1, tokens, scales, log_weights))  # [2, K, L or 1, H]
        both = self.output(self.intermediate(both), both)
        return both[0], both[1]


class RerankerGraph(nn.Module):
    """One query and K candidates in stored form to ``scores`` [K]; with a projection, in compressed form."""

    def __init__(
        self,
        reranker: TripletReranker,
        similarity: StageOneSimilarity | None = None,
        projection: TokenProjection | None = None,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        layers = list(reranker.text_encoder.encoder.layer)
        self.embeddings = reranker.text_encoder.embeddings
        self.layers = nn.ModuleList(
            AbsorbedLayer(layer, projection, last=layer is layers[-1])
            for layer in layers
            if isinstance(layer, TripletLayer)
        )
        self.cls_head = reranker.cls_head
        self.mean: Tensor | None
        self.up: Tensor | None
        self.register_buffer("mean", None if projection is None else torch.from_numpy(projection.mean))
        self.register_buffer("up", None if projection is None else torch.from_numpy(projection.up))

    def forward(
        self,
        input_ids: Tensor,
        fusion_states: Tensor,
        candidate_tokens: Tensor,
        candidate_scales: Tensor,
        candidate_weights: Tensor | None = None,
    ) -> Tensor:
        """Score int64 [1, L] and float32 [1, L, H] against [K, N, C] with float32 [K, N].

        Compressed tokens are [K, M, R] with scales and weights [K, M].
        """
        tokens, scales = candidate_tokens.to(torch.float32), candidate_scales[:, None, :]
        log_weights = None if candidate_weights is None else torch.log(candidate_weights)[:, None, :]
        x0, x1 = fusion_states, self.embeddings(input_ids)
        for layer in self.layers:
            x0, x1 = layer(x0, x1, tokens, scales, log_weights)
        scores: Tensor = self.cls_head(torch.cat((x0[:, 0], x1[:, 0]), dim=-1))[:, 0]  # [K, 2 H] to [K, 2] to [K]
        if self.similarity is None:
            return scores
        class_tokens = tokens[:, 0] * candidate_scales[:, :1]  # [K, C], or [K, R] where compressed
        if self.mean is not None and self.up is not None:
            class_tokens = self.mean + class_tokens @ self.up  # [K, R] to [K, C]
        return scores + cast(Tensor, self.similarity(fusion_states, class_tokens))


def graph_modules(model: CirModel) -> dict[str, nn.Module]:
    """Return the module to trace for each graph contract of the runtime."""
    return {
        "image_encoder": ImageEncoderGraph(model.image_encoder).eval(),
        "composer": ComposerGraph(model.composer).eval(),
        "reranker": RerankerGraph(model.reranker, model.similarity()).eval(),
    }
