"""The whole path of a query: encode, compose, retrieve, fetch, re-rank, order.

:class:`Retriever` and :class:`AsyncRetriever` are two shells around the same steps (``query_model.py``,
``ranking.py``); what a step computes is written once, and a test compares the two exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from qdrant_cir.async_collection import AsyncCollection
from qdrant_cir.bundle import load_bundle
from qdrant_cir.collection import Collection
from qdrant_cir.query_model import QueryModel, ReadyQuery, referenced_ids
from qdrant_cir.ranking import NO_SCORES, SearchOptions, StageClock, make_result
from qdrant_cir.sessions import ExecutionProvider
from qdrant_cir.stores import AsyncStoreLike, StoreLike, is_folder, open_reader, open_store
from qdrant_cir.stores.protocol import AsyncReader, Store
from qdrant_cir.types import Query, SearchResult

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["DEFAULT_LIMIT", "DEFAULT_RERANK_DEPTH", "AsyncRetriever", "Retriever"]

DEFAULT_LIMIT = 10
"""Results that a search returns."""

DEFAULT_RERANK_DEPTH = 50
"""Candidates that are re-ranked; the paper takes 50 on CIRR and 100 on FashionIQ."""

_BATCH = 32
"""Queries that are encoded and composed in one run."""

_WORKERS = 2
"""Graphs that one asynchronous retriever runs at a time; each uses all cores by itself."""

_Value = TypeVar("_Value")


class Retriever:
    """Searches one collection with one bundle.

    May be shared between threads where its store may: a server's client may, the embedded store takes turns.
    """

    def __init__(self, collection: Collection, model: QueryModel) -> None:
        """Join a collection and the model of its bundle; :meth:`open` does both from names."""
        self.collection = collection
        self._model = model
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
    ) -> Self:
        """Load a bundle and open a collection that was made with it.

        Args:
            collection_name: as it was indexed.
            store: a Qdrant client, the folder of an embedded store, or an open store. A client or store that
                was given stays open when the retriever is closed.
            bundle: the model folder; None for the bundled model.
            provider: where the graphs run; ``auto`` takes CUDA where it works.
            threads: for one graph; by default as many as this process may use.

        Raises:
            BundleError: the bundle is missing or damaged.
            CollectionNotFoundError: there is no such collection.
            CollectionMismatchError: another bundle made it.
            StoreError: the store cannot be opened or reached.
            ProviderError, MissingExtraError: the graphs cannot run as asked.
        """
        loaded = load_bundle(bundle)
        opened = open_store(store)
        try:
            retriever = cls(
                Collection.open(opened, collection_name, loaded),
                QueryModel(loaded, provider=provider, threads=threads),
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

        Returns:
            The candidates, best first, with both scores and ranks, seconds per step, and notes on what was
            skipped.

        Raises:
            InputError: ``limit`` or ``rerank_depth`` out of range, an empty query, an unknown gallery image,
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
    ) -> list[SearchResult]:
        """Answer many queries, encoded and composed in batches; each as :meth:`search` answers it alone.

        Arguments and errors are those of :meth:`search`. One bad query refuses all of them.
        """
        options = SearchOptions(limit, rerank_depth, filter, exclude_reference)
        options.check(queries)
        results: list[SearchResult] = []
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            started = perf_counter()
            ids = referenced_ids(batch)
            references = self.collection.stored(ids) if ids else {}
            ready = self._model.prepare(batch, references, excludes_reference=exclude_reference, started=started)
            results += [self._answer(query, options) for query in ready]
        return results

    def _answer(self, query: ReadyQuery, options: SearchOptions) -> SearchResult:
        clock = StageClock()
        found = self.collection.query(query.vector, limit=options.hits_asked_for, filter=options.filter)
        if options.doubts_filter(found):
            self.collection.check_filter(options.filter)
        hits = options.keep(found, query)
        clock.retrieved()
        wanted = options.to_rerank(hits, query)
        if not wanted:
            return make_result(query, hits, NO_SCORES, options=options, clock=clock)
        tokens = self.collection.hit_tokens(wanted)
        clock.fetched()
        scores = self._model.score(query, tokens)
        clock.reranked()
        return make_result(query, hits, scores, options=options, clock=clock)

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


class AsyncRetriever:
    """A :class:`Retriever` for asynchronous code: same arguments, answers and errors.

    Graphs run in a small thread pool. One retriever belongs to one event loop.
    """

    def __init__(self, collection: AsyncCollection, model: QueryModel) -> None:
        """Join a collection and the model of its bundle; :meth:`open` does both from names."""
        self.collection = collection
        self._model = model
        self._pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="qdrant-cir")
        self._closes: AsyncReader | None = None

    @classmethod
    async def open(
        cls,
        collection_name: str,
        *,
        store: AsyncStoreLike,
        bundle: str | PathLike[str] | None = None,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
    ) -> Self:
        """Load a bundle and open a collection; as :meth:`Retriever.open`, which has the arguments and errors.

        Args:
            collection_name: as it was indexed.
            store: an asynchronous Qdrant client, the folder of an embedded store, or an open store, whose
                calls are then made in a thread.
            bundle: the model folder; None for the bundled model.
            provider: where the graphs run.
            threads: for one graph.
        """
        loaded = await asyncio.to_thread(load_bundle, bundle)
        reader = await open_reader(store)
        try:
            collection = await AsyncCollection.open(reader, collection_name, loaded)
            model = await asyncio.to_thread(QueryModel, loaded, provider=provider, threads=threads)
            retriever = cls(collection, model)
        except BaseException:
            if is_folder(store):
                await reader.close()
            raise
        if is_folder(store):
            retriever._closes = reader
        return retriever

    async def search(
        self,
        query: Query,
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
    ) -> SearchResult:
        """Answer one query; arguments and errors as :meth:`Retriever.search`."""
        (result,) = await self.search_many(
            [query],
            limit=limit,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
        )
        return result

    async def search_many(
        self,
        queries: Sequence[Query],
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
    ) -> list[SearchResult]:
        """Answer many queries; arguments and errors as :meth:`Retriever.search_many`."""
        options = SearchOptions(limit, rerank_depth, filter, exclude_reference)
        options.check(queries)
        results: list[SearchResult] = []
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            started = perf_counter()
            ids = referenced_ids(batch)
            references = await self.collection.stored(ids) if ids else {}
            prepare = partial(self._model.prepare, excludes_reference=exclude_reference, started=started)
            ready = await self._run(partial(prepare, batch, references))
            results += [await self._answer(query, options) for query in ready]
        return results

    async def _answer(self, query: ReadyQuery, options: SearchOptions) -> SearchResult:
        clock = StageClock()
        found = await self.collection.query(query.vector, limit=options.hits_asked_for, filter=options.filter)
        if options.doubts_filter(found):
            await self.collection.check_filter(options.filter)
        hits = options.keep(found, query)
        clock.retrieved()
        wanted = options.to_rerank(hits, query)
        if not wanted:
            return make_result(query, hits, NO_SCORES, options=options, clock=clock)
        tokens = await self.collection.hit_tokens(wanted)
        clock.fetched()
        scores = await self._run(partial(self._model.score, query, tokens))
        clock.reranked()
        return make_result(query, hits, scores, options=options, clock=clock)

    async def _run(self, compute: Callable[[], _Value]) -> _Value:
        return await asyncio.get_running_loop().run_in_executor(self._pool, compute)

    async def close(self) -> None:
        """Release the threads, and a store that :meth:`open` opened."""
        self._pool.shutdown(wait=True)
        if self._closes is not None:
            closes, self._closes = self._closes, None
            await closes.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
