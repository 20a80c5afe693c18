"""Stage one and stage two over frozen image features (paper, sections 3.1, 3.2 and 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models import CirModel
from onnx_export.models.triplet_reranker import TripletLayer
from onnx_export.training.features import PoolFeatures, rows_of
from onnx_export.training.pool import PICTURES_PER_GROUP, Pool
from onnx_export.training.pretrain import encode_texts, positives_loss, similarities

TEXT_ONLY_SHARE = 0.08


class StageOne:
    """The composer: softmax over the cosine of the query vector with every picture of the batch's groups."""

    def __init__(
        self,
        model: CirModel,
        pool: Pool,
        features: PoolFeatures,
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch: int,
    ) -> None:
        self.model, self.pool, self.features, self.tokenizer = model, pool, features, tokenizer
        self.seed, self.batch = seed, batch
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        self.modules = nn.ModuleDict({"composer": model.composer, "temperature": nn.ParameterList([self.log_scale])})

    def step(self, step: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, step) and give its loss."""
        rng = np.random.default_rng((self.seed, 1, step))
        groups = rng.choice(len(self.pool.groups), self.batch, replace=False)
        rows = rows_of(groups)
        texts = [_pick(self.pool.groups[g].texts, rng) for g in groups]
        reference = self.features.tokens_of(rows[:, 0])
        for i in np.flatnonzero(rng.random(self.batch) < TEXT_ONLY_SHARE).tolist():
            texts[i] = _pick(self.pool.groups[groups[i]].pictures[1].captions, rng)
            reference[i] = self.features.blank
        ids, mask = encode_texts(self.tokenizer, texts)
        queries = self.model.composer(ids, mask, reference).query_vectors
        gallery = self.features.vectors[rows.ravel()]
        similarity = similarities(queries, gallery, self.log_scale.exp().clamp(max=100))
        positives = torch.zeros_like(similarity, dtype=torch.bool)
        for i, g in enumerate(groups):
            start = i * PICTURES_PER_GROUP
            positives[i, start : start + PICTURES_PER_GROUP] = torch.from_numpy(self.features.is_target[g])
        best = similarity.argmax(1)
        return {
            "loss": positives_loss(similarity, positives),
            "_accuracy": positives[torch.arange(self.batch), best].float().mean(),
        }


class StageTwo:
    """The re-ranker: softmax over one target, the group's near-duplicates and some pictures of other groups."""

    def __init__(
        self,
        model: CirModel,
        pool: Pool,
        features: PoolFeatures,
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch: int,
        others: int,
    ) -> None:
        self.model, self.pool, self.features, self.tokenizer = model, pool, features, tokenizer
        self.seed, self.batch, self.others = seed, batch, others
        self.modules = nn.ModuleDict({"reranker": model.reranker})

    def step(self, step: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, step) and give its loss."""
        rng = np.random.default_rng((self.seed, 2, step))
        groups = rng.choice(len(self.pool.groups), self.batch, replace=False)
        rows = rows_of(groups)
        texts = [_pick(self.pool.groups[g].texts, rng) for g in groups]
        ids, mask = encode_texts(self.tokenizer, texts)
        with torch.no_grad():
            states = self.model.composer(ids, mask, self.features.tokens_of(rows[:, 0])).fusion_states
        picks = np.stack([self._candidates(i, g, rng) for i, g in enumerate(groups)])
        width = picks.shape[1]
        pairs = torch.arange(self.batch).repeat_interleave(width)
        scores = self.model.reranker(
            ids[pairs],
            mask[pairs],
            states[pairs],
            self.features.tokens_of(rows.ravel()),
            torch.from_numpy(picks.ravel()),
        ).view(self.batch, width)
        targets = torch.zeros(self.batch, dtype=torch.int64)
        return {
            "loss": functional.cross_entropy(scores, targets),
            "_accuracy": (scores.argmax(1) == 0).float().mean(),
        }

    def _candidates(self, position: int, group: int, rng: np.random.Generator) -> np.ndarray:
        """Rows into the batch's pictures: a target first, then as many wrong ones as every query can have."""
        is_target = self.features.is_target[group]
        start = position * PICTURES_PER_GROUP
        own = start + np.flatnonzero(~is_target)
        elsewhere = np.setdiff1d(
            np.arange(self.batch * PICTURES_PER_GROUP), np.arange(start, start + PICTURES_PER_GROUP)
        )
        wanted = PICTURES_PER_GROUP - 2 + self.others
        wrong = np.concatenate((own, rng.choice(elsewhere, wanted - len(own), replace=False)))
        return np.concatenate(([start + rng.choice(np.flatnonzero(is_target))], wrong))


def start_reranker_from_text_encoder(model: CirModel, grounded: dict[str, Tensor]) -> None:
    """Copy a grounded text encoder's weights into both streams; ``merge_layer`` and ``cls_head`` stay fresh.

    A learnt merge starts as the mean, so that the new layers do not undo what the copied ones can do.
    """
    from onnx_export.checkpoints import stream_names

    target = model.reranker.state_dict()
    for key, value in grounded.items():
        for name in stream_names(f"text_encoder.{key}"):
            target[name].copy_(value)
    for layer in cast(Iterable[TripletLayer], model.reranker.text_encoder.encoder.layer):
        merge = layer.crossattention.output.merge_layer
        if merge is not None:
            width = merge.weight.shape[0]
            with torch.no_grad():
                merge.weight.copy_(torch.cat((torch.eye(width), torch.eye(width)), dim=1) / 2)


def _pick(texts: list[str], rng: np.random.Generator) -> str:
    return texts[rng.integers(len(texts))]
