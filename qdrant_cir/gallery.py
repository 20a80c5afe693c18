"""The public door: a gallery of pictures in Qdrant, to fill, to search and to look after.

:func:`attach` joins a collection that exists; :meth:`Gallery.create` and :meth:`Gallery.open` make and open one of our
own. All of them have the same methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from qdrant_cir.arguments import checked_flag, shown
from qdrant_cir.errors import CollectionError, InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.checking import CheckReport, check_collection
from qdrant_cir.indexing.pruning import MOST_PRUNED, prunable
from qdrant_cir.indexing.report import IndexProgress, IndexReport
from qdrant_cir.indexing.sources import WHOLE, ImageRecord, RejectedRow, read_images
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import (
    DEFAULT_GROUP_SIZE,
    DEFAULT_LIMIT,
    DEFAULT_RERANK_DEPTH,
    AsyncRetriever,
    Opening,
    Retriever,
)
from qdrant_cir.search.demands import expected_memory
from qdrant_cir.search.effort import EXACT, Effort
from qdrant_cir.search.explanation import Explanation
from qdrant_cir.search.given_hits import GivenHits
from qdrant_cir.search.query_model import ComposedQuery, QueryModel
from qdrant_cir.storage.attachment import Attachment, attach_collection, detach_collection
from qdrant_cir.storage.collection import Collection, CollectionInfo
from qdrant_cir.storage.collection_options import CollectionOptions, check_options
from qdrant_cir.storage.packaged import given_bundle, with_bundle
from qdrant_cir.storage.stores import (
    RETRY_SECONDS,
    AsyncStoreLike,
    StoreLike,
    check_shard_key,
    is_place,
    make_shard_key,
    open_store,
    open_store_async,
    with_shard_key,
)
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import (
    DEFAULT_LIMITS,
    AddressLimits,
    Candidate,
    ImageSource,
    JsonValue,
    PictureLimits,
    PointId,
    Precision,
    Query,
    Reference,
    SearchProgress,
    SearchResult,
)

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["AsyncGallery", "Gallery", "attach", "attach_async"]

_DELETED_AT_ONCE = 500

_G = TypeVar("_G", bound="Gallery")
_A = TypeVar("_A", bound="AsyncGallery")

IndexSource = Iterable[ImageRecord | RejectedRow] | str | PathLike[str]
"""Records, or a folder or manifest that :func:`read_images` reads."""


class Gallery:
    """Pictures in a collection, and the model that reads them, which is loaded when it is first needed.

    A thin face of :class:`Retriever` and :class:`Indexer`. Threads may share it.
    """

    def __init__(
        self,
        collection: Collection,
        bundle: Bundle,
        *,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        encoder: ImageEncoder | None = None,
        open_picture: Callable[[str], ImageSource] | None = None,
        closes: Store | None = None,
    ) -> None:
        """Join a collection and its bundle; :meth:`create`, :meth:`open` and :func:`attach` do it from names.

        Args:
            collection: opened with ``bundle``.
            bundle: the model.
            compute: where and in what it runs.
            encoder: the bundle's image encoder, where it is open; None opens it when it is first needed.
            open_picture: of an attached collection, opens a picture by its value; None for files and addresses.
            closes: a store to close with the gallery.
        """
        self.collection = collection
        self.bundle = bundle
        self._compute = compute
        self._given_encoder = encoder
        self._open_picture = open_picture
        self._closes = closes

    @classmethod
    def create(
        cls,
        collection: str,
        *,
        store: StoreLike,
        bundle: str | PathLike[str] | None = None,
        options: CollectionOptions = CollectionOptions(),  # noqa: B008 - frozen
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
        shard_key: int | str | None = None,
    ) -> Self:
        """Make a gallery of our own where there is none, and open it.

        Args:
            collection: its name.
            store: a Qdrant client, a server's address, the folder of an embedded store, ``":memory:"``, or an open
                store. A client or store that is given stays open.
            bundle: a model folder, or a packaged model's name; None for the packaged model that made the collection,
                and for a new one the default.
            options: of the collections on a server, if they are new; of one that stands, a warning names those that
                it was not made with.
            provider: where the model runs; ``auto`` takes CUDA where it works.
            threads: for one graph; None for as many as this process may use.
            precision: what the re-ranker computes in.
            api_key: of the server at an address; ``QDRANT_API_KEY`` where it is None.
            grpc_port: where that server speaks gRPC; ``QDRANT_GRPC_PORT`` where it is None.
            retry_seconds: how long one call of a server is tried again; 0 for no second attempt.
            shard_key: of a collection that is sharded by keys (``CollectionOptions(sharding_method=...)``), where all
                writes go; made where there is none. Searches name theirs with ``shard_key_selector``.

        Raises:
            BundleError: the bundle is missing or damaged.
            CollectionMismatchError: one of that name was made with another bundle, or by somebody else.
            StoreError: the store cannot be opened or reached.
            InputError: a name or a number cannot be used.
        """
        check_options(options)
        check_shard_key(store, shard_key)
        compute, given = Compute(provider, threads, precision), given_bundle(bundle)
        return _opened(
            open_store(store, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds),
            lambda opened: with_bundle(
                given,
                lambda made: cls(
                    Collection.create(with_shard_key(opened, shard_key), collection, made, options),
                    made,
                    compute=compute,
                ),
            ),
            closes=is_place(store),
        )

    @classmethod
    def open(
        cls,
        collection: str,
        *,
        store: StoreLike,
        vector: str | None = None,
        bundle: str | PathLike[str] | None = None,
        open_picture: Callable[[str], ImageSource] | None = None,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
        shard_key: int | str | None = None,
    ) -> Self:
        """Open a gallery that stands: one of our own, or what is attached to the user's collection.

        Args:
            collection: its name, or an alias.
            store: as of :meth:`create`.
            vector: of an attached collection, the vector that was attached; None for a gallery of our own, or for the
                only one that is attached.
            bundle: as of :meth:`create`.
            open_picture: as of :func:`attach`.
            provider: as of :meth:`create`.
            threads: as of :meth:`create`.
            precision: as of :meth:`create`.
            api_key: as of :meth:`create`.
            grpc_port: as of :meth:`create`.
            retry_seconds: as of :meth:`create`.
            shard_key: as of :meth:`create`, but it must stand.

        Raises:
            CollectionNotFoundError: there is no such collection, or nothing is attached to it.
            CollectionMismatchError: another bundle made it.
            BundleError, StoreError, InputError: as :meth:`create`.
        """
        _check_opener(open_picture)
        check_shard_key(store, shard_key)
        compute, given = Compute(provider, threads, precision), given_bundle(bundle)
        return _opened(
            open_store(store, creates=False, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds),
            lambda opened: with_bundle(
                given,
                lambda made: cls(
                    Collection.find(with_shard_key(opened, shard_key), collection, vector=vector, bundle=made),
                    made,
                    compute=compute,
                    open_picture=open_picture,
                ),
            ),
            closes=is_place(store),
        )

    @cached_property
    def _encoder(self) -> ImageEncoder:
        if self._given_encoder is not None:
            return self._given_encoder
        return ImageEncoder.open(self.bundle, replace(self._compute, precision="float32"))

    @cached_property
    def _retriever(self) -> Retriever:
        return Retriever(self.collection, QueryModel(self.bundle, self._compute, encoder=self._encoder))

    def index(
        self,
        source: IndexSource | None = None,
        *,
        total: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
        verify: bool = False,
        limits: PictureLimits = DEFAULT_LIMITS,
        part: tuple[int, int] = WHOLE,
    ) -> IndexReport:
        """Bring the gallery up to date; the same call goes on where an earlier one was stopped.

        Args:
            source: what to index: records, a folder of pictures, or a manifest. An attached collection takes none: its
                own points are indexed.
            total: how many records there are, for the estimate.
            progress: called after every batch.
            verify: of an attached collection, read every picture again and compare its content; otherwise only those
                whose value in the payload changed.
            limits: of one picture; a picture beyond them is reported and not indexed.
            part: of the source, as (1, 3) for the first third: several processes, each with a part of its own, share
                the work on one collection of a server.

        Raises:
            InputError: a source for an attached collection, or none for a gallery of our own.
            IndexingError, ProviderError: as :meth:`Indexer.index`.
        """
        if self.collection.attachment is not None:
            if source is not None:
                raise InputError(
                    f"{self.collection.name!r} is attached: its own points are indexed, and no others. Index without "
                    "a source."
                )
            indexer = Indexer(self.collection, self._encoder, self.bundle, limits=limits)
            return indexer.index_attached(self._opener, progress=progress, verify=verify, part=part)
        if source is None:
            raise InputError("Give what to index: records, a folder of pictures, or a manifest.")
        records = read_images(source) if isinstance(source, str | PathLike) else source
        indexer = Indexer(self.collection, self._encoder, self.bundle, limits=limits)
        return indexer.index(records, total=total, progress=progress, part=part)

    def prune(
        self, source: IndexSource, *, prefix: str = "", most: float = MOST_PRUNED, dry_run: bool = False
    ) -> list[str]:
        """Delete the images that are not in the source any more.

        Pictures of the source that cannot be read count as there.

        Args:
            source: as of :meth:`index`: all of it, not what is new.
            prefix: delete only images whose ids begin with it; what the source's own ids begin with, if it has one.
            most: the share of these images that may be deleted, 0 to 1. A folder that is not mounted looks empty.
            dry_run: delete nothing.

        Returns:
            The ids, sorted.

        Raises:
            InputError: more would be deleted, a row of the source names no picture so that its image is not known, or
                the collection is attached.
        """
        if self.collection.attachment is not None:
            raise InputError(
                f"{self.collection.name!r} is attached, and its points are not qdrant-cir's to delete. `index` drops "
                "the tokens of points that are gone; `detach` leaves the collection as it was."
            )
        records = read_images(source, prefix=prefix) if isinstance(source, str | PathLike) else source
        gone = prunable(self.collection.image_ids(), records, prefix=prefix, most=most)
        if not dry_run:
            for start in range(0, len(gone), _DELETED_AT_ONCE):
                self.collection.delete(gone[start : start + _DELETED_AT_ONCE])
        return gone

    def compose(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str = "",
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
    ) -> ComposedQuery:
        """Compose a query; its ``vector`` and ``using`` fit any query of Qdrant's, and :meth:`rerank` takes it.

        Args:
            reference: a picture, one of the gallery (:class:`GalleryImage`), several in a list, or None.
            text: what is to be otherwise.
            must_not: what must not be.
            weights: one per reference, at least 0 and not all 0; None for equal ones.
            must_not_weight: how much ``must_not`` counts, 0 to 1,000,000.

        Raises:
            InputError, ImageError, TokensError, StoreError, ProviderError: as :meth:`Retriever.search`.
        """
        return self._retriever.compose(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight)
        )

    def rerank(
        self,
        query: ComposedQuery,
        hits: GivenHits,
        *,
        limit: int = DEFAULT_LIMIT,
        effort: Effort = EXACT,
        encode_missing: bool = False,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> SearchResult:
        """Re-rank what any query of Qdrant's found; arguments, result and errors as :meth:`Retriever.rerank`."""
        return self._retriever.rerank(
            query,
            hits,
            limit=limit,
            effort=effort,
            encode_missing=encode_missing,
            open_picture=None if self.collection.attachment is None else self._opener,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
        )

    def search(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str = "",
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
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
        """Compose, retrieve and re-rank in one call; arguments as :meth:`compose` and :meth:`Retriever.search`."""
        return self._retriever.search(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight),
            limit=limit,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            effort=effort,
            group_by=group_by,
            group_size=group_size,
            min_match=min_match,
            params=params,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
            progress=progress,
        )

    def explain(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str,
        candidate: str | PointId | Candidate,
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Explanation:
        """Explain the place of one candidate; arguments as :meth:`search` and :meth:`Retriever.explain`."""
        return self._retriever.explain(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight),
            candidate,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            group_by=group_by,
            group_size=group_size,
            open_picture=None if self.collection.attachment is None else self._opener,
            params=params,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
        )

    def info(self, *, rerank_depth: int = DEFAULT_RERANK_DEPTH) -> CollectionInfo:
        """Describe the gallery, and what searching it takes.

        ``expected_memory`` is how many bytes a process takes at most for searches that re-rank so many candidates, one
        search at a time, on the CPU, with a text of some 25 words: weights, what onnxruntime keeps, and the tokens.
        Python and its libraries, some 75 MB, and an embedded store come on top. None for a bundle whose manifest does
        not hold the sizes of its layers.

        Raises:
            InputError: ``rerank_depth`` is below 0.
            BundleError: the bundle has no re-ranker in the gallery's precision.
        """
        expected = expected_memory(self.bundle, self._compute, rerank_depth=rerank_depth)
        return replace(self.collection.info(), expected_memory=expected)

    def index_recall(self, depth: int = 100) -> float | None:
        """Return how many of the exactly nearest images a search finds at a depth, as a share.

        Searches with twenty stored vectors, exactly and through the index.

        Raises:
            InputError: ``depth`` is below 1, or the server's strict mode forbids exact searches.
        """
        return self.collection.index_recall(depth)

    def count(self, filter: models.Filter | None = None) -> int:
        """Count images, exactly unless a server's strict mode forbids it (:attr:`CollectionInfo.is_approximate`).

        Raises:
            InputError: the filter cannot be evaluated.
        """
        return self.collection.count(filter)

    def check(self, *, repair: bool = False) -> CheckReport:
        """Look at every image, its vector and its tokens, and return what is wrong, by id.

        Args:
            repair: remove what nothing can use; :meth:`index` brings back what was removed of an image. Nothing else
                should write meanwhile.

        Raises:
            StoreError: the store failed, or cannot be written.
        """
        return check_collection(self.collection, self.bundle, repair=repair)

    def delete(self, image_ids: Sequence[str | PointId]) -> set[str | PointId]:
        """Delete images and return the ids that were there. An attached collection keeps its points."""
        return self.collection.delete(image_ids)

    def set_payload(self, image_id: str | PointId, payload: Mapping[str, JsonValue]) -> None:
        """Set payload fields of one image of a gallery of our own; :meth:`index` leaves fields that it did not write.

        Raises:
            InputError: there is no such image, a value cannot be stored, or the collection is attached, whose payload
                is the user's.
        """
        self.collection.set_payload(image_id, payload)

    def create_payload_index(self, field: str, kind: str = "keyword") -> None:
        """Index a payload field for filters: keyword, integer, float, bool, datetime, text, uuid or geo."""
        self.collection.create_payload_index(field, kind)

    def drop(self) -> None:
        """Remove a gallery of our own with all it holds. Raises InputError for an attached one; detach it instead."""
        self.collection.drop()

    def detach(self) -> None:
        """Leave an attached collection as it was. Raises InputError for a gallery of our own; drop that instead."""
        if self.collection.attachment is None:
            raise InputError(f"{self.collection.name!r} is not attached to anything; drop() removes it.")
        detach_collection(self.collection.store, self.collection.attachment)

    @cached_property
    def _opener(self) -> Callable[[str], ImageSource]:
        """What opens the pictures of an attached collection."""
        if self._open_picture is not None:
            return self._open_picture
        from qdrant_cir.indexing.opening import PictureOpener

        attachment = self.collection.attachment
        if attachment is None:
            return PictureOpener()
        return PictureOpener.of_attached(attachment)

    def close(self) -> None:
        """Release a store that was opened for the gallery."""
        closes, self._closes = self._closes, None
        if closes is not None:
            closes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGallery:
    """A :class:`Gallery` for asynchronous code: the same methods, awaited. One belongs to one event loop."""

    def __init__(self, gallery: Gallery) -> None:
        """Take a gallery whose store may be called from other threads than the event loop's."""
        self._gallery = gallery
        self.collection = gallery.collection
        self.bundle = gallery.bundle
        self._opening = asyncio.Lock()
        self._searches: AsyncRetriever | None = None

    @classmethod
    def create(
        cls,
        collection: str,
        *,
        store: AsyncStoreLike,
        bundle: str | PathLike[str] | None = None,
        options: CollectionOptions = CollectionOptions(),  # noqa: B008 - frozen
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
        shard_key: int | str | None = None,
    ) -> Opening[Self]:
        """Make a gallery of our own, with ``await`` or ``async with``; the rest as :meth:`Gallery.create`."""
        make = partial(
            Gallery.create,
            collection,
            bundle=bundle,
            options=options,
            provider=provider,
            threads=threads,
            precision=precision,
            api_key=api_key,
            grpc_port=grpc_port,
            retry_seconds=retry_seconds,
            shard_key=shard_key,
        )
        return Opening(lambda: _opened_async(cls, store, make, retry_seconds=retry_seconds))

    @classmethod
    def open(
        cls,
        collection: str,
        *,
        store: AsyncStoreLike,
        vector: str | None = None,
        bundle: str | PathLike[str] | None = None,
        open_picture: Callable[[str], ImageSource] | None = None,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
        shard_key: int | str | None = None,
    ) -> Opening[Self]:
        """Open a gallery, with ``await`` or ``async with``; arguments and errors as :meth:`Gallery.open`."""
        make = partial(
            Gallery.open,
            collection,
            vector=vector,
            bundle=bundle,
            open_picture=open_picture,
            provider=provider,
            threads=threads,
            precision=precision,
            api_key=api_key,
            grpc_port=grpc_port,
            retry_seconds=retry_seconds,
            shard_key=shard_key,
        )
        return Opening(lambda: _opened_async(cls, store, make, retry_seconds=retry_seconds))

    async def index(
        self,
        source: IndexSource | None = None,
        *,
        total: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
        verify: bool = False,
        limits: PictureLimits = DEFAULT_LIMITS,
        part: tuple[int, int] = WHOLE,
    ) -> IndexReport:
        """Bring the gallery up to date in a thread, which calls ``progress``; the rest as :meth:`Gallery.index`."""
        run = partial(
            self._gallery.index, source, total=total, progress=progress, verify=verify, limits=limits, part=part
        )
        return await asyncio.to_thread(run)

    async def prune(
        self, source: IndexSource, *, prefix: str = "", most: float = MOST_PRUNED, dry_run: bool = False
    ) -> list[str]:
        """Delete the images that are not in the source any more; as :meth:`Gallery.prune`."""
        return await asyncio.to_thread(self._gallery.prune, source, prefix=prefix, most=most, dry_run=dry_run)

    async def compose(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str = "",
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
    ) -> ComposedQuery:
        """Compose a query; as :meth:`Gallery.compose`."""
        retriever = await self._retriever()
        return await retriever.compose(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight)
        )

    async def rerank(
        self,
        query: ComposedQuery,
        hits: GivenHits,
        *,
        limit: int = DEFAULT_LIMIT,
        effort: Effort = EXACT,
        encode_missing: bool = False,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> SearchResult:
        """Re-rank what any query of Qdrant's found; as :meth:`Gallery.rerank`."""
        retriever = await self._retriever()
        return await retriever.rerank(
            query,
            hits,
            limit=limit,
            effort=effort,
            encode_missing=encode_missing,
            open_picture=None if self.collection.attachment is None else self._gallery._opener,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
        )

    async def search(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str = "",
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
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
        """Compose, retrieve and re-rank in one call; as :meth:`Gallery.search`."""
        retriever = await self._retriever()
        return await retriever.search(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight),
            limit=limit,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            effort=effort,
            group_by=group_by,
            group_size=group_size,
            min_match=min_match,
            params=params,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
            progress=progress,
        )

    async def explain(
        self,
        reference: Reference | Sequence[Reference] | None,
        text: str,
        candidate: str | PointId | Candidate,
        *,
        must_not: str | None = None,
        weights: Sequence[float] | None = None,
        must_not_weight: float = 0.5,
        rerank_depth: int = DEFAULT_RERANK_DEPTH,
        filter: models.Filter | None = None,
        exclude_reference: bool = False,
        group_by: str | None = None,
        group_size: int = DEFAULT_GROUP_SIZE,
        params: models.SearchParams | None = None,
        consistency: models.ReadConsistency | None = None,
        timeout: int | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Explanation:
        """Explain the place of one candidate; as :meth:`Gallery.explain`."""
        retriever = await self._retriever()
        return await retriever.explain(
            Query(reference, text, "" if must_not is None else must_not, weights, must_not_weight),
            candidate,
            rerank_depth=rerank_depth,
            filter=filter,
            exclude_reference=exclude_reference,
            group_by=group_by,
            group_size=group_size,
            open_picture=None if self.collection.attachment is None else self._gallery._opener,
            params=params,
            consistency=consistency,
            timeout=timeout,
            shard_key_selector=shard_key_selector,
        )

    async def info(self, *, rerank_depth: int = DEFAULT_RERANK_DEPTH) -> CollectionInfo:
        """Describe the gallery, and what searching it takes; as :meth:`Gallery.info`."""
        return await asyncio.to_thread(partial(self._gallery.info, rerank_depth=rerank_depth))

    async def index_recall(self, depth: int = 100) -> float | None:
        """Return how many of the exactly nearest images a search finds; as :meth:`Gallery.index_recall`."""
        return await asyncio.to_thread(self._gallery.index_recall, depth)

    async def count(self, filter: models.Filter | None = None) -> int:
        """Count images exactly; as :meth:`Gallery.count`."""
        return await asyncio.to_thread(self._gallery.count, filter)

    async def check(self, *, repair: bool = False) -> CheckReport:
        """Look at every image; as :meth:`Gallery.check`."""
        return await asyncio.to_thread(partial(self._gallery.check, repair=repair))

    async def delete(self, image_ids: Sequence[str | PointId]) -> set[str | PointId]:
        """Delete images; as :meth:`Gallery.delete`."""
        return await asyncio.to_thread(self._gallery.delete, image_ids)

    async def set_payload(self, image_id: str | PointId, payload: Mapping[str, JsonValue]) -> None:
        """Set payload fields of one image; as :meth:`Gallery.set_payload`."""
        await asyncio.to_thread(self._gallery.set_payload, image_id, payload)

    async def create_payload_index(self, field: str, kind: str = "keyword") -> None:
        """Index a payload field; as :meth:`Gallery.create_payload_index`."""
        await asyncio.to_thread(self._gallery.create_payload_index, field, kind)

    async def drop(self) -> None:
        """Remove a gallery of our own; as :meth:`Gallery.drop`."""
        await asyncio.to_thread(self._gallery.drop)

    async def detach(self) -> None:
        """Leave an attached collection as it was before; as :meth:`Gallery.detach`."""
        await asyncio.to_thread(self._gallery.detach)

    async def close(self) -> None:
        """Wait for what computes, then release threads, and a store that was opened for the gallery."""
        searches, self._searches = self._searches, None
        if searches is not None:
            await searches.close()
        await asyncio.to_thread(self._gallery.close)

    async def _retriever(self) -> AsyncRetriever:
        async with self._opening:
            if self._searches is None:
                model = await asyncio.to_thread(lambda: self._gallery._retriever.model)
                self._searches = AsyncRetriever(self.collection.reads, self.collection.store, model)
            return self._searches

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def attach(
    store: StoreLike,
    collection: str,
    *,
    picture: str,
    vector: str = "cir",
    version: str | None = None,
    bundle: str | PathLike[str] | None = None,
    root: str | PathLike[str] | None = None,
    open_picture: Callable[[str], ImageSource] | None = None,
    private_addresses: bool = False,
    address_limits: AddressLimits | None = None,
    overwrite: bool = False,
    provider: ExecutionProvider = "auto",
    threads: int | None = None,
    precision: Precision = "float32",
    api_key: str | None = None,
    grpc_port: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
    shard_key: int | str | None = None,
) -> Gallery:
    """Join a collection that exists: add a named vector to its points, and a companion of tokens beside it.

    Nothing else of the collection is touched, and no point is ever deleted; :meth:`Gallery.detach` leaves it as it was.
    Attach again with the same arguments to open it. :meth:`Gallery.index` fills the vector.

    Args:
        store: a Qdrant client, a server's address, the folder of an embedded store, or an open store.
        collection: the user's, by its name or an alias.
        picture: path of the payload field that names the picture: ``image_url``, ``media.main``, ``images[0].url``;
            ``images[].url`` takes all pictures of a point, of which the best one counts.
        vector: name of the vector to fill; made where there is none.
        version: path of a payload field that changes when the picture under the same name does.
        bundle: a model folder, or a packaged model's name; None for the packaged model that was attached before, else
            the default.
        root: folder that pictures must lie below; None takes paths as they stand, or the folder that was given when
            it was attached. Another one than then holds for this gallery object; to change what is kept, detach.
        open_picture: opens a picture by its value in the payload, instead of files and addresses.
        private_addresses: allow pictures from addresses of a private network.
        address_limits: of one picture that is opened by its address, kept with the gallery; None for those that were
            given last, or 50 MB and 20 seconds.
        overwrite: fill a vector that stood before and holds values that are not ours.
        provider: where the model runs; ``auto`` takes CUDA where it works.
        threads: for one graph; None for as many as this process may use.
        precision: what the re-ranker computes in.
        api_key: of the server at an address; ``QDRANT_API_KEY`` where it is None.
        grpc_port: where that server speaks gRPC; ``QDRANT_GRPC_PORT`` where it is None.
        retry_seconds: how long one call of a server is tried again; 0 for no second attempt.
        shard_key: of a collection that is sharded by keys, where all writes go. It must stand there; the companion is
            given it too.

    Raises:
        CollectionNotFoundError: there is no such collection.
        CollectionMismatchError: the vector does not fit or holds values that are not ours, or was attached otherwise.
        BundleError, StoreError, InputError: as :meth:`Gallery.create`.
    """
    _check_opener(open_picture)
    check_shard_key(store, shard_key)
    compute, given = Compute(provider, threads, precision), given_bundle(bundle)
    if root is not None and not (isinstance(root, str | PathLike) and Path(root).is_dir()):
        raise InputError(f"The root {root!s:.200} is not a folder. Give the folder that the pictures lie below.")
    if address_limits is not None and not isinstance(address_limits, AddressLimits):
        raise InputError(f"address_limits is {shown(address_limits)}; expected AddressLimits.")
    wanted = Attachment(
        collection,
        vector,
        picture,
        version,
        root=None if root is None else str(Path(root).resolve()),
        private_addresses=checked_flag(private_addresses, name="private_addresses"),
        address_limits=address_limits,
    )

    def made(plain: Store) -> Gallery:
        opened = with_shard_key(plain, shard_key)
        loaded = given or _attached_with(opened, collection, vector)
        attachment = attach_collection(opened, wanted, loaded, overwrite=overwrite)
        make_shard_key(opened, attachment.layout.companion)
        joined = Collection.open_attached(opened, attachment.collection, vector, loaded)
        # the pictures may have moved since it was attached
        joined.attachment = replace(
            attachment,
            root=wanted.root or attachment.root,
            private_addresses=wanted.private_addresses or attachment.private_addresses,
        )
        return Gallery(joined, loaded, compute=compute, open_picture=open_picture)

    opened = open_store(store, creates=False, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds)
    return _opened(opened, made, closes=is_place(store))


def _check_opener(open_picture: object) -> None:
    """Refuse what cannot open a picture, before anything is written. Raises InputError."""
    if open_picture is not None and not callable(open_picture):
        raise InputError(
            f"open_picture is a {type(open_picture).__name__}; expected a function that takes the payload's value and "
            "returns a path, bytes or a Pillow image."
        )


def _attached_with(store: Store, collection: str, vector: str) -> Bundle:
    """Find the packaged bundle that a vector was attached with before; the default where none was."""

    def opened_with(made: Bundle) -> Bundle:
        Collection.open_attached(store, collection, vector, made)
        return made

    try:
        return with_bundle(None, opened_with)
    except CollectionError:
        return load_bundle()


def attach_async(
    store: AsyncStoreLike,
    collection: str,
    *,
    picture: str,
    vector: str = "cir",
    version: str | None = None,
    bundle: str | PathLike[str] | None = None,
    root: str | PathLike[str] | None = None,
    open_picture: Callable[[str], ImageSource] | None = None,
    private_addresses: bool = False,
    address_limits: AddressLimits | None = None,
    overwrite: bool = False,
    provider: ExecutionProvider = "auto",
    threads: int | None = None,
    precision: Precision = "float32",
    api_key: str | None = None,
    grpc_port: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
    shard_key: int | str | None = None,
) -> Opening[AsyncGallery]:
    """Join a collection that exists, with ``await`` or ``async with``; arguments and errors as :func:`attach`.

    ``store`` is an asynchronous Qdrant client, or what :func:`attach` takes but a synchronous client.
    """

    def made(store: StoreLike) -> Gallery:
        return attach(
            store,
            collection,
            picture=picture,
            vector=vector,
            version=version,
            bundle=bundle,
            root=root,
            open_picture=open_picture,
            private_addresses=private_addresses,
            address_limits=address_limits,
            overwrite=overwrite,
            provider=provider,
            threads=threads,
            precision=precision,
            api_key=api_key,
            grpc_port=grpc_port,
            retry_seconds=retry_seconds,
            shard_key=shard_key,
        )

    return Opening(lambda: _opened_async(AsyncGallery, store, made, retry_seconds=retry_seconds))


def _opened(store: Store, made: Callable[[Store], _G], *, closes: bool) -> _G:
    """Make a gallery in a store, which it closes if the store was opened for it."""
    try:
        gallery = made(store)
    except BaseException:
        if closes:
            store.close()
        raise
    gallery._closes = store if closes else None
    return gallery


async def _opened_async(
    kind: type[_A], store: AsyncStoreLike, made: Callable[..., Gallery], *, retry_seconds: float
) -> _A:
    """Make a gallery in a thread, over a store that other threads may call."""
    if is_place(store):
        return kind(await asyncio.to_thread(made, store=store))
    opened = await open_store_async(store, retry_seconds=retry_seconds)
    return kind(await asyncio.to_thread(made, store=opened))
