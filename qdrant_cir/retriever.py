"""Two drivers of the query path (``search/path.py``): :class:`Retriever` blocks, :class:`AsyncRetriever` awaits.

What a query reads and computes is written once, as steps; a driver only runs them, so the answers cannot differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from qdrant_cir.arguments import checked_items
from qdrant_cir.errors import StoreError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.search.effort import EXACT, Effort
from qdrant_cir.search.explanation import Explanation
from qdrant_cir.search.gate import Gate
from qdrant_cir.search.given_hits import GivenHits
from qdrant_cir.search.path import (
    RerankOptions,
    SearchOptions,
    compose_steps,
    explain_steps,
    rerank_steps,
    search_steps,
)
from qdrant_cir.search.query_model import ComposedQuery, QueryModel, checked_query
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.packaged import given_bundle, with_bundle
from qdrant_cir.storage.reads import GalleryReads
from qdrant_cir.storage.steps import Stopwatch, TimedSteps, run, run_async, run_side_by_side
from qdrant_cir.storage.stores import (
    RETRY_SECONDS,
    AsyncStoreLike,
    StoreLike,
    is_folder,
    open_store,
    open_store_async,
)
from qdrant_cir.storage.stores.protocol import ReadOptions, Store
from qdrant_cir.types import Candidate, ImageSource, PointId, Precision, Query, SearchProgress, SearchResult

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["DEFAULT_LIMIT", "DEFAULT_RERANK_DEPTH", "IN_FLIGHT", "AsyncRetriever", "Retriever"]

DEFAULT_LIMIT = 10
"""Results that a search returns."""

DEFAULT_RERANK_DEPTH = 50
"""Candidates that are re-ranked; the paper uses 50 on CIRR and 100 on FashionIQ."""

DEFAULT_GROUP_SIZE = 10
"""The most members of a group that are re-ranked."""

IN_FLIGHT = 2
"""Queries that compute at the same time, while another one may be reading."""

T = TypeVar("T")


class Retriever:
    """Searches one collection with one bundle.

    Threads may share it if they may share its store: calls of a server run in parallel, those of the embedded
    store take turns.
    """

    def __init__(self, collection: Collection, model: QueryModel, *, clock: Callable[[], float] = perf_counter) -> None:
        """Use a collection and the model of its bundle; :meth:`open` does both from names.

        Args:
            collection: opened with the model's bundle.
            model: the graphs.
            clock: returns seconds, for timings and time budgets.
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
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Self:
        """Load a bundle and open a collection that was made with it.

        Args:
            collection_name: as it was indexed.
            store: a Qdrant client, the folder of an embedded store, or an open store. A client or store that
                was given stays open when the retriever is closed.
            bundle: a model folder, or a packaged model's name; None for the packaged model that made the collection.
            provider: where the graphs run; ``auto`` uses CUDA where it works.
            threads: for one graph; by default as many as this process may use.
            precision: what the re-ranker computes in; others than ``float32`` are faster and close to it, where the
                bundle holds them (``python -m onnx_export add-precision``). The result names it.
            api_key: of the server at an address; ``QDRANT_API_KEY`` where it is None.
            grpc_port: where that server speaks gRPC; ``QDRANT_GRPC_PORT`` where it is None.
            retry_seconds: how long one call of a server is tried again; 0 for no second attempt.

        Raises:
            InputError: an unknown provider or precision, or fewer than one thread.
            BundleError: the bundle is missing or damaged, or has no re-ranker in that precision.
            CollectionNotFoundError: there is no such collection.
            CollectionMismatchError: another bundle made it.
            StoreError: the store cannot be opened or reached.
            ProviderError, MissingExtraError: the graphs cannot run as asked.
        """
        compute = Compute(provider, threads, precision)
        given = given_bundle(bundle)
        opened = open_store(store, creates=False, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds)
        try:
            retriever = with_bundle(
                given, lambda made: cls(Collection.open(opened, collection_name, made), QueryModel(made, compute))
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
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        min_match: float | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        progress: Callable[[SearchProgress], None] | None = None,
    ) -> SearchResult:
        """Answer one query.

        Args:
            query: a reference, a text, or both; :class:`Query` has what each means.
            limit: results to return, at least 1; fewer come back where there are fewer.
            rerank_depth: how many of stage one's best are re-ranked; 0 is stage one alone. May be larger than
                the collection.
            filter: conditions on the user's payload fields, applied in the store.
            exclude_reference: leave the reference itself out, and every exact copy of its file. A Pillow image or an
                array is compared by its vector.
            effort: re-rank all of those candidates, which is the default, or stop early: see :class:`Effort`.
            group_by: path of a payload field, such as ``product_id``: one result per value, the best of its members.
                ``limit`` and ``rerank_depth`` count groups then, and all members of the first groups are re-ranked.
            group_size: the most members of a group.
            min_match: least probability that the first place is what was asked for; below it the result's ``is_match``
                is False and a note says so. None for the threshold of the gallery's calibration, 0 for none.
            params: Qdrant's search parameters, instead of the library's own (``hnsw_ef`` of at least 512).
            consistency: read consistency of a cluster.
            timeout: seconds, for every call of the server.
            shard_key_selector: the shard keys to look at, in both collections.
            progress: called in the thread that searches, a worker where the search is awaited: after stage one, and
                after every eight candidates that are scored; with a confidence, after every step of its
                calibration. What it raises ends the search.

        Returns:
            The candidates, best first, with both scores and ranks, seconds per step, and notes on what was
            skipped.

        Raises:
            InputError: ``limit``, ``rerank_depth``, ``effort`` or ``min_match`` out of range, a confidence or a
                ``min_match`` without a calibration, an empty query, an unknown gallery image, or a filter on a field
                that no image has.
                Checked when nothing was found, and always for ``must_not``, where an unknown field would match
                everything.
            ImageError: the reference cannot be read.
            TokensError: a gallery image that is the reference has no valid tokens, or a score is not a
                number.
            StoreError: the store failed.
            ProviderError: a computation failed.
        """
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(
            limit, rerank_depth, filter, exclude_reference, effort, group_by, group_size, read, min_match, progress
        )
        (path,) = _paths([query], options, self.collection.reads, self._model, self._clock)
        return run(path.steps, self.collection.store)

    def compose(self, query: Query) -> ComposedQuery:
        """Encode a query's references and compose them with its texts.

        Returns:
            The query: ``vector`` float32 [D] and the name of the vector that it is compared with, ``using``, for any
            query of Qdrant's; :meth:`rerank` takes it with what was found.

        Raises:
            InputError, ImageError, TokensError, StoreError, ProviderError: as :meth:`search`.
        """
        query = checked_query(query)
        return run(
            compose_steps(self.collection.reads, self._model, query, Stopwatch(self._clock)), self.collection.store
        )

    def rerank(
        self,
        query: ComposedQuery,
        hits: GivenHits,
        *,
        limit: int = DEFAULT_LIMIT,
        effort: Effort = EXACT,
        encode_missing: bool = False,
        open_picture: Callable[[str], ImageSource] | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> SearchResult:
        """Re-rank what was retrieved, by this library or by any query of Qdrant's.

        Args:
            query: as :meth:`compose` returned it.
            hits: in stage one's order: a QueryResponse, groups (one result per group, the best of its members), or a
                list of ScoredPoints, Records, ids (int, UUID or their text), :class:`GalleryImage`, and pictures (Path,
                bytes or Pillow images), which are encoded for this call. A point is taken with the score it came with.
            limit: results to return.
            effort: re-rank all, or stop early.
            encode_missing: read and encode the pictures of points without valid tokens; nothing is written.
            open_picture: opens a point's picture for that; None for files.
            consistency: read consistency of a cluster.
            timeout: seconds, for every call of the server.
            shard_key_selector: the shard keys to look at.

        Returns:
            The candidates, best first. Points without tokens follow the scored ones in the order given, with a note.

        Raises:
            InputError: an entry of ``hits`` cannot be re-ranked, or the query is of another bundle.
            ImageError: a picture among them cannot be read.
            TokensError, StoreError, ProviderError: as :meth:`search`.
        """
        read = ReadOptions(None, consistency, timeout, shard_key_selector)
        options = RerankOptions(limit, effort, encode_missing, open_picture, read)
        options.check()
        watch = Stopwatch(self._clock)
        return run(rerank_steps(self.collection.reads, self._model, query, hits, options, watch), self.collection.store)

    def explain(
        self,
        query: Query,
        candidate: str | PointId | Candidate,
        *,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        open_picture: Callable[[str], ImageSource] | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Explanation:
        """Explain the place of one candidate of a query.

        The query is searched as :meth:`search` does without an effort. Then the candidate alone is scored again, once
        without each word of the text and once without each cell of its picture.

        Args:
            query: with a modification text.
            candidate: one of those that are re-ranked: a candidate of a result, the id it was indexed under, or, of an
                attached collection, the id of its point.
            rerank_depth: as of :meth:`search`, and so are the others.
            filter: likewise.
            exclude_reference: likewise.
            group_by: likewise; the candidate then stands for its group.
            group_size: likewise.
            open_picture: opens the candidate's picture, which is read where the bundle merges tokens; None for files.
            params: likewise.
            consistency: likewise.
            timeout: likewise.
            shard_key_selector: likewise.

        Raises:
            InputError: the query has no text, or the candidate is not among those that are re-ranked.
            CirError: as :meth:`search`.
        """
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(1, rerank_depth, filter, exclude_reference, EXACT, group_by, group_size, read)
        (query,) = options.checked([query])
        watch = Stopwatch(self._clock)
        steps = explain_steps(self.collection.reads, self._model, query, candidate, options, open_picture, watch)
        return run(steps, self.collection.store)

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        effort: Effort = EXACT,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        min_match: float | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> list[SearchResult]:
        """Answer many queries; each as :meth:`search` answers it alone.

        They overlap: while two compute, others read. Every number is what :meth:`search` computes, to the last
        bit. Arguments and errors are those of :meth:`search`. One bad query refuses all of them.
        """
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(
            limit, rerank_depth, filter, exclude_reference, effort, group_by, group_size, read, min_match
        )
        paths = _paths(queries, options, self.collection.reads, self._model, self._clock)
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="qdrant-cir") as threads:
            return run_side_by_side(paths, self.collection.store, threads, in_flight=IN_FLIGHT + 1)

    def close(self) -> None:
        """Release a store that :meth:`open` opened."""
        if self._closes is not None:
            self._closes.close()
            self._closes = None

    @property
    def model(self) -> QueryModel:
        """The graphs, for another retriever of the same gallery."""
        return self._model

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

    Graphs run in a small thread pool. Any number of searches may wait; they hold only their queries. One retriever
    belongs to one event loop.
    """

    def __init__(
        self,
        reads: GalleryReads,
        store: Store,
        model: QueryModel,
        *,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Use a gallery, the store that holds it and the model of its bundle; :meth:`open` does it from names."""
        self._reads = reads
        self._store = store
        self._model = model
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(IN_FLIGHT + 1)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(IN_FLIGHT + 1, thread_name_prefix="qdrant-cir")
        self._closes: Store | None = None

    @classmethod
    def open(
        cls,
        collection_name: str,
        *,
        store: AsyncStoreLike,
        bundle: str | PathLike[str] | None = None,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Opening[Self]:
        """Load a bundle and open a collection, with ``await`` or with ``async with``.

        Arguments and errors are those of :meth:`Retriever.open`; ``store`` is an asynchronous Qdrant client, the
        folder of an embedded store, or an open store, whose calls are then made in a thread.
        """
        compute = Compute(provider, threads, precision)

        async def open_it() -> Self:
            given = await asyncio.to_thread(given_bundle, bundle)
            opened = await open_store_async(
                store, creates=False, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds
            )

            def joined(made: Bundle) -> tuple[GalleryReads, QueryModel]:
                return Collection.open(opened, collection_name, made).reads, QueryModel(made, compute)

            try:
                reads, model = await asyncio.to_thread(with_bundle, given, joined)
            except BaseException:
                if is_folder(store):
                    await asyncio.to_thread(opened.close)
                raise
            retriever = cls(reads, opened, model)
            if is_folder(store):
                retriever._closes = opened
            return retriever

        return Opening(open_it)

    async def search(
        self,
        query: Query,
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        effort: Effort = EXACT,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        min_match: float | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        progress: Callable[[SearchProgress], None] | None = None,
    ) -> SearchResult:
        """Answer one query; arguments and errors as :meth:`Retriever.search`."""
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(
            limit, rerank_depth, filter, exclude_reference, effort, group_by, group_size, read, min_match, progress
        )
        (path,) = _paths([query], options, self._reads, self._model, self._clock)
        return await self._run(path)

    async def compose(self, query: Query) -> ComposedQuery:
        """Encode and compose; as :meth:`Retriever.compose`."""
        query = checked_query(query)
        watch = Stopwatch(self._clock)
        return await self._run(TimedSteps(compose_steps(self._reads, self._model, query, watch), watch))

    async def rerank(
        self,
        query: ComposedQuery,
        hits: GivenHits,
        *,
        limit: int = DEFAULT_LIMIT,
        effort: Effort = EXACT,
        encode_missing: bool = False,
        open_picture: Callable[[str], ImageSource] | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> SearchResult:
        """Re-rank what was retrieved; arguments and errors as :meth:`Retriever.rerank`."""
        read = ReadOptions(None, consistency, timeout, shard_key_selector)
        options = RerankOptions(limit, effort, encode_missing, open_picture, read)
        options.check()
        watch = Stopwatch(self._clock)
        return await self._run(TimedSteps(rerank_steps(self._reads, self._model, query, hits, options, watch), watch))

    async def explain(
        self,
        query: Query,
        candidate: str | PointId | Candidate,
        *,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        open_picture: Callable[[str], ImageSource] | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Explanation:
        """Explain the place of one candidate; arguments and errors as :meth:`Retriever.explain`."""
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(1, rerank_depth, filter, exclude_reference, EXACT, group_by, group_size, read)
        (query,) = options.checked([query])
        watch = Stopwatch(self._clock)
        steps = explain_steps(self._reads, self._model, query, candidate, options, open_picture, watch)
        return await self._run(TimedSteps(steps, watch))

    async def search_many(
        self,
        queries: Sequence[Query],
        *,
        limit: int = DEFAULT_LIMIT,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        effort: Effort = EXACT,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        min_match: float | None = None,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> list[SearchResult]:
        """Answer many queries; arguments and errors as :meth:`Retriever.search_many`."""
        read = ReadOptions(params, consistency, timeout, shard_key_selector)
        options = SearchOptions(
            limit, rerank_depth, filter, exclude_reference, effort, group_by, group_size, read, min_match
        )
        paths = _paths(queries, options, self._reads, self._model, self._clock)
        tasks = [asyncio.create_task(self._run(path)) for path in paths]
        try:
            return [await task for task in tasks]
        finally:
            # if one fails, the others end before the error is raised
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, path: TimedSteps[T]) -> T:
        if self._loop is not asyncio.get_running_loop():
            raise StoreError("This AsyncRetriever belongs to another event loop. Open one in the loop that uses it.")
        async with self._gate:
            if self._pool is None:
                raise StoreError("This AsyncRetriever was closed. Open a new one.")
            return await run_async(path, self._store, self._pool)

    async def close(self) -> None:
        """Wait for running computations, then release the threads, and a store that :meth:`open` opened."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        closes, self._closes = self._closes, None
        if closes is not None:
            await asyncio.to_thread(closes.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Opening(Awaitable[T]):
    """A resource that is opened by ``await``, or for the duration of an ``async with``."""

    def __init__(self, opened: Callable[[], Awaitable[T]]) -> None:
        """Open nothing yet."""
        self._opened = opened
        self._value: T | None = None

    def __await__(self) -> Generator[object, None, T]:
        return self._opened().__await__()

    async def __aenter__(self) -> T:
        self._value = await self
        return self._value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._value.close()  # type: ignore[union-attr]


def _paths(
    queries: Sequence[Query],
    options: SearchOptions,
    reads: GalleryReads,
    model: QueryModel,
    clock: Callable[[], float],
) -> list[TimedSteps[SearchResult]]:
    """Check the arguments, and return one path per query, not yet started."""
    queries = options.checked(list(checked_items(queries, name="queries")))
    stop = options.effort.stop_rule(model.bundle, limit=options.limit, rerank_depth=options.rerank_depth)
    watches = [Stopwatch(clock) for _ in queries]
    return [
        TimedSteps(search_steps(reads, model, query, options, stop, watch), watch)
        for query, watch in zip(queries, watches, strict=True)
    ]
