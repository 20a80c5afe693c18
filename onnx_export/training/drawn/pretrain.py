"""Pre-training of the image encoder, on drawn products with known attributes and boxes.

Three losses on the same pictures:

* part: read a part's attributes from the tokens inside its box, so that tokens describe what lies under them;
* whole: read every attribute of the scene from the embedding, so that one vector describes the whole product;
* scene: contrast two renderings of the same scene with all other pictures, with near-duplicates among them.

Then the encoder is frozen, and ``grounding.py`` teaches a text encoder to read its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.export import BLIP_MEAN, BLIP_STD
from onnx_export.models import CirModel
from onnx_export.training.attributes import AttributeVocabulary, head_name, read_attributes
from onnx_export.training.drawn.pool import PICTURES_PER_GROUP, TARGET_ROWS, Box, PictureFacts, Pool
from onnx_export.training.losses import positives_loss, similarities
from onnx_export.training.seeds import seeded

WHOLE_WEIGHT, SCENE_WEIGHT = 2.0, 0.1
"""Chosen so that the three gradients are of similar size."""


class ImageHeads(nn.Module):
    """Heads for this stage alone: readers of the embedding and of parts, a temperature."""

    def __init__(self, model: CirModel, attributes: AttributeVocabulary) -> None:
        super().__init__()
        sizes = model.sizes
        self.whole = nn.ModuleDict(
            {head_name(key): nn.Linear(sizes.vector_size, len(values)) for key, values in attributes.values.items()}
        )
        self.part_embedding = nn.Embedding(len(attributes.parts), sizes.image_width)
        self.part_hidden = nn.Linear(sizes.image_width, sizes.image_width)
        self.part = nn.ModuleDict(
            {kind: nn.Linear(sizes.image_width, len(values)) for kind, values in attributes.kinds.items()}
        )
        self.log_scale = nn.Parameter(torch.tensor(2.66))


class Pretraining:
    """The losses of pre-training the image encoder."""

    def __init__(
        self,
        model: CirModel,
        pool: Pool,
        *,
        seed: int,
        groups_per_step: int,
        pictures_per_group: int = PICTURES_PER_GROUP,
        shift: int = 0,
    ) -> None:
        """Prepare the losses.

        Args:
            model: its image encoder is trained.
            pool: drawn pictures.
            seed: of the batches and of the heads.
            groups_per_step: groups drawn for a step.
            pictures_per_group: pictures of a group in a step: both renderings of its target, then others.
            shift: pixels by which pictures are moved at most, so that a pool seen often still varies.
        """
        self.model, self.pool, self.device = model, pool, model.device
        self.seed, self.groups_per_step = seed, groups_per_step
        self.pictures_per_group, self.shift = pictures_per_group, shift
        self.attributes = AttributeVocabulary([p.attributes for group in pool.groups for p in group.pictures])
        with seeded(seed):
            self.heads = ImageHeads(model, self.attributes).to(self.device)
        self.modules = nn.ModuleDict({"image_encoder": model.image_encoder, "heads": self.heads})
        self.grid = model.sizes.image_size // model.sizes.patch_size

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        rng = np.random.default_rng((self.seed, batch))
        groups = rng.integers(len(self.pool.groups), size=self.groups_per_step)
        if self.pictures_per_group == PICTURES_PER_GROUP:  # whole groups need no draw
            places = np.tile(np.arange(PICTURES_PER_GROUP), (len(groups), 1))
        else:
            places = np.stack([self._places(rng) for _ in groups])
        rows = (groups[:, None] * PICTURES_PER_GROUP + places).ravel()
        facts = [self.pool.groups[r // PICTURES_PER_GROUP].pictures[r % PICTURES_PER_GROUP] for r in rows.tolist()]
        pictures = self.pool.pictures[rows]
        if self.shift:
            pictures, facts = shifted(pictures, facts, self.shift, rng)
        tokens = self.model.image_encoder.visual_encoder(normalised_pixels(pictures, self.device))
        embedding = self.model.image_encoder.vision_proj(tokens[:, 0])
        return {
            "part": self._read_parts(tokens, facts),
            "whole": WHOLE_WEIGHT
            * read_attributes(self.heads.whole, self.attributes, embedding, [p.attributes for p in facts]),
            "scene": SCENE_WEIGHT * self._contrast(embedding, facts),
        }

    def _places(self, rng: np.random.Generator) -> NDArray[np.int64]:
        others = [place for place in range(PICTURES_PER_GROUP) if place not in TARGET_ROWS]
        return np.concatenate((TARGET_ROWS, rng.permutation(others)))[: self.pictures_per_group]

    def _contrast(self, embedding: Tensor, facts: Sequence[PictureFacts]) -> Tensor:
        itself = torch.eye(len(facts), dtype=torch.bool, device=self.device)
        vectors = functional.normalize(embedding, dim=-1)
        similarity = similarities(vectors, vectors, self.heads.log_scale.exp().clamp(max=50)).masked_fill(itself, -1e4)
        return positives_loss(similarity, torch.from_numpy(same_scene(facts)).to(self.device) & ~itself)

    def part_states(self, tokens: Tensor, facts: Sequence[PictureFacts]) -> tuple[list[tuple[int, str]], Tensor]:
        """Pool the tokens [B, N, C] inside each part's box; return (picture, part) pairs, and states [pairs, C]."""
        where = [(i, part) for i, p in enumerate(facts) for part in p.boxes]
        weights = torch.from_numpy(np.stack([box_weights(facts[i].boxes[part], self.grid) for i, part in where]))
        weights = (weights / weights.sum(1, keepdim=True)).to(self.device)
        pooled = (weights[:, None] @ tokens[[i for i, _ in where], 1:]).squeeze(1)
        parts = torch.tensor([self.attributes.parts.index(part) for _, part in where], device=self.device)
        return where, functional.gelu(self.heads.part_hidden(pooled + self.heads.part_embedding(parts)))

    def _read_parts(self, tokens: Tensor, facts: Sequence[PictureFacts]) -> Tensor:
        where, hidden = self.part_states(tokens, facts)
        losses, count = [], 0
        for kind, values in self.attributes.kinds.items():
            named = [(r, facts[i].attributes.get(f"{part}.{kind}")) for r, (i, part) in enumerate(where)]
            known = [(r, values.index(value)) for r, value in named if value is not None]
            if known:
                logits = self.heads.part[kind](hidden[[r for r, _ in known]])
                wanted = torch.tensor([v for _, v in known], device=self.device)
                losses.append(functional.cross_entropy(logits, wanted, reduction="sum"))
                count += len(known)
        return torch.stack(losses).sum() / count


def shifted(
    pictures: NDArray[np.uint8], facts: Sequence[PictureFacts], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[PictureFacts]]:
    """Move each picture [B, S, S, 3] and its boxes by up to ``most`` pixels each way; edge pixels fill the gap."""
    size = pictures.shape[1]
    padded = np.pad(pictures, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    moved = np.empty_like(pictures)
    moved_facts = []
    for i, (left, top) in enumerate(rng.integers(2 * most + 1, size=(len(pictures), 2)).tolist()):
        moved[i] = padded[i, top : top + size, left : left + size]
        right_by, down_by = (most - left) / size, (most - top) / size
        boxes = {
            name: (box[0] + right_by, box[1] + down_by, box[2] + right_by, box[3] + down_by)
            for name, box in facts[i].boxes.items()
        }
        moved_facts.append(replace(facts[i], boxes=boxes))
    return moved, moved_facts


def normalised_pixels(pictures: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Turn uint8 [B, S, S, 3] into float32 [B, 3, S, S] on a device, normalised as BLIP does."""
    pixels = torch.from_numpy(np.array(pictures)).to(device or "cpu").permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (BLIP_MEAN, BLIP_STD))
    return (pixels - mean) / std


def same_scene(facts: Sequence[PictureFacts]) -> np.ndarray:
    """Return which pictures show the same scene: bool [B, B]."""
    keys = [tuple(sorted(p.attributes.items())) for p in facts]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    codes = np.array([numbers[key] for key in keys])
    return cast(np.ndarray, codes[:, None] == codes[None, :])


def box_weights(box: Box, grid: int) -> np.ndarray:
    """Return the overlap of a box with each patch: float32 [grid * grid] in row order."""
    edges = np.arange(grid + 1, dtype=np.float32) / grid

    def overlap(low: float, high: float) -> np.ndarray:
        inside: np.ndarray = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 1e-4, None)
        return inside

    weights: np.ndarray = np.outer(overlap(box[1], box[3]), overlap(box[0], box[2])).ravel().astype(np.float32)
    return weights
