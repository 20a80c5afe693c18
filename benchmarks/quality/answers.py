"""Queries composed, retrieved and scored on arrays; scores are kept, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.gallery import EncodedGallery, open_array
from benchmarks.quality.progress import Progress
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.search.scoring import SharedReranker
from qdrant_cir.types import ComposedQuery, Float32, Int64

_BATCH = 16

ScoreFunction = Callable[[ComposedQuery, Int64], Float32]
"""A query and gallery rows [K] to scores [K]."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What both stages say to every query.

    Attributes:
        queries: as composed.
        order: int64 [Q, K], gallery rows, stage one's best first.
        scores: float32 [Q, K], the re-ranker's, in stage one's order.
    """

    queries: tuple[ComposedQuery, ...]
    order: Int64
    scores: Float32


def compose_all(composer: Composer, reference_tokens: Float32, texts: Sequence[str]) -> tuple[ComposedQuery, ...]:
    """Compose every query.

    Args:
        composer: of the bundle.
        reference_tokens: float32 [Q, N, C].
        texts: Q modification texts.
    """
    progress, composed = Progress("composing queries", len(texts)), []
    for start in range(0, len(texts), _BATCH):
        composed += composer.compose(reference_tokens[start : start + _BATCH], texts[start : start + _BATCH])
        progress.reaches(len(composed))
    return tuple(composed)


def retrieve(vectors: Float32, gallery: Float32, *, depth: int, excluded: Sequence[int] | None = None) -> Int64:
    """Give stage one's order: falling cosine, equal ones by place in the gallery, which is the ids' order.

    Args:
        vectors: float32 [Q, D] of the queries.
        gallery: float32 [P, D].
        depth: how many to give, at most P.
        excluded: a gallery row to leave out for every query.

    Returns:
        int64 [Q, depth], fewer where the gallery has fewer.
    """
    found = []
    for place, vector in enumerate(vectors):
        similarity = gallery @ vector
        if excluded is not None:
            similarity[excluded[place]] = -np.inf
        found.append(np.argsort(-similarity, kind="stable")[: min(depth, len(gallery) - (excluded is not None))])
    return np.stack(found)


def score_all(
    reranker: Reranker | SharedReranker,
    queries: Sequence[ComposedQuery],
    order: Int64,
    gallery: EncodedGallery,
    kept: Path,
) -> Float32:
    """Score every query's candidates as they are stored.

    Args:
        reranker: of the bundle, or one that reads the same codec.
        queries: Q composed queries.
        order: int64 [Q, K], the candidates.
        gallery: whose tokens are read.
        kept: where the scores are kept; of these queries, candidates and this re-ranker alone.

    Returns:
        float32 [Q, K].
    """
    return score_with(lambda query, rows: reranker.score(query, gallery.candidates(rows)), queries, order, kept)


def score_with(score: ScoreFunction, queries: Sequence[ComposedQuery], order: Int64, kept: Path) -> Float32:
    """Score every query's candidates by any function; the rest as :func:`score_all`."""
    # one column more, which says that the row is done: a score may be 0
    scores = open_array(kept, (len(order), order.shape[1] + 1), np.dtype(np.float32))
    progress = Progress(f"scoring {kept.stem}", len(order))
    for place, query in enumerate(queries):
        if not scores[place, -1]:
            scores[place, :-1] = score(query, order[place])
            scores[place, -1] = 1
            progress.reaches(place + 1)
    return np.array(scores[:, :-1])


def rerank(order: Int64, scores: Float32, *, depth: int) -> Int64:
    """Give the final order: the first ``depth`` by falling score, equal ones in stage one's order, then the rest."""
    places = np.argsort(-scores[:, :depth], axis=1, kind="stable")
    return np.concatenate((np.take_along_axis(order, places, axis=1), order[:, depth:]), axis=1)
