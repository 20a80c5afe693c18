"""How good the weights are on people's photographs that no step learns from: what picks the best step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.photos.pool import KIND_NAMES, PhotoPool
from onnx_export.training.photos.queries import QueryDrawer
from onnx_export.training.photos.stages import EncodedPool, encode_pool
from onnx_export.training.texts import encode_texts
from qdrant_cir.photographs.colours import BASIC_COLOURS
from qdrant_cir.photographs.labels import KINDS
from qdrant_cir.photographs.wording import Appearance, change_text, class_text

EXACT_QUERIES, LABELLED_QUERIES = 200, 120
RERANKED, RERANKED_QUERIES = 20, 60
_BATCH = 80


@dataclass(frozen=True, slots=True)
class _Asked:
    """One fixed query: rows of the pool that it may find, and which of them are right."""

    reference: int
    text: str
    gallery: NDArray[np.int64]
    right: NDArray[np.bool_]
    best: int


class PhotoValidation:
    """Fixed queries over a pool of validation: one garment in one look, a kind in a colour."""

    def __init__(self, model: CirModel, pool: PhotoPool, tokenizer: Tokenizer, blank: Tensor, *, seed: int) -> None:
        self.model, self.pool, self.tokenizer, self.blank = model, pool, tokenizer, blank
        self.encoded: EncodedPool | None = None
        rng = np.random.default_rng((seed, 5))
        drawer = QueryDrawer(pool)
        self.asked = {
            "exact": _exact(drawer, rng),
            "colour": _labelled(drawer, rng, changes_kind=False),
            "class": _labelled(drawer, rng, changes_kind=True),
        }

    def freeze_encoder(self) -> None:
        """Encode the pool once: the encoder does not change any more."""
        self.encoded = encode_pool(self.model, self.pool, self.blank)

    def score(self) -> float:
        """Average the three shares of stage one."""
        return float(np.mean(list(self.shares(is_reranked=False).values())))

    def reranked_score(self) -> float:
        """Average the three shares after re-ranking."""
        return float(np.mean(list(self.shares(is_reranked=True).values())))

    @torch.no_grad()
    def shares(self, *, is_reranked: bool) -> dict[str, float]:
        """Compute the share of right pictures in the first places, as many as there are right ones and at most five."""
        encoded = self.encoded or encode_pool(self.model, self.pool, self.blank)
        return {
            name: self._share(asked[:RERANKED_QUERIES] if is_reranked else asked, encoded, is_reranked=is_reranked)
            for name, asked in self.asked.items()
            if asked
        }

    def _share(self, asked: list[_Asked], encoded: EncodedPool, *, is_reranked: bool) -> float:
        found = []
        for start in range(0, len(asked), _BATCH):
            part = asked[start : start + _BATCH]
            ids, mask = encode_texts(self.tokenizer, [query.text for query in part], device=self.model.device)
            references = np.array([query.reference for query in part])
            composed = self.model.composer(ids, mask, encoded.tokens_of(references))
            for place, query in enumerate(part):
                cosines = encoded.vectors[torch.from_numpy(query.gallery)] @ composed.query_vectors[place]
                order = cosines.argsort(descending=True, stable=True)
                if is_reranked:
                    head = order[:RERANKED]
                    rows = query.gallery[head.numpy()]
                    count = len(rows)
                    length = int(mask[place].sum())
                    scores = self.model.score(
                        ids[place : place + 1, :length].expand(count, -1),
                        mask[place : place + 1, :length].expand(count, -1),
                        composed.fusion_states[place : place + 1, :length].expand(count, -1, -1),
                        encoded.tokens_of(rows),
                    )
                    order = head[scores.argsort(descending=True, stable=True)]
                found.append(float(query.right[order[: query.best].numpy()].mean()))
        return float(np.mean(found))


def _exact(drawer: QueryDrawer, rng: np.random.Generator) -> list[_Asked]:
    """One garment in one look, among all pictures of all families but the reference."""
    everything = np.arange(len(drawer.pool))
    asked: list[_Asked] = []
    for _ in range(8 * EXACT_QUERIES):
        if len(asked) == EXACT_QUERIES:
            break
        reference = int(rng.integers(len(everything)))
        family = np.flatnonzero(drawer.facts["garment"] == drawer.facts["garment"][reference])
        target = int(rng.choice(family))
        right = drawer.looks_alike(target, everything)
        text = "" if right[reference] or len(family) < 3 else drawer.text_between(reference, target, rng)
        if text:
            gallery = everything[everything != reference]
            asked.append(_Asked(reference, text, gallery, right[gallery], 1))
    return asked


def _labelled(drawer: QueryDrawer, rng: np.random.Generator, *, changes_kind: bool) -> list[_Asked]:
    """A kind in a colour, among the photographs as they are."""
    facts = drawer.facts
    gallery = np.flatnonzero((facts["edited"] == 0) & (np.diff(facts["garment"], prepend=-1) != 0))
    # a picture whose colour is not sure is neither right nor wrong
    sure = gallery = gallery[facts["basic"][gallery] >= 0]
    asked: list[_Asked] = []
    for _ in range(8 * LABELLED_QUERIES):
        if len(asked) == LABELLED_QUERIES or not len(sure):
            break
        reference = int(rng.choice(sure))
        kind, basic = int(facts["kind"][reference]), int(facts["basic"][reference])
        other = int(rng.choice(sure))
        if changes_kind:
            kind = int(facts["kind"][other])
        else:
            basic = int(facts["basic"][other])
        right = (facts["kind"][gallery] == kind) & (facts["basic"][gallery] == basic) & (gallery != reference)
        if right[gallery == reference].any() or not right.any():
            continue
        if (kind, basic) == (int(facts["kind"][reference]), int(facts["basic"][reference])):
            continue
        before = drawer.appearance(reference)
        if changes_kind:
            text = class_text(before, KINDS[KIND_NAMES[kind]], rng)
        else:
            text = change_text(before, Appearance(before.kind, BASIC_COLOURS[basic]), rng)
        others = gallery[gallery != reference]
        asked.append(_Asked(reference, text, others, right[gallery != reference], min(5, int(right.sum()))))
    return asked
