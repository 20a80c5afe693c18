"""Scores for the candidates of one query, on all cores: stored bytes in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np

from qdrant_cir.errors import TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import DEFAULT_CHUNK, Reranker
from qdrant_cir.model.sessions import open_graph, open_weighted
from qdrant_cir.storage.points import HitTokens
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Composition, Float32, PointId, RerankMode, StoredTokens

__all__ = [
    "CandidateScorer",
    "CandidateScores",
    "SharedReranker",
    "Term",
]

_LEAST_SHARE = 4
"""The fewest candidates that are worth another thread: starting a run costs as much as scoring two."""

_GPU_CHUNK = 100
"""Candidates per run on a GPU, which is faster with many at once."""


@dataclass(frozen=True, slots=True)
class CandidateScores:
    """The result of re-ranking candidates.

    Attributes:
        by_id: the score of a candidate by its point's id, of its best view; higher is better.
        problems: why a candidate has no score, by its point's id.
        views: the best view, of points that have several.
        partial: what is wrong with the other views of a candidate that has a score, by its point's id.
    """

    by_id: Mapping[PointId, float]
    problems: Mapping[PointId, str]
    views: Mapping[PointId, str]
    partial: Mapping[PointId, str]


@dataclass(frozen=True, slots=True)
class Term:
    """One composed query, and the weight of its score; negative for ``must_not``."""

    composed: Composition
    weight: float


class SharedReranker:
    """A re-ranker whose candidates are divided among threads. Safe to share between threads.

    On the CPU every thread scores candidates of its own, in a session of one thread: the matrices of a candidate
    are small, and two threads that share each of them take more processor time than one (``docs/performance.md``).
    Several queries that are scored at the same time share the same threads.
    """

    def __init__(self, reranker: Reranker, *, threads: int) -> None:
        """Use a re-ranker whose session has one thread, or runs on a GPU, from ``threads`` threads."""
        self._reranker, self._threads = reranker, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="qdrant-cir-rerank")

    def score(self, query: Composition, candidates: StoredTokens) -> Float32:
        """Score every candidate, float32 [K]; arguments and errors as :meth:`Reranker.score`."""
        self._reranker.check_process()
        count = len(candidates.values)
        size = max(_LEAST_SHARE, ceil(count / self._threads))
        shares = [_share(candidates, slice(start, start + size)) for start in range(0, count, size)]
        parts = self._pool.map(lambda share: self._reranker.score(query, share), shares)
        return np.concatenate([np.empty(0, np.float32), *parts])


class CandidateScorer:
    """The re-ranker of a bundle on as many threads as it may use. Safe to share between threads."""

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        """Load the graph; arguments and errors as :func:`qdrant_cir.model.sessions.open_graph`."""
        session = open_graph(bundle, "reranker", replace(compute, threads=1))
        self.precision = compute.precision
        self._form = TokenForm(bundle)
        self.full_mode: RerankMode = "compressed" if self._form.version else "exact"
        is_on_gpu = session.provider == "cuda"
        reranker = Reranker(session, chunk=_GPU_CHUNK if is_on_gpu else DEFAULT_CHUNK)
        self._threads = 1 if is_on_gpu else compute.threads or available_threads()
        self._reranker = SharedReranker(reranker, threads=self._threads)
        self._bundle, self._compute = bundle, replace(compute, threads=1, precision="float32")
        self._weighted: SharedReranker | None = None

    def score(self, terms: Sequence[Term], candidates: Sequence[HitTokens]) -> CandidateScores:
        """Score the candidates whose tokens can be read: the weighted sum of their scores for ``terms``, at least one.

        Raises:
            TokensError, InputError, ProviderError: as :meth:`Reranker.score`.
        """
        problems = {place: str(tokens.problem) for place, tokens in enumerate(candidates) if tokens.data is None}
        readable = {place: tokens.data for place, tokens in enumerate(candidates) if tokens.data is not None}
        for place in [place for place, data in readable.items() if not self._form.fits(data)]:
            problems[place] = "missing"
            del readable[place]
        try:
            stored = self._form.decode(list(readable.values()))
        except TokensError:
            # one of them is bad: find it, so that the others count
            for place, data in list(readable.items()):
                try:
                    self._form.decode([data])
                except TokensError:
                    problems[place] = "damaged"
                    del readable[place]
            stored = self._form.decode(list(readable.values()))
        parts = [self._reranker.score(term.composed, stored).astype(float) * term.weight for term in terms]
        scores = dict(zip(readable, sum(parts[1:], start=parts[0]).tolist(), strict=True))
        by_id: dict[PointId, float] = {}
        views: dict[PointId, str] = {}
        for place, score in scores.items():
            tokens = candidates[place]
            # the best view of a point counts; NaN is kept, so that it is noticed
            if not by_id.get(tokens.point_id, -inf) >= score:
                by_id[tokens.point_id] = score
                if tokens.view is not None:
                    views[tokens.point_id] = tokens.view
        unread = {candidates[place].point_id: problem for place, problem in problems.items()}
        outdated = {tokens.point_id: "stale" for tokens in candidates if tokens.is_outdated}
        return CandidateScores(
            by_id,
            {point_id: problem for point_id, problem in unread.items() if point_id not in by_id},
            views,
            {point_id: problem for point_id, problem in (outdated | unread).items() if point_id in by_id},
        )

    def drops_without_rows(self, terms: Sequence[Term], candidate: HitTokens) -> Float32 | None:
        """Measure how much a candidate's score falls without each of its stored rows, float32 [M].

        The class token, row 0, stays: its entry is 0. None where the bundle has no re-ranker that can leave rows out.

        Raises:
            TokensError, InputError, ProviderError: as :meth:`Reranker.score`.
        """
        reranker = self._open_weighted()
        if reranker is None:
            return None
        stored = self._form.decode([] if candidate.data is None else [candidate.data])
        rows = stored.values.shape[1]
        weights = np.ones((1, rows), dtype=np.float32) if stored.weights is None else stored.weights
        # the first stands whole, each further one lacks a row
        weights = np.repeat(weights, rows, axis=0)
        np.fill_diagonal(weights[1:, 1:], 0)
        same = np.zeros(rows, dtype=np.int64)
        batch = StoredTokens(stored.values[same], stored.scales[same], weights)
        scores = np.zeros(rows, dtype=np.float32)
        for term in terms:
            scores += reranker.score(term.composed, batch) * np.float32(term.weight)
        drops: Float32 = scores[0] - scores
        return drops

    def _open_weighted(self) -> SharedReranker | None:
        """Return the re-ranker with weights, loaded when it is first needed; None where the bundle has none.

        Two threads may both load it, with the same result.
        """
        path = self._bundle.weighted_reranker_path
        if self._weighted is None and path is not None:
            session = open_weighted(self._bundle, self._compute)
            reranker = Reranker(session, chunk=_GPU_CHUNK if session.provider == "cuda" else DEFAULT_CHUNK)
            self._weighted = SharedReranker(reranker, threads=self._threads)
        return self._weighted


def _share(stored: StoredTokens, part: slice) -> StoredTokens:
    weights = None if stored.weights is None else stored.weights[part]
    return StoredTokens(stored.values[part], stored.scales[part], weights)
