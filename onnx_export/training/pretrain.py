"""Pre-training: an image encoder and a text encoder that is grounded in its tokens, from drawn products.

The paper starts from BLIP, whose image encoder and text encoder are pre-trained together. This gives the small model
the same start from six signals on the same pictures:

* contrast of pictures with captions, and of two renderings of the same scene (``vision_proj``, ``text_proj``);
* reading every attribute of the scene from the embedding, so that one vector holds the whole product;
* reading a part's attributes from the tokens inside its box, so that tokens hold what lies under them;
* matching: a statement about one part is true or false of this picture, false ones differing in one attribute;
* filling in: words for colours, patterns, counts and sizes are hidden in true sentences and read off the picture;
* where to look: the cross-attention of a statement falls on its part's box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.errors import TrainingError
from onnx_export.models import CirModel
from onnx_export.models.text_encoder import TextEncoder, TextLayer, additive_mask
from onnx_export.training.attributes import AttributeVocabulary, head_name, read_attributes
from onnx_export.training.pool import PICTURES_PER_GROUP, TARGET_ROWS, Box, PictureFacts, Pool
from qdrant_cir.catalog.wording import attribute_words

LOOKING_LAYERS = (1, 2)
STATEMENTS_PER_PICTURE = 2
CLAIMS_PER_PICTURE = 3
HIDDEN_IN_CLAIMS = 0.7
HIDDEN_IN_CAPTIONS = 0.4
HIDDEN = "[UNK]"
"""Stands for a hidden word, so that a word the model does not know reads like one that it has to guess."""


class PretrainingHeads(nn.Module):
    """What only pre-training uses: attribute readers, the matching head, temperatures."""

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
        self.matching = nn.Linear(sizes.text_width, 1)
        self.filling = nn.Linear(sizes.text_width, sizes.vocabulary)
        self.log_scale = nn.Parameter(torch.tensor(2.66))


class Pretraining:
    """The losses of one pre-training step."""

    def __init__(self, model: CirModel, pool: Pool, tokenizer: Tokenizer, *, seed: int, groups_per_step: int) -> None:
        self.model, self.pool, self.tokenizer = model, pool, tokenizer
        self.seed, self.groups_per_step = seed, groups_per_step
        self.attributes = AttributeVocabulary([p.attributes for group in pool.groups for p in group.pictures])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = PretrainingHeads(model, self.attributes)
        self.modules = nn.ModuleDict({"model": model, "heads": self.heads})
        self.grid = model.sizes.image_size // model.sizes.patch_size
        self.hidden_id = special_id(tokenizer, HIDDEN)
        self.can_hide = torch.zeros(model.sizes.vocabulary, dtype=torch.bool)
        self.can_hide[[tokenizer.token_to_id(word) for word in sorted(attribute_words())]] = True

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
            "whole": read_attributes(self.heads.whole, self.attributes, embedding, [p.attributes for p in facts]),
            "part": self._read_parts(tokens, facts),
            **self._ground(tokens, facts, rng),
            **self._fill_captions(tokens, groups, facts, rng),
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

    def _ground(self, tokens: Tensor, facts: Sequence[PictureFacts], rng: np.random.Generator) -> dict[str, Tensor]:
        """Judge statements and fill in claims, every picture's in one run over its tokens."""
        texts, parts, truths = [], [], []
        for p in facts:
            judged = rng.choice(len(p.statements), STATEMENTS_PER_PICTURE, replace=False)
            filled = rng.choice(len(p.claims), CLAIMS_PER_PICTURE, replace=False)
            texts += [p.statements[s] for s in judged] + [p.claims[c] for c in filled]
            parts += [p.statement_parts[s] for s in judged] + [p.claim_parts[c] for c in filled]
            truths += [float(p.statement_truths[s]) for s in judged]
        per_picture = STATEMENTS_PER_PICTURE + CLAIMS_PER_PICTURE
        is_judged = (torch.arange(len(texts)) % per_picture) < STATEMENTS_PER_PICTURE
        ids, mask = encode_texts(self.tokenizer, texts)
        hidden = self._hide(ids, HIDDEN_IN_CLAIMS, rng) & ~is_judged[:, None]
        states, maps = looking(self.model.composer.text_encoder, ids.masked_fill(hidden, self.hidden_id), mask, tokens)
        logits, truth = self.heads.matching(states[is_judged, 0]).squeeze(1), torch.tensor(truths)
        boxes = [facts[row // per_picture].boxes.get(part) for row, part in enumerate(parts)]
        return {
            "match": 2.0 * functional.binary_cross_entropy_with_logits(logits, truth),
            "look": 0.3 * self._look(maps, mask, boxes),
            "fill": self._fill(states, ids, hidden),
            "_match_accuracy": ((logits > 0) == (truth > 0.5)).float().mean(),
            "_fill_accuracy": (self.heads.filling(states[hidden]).argmax(1) == ids[hidden]).float().mean(),
        }

    def _fill_captions(
        self, tokens: Tensor, groups: NDArray[np.int64], facts: Sequence[PictureFacts], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Fill in one caption per picture; for half of the targets, the modification text that led to them."""
        texts = []
        for row, p in enumerate(facts):
            choices = p.captions
            if row % PICTURES_PER_GROUP in TARGET_ROWS and rng.random() < 0.5:
                choices = self.pool.groups[groups[row // PICTURES_PER_GROUP]].texts
            texts.append(choices[rng.integers(len(choices))])
        ids, mask = encode_texts(self.tokenizer, texts)
        hidden = self._hide(ids, HIDDEN_IN_CAPTIONS, rng)
        states = self.model.composer.text_encoder(ids.masked_fill(hidden, self.hidden_id), mask, tokens)
        return {"fill_caption": self._fill(states, ids, hidden)}

    def _hide(self, ids: Tensor, share: float, rng: np.random.Generator) -> Tensor:
        return self.can_hide[ids] & torch.from_numpy(rng.random(ids.shape) < share)

    def _fill(self, states: Tensor, ids: Tensor, hidden: Tensor) -> Tensor:
        return functional.cross_entropy(self.heads.filling(states[hidden]), ids[hidden])

    def _look(self, maps: Sequence[Tensor], mask: Tensor, boxes: Sequence[Box | None]) -> Tensor:
        with_box = [row for row, box in enumerate(boxes) if box is not None]
        weights = torch.from_numpy(np.stack([box_weights(box, self.grid) for box in boxes if box is not None]))
        inside = (weights > 0.25 * weights.amax(1, keepdim=True)).float()
        losses = []
        for attention in maps:
            mean = (attention * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            losses.append(-torch.log((mean[with_box, 1:] * inside).sum(1) + 1e-4).mean())
        return torch.stack(losses).mean()


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
    ids[:, 0] = special_id(tokenizer, "[ENC]")
    return ids, mask


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Give the id of a special token.

    Raises:
        TrainingError: the tokenizer does not have it.
    """
    number = tokenizer.token_to_id(token)
    if number is None:
        raise TrainingError(f"The tokenizer has no {token} token, which training needs.")
    return int(number)


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
    """Run a text encoder over several texts per picture and keep where it looks.

    Args:
        encoder: the text encoder.
        ids: int64 [P * S, L], the S texts of a picture one after the other.
        mask: int64 [P * S, L].
        tokens: float32 [P, N, C]. Cross-attention has no mask, so the texts of a picture read it as one long text and
            its keys and values are projected once.

    Returns:
        States [P * S, L, H], and the cross-attention of ``LOOKING_LAYERS``, each [P * S, L, N], mean over heads.
    """
    additive, states = additive_mask(mask), encoder.embeddings(ids)
    maps = []
    for number, layer in enumerate(cast(Iterable[TextLayer], encoder.encoder.layer)):
        states = layer.attention(states, states, additive)
        cross, joined = layer.crossattention, states.reshape(tokens.shape[0], -1, states.shape[-1])
        keys, values = cross.self.keys_values(tokens)
        queries = cross.self.split(cross.self.query(joined))
        attention = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(-1)
        if number in LOOKING_LAYERS:
            maps.append(attention.mean(1).reshape(*ids.shape, -1))
        mixed = (attention.to(values.dtype) @ values).transpose(1, 2).flatten(2)
        states = cross.output(mixed, joined).view(states.shape)
        states = layer.output(layer.intermediate(states), states)
    return states, maps
