"""The three stages on photographs: the encoder with the composer, the composer alone, the re-ranker.

The trunk is frozen throughout; its features of every picture are computed once. The first stage trains what follows it
(projection, transformer block, embedding) together with the composer, the later ones over frozen tokens, as the paper
does (sections 3.1 and 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models import CirModel
from onnx_export.models.efficientnet_lite import LAST_CHANNELS, PhotoStem
from onnx_export.training.losses import similarities
from onnx_export.training.photos.pool import KIND_NAMES, PhotoPool
from onnx_export.training.photos.queries import NO_REFERENCE, QueryBatch, QueryDrawer
from onnx_export.training.texts import encode_texts
from qdrant_cir.photographs.colours import BASIC_COLOURS, COLOURS

GARMENT_DIMS = 128
"""First dimensions of the vector, which keep the likeness of the trunk's pooled features: which garment it is."""
HEADS = {"kind": len(KIND_NAMES), "basic": len(BASIC_COLOURS), "pattern": 6, "graphic": 4}
ATTRIBUTE_WEIGHT, ASKED_WEIGHT, LIKENESS_WEIGHT, SAME_WEIGHT, LAB_WEIGHT = 0.4, 0.4, 8.0, 0.3, 2.0
START_SCALE = 1 / 0.07
KEPT_CELLS = 0.65
"""Share of a picture's cells that a step of the first stage looks at, drawn anew each time."""

NOISE, DROPPED_CHANNELS = 0.25, 0.12
"""Standard deviation of the noise on a feature, in its own; share of the trunk's channels that a picture loses."""
LIGHT, TINT, OFFSET = 0.05, 0.04, 0.03
"""Standard deviations of the light and of each colour's gain, and of what is added, on the cells' mean colours."""
COLOUR_NUMBERS = 12
_LABS = np.stack([colour.lab for colour in COLOURS]).astype(np.float32) / 30


def stem_of(model: CirModel) -> PhotoStem:
    """Reach the stem of a model for photographs."""
    stem = model.image_encoder.visual_encoder.patch_embed.proj
    if not isinstance(stem, PhotoStem):
        raise TypeError(f"the model's stem is {type(stem).__name__}, expected PhotoStem")
    return stem


def standardise(model: CirModel, pool: PhotoPool) -> None:
    """Set the stem's mean and scale to those of a pool's features, from every tenth picture."""
    sample = torch.from_numpy(np.array(pool.features[::10])).float()
    with torch.no_grad():
        stem = stem_of(model)
        stem.feature_mean.copy_(sample.mean((0, 2))[:, None, None])
        stem.feature_scale.copy_(1 / sample.std((0, 2)).clamp(min=1e-3)[:, None, None])


def encode_features(model: CirModel, features: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encode trunk features float32 [B, 444, cells] to tokens [B, N, C] and embeddings [B, D], not of unit length.

    With ``kept``, int64 [B, M], only those cells are looked at.
    """
    side = round(features.shape[2] ** 0.5)
    patches = stem_of(model).project(torch.unflatten(features, 2, (side, side))).flatten(2).transpose(1, 2)
    tokens = model.image_encoder.visual_encoder.from_patches(patches, kept)
    return tokens, model.image_encoder.vision_proj(tokens[:, 0])


def pooled(features: Tensor) -> Tensor:
    """Pool the trunk's last block over its cells: [B, 320]; what raw likeness is measured on."""
    return features[:, :LAST_CHANNELS].mean(2)


def disturb(stem: PhotoStem, features: Tensor, rng: np.random.Generator) -> Tensor:
    """Change features [B, 444, cells] a little and anew at every step, so that no garment is learnt by heart.

    The trunk's get noise and lose channels, the colours another light.
    """
    count, channels, cells = features.shape
    looked = channels - COLOUR_NUMBERS
    mean, scale = stem.feature_mean[:looked, :, 0], stem.feature_scale[:looked, :, 0]
    made = torch.Generator().manual_seed(int(rng.integers(2**62)))
    seen = features[:, :looked] + NOISE * torch.randn(count, looked, cells, generator=made) / scale
    seen = torch.where(torch.rand(count, looked, 1, generator=made) < DROPPED_CHANNELS, mean, seen)
    tint = TINT * torch.randn(count, 3, 1, generator=made)
    gain = 1 + tint + LIGHT * torch.randn(count, 1, 1, generator=made)
    offset = OFFSET * torch.randn(count, 1, 1, generator=made)
    colours = torch.unflatten(features[:, looked:], 1, (3, -1)) + 1  # [B, 3, 4, cells], 0 is black
    colours = (colours * gain[..., None] + offset[..., None] - 1).clamp(-1, 1.01)
    return torch.cat((seen, colours.flatten(1, 2)), dim=1)


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """How much is in a batch: whole families, garments as photographed alone, and queries of both kinds."""

    garments: int
    singles: int
    exact: int
    labelled: int


def draw_batch(drawer: QueryDrawer, sizes: BatchSizes, rng: np.random.Generator) -> QueryBatch:
    """Draw a batch of these sizes."""
    return drawer.draw(sizes.garments, singles=sizes.singles, exact=sizes.exact, labelled=sizes.labelled, rng=rng)


@dataclass(frozen=True, slots=True)
class EncodedPool:
    """A pool behind a frozen encoder: tokens float16 [P, N, C], unit vectors float32 [P, D], tokens of no picture."""

    tokens: NDArray[np.float16]
    vectors: Tensor
    blank: Tensor

    def tokens_of(self, rows: NDArray[np.int64]) -> Tensor:
        """Read tokens of rows as float32 [R, N, C]; of ``NO_REFERENCE`` those of no picture."""
        found = torch.from_numpy(self.tokens[np.maximum(rows, 0)]).float()
        found[torch.from_numpy(rows == NO_REFERENCE)] = self.blank
        return found


@torch.no_grad()
def encode_pool(model: CirModel, pool: PhotoPool, blank: Tensor) -> EncodedPool:
    """Encode a pool with the encoder as it is; ``blank`` are the trunk's features of no picture, [444, cells]."""
    tokens, vectors = [], []
    for start in range(0, len(pool), 256):
        states, embedding = encode_features(
            model, torch.from_numpy(np.array(pool.features[start : start + 256])).float()
        )
        tokens.append(states.half().numpy())
        vectors.append(functional.normalize(embedding, dim=-1))
    return EncodedPool(np.concatenate(tokens), torch.cat(vectors), encode_features(model, blank[None])[0][0])


class _Losses:
    """What the first two stages share: a temperature, and the loss of ranking right pictures first."""

    def __init__(self) -> None:
        self.log_scale = nn.Parameter(torch.tensor(np.log(START_SCALE), dtype=torch.float32))

    def ranking(self, queries: Tensor, vectors: Tensor, batch: QueryBatch) -> dict[str, Tensor]:
        similarity = similarities(queries, vectors, self.log_scale.exp().clamp(max=60))
        right, ignored = torch.from_numpy(batch.right), torch.from_numpy(batch.ignored)
        is_exact = torch.from_numpy(batch.is_exact)
        losses = ranking_losses(similarity, right, ignored)
        best = similarity.masked_fill(ignored, -1e4).argmax(1)
        found = right.gather(1, best[:, None])[:, 0].float()
        return {
            "exact": losses[is_exact].mean(),
            "labelled": losses[~is_exact].mean(),
            "_exact_first": found[is_exact].mean(),
            "_labelled_first": found[~is_exact].mean(),
        }


def ranking_losses(similarity: Tensor, right: Tensor, ignored: Tensor) -> Tensor:
    """Cross-entropy of each right picture against all wrong ones, mean over the right ones: [Q]."""
    wrong = similarity.masked_fill(right | ignored, -1e4).logsumexp(1, keepdim=True)
    each = functional.softplus(wrong - similarity)
    return (each * right).sum(1) / right.sum(1)


class EncoderStage(_Losses):
    """Projection, transformer block, embedding and composer together.

    Beside the ranking there are: kind, colour, pattern and print read off the embedding of a picture, and those of the
    target read off the embedding of a query, named colours also as numbers; the likeness of the trunk's pooled
    features, kept by the first half of the vector; and finding the same garment with the same look in another
    photograph.
    """

    def __init__(
        self,
        model: CirModel,
        pool: PhotoPool,
        tokenizer: Tokenizer,
        blank: Tensor,
        *,
        seed: int,
        sizes: BatchSizes,
    ) -> None:
        super().__init__()
        self.model, self.pool, self.tokenizer, self.blank = model, pool, tokenizer, blank
        self.seed, self.sizes = seed, sizes
        self.drawer = QueryDrawer(pool)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lab_heads = nn.ModuleList(nn.Linear(model.sizes.vector_size, 3) for _ in range(2))
            self.heads, self.query_heads = (
                nn.ModuleDict({name: nn.Linear(model.sizes.vector_size, count) for name, count in HEADS.items()})
                for _ in range(2)
            )
        self.modules = nn.ModuleDict(
            {
                "image_encoder": model.image_encoder,
                "composer": model.composer,
                "heads": self.heads,
                "query_heads": self.query_heads,
                "lab_heads": self.lab_heads,
                "temperature": nn.ParameterList([self.log_scale]),
            }
        )

    def step(self, number: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, its number) and compute its losses."""
        rng = np.random.default_rng((self.seed, 11, number))
        batch = draw_batch(self.drawer, self.sizes, rng)
        features = torch.from_numpy(np.array(self.pool.features[batch.rows])).float()
        seen = torch.cat((features, self.blank[None]))
        order = rng.random((len(seen), seen.shape[2])).argsort(1)
        kept = torch.from_numpy(order[:, : round(KEPT_CELLS * seen.shape[2])])
        tokens, embedding = encode_features(self.model, disturb(stem_of(self.model), seen, rng), kept)
        embedding = embedding[:-1].float()
        vectors = functional.normalize(embedding, dim=-1)
        # the last row of the tokens is that of no picture, which NO_REFERENCE reaches from behind
        ids, mask = encode_texts(self.tokenizer, batch.texts, device=vectors.device)
        composer = self.model.composer
        states = composer.text_encoder(ids, mask, tokens[torch.from_numpy(batch.references)])
        query = composer.text_proj(states[:, 0]).float()
        return {
            **self.ranking(functional.normalize(query, dim=-1), vectors, batch),
            "attributes": ATTRIBUTE_WEIGHT * _attributes(self.heads, embedding, self._facts(batch.rows)),
            "asked": ASKED_WEIGHT * _attributes(self.query_heads, query, self._asked(batch)),
            "lab": LAB_WEIGHT * self._labs(embedding, query, batch),
            "likeness": LIKENESS_WEIGHT * self._likeness(embedding, features),
            "same": SAME_WEIGHT * self._same(vectors, batch.rows),
        }

    def _labs(self, embedding: Tensor, query: Tensor, batch: QueryBatch) -> Tensor:
        """Read the named colour of recoloured pictures off their embeddings, and the one asked for off the queries."""
        numbers = self.pool.facts["colour"][batch.rows]
        is_known = (numbers >= 0) & (self.pool.facts["shade"][batch.rows] == 0)
        labs = torch.from_numpy(_LABS[np.maximum(numbers, 0)])
        target = batch.right.argmax(1)
        asked = is_known[target] & batch.is_exact
        losses = [
            functional.smooth_l1_loss(head(vectors[wanted]), values[wanted])
            for head, vectors, values, wanted in zip(
                self.lab_heads, (embedding, query), (labs, labs[target]), (is_known, asked), strict=True
            )
            if wanted.any()
        ]
        return torch.stack(losses).sum() if losses else embedding.sum() * 0

    def _facts(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Return what is known of pictures, by head; -1 where it is not known."""
        found = {name: self.drawer.facts[name][rows].copy() for name in HEADS}
        for name in ("pattern", "graphic"):
            found[name][found[name] == 0] = -1
        return found

    def _asked(self, batch: QueryBatch) -> dict[str, NDArray[np.int64]]:
        """Return what the right pictures of each query have in common."""
        found = self._facts(batch.rows[batch.right.argmax(1)])
        for name in ("pattern", "graphic"):
            found[name][~batch.is_exact] = -1
        return found

    def _likeness(self, embedding: Tensor, features: Tensor) -> Tensor:
        raw = pooled(features)
        stem = stem_of(self.model)
        raw = (raw - stem.feature_mean[:LAST_CHANNELS, 0, 0]) * stem.feature_scale[:LAST_CHANNELS, 0, 0]
        raw = functional.normalize(raw, dim=-1)
        own = functional.normalize(embedding[:, :GARMENT_DIMS], dim=-1)
        one = torch.ones(())
        return functional.mse_loss(similarities(own, own, one), similarities(raw, raw, one))

    def _same(self, vectors: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Rank the second picture of a garment as it is above all others, seen from the first."""
        edited, garment = self.pool.facts["edited"][rows], self.pool.facts["garment"][rows]
        # not those that are in the batch once alone
        starts = (edited == 0) & (np.diff(garment, prepend=-1) != 0) & (np.diff(garment, append=-1) == 0)
        first = np.flatnonzero(starts)
        second = first + 1
        similarity = similarities(vectors[first], vectors, self.log_scale.exp().clamp(max=60))
        itself = torch.zeros_like(similarity, dtype=torch.bool)
        itself[torch.arange(len(first)), torch.from_numpy(first)] = True
        return functional.cross_entropy(similarity.masked_fill(itself, -1e4), torch.from_numpy(second))


def _attributes(heads: nn.ModuleDict, embedding: Tensor, wanted: dict[str, NDArray[np.int64]]) -> Tensor:
    """Cross-entropy of reading attributes off an embedding [B, D], summed over the heads; -1 is passed over."""
    losses = []
    for name, head in heads.items():
        values = torch.from_numpy(wanted[name])
        total = functional.cross_entropy(head(embedding), values, ignore_index=-1, reduction="sum")
        losses.append(total / max(1, int((wanted[name] >= 0).sum())))
    return torch.stack(losses).sum()


class ComposerStage(_Losses):
    """Stage one over frozen tokens: each query against its batch and a large part of the pool."""

    def __init__(
        self,
        model: CirModel,
        pool: PhotoPool,
        encoded: EncodedPool,
        tokenizer: Tokenizer,
        *,
        seed: int,
        sizes: BatchSizes,
    ) -> None:
        super().__init__()
        self.model, self.pool, self.encoded, self.tokenizer = model, pool, encoded, tokenizer
        self.seed, self.sizes = seed, sizes
        self.drawer = QueryDrawer(pool)
        self.modules = nn.ModuleDict({"composer": model.composer, "temperature": nn.ParameterList([self.log_scale])})

    def step(self, number: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, its number) and compute its losses."""
        rng = np.random.default_rng((self.seed, 12, number))
        batch = draw_batch(self.drawer, self.sizes, rng)
        references = np.where(batch.references == NO_REFERENCE, NO_REFERENCE, batch.rows[batch.references])
        ids, mask = encode_texts(self.tokenizer, batch.texts, device=self.model.device)
        composed = self.model.composer(ids, mask, self.encoded.tokens_of(references))
        return self.ranking(composed.query_vectors, self.encoded.vectors[torch.from_numpy(batch.rows)], batch)


class RerankerStage:
    """Stage two: the score is what the re-ranker adds to stage one's cosine.

    It starts at zero, so that re-ranking begins as stage one's order and is learnt as a correction of it. Candidates
    are the target, its family, pictures of the batch that stage one ranks high, and others.
    """

    def __init__(
        self,
        model: CirModel,
        pool: PhotoPool,
        encoded: EncodedPool,
        tokenizer: Tokenizer,
        *,
        seed: int,
        sizes: BatchSizes,
        candidates: int,
    ) -> None:
        self.model, self.pool, self.encoded, self.tokenizer = model, pool, encoded, tokenizer
        self.seed, self.sizes, self.candidates = seed, sizes, candidates
        self.drawer = QueryDrawer(pool)
        self.modules = nn.ModuleDict({"reranker": model.reranker})

    def step(self, number: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, its number) and compute its losses."""
        rng = np.random.default_rng((self.seed, 13, number))
        batch = draw_batch(self.drawer, self.sizes, rng)
        references = np.where(batch.references == NO_REFERENCE, NO_REFERENCE, batch.rows[batch.references])
        ids, mask = encode_texts(self.tokenizer, batch.texts, device=self.model.device)
        with torch.no_grad():
            composed = self.model.composer(ids, mask, self.encoded.tokens_of(references))
            vectors = self.encoded.vectors[torch.from_numpy(batch.rows)]
            cosines = similarities(composed.query_vectors, vectors, torch.ones(()))
        places = self._candidates(batch, cosines.numpy(), rng)
        used, index = np.unique(places, return_inverse=True)
        pairs = torch.arange(len(places)).repeat_interleave(self.candidates)
        added = self.model.reranker(
            ids[pairs],
            mask[pairs],
            composed.fusion_states[pairs],
            self.encoded.tokens_of(batch.rows[used]),
            torch.from_numpy(index.ravel()),
        ).view(len(places), self.candidates)
        chosen = torch.from_numpy(places)
        scores = added.float() + self.model.sizes.similarity_weight * cosines.gather(1, chosen)
        right = torch.from_numpy(batch.right).gather(1, chosen)
        ignored = torch.from_numpy(batch.ignored).gather(1, chosen)
        before = cosines.gather(1, chosen).masked_fill(ignored, -1e4).argmax(1)
        after = scores.masked_fill(ignored, -1e4).argmax(1)
        return {
            "loss": ranking_losses(scores, right, ignored).mean(),
            "_first_before": right.gather(1, before[:, None]).float().mean(),
            "_first_after": right.gather(1, after[:, None]).float().mean(),
        }

    def _candidates(
        self, batch: QueryBatch, cosines: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Choose places in the batch: a right one, two thirds of stage one's best, and others: [Q, candidates]."""
        chosen = np.empty((len(batch.texts), self.candidates), np.int64)
        for query, row in enumerate(cosines):
            first = int(rng.choice(np.flatnonzero(batch.right[query])))
            order = [p for p in np.argsort(-row, kind="stable").tolist() if p != first]
            high = order[: 2 * self.candidates]
            mined = rng.choice(high, (2 * self.candidates) // 3, replace=False).tolist()
            rest = [p for p in order if p not in set(mined)]
            others = rng.choice(rest, self.candidates - 1 - len(mined), replace=False).tolist()
            chosen[query] = [first, *mined, *others]
        return chosen
