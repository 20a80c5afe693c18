"""The whole path of a query: encode, compose, retrieve, fetch, re-rank, order.

:class:`Retriever` and :class:`~qdrant_cir.async_retriever.AsyncRetriever` are two shells around the same steps
(``query_model.py``, ``ranking.py``); what a step computes is written once, and a test compares the two exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from os import PathLike
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.search.effort import EXACT, Effort
from qdrant_cir.search.query_model import QueryModel, gallery_id
from qdrant_cir.search.ranking import FetchedQuery, SearchOptions, StageClock, answer_fetched
from qdrant_cir.search.scoring import CandidateTokens
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import StoreLike, is_folder, open_store
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import Precision, Query, SearchResult

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["DEFAULT_LIMIT", "DEFAULT_RERANK_DEPTH", "IN_FLIGHT", "Retriever"]

DEFAULT_LIMIT = 10
"""Results that a search returns."""

DEFAULT_RERANK_DEPTH = 50
"""Candidates that are re-ranked; the paper takes 50 on CIRR and 100 on FashionIQ."""

IN_FLIGHT = 2
"""Queries of :meth:`Retriever.search_many` that are re-ranked at a time, while the next one is fetched."""


class Retriever:
    """Searches one collection with one bundle.

    May be shared between threads where its store may: a server's client may, the embedded store takes turns.
    """

    def __init__(self, collection: Collection, model: QueryModel, *, clock: Callable[[], float] = perf_counter) -> None:
        """Join a collection and the model of its bundle; :meth:`open` does both from names.

        ``clock`` measures the timings and the time budgets: it returns the seconds since any fixed moment.
        """
        self.collection = collection
        self._model = model
        self._clock = clock
        self._closes: Store | None = None

    @classmethod
    def open(
        cls,
        collection_name: str,
        *,
        store: StoreLike,
        bundle: str | PathLike[str] | None = None,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
    ) -> Self:
        """Load a bundle and open a collection that was made with it.

        Args:
            collection_name: as it was indexed.
            store: a Qdrant client, the folder of an embedded store, or an open store. A client or store that
                was given stays open when the retriever is closed.
            bundle: the model folder; None for the bundled model.
            provider: where the graphs run; ``auto`` takes CUDA where it works.
            threads: for one graph; by default as many as this process may use.
            precision: what the re-ranker computes in; others than ``float32`` are faster and close to it, where the
                bundle holds them (``python -m onnx_export add-precision``). The result says which it was.

        Raises:
            InputError: an unknown provider or precision, or fewer than one thread.
            BundleError: the bundle is missing or damaged, or has no re-ranker in that precision.
            CollectionNotFoundError: there is no such collection.
            CollectionMismatchError: another bundle made it.
            StoreError: the store cannot be opened or reached.
            ProviderError, MissingExtraError: the graphs cannot run as asked.
        """
        compute = Compute(provider, threads, precision)
        loaded = load_bundle(bundle)
        opened = open_store(store)
        try:
            retriever = cls(
                Collection.open(opened, collection_name, loaded),
                QueryModel(loaded, compute),
            )
        except BaseException:
            if is_folder(store):
                opened.close()
            raise
        if is_folder(store):
            retriever._closes = opened
        return retriever

    def search(
        self,
        query: Query,
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        effort: Effort = EXACT,
    ) -> SearchResult:
        """Answer one query.

        Args:
            query: a reference, a text, or both; :class:`Query` says what each means.
            limit: results to return, at least 1; fewer come back where there are fewer.
            rerank_depth: how many of stage one's best are re-ranked; 0 is stage one alone. May be larger than
                the collection.
            filter: conditions on the user's payload fields, applied in the store.
            exclude_reference: leave the reference itself out: a gallery image by its id, a picture by its
                content. Every exact copy of the picture's file counts as the reference.
            effort: re-rank all of those candidates, which is the default, or end early: see :class:`Effort`.

        Returns:
            The candidates, best first, with both scores and ranks, seconds per step, and notes on what was
            skipped.

        Raises:
            InputError: ``limit``, ``rerank_depth`` or ``effort`` out of range, a confidence without a
                calibration, an empty query, an unknown gallery image,
                or a filter on a field that no image has. This is looked into when nothing was found, and for
                conditions under ``must_not``, which such a field would meet in silence.
            ImageError: the reference cannot be read.
            TokensError: a gallery image that is the reference has no valid tokens, or a score is not a
                number.
            StoreError: the store failed.
            ProviderError: a computation failed.
        """
        (result,) = self.search_many(
            [query],
            limit=limit,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            effort=effort,
        )
        return result

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        effort: Effort = EXACT,
    ) -> list[SearchResult]:
        """Answer many queries; each as :meth:`search` answers it alone.

        They overlap: while two are re-ranked, the next ones are encoded, composed and retrieved. Every number is
        what :meth:`search` computes, to the last bit. Arguments and errors are those of :meth:`search`. One bad
        query refuses all of them.
        """
        options = SearchOptions(limit, rerank_depth, filter, exclude_reference, effort)
        options.check(queries)
        stop = effort.stop_rule(self._model.bundle, limit=limit, rerank_depth=rerank_depth)
        answer = partial(answer_fetched, self._model, options=options, stop=stop)
        if len(queries) == 1:
            return [answer(self._fetch(queries[0], options, first=stop.first_read))]
        results: list[SearchResult] = []
        pending: deque[Future[SearchResult]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="qdrant-cir") as pool:
            # the store is called from this thread alone, for not every store may be called from several
            for query in queries:
                pending.append(pool.submit(answer, self._fetch(query, options)))
                if len(pending) > IN_FLIGHT:
                    results.append(pending.popleft().result())
            return results + [future.result() for future in pending]

    def _fetch(self, given: Query, options: SearchOptions, *, first: int | None = None) -> FetchedQuery:
        """Go the way of a query up to its candidates' tokens, of which all but the ``first`` may be read later."""
        started = self._clock()
        reference_id = gallery_id(given)
        references = {} if reference_id is None else self.collection.stored([reference_id])
        query = self._model.prepare(
            given, references, excludes_reference=options.exclude_reference, started=started, clock=self._clock
        )
        clock = StageClock(read=self._clock)
        found = self.collection.query(query.vector, limit=options.hits_asked_for, filter=options.filter)
        if options.doubts_filter(found):
            self.collection.check_filter(options.filter)
        hits = options.keep(found, query)
        clock.retrieved()
        wanted = options.to_rerank(hits, query)
        if not wanted:
            return FetchedQuery(query, hits, CandidateTokens((), 0), clock)
        now, later = wanted[:first], wanted[len(wanted[:first]) :]
        rest = partial(self.collection.hit_tokens, later) if later else None
        tokens = CandidateTokens(self.collection.hit_tokens(now), len(wanted), rest, clock=self._clock)
        clock.fetched()
        return FetchedQuery(query, hits, tokens, clock)

    def close(self) -> None:
        """Release a store that :meth:`open` opened."""
        if self._closes is not None:
            self._closes.close()
            self._closes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
