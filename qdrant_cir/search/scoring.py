"""The candidates of one query to scores, on every core: stored bytes in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter

import numpy as np

from qdrant_cir.errors import TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import DEFAULT_CHUNK, Reranker
from qdrant_cir.model.sessions import open_graph
from qdrant_cir.search.effort import StopRule
from qdrant_cir.storage.points import HitTokens
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import ComposedQuery, Float32, RerankMode, StoredTokens

__all__ = [
    "NO_SCORES",
    "CandidateScorer",
    "CandidateScores",
    "CandidateTokens",
    "RerankScores",
    "SharedReranker",
    "rerank",
]

_LEAST_SHARE = 4
"""Candidates that a thread is woken for: what a run costs before its first candidate is worth two more."""

_GPU_CHUNK = 100
"""Candidates per run on a GPU, which wants many at once."""


@dataclass(frozen=True, slots=True)
class CandidateScores:
    """What the re-ranker says of candidates.

    Attributes:
        by_id: its score by image id; higher is better.
        problems: why a candidate has no score, by image id.
    """

    by_id: Mapping[str, float]
    problems: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RerankScores:
    """What stage two found: scores and problems as :class:`CandidateScores`, and why it ended."""

    by_id: Mapping[str, float]
    problems: Mapping[str, str]
    mode: RerankMode


@dataclass(slots=True)
class CandidateTokens:
    """Tokens of the candidates of one query, in stage one's order; the later ones are read when they are needed.

    Attributes:
        first: those that were read.
        count: of all candidates.
        rest: reads the others, where there are any.
        reading: seconds that this took.
        clock: measures them.
    """

    first: Sequence[HitTokens]
    count: int
    rest: Callable[[], Sequence[HitTokens]] | None = None
    reading: float = 0.0
    clock: Callable[[], float] = perf_counter

    def part(self, start: int, end: int) -> Sequence[HitTokens]:
        """Give some candidates' tokens, by their places."""
        if self.rest is not None and end > len(self.first):
            began = self.clock()
            self.first = [*self.first, *self.rest()]
            self.rest, self.reading = None, self.clock() - began
        return self.first[start:end]


NO_SCORES = RerankScores({}, {}, "none")
"""Of a query whose candidates are not looked at by stage two."""


class SharedReranker:
    """A re-ranker whose candidates are shared out over threads. Safe to share between threads.

    On the CPU every thread scores candidates of its own, in a session of one thread: the matrices of a candidate
    are small, and two threads that share each of them take more processor time than one (``docs/performance.md``).
    Several queries that are scored at the same time share the same threads.
    """

    def __init__(self, reranker: Reranker, *, threads: int) -> None:
        """Use a re-ranker whose session has one thread, or runs on a GPU, from ``threads`` threads."""
        self._reranker, self._threads = reranker, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="qdrant-cir-rerank")

    def score(self, query: ComposedQuery, candidates: StoredTokens) -> Float32:
        """Score every candidate, float32 [K]; the rest as :meth:`Reranker.score`."""
        count = len(candidates.values)
        size = max(_LEAST_SHARE, ceil(count / self._threads))
        shares = [_share(candidates, slice(start, start + size)) for start in range(0, count, size)]
        parts = self._pool.map(lambda share: self._reranker.score(query, share), shares)
        return np.concatenate([np.empty(0, np.float32), *parts])


class CandidateScorer:
    """The re-ranker of a bundle on as many threads as it may use. Safe to share between threads."""

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        """Load the graph; the rest as :func:`qdrant_cir.model.sessions.open_graph`."""
        session = open_graph(bundle, "reranker", replace(compute, threads=1))
        self.precision = compute.precision
        self._form = TokenForm(bundle)
        self.full_mode: RerankMode = "compressed" if self._form.version else "exact"
        is_on_gpu = session.provider == "cuda"
        reranker = Reranker(session, chunk=_GPU_CHUNK if is_on_gpu else DEFAULT_CHUNK)
        self._reranker = SharedReranker(reranker, threads=1 if is_on_gpu else compute.threads or available_threads())

    def score(self, query: ComposedQuery, candidates: Sequence[HitTokens]) -> CandidateScores:
        """Score the candidates whose tokens can be read; errors as :meth:`Reranker.score`."""
        problems = {tokens.image_id: str(tokens.problem) for tokens in candidates if tokens.data is None}
        readable = {tokens.image_id: tokens.data for tokens in candidates if tokens.data is not None}
        for image_id in [image_id for image_id, data in readable.items() if not self._form.fits(data)]:
            problems[image_id] = "missing"
            del readable[image_id]
        try:
            stored = self._form.decode(list(readable.values()))
        except TokensError:
            # one of them is bad: find it, so that the others count
            for image_id, data in list(readable.items()):
                try:
                    self._form.decode([data])
                except TokensError:
                    problems[image_id] = "damaged"
                    del readable[image_id]
            stored = self._form.decode(list(readable.values()))
        scores = self._reranker.score(query, stored).tolist()
        return CandidateScores(dict(zip(readable, scores, strict=True)), problems)


def rerank(
    scorer: CandidateScorer,
    query: ComposedQuery,
    candidates: CandidateTokens,
    stop: StopRule,
    *,
    started: float,
    clock: Callable[[], float] = perf_counter,
) -> RerankScores:
    """Score candidates step by step until the last one, or until the rule says stop.

    Args:
        scorer: of the bundle.
        query: as it was composed.
        candidates: in stage one's order.
        stop: when to end early. Where no candidate could be scored, the mode is ``none``.
        started: what ``clock`` read at the start of the time budget.
        clock: returns the seconds that have passed since any fixed moment.

    Raises:
        TokensError, ProviderError: as :meth:`Reranker.score`.
    """
    by_id: dict[str, float] = {}
    problems: dict[str, str] = {}
    steps: list[list[float]] = []
    size = stop.step or max(1, candidates.count)
    longest = 0.0
    for start in range(0, candidates.count, size):
        if stop.is_settled(steps):
            return RerankScores(by_id, problems, "adaptive")
        began = clock()
        if stop.time_budget is not None and began - started + longest > stop.time_budget:
            return RerankScores(by_id, problems, "budget")
        found = scorer.score(query, candidates.part(start, start + size))
        longest = max(longest, clock() - began)
        by_id |= found.by_id
        problems |= found.problems
        steps.append(list(found.by_id.values()))
    return RerankScores(by_id, problems, scorer.full_mode if by_id else "none")


def _share(stored: StoredTokens, part: slice) -> StoredTokens:
    weights = None if stored.weights is None else stored.weights[part]
    return StoredTokens(stored.values[part], stored.scales[part], weights)
