"""Pre-training: an image encoder and a text encoder that is grounded in its tokens, from drawn products.

The paper starts from BLIP, whose image encoder and text encoder are pre-trained together. This gives the small model
the same start from five signals on the same pictures:

* contrast of pictures with captions, and of two renderings of the same scene (``vision_proj``, ``text_proj``);
* reading every attribute of the scene from the embedding, so that one vector holds the whole product;
* reading a part's attributes from the tokens inside its box, so that tokens hold what lies under them;
* matching: a statement about one part is true or false of this picture, false ones differing in one attribute;
* where to look: in matching, the cross-attention of a statement falls on the part's box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.errors import TrainingError
from onnx_export.models import CirModel
from onnx_export.models.text_encoder import TextEncoder, TextLayer, additive_mask
from onnx_export.training.pool import PICTURES_PER_GROUP, Box, PictureFacts, Pool

LOOKING_LAYERS = (1, 2)
STATEMENTS_PER_PICTURE = 2


class AttributeVocabulary:
    """Numbers for attribute keys (``collar.color``) and their values, collected from a pool."""

    def __init__(self, pool: Pool) -> None:
        values: dict[str, set[str]] = {}
        for group in pool.groups:
            for picture in group.pictures:
                for key, value in picture.attributes.items():
                    values.setdefault(key, set()).add(value)
        self.values = {key: sorted(found) for key, found in sorted(values.items())}
        self.kinds: dict[str, list[str]] = {}
        for key, found in self.values.items():
            kind = key.rpartition(".")[2]
            self.kinds[kind] = sorted({*self.kinds.get(kind, []), *found})
        self.parts = sorted({key.partition(".")[0] for key in self.values if "." in key})


class PretrainingHeads(nn.Module):
    """What only pre-training uses: attribute readers, the matching head, temperatures."""

    def __init__(self, model: CirModel, attributes: AttributeVocabulary) -> None:
        super().__init__()
        sizes = model.sizes
        self.whole = nn.ModuleDict(
            {_name(key): nn.Linear(sizes.vector_size, len(values)) for key, values in attributes.values.items()}
        )
        self.part_embedding = nn.Embedding(len(attributes.parts), sizes.image_width)
        self.part_hidden = nn.Linear(sizes.image_width, sizes.image_width)
        self.part = nn.ModuleDict(
            {kind: nn.Linear(sizes.image_width, len(values)) for kind, values in attributes.kinds.items()}
        )
        self.matching = nn.Linear(sizes.text_width, 1)
        self.log_scale = nn.Parameter(torch.tensor(2.66))


def _name(key: str) -> str:
    return key.replace(".", "__")


class Pretraining:
    """The losses of one pre-training step."""

    def __init__(self, model: CirModel, pool: Pool, tokenizer: Tokenizer, *, seed: int, groups_per_step: int) -> None:
        self.model, self.pool, self.tokenizer = model, pool, tokenizer
        self.seed, self.groups_per_step = seed, groups_per_step
        self.attributes = AttributeVocabulary(pool)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = PretrainingHeads(model, self.attributes)
        self.modules = nn.ModuleDict({"model": model, "heads": self.heads})
        self.grid = model.sizes.image_size // model.sizes.patch_size

    def step(self, step: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, step) and give its losses."""
        rng = np.random.default_rng((self.seed, step))
        groups = rng.integers(len(self.pool.groups), size=self.groups_per_step)
        rows = (groups[:, None] * PICTURES_PER_GROUP + np.arange(PICTURES_PER_GROUP)).ravel()
        facts = [p for g in groups for p in self.pool.groups[g].pictures]
        tokens = self.model.image_encoder.visual_encoder(normalised_pixels(self.pool.pictures[rows]))
        embedding = self.model.image_encoder.vision_proj(tokens[:, 0])
        same = torch.from_numpy(same_scene(facts))
        return {
            **self._contrast(embedding, facts, same, rng),
            "whole": self._read_whole(embedding, facts),
            "part": self._read_parts(tokens, facts),
            **self._match(tokens, facts, rng),
        }

    def _contrast(
        self, embedding: Tensor, facts: Sequence[PictureFacts], same: Tensor, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        captions = [p.captions[rng.integers(len(p.captions))] for p in facts]
        ids, mask = encode_texts(self.tokenizer, captions)
        states = self.model.composer.text_encoder(ids, mask, None)
        texts = functional.normalize(self.model.composer.text_proj(states[:, 0]), dim=-1)
        vectors = functional.normalize(embedding, dim=-1)
        scale = self.heads.log_scale.exp().clamp(max=50)
        other = same & ~torch.eye(len(facts), dtype=torch.bool)
        to_texts = similarities(vectors, texts, scale)
        to_pictures = similarities(vectors, vectors, scale)
        to_pictures = to_pictures.masked_fill(torch.eye(len(facts), dtype=torch.bool), -1e4)
        return {
            "caption": 0.5 * (positives_loss(to_texts, same) + positives_loss(to_texts.T, same)),
            "scene": positives_loss(to_pictures, other),
        }

    def _read_whole(self, embedding: Tensor, facts: Sequence[PictureFacts]) -> Tensor:
        losses = []
        for key, values in self.attributes.values.items():
            rows = [i for i, p in enumerate(facts) if key in p.attributes]
            if rows:
                targets = torch.tensor([values.index(facts[i].attributes[key]) for i in rows])
                logits = self.heads.whole[_name(key)](embedding[rows])
                losses.append(functional.cross_entropy(logits, targets, reduction="sum"))
        return torch.stack(losses).sum() / sum(len(p.attributes) for p in facts)

    def _read_parts(self, tokens: Tensor, facts: Sequence[PictureFacts]) -> Tensor:
        where = [(i, part) for i, p in enumerate(facts) for part in p.boxes]
        weights = torch.from_numpy(np.stack([box_weights(facts[i].boxes[part], self.grid) for i, part in where]))
        weights = weights / weights.sum(1, keepdim=True)
        pooled = (weights[:, None] @ tokens[[i for i, _ in where], 1:]).squeeze(1)
        parts = torch.tensor([self.attributes.parts.index(part) for _, part in where])
        hidden = functional.gelu(self.heads.part_hidden(pooled + self.heads.part_embedding(parts)))
        losses, count = [], 0
        for kind, values in self.attributes.kinds.items():
            named = [(r, facts[i].attributes.get(f"{part}.{kind}")) for r, (i, part) in enumerate(where)]
            known = [(r, values.index(value)) for r, value in named if value is not None]
            if known:
                logits = self.heads.part[kind](hidden[[r for r, _ in known]])
                losses.append(functional.cross_entropy(logits, torch.tensor([v for _, v in known]), reduction="sum"))
                count += len(known)
        return torch.stack(losses).sum() / count

    def _match(self, tokens: Tensor, facts: Sequence[PictureFacts], rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = [
            (i, s)
            for i, p in enumerate(facts)
            for s in rng.choice(len(p.statements), STATEMENTS_PER_PICTURE, replace=False)
        ]
        rows = torch.tensor([i for i, _ in chosen])
        ids, mask = encode_texts(self.tokenizer, [facts[i].statements[s] for i, s in chosen])
        states, maps = looking(self.model.composer.text_encoder, ids, mask, tokens[rows])
        logits = self.heads.matching(states[:, 0]).squeeze(1)
        truths = torch.tensor([float(facts[i].statement_truths[s]) for i, s in chosen])
        accuracy = ((logits > 0) == (truths > 0.5)).float().mean()

        boxed = [(r, facts[i].boxes.get(facts[i].statement_parts[s])) for r, (i, s) in enumerate(chosen)]
        rows_with_box = [r for r, box in boxed if box is not None]
        weights = torch.from_numpy(np.stack([box_weights(box, self.grid) for _, box in boxed if box is not None]))
        inside = (weights > 0.25 * weights.amax(1, keepdim=True)).float()
        losses = []
        for attention in maps:
            mean = (attention * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            on_part = (mean[rows_with_box, 1:] * inside).sum(1)
            losses.append(-torch.log(on_part + 1e-4).mean())
        return {
            "match": 2.0 * functional.binary_cross_entropy_with_logits(logits, truths),
            "look": 0.3 * torch.stack(losses).mean(),
            "_match_accuracy": accuracy,
        }


PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def normalised_pixels(pictures: np.ndarray) -> Tensor:
    """Turn uint8 [B, S, S, 3] into float32 [B, 3, S, S], normalised as BLIP does."""
    pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenise to ids and mask, int64 [B, L], padded to the longest; the first token becomes [ENC]."""
    encodings = tokenizer.encode_batch(list(texts))
    length = max(len(e.ids) for e in encodings)
    ids = torch.zeros(len(encodings), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
        mask[row, : len(encoding.ids)] = 1
    first = tokenizer.token_to_id("[ENC]")
    if first is None:
        raise TrainingError("The tokenizer has no [ENC] token, which replaces the first of every text.")
    ids[:, 0] = first
    return ids, mask


def same_scene(facts: Sequence[PictureFacts]) -> np.ndarray:
    """Bool [B, B]: which pictures show the same scene."""
    keys = [tuple(sorted(p.attributes.items())) for p in facts]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    codes = np.array([numbers[key] for key in keys])
    return cast(np.ndarray, codes[:, None] == codes[None, :])


def similarities(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Scaled dot products float32 [A, B] of [A, D] and [B, D], in full precision whatever surrounds them."""
    with torch.autocast("cpu", enabled=False):
        return scale.float() * left.float() @ right.float().T


def positives_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Softmax cross-entropy [B, T] against any of several positives; rows without one are left out."""
    has = positives.any(1)
    log_probabilities = logits.log_softmax(1)[has].masked_fill(~positives[has], -1e4)
    return -log_probabilities.logsumexp(1).mean()


def box_weights(box: Box, grid: int) -> np.ndarray:
    """Overlap of a box with each patch, float32 [grid * grid] in row order."""
    edges = np.arange(grid + 1, dtype=np.float32) / grid

    def overlap(low: float, high: float) -> np.ndarray:
        inside: np.ndarray = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 1e-4, None)
        return inside

    weights: np.ndarray = np.outer(overlap(box[1], box[3]), overlap(box[0], box[2])).ravel().astype(np.float32)
    return weights


def looking(encoder: TextEncoder, ids: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a text encoder and keep the cross-attention of ``LOOKING_LAYERS``, each [B, L, N], mean over heads."""
    additive, states = additive_mask(mask), encoder.embeddings(ids)
    maps = []
    for number, layer in enumerate(cast(Iterable[TextLayer], encoder.encoder.layer)):
        states = layer.attention(states, states, additive)
        if number in LOOKING_LAYERS:
            cross = layer.crossattention.self
            queries, keys = cross.split(cross.query(states)), cross.split(cross.key(tokens))
            scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
            maps.append(scores.softmax(-1).mean(1))
        states = layer.crossattention(states, tokens)
        states = layer.output(layer.intermediate(states), states)
    return states, maps
