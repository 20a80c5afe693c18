"""Recall of held-out triplets among all pictures, by stage one and after re-ranking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.texts import encode_texts
from onnx_export.training.triplets import Triplet, TripletSet

BATCH = 32
K = 10
RERANK_DEPTH = 50


class HeldOut:
    """Recall@10 of held-out queries: the share with a target among the first 10. Nothing here is random."""

    def __init__(self, model: CirModel, data: TripletSet, tokenizer: Tokenizer, *, excludes_reference: bool) -> None:
        self.model, self.data, self.tokenizer = model, data, tokenizer
        self.excludes_reference = excludes_reference
        self.candidates: NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def recall(self) -> float:
        """Return the composer's recall@10, 0 to 1."""
        return self._share_right(self._best(K))

    def retrieve(self) -> None:
        """Retrieve the candidates int64 [Q, K] that are re-ranked from now on."""
        self.candidates = self._best(RERANK_DEPTH)

    @torch.no_grad()
    def reranked_recall(self) -> float:
        """Return recall@10 after re-ranking the candidates, 0 to 1."""
        features = self.data.candidates or self.data.features
        ranked = []
        for number, triplet in enumerate(self.data.triplets):
            ids, mask, reference = self._inputs([triplet])
            states = self.model.composer(ids, mask, reference).fusion_states
            rows = self.candidates[number]
            scores = self.model.score(
                ids.expand(len(rows), -1),
                mask.expand(len(rows), -1),
                states.expand(len(rows), -1, -1),
                features.tokens_of(rows),
            )
            ranked.append(rows[scores.argsort(descending=True, stable=True)[:K].cpu().numpy()])
        return self._share_right(np.stack(ranked))

    @torch.no_grad()
    def _best(self, count: int) -> NDArray[np.int64]:
        """Return rows of stage one's best pictures, int64 [Q, count]; fewer columns where there are fewer pictures."""
        vectors = self.data.features.vectors
        best = []
        for batch in self._batches():
            ids, mask, reference = self._inputs(batch)
            similarity = self.model.composer(ids, mask, reference).query_vectors @ vectors.T
            if self.excludes_reference:
                similarity[torch.arange(len(batch)), torch.tensor([t.reference for t in batch])] = -torch.inf
            best.append(similarity.topk(min(count, len(vectors) - self.excludes_reference)).indices.cpu().numpy())
        found: NDArray[np.int64] = np.concatenate(best)
        return found

    def _share_right(self, ranked: NDArray[np.int64]) -> float:
        found = [
            self.data.are_right(triplet, rows).any() for triplet, rows in zip(self.data.triplets, ranked, strict=True)
        ]
        return float(np.mean(found))

    def _batches(self) -> Iterator[list[Triplet]]:
        for start in range(0, len(self.data.triplets), BATCH):
            yield list(self.data.triplets[start : start + BATCH])

    def _inputs(self, triplets: list[Triplet]) -> tuple[Tensor, Tensor, Tensor]:
        texts = [triplet.texts[0] for triplet in triplets]
        ids, mask = encode_texts(self.tokenizer, texts, device=self.model.device)
        return ids, mask, self.data.features.tokens_of(np.array([triplet.reference for triplet in triplets]))
