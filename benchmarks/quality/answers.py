"""Queries composed, retrieved and scored on arrays; scores are kept, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.gallery import open_array
from benchmarks.quality.progress import Progress
from qdrant_cir.evaluation.runs.rankings import ScoredImage, StageScores
from qdrant_cir.model.composer import Composer
from qdrant_cir.types import Composition, Float32, Int64

_BATCH = 16

ScoreFunction = Callable[[Composition, Int64], Float32]
"""A query and gallery rows [K] to scores [K]."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The nearest gallery rows int64 [Q, K], best first, and their cosines float32 [Q, K]."""

    order: Int64
    cosines: Float32


def compose_all(composer: Composer, reference_tokens: Float32, texts: Sequence[str]) -> tuple[Composition, ...]:
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


def retrieve(queries: Sequence[Composition], gallery: Float32, *, depth: int) -> Retrieved:
    """Find each query's nearest ``depth`` rows of a gallery float32 [P, D]; equal cosines stand by row."""
    cosines = np.stack([gallery @ query.vector for query in queries])
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
    return Retrieved(order, np.take_along_axis(cosines, order, axis=1))


def final_rankings(image_ids: Sequence[str], order: Int64, cosines: Float32, scores: Float32) -> list[tuple[str, ...]]:
    """Order candidates as an evaluation does.

    Args:
        image_ids: of the gallery's rows.
        order: int64 [Q, n], the candidates.
        cosines: float32 [Q, n], stage one's scores.
        scores: float32 [Q, K], stage two's of the first K.

    Returns:
        Q rankings of image ids, best first.
    """
    rankings = []
    for rows, near, found in zip(order.tolist(), cosines.tolist(), scores.tolist(), strict=True):
        names = [image_ids[row] for row in rows]
        retrieved = tuple(map(ScoredImage, names, near))
        rankings.append(StageScores(retrieved, tuple(map(ScoredImage, names, found))).reranked_order())
    return rankings


def score_with(score: ScoreFunction, queries: Sequence[Composition], candidates: Int64, kept: Path) -> Float32:
    """Score every query's candidates.

    Args:
        score: of one query.
        queries: Q composed queries.
        candidates: int64 [Q, K].
        kept: where the scores are kept; of these queries, candidates and this function alone.

    Returns:
        float32 [Q, K].
    """
    # one column more marks rows that are done: a score may be 0
    scores = open_array(kept, (len(candidates), candidates.shape[1] + 1), np.dtype(np.float32))
    progress = Progress(f"scoring {kept.stem}", len(candidates))
    for place, query in enumerate(queries):
        if not scores[place, -1]:
            scores[place, :-1] = score(query, candidates[place])
            scores[place, -1] = 1
            progress.reaches(place + 1)
    return np.array(scores[:, :-1])
