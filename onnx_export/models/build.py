"""The whole model of one size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models.composer import Composer
from onnx_export.models.sizes import ModelSizes
from onnx_export.models.triplet_reranker import TripletReranker
from onnx_export.models.vit import VisionTransformer


class ImageEncoder(nn.Module):
    """Pixels to tokens and the gallery embedding; frozen in both stages."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(sizes)
        self.vision_proj = nn.Linear(sizes.image_width, sizes.vector_size)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Encode float32 [B, 3, S, S] to tokens [B, N, C] and unit vectors [B, D]."""
        tokens = self.visual_encoder(pixel_values)
        return tokens, functional.normalize(self.vision_proj(tokens[:, 0]), dim=-1)


class StageOneSimilarity(nn.Module):
    """Stage one's weighted cosine, from two small projections of the re-ranker's input."""

    def __init__(self, text_proj: nn.Linear, vision_proj: nn.Linear, weight: float) -> None:
        super().__init__()
        self.text_proj, self.vision_proj, self.weight = text_proj, vision_proj, weight

    def forward(self, fusion_states: Tensor, class_tokens: Tensor) -> Tensor:
        """Return float32 [P] for fusion states [1 or P, L, H] and the first token of each candidate, [P, C]."""
        queries = functional.normalize(self.text_proj(fusion_states[:, 0]), dim=-1)
        pictures = functional.normalize(self.vision_proj(class_tokens), dim=-1)
        return self.weight * (queries * pictures).sum(-1)


class CirModel(nn.Module):
    """Image encoder, composer and triplet re-ranker that belong together."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image_encoder = ImageEncoder(sizes)
        self.composer = Composer(sizes)
        self.reranker = TripletReranker(sizes)

    def score(
        self, input_ids: Tensor, attention_mask: Tensor, fusion_states: Tensor, candidate_tokens: Tensor
    ) -> Tensor:
        """Return the final scores float32 [P]; arguments as :meth:`TripletReranker.forward`, with T = P."""
        scores: Tensor = self.reranker(input_ids, attention_mask, fusion_states, candidate_tokens)
        similarity = self.similarity()
        return scores if similarity is None else scores + similarity(fusion_states, candidate_tokens[:, 0])

    def similarity(self) -> StageOneSimilarity | None:
        """Return the part of the final score beside the re-ranker's; None for the paper's model."""
        if not self.sizes.similarity_weight:
            return None
        return StageOneSimilarity(self.composer.text_proj, self.image_encoder.vision_proj, self.sizes.similarity_weight)

    @property
    def device(self) -> torch.device:
        """The device of all weights."""
        return self.composer.text_proj.weight.device


def build_model(sizes: ModelSizes, *, seed: int = 0) -> CirModel:
    """Build a model with fresh weights: normal(0, 0.02), biases zero, as BERT and ViT start.

    The global random state of torch stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CirModel(sizes)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for parameter in (
            model.image_encoder.visual_encoder.cls_token,
            model.image_encoder.visual_encoder.pos_embed,
        ):
            nn.init.trunc_normal_(parameter, std=0.02)
    return model.eval()
