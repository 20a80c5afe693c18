"""The sizes of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of an image encoder, a composer and a triplet re-ranker that fit together.

    Attributes:
        image_size: side of the square input in pixels.
        patch_size: side of a patch in pixels; ``(image_size / patch_size) ** 2 + 1`` tokens.
        stem: ``patch`` is the paper's single linear projection; ``convolutional`` puts a stack of stride-2
            convolutions in front of the same transformer, for models too small to learn shapes without;
            ``efficientnet-lite0`` a frozen network that was trained on photographs, for patches of 32 pixels.
        image_width: dimensions C of an image token.
        image_depth: transformer blocks of the image encoder.
        image_heads: attention heads there.
        text_width: dimensions H of a text state.
        text_depth: layers of the composer and of the re-ranker.
        text_heads: attention heads there.
        feed_forward: inner width of a text layer's feed-forward block.
        vocabulary: rows of the word embedding.
        max_positions: rows of the position embedding, hence the longest text in tokens.
        vector_size: dimensions D of the embedding that Qdrant searches.
        merge_layers_from: first re-ranker layer that merges its streams by a learnt projection; before it, the mean.
        similarity_weight: of stage one's cosine in the final score, beside the re-ranker's own; 0 is the paper's model.
        image_norm_eps: what the image encoder's layer normalisations add to the variance.
        text_norm_eps: likewise, of the composer and the re-ranker.
    """

    image_size: int
    patch_size: int
    stem: Literal["patch", "convolutional", "efficientnet-lite0"]
    image_width: int
    image_depth: int
    image_heads: int
    text_width: int
    text_depth: int
    text_heads: int
    feed_forward: int
    vocabulary: int
    max_positions: int
    vector_size: int
    merge_layers_from: int
    similarity_weight: float = 0.0
    image_norm_eps: float = 1e-6
    text_norm_eps: float = 1e-12

    @property
    def token_rows(self) -> int:
        """N: tokens per image, the class token included."""
        return (self.image_size // self.patch_size) ** 2 + 1


BLIP_BASE = ModelSizes(
    image_size=384,
    patch_size=16,
    stem="patch",
    image_width=768,
    image_depth=12,
    image_heads=12,
    text_width=768,
    text_depth=12,
    text_heads=12,
    feed_forward=3072,
    vocabulary=30524,
    max_positions=512,
    vector_size=256,
    merge_layers_from=6,
)
"""The paper's model: ViT-B/16 at 384 px, BERT-base text layers, bert-base-uncased plus [DEC] and [ENC]."""

DRAWN_SMALL = ModelSizes(
    image_size=128,
    patch_size=16,
    stem="convolutional",
    image_width=192,
    image_depth=4,
    image_heads=6,
    text_width=192,
    text_depth=4,
    text_heads=6,
    feed_forward=768,
    vocabulary=512,
    max_positions=64,
    vector_size=128,
    merge_layers_from=2,
)
"""The bundle `drawn`: small enough to ship and to train on two cores."""

PHOTO_SMALL = ModelSizes(
    image_size=224,
    patch_size=32,
    stem="efficientnet-lite0",
    image_width=192,
    image_depth=1,
    image_heads=6,
    text_width=192,
    text_depth=3,
    text_heads=6,
    feed_forward=768,
    vocabulary=512,
    max_positions=64,
    vector_size=256,
    merge_layers_from=1,
)
"""The model for photographs of clothes: a frozen trunk, and all else small enough to train on two cores."""
