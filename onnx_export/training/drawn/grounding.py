"""Grounding: a text encoder learns to read the frozen tokens of pictures and to match their vectors.

The paper starts both stages from BLIP's text encoder, which can do this. Four losses on drawn products:

* matching: tell whether a statement about one part is true of a picture; false ones differ in one attribute;
* filling in: fill in hidden words for colours, patterns, counts and sizes in true sentences;
* looking: the cross-attention of a statement falls on the box of its part;
* contrast: match captions with the frozen vectors of the pool.
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

from onnx_export.models import CirModel
from onnx_export.models.text_encoder import TextEncoder, TextLayer, additive_mask
from onnx_export.training.drawn.pool import PICTURES_PER_GROUP, TARGET_ROWS, Box, PictureFacts, Pool
from onnx_export.training.drawn.pretrain import box_weights
from onnx_export.training.losses import positives_loss, similarities
from onnx_export.training.seeds import seeded
from onnx_export.training.texts import encode_texts, special_id
from onnx_export.training.triplets import TripletSet
from qdrant_cir.drawn.wording import attribute_words

LOOKING_LAYERS = (1, 2)
STATEMENTS_PER_PICTURE = 2
CLAIMS_PER_PICTURE = 3
HIDDEN_IN_CLAIMS = 0.7
HIDDEN_IN_CAPTIONS = 0.4
CAPTION_NEGATIVES = 2048
CAPTION_WEIGHT = 0.3
HIDDEN = "[UNK]"
"""Replaces a hidden word, so that the model later treats a word that it does not know as one to guess."""


class GroundingHeads(nn.Module):
    """Heads for this stage alone: judge a statement, fill in a word, a temperature."""

    def __init__(self, model: CirModel) -> None:
        super().__init__()
        self.matching = nn.Linear(model.sizes.text_width, 1)
        self.filling = nn.Linear(model.sizes.text_width, model.sizes.vocabulary)
        self.log_scale = nn.Parameter(torch.tensor(2.66))


class Grounding:
    """The losses of grounding the composer's text encoder."""

    def __init__(
        self, model: CirModel, pool: Pool, data: TripletSet, tokenizer: Tokenizer, *, seed: int, groups_per_step: int
    ) -> None:
        self.model, self.pool, self.data, self.tokenizer = model, pool, data, tokenizer
        self.seed, self.groups_per_step, self.device = seed, groups_per_step, model.device
        with seeded(seed):
            self.heads = GroundingHeads(model).to(self.device)
        self.modules = nn.ModuleDict({"composer": model.composer, "heads": self.heads})
        self.grid = model.sizes.image_size // model.sizes.patch_size
        self.hidden_id = special_id(tokenizer, HIDDEN)
        self.can_hide = torch.zeros(model.sizes.vocabulary, dtype=torch.bool)
        self.can_hide[[tokenizer.token_to_id(word) for word in sorted(attribute_words())]] = True
        self.can_hide = self.can_hide.to(self.device)

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        rng = np.random.default_rng((self.seed, 3, batch))
        groups = rng.integers(len(self.pool.groups), size=self.groups_per_step)
        rows = (groups[:, None] * PICTURES_PER_GROUP + np.arange(PICTURES_PER_GROUP)).ravel()
        facts = [p for g in groups for p in self.pool.groups[g].pictures]
        tokens = self.data.features.tokens_of(rows)
        return {
            **self._ground(tokens, facts, rng),
            **self._fill_captions(tokens, groups, facts, rng),
            "caption": CAPTION_WEIGHT * self._name(rows, facts, rng),
        }

    def _name(self, rows: NDArray[np.int64], facts: Sequence[PictureFacts], rng: np.random.Generator) -> Tensor:
        """Return the contrast of captions with vectors of the batch and of other pictures."""
        captions = [p.captions[rng.integers(len(p.captions))] for p in facts]
        ids, mask = encode_texts(self.tokenizer, captions, device=self.device)
        states = self.model.composer.text_encoder(ids, mask, None)
        texts = functional.normalize(self.model.composer.text_proj(states[:, 0]), dim=-1)
        gallery = np.union1d(rows, rng.integers(len(self.data.scenes), size=CAPTION_NEGATIVES))
        positives = torch.from_numpy(self.data.scenes[rows][:, None] == self.data.scenes[gallery]).to(self.device)
        scale = self.heads.log_scale.exp().clamp(max=50)
        return positives_loss(similarities(texts, self.data.features.vectors[gallery], scale), positives)

    def _ground(self, tokens: Tensor, facts: Sequence[PictureFacts], rng: np.random.Generator) -> dict[str, Tensor]:
        """Judge statements and fill in claims, all those of a picture in one pass over its tokens."""
        texts, parts, truths = [], [], []
        for p in facts:
            judged = rng.choice(len(p.statements), STATEMENTS_PER_PICTURE, replace=False)
            filled = rng.choice(len(p.claims), CLAIMS_PER_PICTURE, replace=False)
            texts += [p.statements[s] for s in judged] + [p.claims[c] for c in filled]
            parts += [p.statement_parts[s] for s in judged] + [p.claim_parts[c] for c in filled]
            truths += [float(p.statement_truths[s]) for s in judged]
        per_picture = STATEMENTS_PER_PICTURE + CLAIMS_PER_PICTURE
        is_judged = (torch.arange(len(texts), device=self.device) % per_picture) < STATEMENTS_PER_PICTURE
        ids, mask = encode_texts(self.tokenizer, texts, device=self.device)
        hidden = self._hide(ids, HIDDEN_IN_CLAIMS, rng) & ~is_judged[:, None]
        states, maps = looking(self.model.composer.text_encoder, ids.masked_fill(hidden, self.hidden_id), mask, tokens)
        logits = self.heads.matching(states[is_judged, 0]).squeeze(1)
        truth = torch.tensor(truths, device=self.device)
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
        """Fill in one caption per picture, and for half of the targets their modification text instead."""
        texts = []
        for row, p in enumerate(facts):
            choices = p.captions
            if row % PICTURES_PER_GROUP in TARGET_ROWS and rng.random() < 0.5:
                choices = self.pool.groups[groups[row // PICTURES_PER_GROUP]].texts
            texts.append(choices[rng.integers(len(choices))])
        ids, mask = encode_texts(self.tokenizer, texts, device=self.device)
        hidden = self._hide(ids, HIDDEN_IN_CAPTIONS, rng)
        states = self.model.composer.text_encoder(ids.masked_fill(hidden, self.hidden_id), mask, tokens)
        return {"fill_caption": self._fill(states, ids, hidden)}

    def _hide(self, ids: Tensor, share: float, rng: np.random.Generator) -> Tensor:
        return self.can_hide[ids] & torch.from_numpy(rng.random(ids.shape) < share).to(self.device)

    def _fill(self, states: Tensor, ids: Tensor, hidden: Tensor) -> Tensor:
        return functional.cross_entropy(self.heads.filling(states[hidden]), ids[hidden])

    def _look(self, maps: Sequence[Tensor], mask: Tensor, boxes: Sequence[Box | None]) -> Tensor:
        with_box = [row for row, box in enumerate(boxes) if box is not None]
        weights = torch.from_numpy(np.stack([box_weights(box, self.grid) for box in boxes if box is not None]))
        inside = (weights > 0.25 * weights.amax(1, keepdim=True)).float().to(self.device)
        losses = []
        for attention in maps:
            mean = (attention * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            losses.append(-torch.log((mean[with_box, 1:] * inside).sum(1) + 1e-4).mean())
        return torch.stack(losses).mean()


def looking(encoder: TextEncoder, ids: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a text encoder over several texts per picture and return its attention, too.

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
