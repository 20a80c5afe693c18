"""Stage one and stage two over frozen image features (paper, sections 3.1, 3.2 and 4.1).

Where the attributes of the pictures are known, as in drawn data, each stage has a second loss: every attribute of the
target can be read from the query vector, and the re-ranker can tell which attributes of a candidate differ from the
target's. Stage one may have a third: the target's attributes can be read from the fusion states, too, which are all
that stage two knows of the reference. The heads that read them are not part of the model.
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
from onnx_export.models.triplet_reranker import TripletLayer, TripletReranker
from onnx_export.training.attributes import (
    NOT_OF_THIS_KIND,
    AttributeVocabulary,
    StateReader,
    attribute_codes,
    read_attributes,
)
from onnx_export.training.losses import positives_loss, similarities
from onnx_export.training.seeds import seeded
from onnx_export.training.texts import encode_texts
from onnx_export.training.triplets import Triplet, TripletSet

TEXT_ONLY_SHARE = 0.08
MINED_DEPTH = 1000
LENGTH_GROUPS = 6
MISMATCH_WEIGHT = 3.0


class StageOne:
    """The composer's losses: softmax over cosines with pictures of the batch and random ones of the whole set.

    The pictures' vectors are frozen, so thousands of random negatives cost little.
    """

    def __init__(
        self, model: CirModel, data: TripletSet, tokenizer: Tokenizer, *, seed: int, batch: int, negatives: int
    ) -> None:
        self.model, self.data, self.tokenizer, self.device = model, data, tokenizer, model.device
        self.seed, self.batch, self.negatives = seed, min(batch, len(data.triplets)), negatives
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32, device=self.device))
        self.modules = nn.ModuleDict({"composer": model.composer, "temperature": nn.ParameterList([self.log_scale])})
        self.vocabulary: AttributeVocabulary | None = None

    def read_with(self, vocabulary: AttributeVocabulary, heads: nn.ModuleDict) -> None:
        """Add the attribute loss, with heads that were trained on picture embeddings."""
        self.vocabulary = vocabulary
        self.modules["attributes"] = heads

    def read_states(self) -> None:
        """Add the attribute loss of the fusion states. Call :meth:`read_with` first."""
        if self.vocabulary is None:
            raise TrainingError("Attributes can be read off fusion states where they are read off query vectors.")
        if "state_reader" in self.modules:
            return
        with seeded(self.seed):
            self.modules["state_reader"] = StateReader(self.model.sizes, self.vocabulary).to(self.device)

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        rng = np.random.default_rng((self.seed, 1, batch))
        triplets, texts = draw_triplets(self.data.triplets, self.batch, rng)
        reference = self._references(triplets, texts, rng)
        ids, mask = encode_texts(self.tokenizer, texts, device=self.device)
        states = self.model.composer.text_encoder(ids, mask, reference)
        embedding = self.model.composer.text_proj(states[:, 0])
        rows = self._gallery(triplets, rng)
        positives = torch.from_numpy(np.stack([self.data.are_right(t, rows) for t in triplets])).to(self.device)
        queries = functional.normalize(embedding, dim=-1)
        similarity = similarities(queries, self.data.features.vectors[rows], self.log_scale.exp().clamp(max=100))
        best = similarity.argmax(1)
        losses = {
            "loss": positives_loss(similarity, positives),
            "_accuracy": positives.gather(1, best[:, None]).float().mean(),
        }
        if self.vocabulary is not None and self.data.attributes is not None:
            wanted = [self.data.attributes[t.targets[0]] for t in triplets]
            heads = cast(nn.ModuleDict, self.modules["attributes"])
            losses["attributes"] = read_attributes(heads, self.vocabulary, embedding, wanted)
            if "state_reader" in self.modules:
                losses["state_attributes"] = self.modules["state_reader"](states, mask, wanted)
        return losses

    def _references(self, triplets: list[Triplet], texts: list[str], rng: np.random.Generator) -> Tensor:
        """Return tokens of the references. A few queries become a description of their target, without a reference."""
        reference = self.data.features.tokens_of(np.array([t.reference for t in triplets]))
        for i in np.flatnonzero(rng.random(len(triplets)) < TEXT_ONLY_SHARE).tolist():
            if triplets[i].descriptions:
                texts[i] = _pick(triplets[i].descriptions, rng)
                reference[i] = self.data.features.blank
        return reference

    def _gallery(self, triplets: list[Triplet], rng: np.random.Generator) -> NDArray[np.int64]:
        own = [row for t in triplets for row in (*t.targets, *t.near)]
        count = len(self.data.features.vectors)
        return np.union1d(own, rng.integers(count, size=min(self.negatives, count)))


class StageTwo:
    """The re-ranker's losses: softmax over one target and several kinds of wrong candidates.

    Wrong candidates are near misses (``near``), pictures that stage one ranks high (``mined``, drawn from its best
    ``MINED_DEPTH`` with a probability that falls as 1 / rank), and targets of other queries (``others``).

    With a ``similarity_weight`` there is a second loss of the same form, on the score plus the weighted cosine of stage
    one. It helps on triplets that stage one was not trained on, where the cosine makes mistakes. Stage one is frozen.
    """

    def __init__(
        self,
        model: CirModel,
        data: TripletSet,
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch: int,
        near: int,
        mined: int,
        others: int,
    ) -> None:
        self.model, self.data, self.tokenizer, self.device = model, data, tokenizer, model.device
        self.seed, self.batch = seed, min(batch, len(data.triplets))
        self.near, self.mined, self.others = near, mined, others
        self.similarity_weight = 0.0
        self.held: TripletReranker | None = None
        self.modules = nn.ModuleDict({"reranker": model.reranker})
        self.keys: list[str] = []
        self.codes: Tensor | None = None
        if data.attributes is not None:
            self.keys, self.codes = attribute_codes(data.attributes)
            with seeded(seed):
                head = nn.Linear(2 * model.sizes.text_width, len(self.keys))
            self.modules["mismatch"] = head.to(self.device)

    def go_on_with(self, data: TripletSet, *, similarity_weight: float) -> None:
        """Replace the triplets and the weight of the cosine; with a weight of 0 the second loss is left out."""
        self.data, self.similarity_weight = data, similarity_weight
        self.codes = attribute_codes(data.attributes, self.keys)[1] if self.keys and data.attributes else None

    def hold(self, reranker: TripletReranker) -> None:
        """Add the loss of telling candidates apart otherwise than another re-ranker, which stays as it is."""
        self.held = reranker.eval()

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        rng = np.random.default_rng((self.seed, 2, batch))
        triplets, texts = draw_triplets(self.data.triplets, self.batch, rng)
        ids, mask = encode_texts(self.tokenizer, texts, device=self.device)
        reference = self.data.features.tokens_of(np.array([t.reference for t in triplets]))
        with torch.no_grad():
            query, states = self.model.composer(ids, mask, reference)
            with torch.autocast(self.device.type, enabled=False):
                similarity = query.float() @ self.data.features.vectors.T
        best = similarity.topk(min(MINED_DEPTH, similarity.shape[1])).indices.cpu().numpy()
        candidates = np.stack([self._candidates(i, triplets, best[i], rng) for i in range(len(triplets))])
        rows, places = np.unique(candidates, return_inverse=True)
        pairs = torch.arange(len(triplets), device=self.device).repeat_interleave(candidates.shape[1])
        inputs = (
            ids[pairs],
            mask[pairs],
            states[pairs],
            (self.data.candidates or self.data.features).tokens_of(rows),
            torch.from_numpy(places.ravel()).to(self.device),
        )
        features = self.model.reranker.features(*inputs)
        scores = self.model.reranker.cls_head(features)[:, 0].view(candidates.shape)
        losses = _target_first(scores, "")
        if self.held is not None:
            with torch.no_grad():
                held = self.held(*inputs).view(candidates.shape)
            log_shares = functional.log_softmax(scores.float(), dim=1), functional.log_softmax(held.float(), dim=1)
            losses["held"] = functional.kl_div(*log_shares, reduction="batchmean", log_target=True)
        if self.similarity_weight > 0:
            cosines = similarity.gather(1, torch.from_numpy(candidates).to(self.device))
            losses |= _target_first(scores + self.similarity_weight * cosines, "summed_")
        if self.codes is not None:
            losses |= self._mismatch(features, self.codes[candidates].to(self.device))
        return losses

    def _mismatch(self, features: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Return the loss of telling which attributes [B, W, keys] differ from those of the target in column 0."""
        is_known = (codes[:, :1] != NOT_OF_THIS_KIND).expand_as(codes)
        differs = (codes != codes[:, :1]).float()
        logits = self.modules["mismatch"](features).view(differs.shape)
        loss = functional.binary_cross_entropy_with_logits(logits, differs, reduction="none")
        found = ((logits > 0) & (differs > 0.5))[:, 1:][is_known[:, 1:]].sum() / differs[:, 1:][is_known[:, 1:]].sum()
        return {"mismatch": MISMATCH_WEIGHT * loss[is_known].mean(), "_mismatch_found": found}

    def _candidates(
        self, place: int, triplets: list[Triplet], best: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw rows of a target and ``near + mined + others`` wrong pictures; the next kind fills up what one lacks."""
        triplet = triplets[place]
        near = rng.permutation(triplet.near)[: self.near]
        ranks = np.unique((len(best) ** rng.random(4 * (self.mined + self.near))).astype(np.int64) - 1)
        mined = best[rng.permutation(ranks)]
        mined = mined[~self.data.are_right(triplet, mined) & ~np.isin(mined, triplet.near)]
        mined = mined[: self.near + self.mined - len(near)]
        rows = [row for i, t in enumerate(triplets) if i != place for row in (*t.targets, *t.near)]
        elsewhere = np.array(rows, dtype=np.int64)
        elsewhere = elsewhere[~self.data.are_right(triplet, elsewhere)]
        if not len(elsewhere):  # a batch of one query
            everything = np.arange(len(self.data.scenes))
            elsewhere = everything[~self.data.are_right(triplet, everything)]
        wanted = self.near + self.mined + self.others - len(near) - len(mined)
        other = rng.choice(elsewhere, wanted, replace=len(elsewhere) < wanted)
        return np.concatenate(([self._target(triplet, best, rng)], near, mined, other)).astype(np.int64)

    def _target(self, triplet: Triplet, best: NDArray[np.int64], rng: np.random.Generator) -> int:
        """Draw the right candidate; ``best`` are stage one's best pictures, in order."""
        return int(rng.choice(triplet.targets))


def _target_first(scores: Tensor, prefix: str) -> dict[str, Tensor]:
    """Return loss and accuracy of scores [B, W] whose right candidate is in column 0."""
    targets = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return {
        f"{prefix}loss": functional.cross_entropy(scores, targets),
        f"_{prefix}accuracy": (scores.argmax(1) == 0).float().mean(),
    }


def start_reranker_from_text_encoder(model: CirModel, grounded: dict[str, Tensor]) -> None:
    """Copy a grounded text encoder's weights into both streams; ``cls_head`` stays fresh.

    A learnt merge starts as the mean of both streams, so that it keeps what the copied layers compute.
    """
    from onnx_export.checkpoints.blip import stream_names

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


def draw_triplets(triplets: Sequence[Triplet], count: int, rng: np.random.Generator) -> tuple[list[Triplet], list[str]]:
    """Draw ``count`` triplets and a text of each, of similar length, so that a batch has little padding."""
    numbers = rng.choice(len(triplets), min(LENGTH_GROUPS * count, len(triplets)), replace=False)
    drawn = [(triplets[number], _pick(triplets[number].texts, rng)) for number in numbers.tolist()]
    drawn.sort(key=lambda pair: len(pair[1].split()))
    start = count * int(rng.integers(len(drawn) // count))
    chosen = drawn[start : start + count]
    return [triplet for triplet, _ in chosen], [text for _, text in chosen]


def _pick(texts: tuple[str, ...], rng: np.random.Generator) -> str:
    return texts[rng.integers(len(texts))]
