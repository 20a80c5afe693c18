"""Ranks of held-out triplets' answers among all pictures, by stage one and after re-ranking."""

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
DEPTH = 50
RECALLS = (1, 10)


class HeldOut:
    """Held-out queries, ranked among the first ``DEPTH`` pictures; what is not among them counts 0. Nothing is random.

    The mean reciprocal rank picks the best weights: recall@10 is soon reached by all, while near-duplicates still stand
    before the right picture.
    """

    def __init__(self, model: CirModel, data: TripletSet, tokenizer: Tokenizer, *, excludes_reference: bool) -> None:
        self.model, self.data, self.tokenizer = model, data, tokenizer
        self.excludes_reference = excludes_reference
        self.candidates: NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def reciprocal_rank(self) -> float:
        """Return the composer's mean reciprocal rank, 0 to 1."""
        return self._reciprocal_rank(self._best())

    def retrieve(self) -> None:
        """Retrieve the candidates int64 [Q, K] that are re-ranked from now on."""
        self.candidates = self._best()

    def reranked_reciprocal_rank(self) -> float:
        """Return the mean reciprocal rank after re-ranking the candidates, 0 to 1."""
        return self._reciprocal_rank(self._reranked())

    def recalls(self, *, is_reranked: bool) -> dict[str, float]:
        """Return the share of queries with an answer among the first 1 and 10, 0 to 1."""
        right = self._right(self._reranked() if is_reranked else self._best())
        return {f"recall_at_{k}": float(right[:, :k].any(1).mean()) for k in RECALLS}

    @torch.no_grad()
    def _reranked(self) -> NDArray[np.int64]:
        """Return the candidates in the order of re-ranking, int64 [Q, K]."""
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
            ranked.append(rows[scores.argsort(descending=True, stable=True).cpu().numpy()])
        return np.stack(ranked)

    @torch.no_grad()
    def _best(self) -> NDArray[np.int64]:
        """Return rows of stage one's best pictures, int64 [Q, DEPTH]; fewer columns where there are fewer pictures."""
        vectors = self.data.features.vectors
        best = []
        for batch in self._batches():
            ids, mask, reference = self._inputs(batch)
            similarity = self.model.composer(ids, mask, reference).query_vectors @ vectors.T
            if self.excludes_reference:
                similarity[torch.arange(len(batch)), torch.tensor([t.reference for t in batch])] = -torch.inf
            best.append(similarity.topk(min(DEPTH, len(vectors) - self.excludes_reference)).indices.cpu().numpy())
        found: NDArray[np.int64] = np.concatenate(best)
        return found

    def _right(self, ranked: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the ranked pictures [Q, K] answer their query."""
        return np.stack(
            [self.data.are_right(triplet, rows) for triplet, rows in zip(self.data.triplets, ranked, strict=True)]
        )

    def _reciprocal_rank(self, ranked: NDArray[np.int64]) -> float:
        right = self._right(ranked)
        return float(np.where(right.any(1), 1 / (right.argmax(1) + 1), 0.0).mean())

    def _batches(self) -> Iterator[list[Triplet]]:
        for start in range(0, len(self.data.triplets), BATCH):
            yield list(self.data.triplets[start : start + BATCH])

    def _inputs(self, triplets: list[Triplet]) -> tuple[Tensor, Tensor, Tensor]:
        texts = [triplet.texts[0] for triplet in triplets]
        ids, mask = encode_texts(self.tokenizer, texts, device=self.model.device)
        return ids, mask, self.data.features.tokens_of(np.array([triplet.reference for triplet in triplets]))
