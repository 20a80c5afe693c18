"""The path of a query for asynchronous code: the steps of :mod:`qdrant_cir.retriever`, each awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.retriever import DEFAULT_LIMIT, DEFAULT_RERANK_DEPTH, IN_FLIGHT
from qdrant_cir.search.effort import EXACT, Effort
from qdrant_cir.search.query_model import QueryModel, gallery_id
from qdrant_cir.search.ranking import FetchedQuery, SearchOptions, StageClock, answer_fetched
from qdrant_cir.search.scoring import CandidateTokens
from qdrant_cir.storage.async_collection import AsyncCollection
from qdrant_cir.storage.stores import AsyncStoreLike, is_folder, open_reader
from qdrant_cir.storage.stores.protocol import AsyncReader
from qdrant_cir.types import Precision, Query, SearchResult

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["AsyncRetriever"]

_Value = TypeVar("_Value")


class AsyncRetriever:
    """A :class:`Retriever` for asynchronous code: same arguments, answers and errors.

    Graphs run in a small thread pool. One retriever belongs to one event loop.
    """

    def __init__(
        self, collection: AsyncCollection, model: QueryModel, *, clock: Callable[[], float] = perf_counter
    ) -> None:
        """Join a collection and the model of its bundle; :meth:`open` does both from names.

        ``clock`` measures as that of :class:`Retriever` does.
        """
        self.collection = collection
        self._model = model
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="qdrant-cir")
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
        precision: Precision = "float32",
    ) -> Self:
        """Load a bundle and open a collection; as :meth:`Retriever.open`, which has the arguments and errors.

        Args:
            collection_name: as it was indexed.
            store: an asynchronous Qdrant client, the folder of an embedded store, or an open store, whose
                calls are then made in a thread.
            bundle: the model folder; None for the bundled model.
            provider: where the graphs run.
            threads: for one graph.
            precision: what the re-ranker computes in.
        """
        compute = Compute(provider, threads, precision)
        loaded = await asyncio.to_thread(load_bundle, bundle)
        reader = await open_reader(store)
        try:
            collection = await AsyncCollection.open(reader, collection_name, loaded)
            model = await asyncio.to_thread(QueryModel, loaded, compute)
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
        effort: Effort = EXACT,
    ) -> SearchResult:
        """Answer one query; arguments and errors as :meth:`Retriever.search`."""
        (result,) = await self.search_many(
            [query],
            limit=limit,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            effort=effort,
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
        effort: Effort = EXACT,
    ) -> list[SearchResult]:
        """Answer many queries; arguments and errors as :meth:`Retriever.search_many`."""
        options = SearchOptions(limit, rerank_depth, filter, exclude_reference, effort)
        options.check(queries)
        stop = effort.stop_rule(self._model.bundle, limit=limit, rerank_depth=rerank_depth)
        turn = asyncio.Semaphore(IN_FLIGHT + 1)

        async def answer(query: Query) -> SearchResult:
            # no more candidates are held than those of a few queries
            async with turn:
                fetched = await self._fetch(query, options)
                return await self._run(partial(answer_fetched, self._model, fetched, options=options, stop=stop))

        tasks = [asyncio.create_task(answer(query)) for query in queries]
        try:
            return [await task for task in tasks]
        finally:
            # where one failed, the others end before the caller hears of it
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, given: Query, options: SearchOptions) -> FetchedQuery:
        started = self._clock()
        reference_id = gallery_id(given)
        references = {} if reference_id is None else await self.collection.stored([reference_id])
        prepare = partial(
            self._model.prepare, excludes_reference=options.exclude_reference, started=started, clock=self._clock
        )
        query = await self._run(partial(prepare, given, references))
        clock = StageClock(read=self._clock)
        found = await self.collection.query(query.vector, limit=options.hits_asked_for, filter=options.filter)
        if options.doubts_filter(found):
            await self.collection.check_filter(options.filter)
        hits = options.keep(found, query)
        clock.retrieved()
        wanted = options.to_rerank(hits, query)
        if not wanted:
            return FetchedQuery(query, hits, CandidateTokens((), 0), clock)
        tokens = CandidateTokens(await self.collection.hit_tokens(wanted), len(wanted))
        clock.fetched()
        return FetchedQuery(query, hits, tokens, clock)

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
