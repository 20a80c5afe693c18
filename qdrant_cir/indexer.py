"""Indexing of pictures: read, decode, encode, write, and resume by content.

Three stages overlap: threads read, hash and decode a few batches ahead; the calling thread encodes, which is
the bottleneck and uses all cores by itself; one thread makes every call to the store, in order, because not
every store may be called from two. Images that are in the collection with the same content are not encoded
again, so running the same command again, also after Ctrl-C or a kill, does only what is left.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from os import PathLike
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from qdrant_cir.arguments import checked_flag, checked_function, checked_items, shown
from qdrant_cir.errors import CollectionError, IndexingError, InputError, StoreError, TokensError, TooLargeError
from qdrant_cir.indexing.attached import attached_records
from qdrant_cir.indexing.preparation import (
    HashedImage,
    PreparedImage,
    canonical_json,
    checked_record,
    decode_image,
    hash_image,
)
from qdrant_cir.indexing.report import FailedImage, IndexProgress, IndexReport, Outcome, Tally
from qdrant_cir.indexing.sources import WHOLE, ImageFolder, ImageRecord, RejectedRow, check_part, in_part
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.storage.collection import Collection, Label, Unwritten
from qdrant_cir.storage.collection_options import CollectionOptions, check_options
from qdrant_cir.storage.packaged import given_bundle, with_bundle
from qdrant_cir.storage.points import IndexedImage, KnownImage
from qdrant_cir.storage.stores import RETRY_SECONDS, Store, StoreLike, is_folder, open_store
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import DEFAULT_LIMITS, EncodedImages, Encoder, ImageSource, PictureLimits, PointId, Precision

__all__ = ["FailedImage", "IndexProgress", "IndexReport", "Indexer"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
_BATCHES_AHEAD = 2
_WRITES_BEHIND = 2

_In = TypeVar("_In", ImageRecord, HashedImage)
_Out = TypeVar("_Out")


class Indexer:
    """Writes images into one collection with one encoder."""

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        bundle: Bundle,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        decode_threads: int | None = None,
        limits: PictureLimits = DEFAULT_LIMITS,
    ) -> None:
        """Use a collection and an encoder of the same bundle.

        Args:
            collection: opened with ``bundle``.
            encoder: of ``bundle``.
            bundle: defines how images are preprocessed and how tokens are stored.
            batch_size: images per encoder run; about ten batches are in memory at any time.
            decode_threads: threads that read and decode, None for one per core.
            limits: of one picture; a picture beyond them is reported and not indexed.

        Raises:
            InputError: a number below 1, or ``limits`` of another type.
        """
        self._collection = collection
        self._encoder = encoder
        self._bundle = bundle
        self._batch_size = batch_size
        self._limits = limits
        self._decode_threads = available_threads() if decode_threads is None else decode_threads
        numbers = (self._batch_size, self._decode_threads)
        if not all(isinstance(number, int) and number >= 1 for number in numbers):
            raise InputError(f"batch_size ({batch_size}) and decode_threads ({decode_threads}) must be at least 1")
        _check_limits(limits)
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
        limits: PictureLimits = DEFAULT_LIMITS,
        options: CollectionOptions = CollectionOptions(),  # noqa: B008 - frozen
        api_key: str | None = None,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Self:
        """Load a bundle, open its image encoder, and make the collection where there is none.

        Args:
            collection_name: one made with this bundle, or a new one.
            store: a Qdrant client, the folder of an embedded store, or an open store. A client or store that
                was given stays open when the indexer is closed.
            bundle: a model folder, or a packaged model's name; None for the packaged model that made the
                collection, and for a new one the default.
            provider: where the encoder runs; ``auto`` uses CUDA where it works.
            threads: for the encoder; by default as many as this process may use.
            precision: what the encoder computes in; others than ``float32`` are close to it, and faster, where the
                bundle holds them (``python -m onnx_export add-precision --graph image_encoder``). Images are marked
                with it, and encoded again where the exact encoder indexes them later.
            limits: of one picture; a picture beyond them is reported and not indexed.
            options: of the collections on a server, if they are new; of one that stands, a warning names those that
                it was not made with.
            api_key: of the server at an address; ``QDRANT_API_KEY`` where it is None.
            grpc_port: where that server speaks gRPC; ``QDRANT_GRPC_PORT`` where it is None.
            retry_seconds: how long one call of a server is tried again; 0 for no second attempt.

        Raises:
            InputError: an unknown provider or precision, or fewer than one thread.
            BundleError: the bundle is missing or damaged, or has no encoder in that precision.
            CollectionMismatchError: the collection was made with another bundle.
            StoreError: the store cannot be opened or reached.
            ProviderError, MissingExtraError: the encoder cannot run as asked.
        """
        compute = Compute(provider, threads, precision)
        _check_limits(limits)
        check_options(options)
        given = given_bundle(bundle)
        opened = open_store(store, api_key=api_key, grpc_port=grpc_port, retry_seconds=retry_seconds)
        try:
            indexer = with_bundle(
                given,
                lambda made: cls(
                    Collection.create(opened, collection_name, made, options),
                    ImageEncoder.open(made, compute),
                    made,
                    limits=limits,
                ),
            )
        except BaseException:
            if is_folder(store):
                opened.close()
            raise
        if is_folder(store):
            indexer._closes = opened
        return indexer

    def index(
        self,
        records: Iterable[ImageRecord | RejectedRow],
        *,
        total: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
        part: tuple[int, int] = WHOLE,
    ) -> IndexReport:
        """Bring the collection up to date with the records; images without a record are left alone.

        An image whose bytes are in the collection under the same id is not encoded again; its metadata is
        rewritten where it differs. Bad images, rows and payloads, and repeated ids, are reported and the run
        continues. When an exception ends the run, batches that are already encoded are still written, and the
        same call later continues from there.

        Args:
            records: read in this thread, as they are needed.
            total: how many there are, for the estimate; by default their length where they have one.
            progress: called in this thread after every batch. Its exceptions end the run.
            part: of the records, as (1, 3) for the first third: several processes, each with a part of its own, share
                the work on one collection.

        Raises:
            IndexingError: the store failed; the message says how many images are done.
            InputError: the records themselves could not be read further.
            ProviderError: the encoder failed.
        """
        checked_function(progress, name="progress")
        if total is not None and (isinstance(total, bool) or not isinstance(total, int) or total < 0):
            raise InputError(f"total is of type {type(total).__name__}; expected how many records there are, or None.")
        checked_items(records, name="records")
        if total is None and isinstance(records, Sized):
            total = len(records)
        skipped = records.skipped if isinstance(records, ImageFolder) else None
        check_part(part)
        if part != WHOLE:
            records = (record for record in records if in_part(_name_of(record), part))
            total = None if total is None else -(-total // part[1])
        return self._run(records, Tally(total, progress, skipped=skipped), part)

    def index_attached(
        self,
        open_picture: Callable[[str], ImageSource],
        *,
        progress: Callable[[IndexProgress], None] | None = None,
        verify: bool = False,
        part: tuple[int, int] = WHOLE,
    ) -> IndexReport:
        """Fill the vector of an attached collection, and the tokens beside it.

        Points whose vector or tokens are missing, or were made from another picture than the payload names now, are
        encoded; all others are left alone. Tokens of points that are gone are removed. Errors as :meth:`index`.

        Args:
            open_picture: opens a picture by its value in the payload, in several threads.
            progress: called in this thread after every batch.
            verify: read all other pictures too, and encode those whose content changed.
            part: of the points, as of :meth:`index`.
        """
        check_part(part)
        checked_function(progress, name="progress")
        checked_flag(verify, name="verify")
        self._collection.check_attached()
        # how many pictures the points have is not known before they are read
        has_several = self._collection.layout.is_many
        total = None if has_several else -(-self._collection.store.count(self._collection.name, None) // part[1])
        tally = Tally(total, progress)
        records = attached_records(
            self._collection, self._bundle, open_picture, count=tally.add, verify=verify, part=part
        )
        try:
            return self._run(records, tally, part)
        except (CollectionError, InputError):
            # whoever detached it or removed the collection meanwhile is the cause
            self._collection.check_attached()
            raise

    def _run(self, records: Iterable[ImageRecord | RejectedRow], tally: Tally, part: tuple[int, int]) -> IndexReport:
        pipeline = _Pipeline(self._collection, self._encoder, self._bundle, self._decode_threads, self._limits)
        try:
            pipeline.run(records, tally, batch_size=self._batch_size, sweeps=part == WHOLE)
        except StoreError as error:
            raise IndexingError(
                f"The store failed after {tally.indexed} images were indexed by this run "
                f"({tally.done} of {tally.total or 'all'} are done): {error} When the store works again, run "
                "the same command to continue."
            ) from error
        return tally.report()

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


@dataclass(frozen=True, slots=True)
class _PreparedBatch:
    """A batch of records: the images that are left to encode, and the outcome of the others."""

    images: list[PreparedImage]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Compared:
    """The images of a batch to encode, and how many others had their metadata rewritten or were unchanged."""

    changed: list[HashedImage]
    updated: int
    unchanged: int
    failed: tuple[FailedImage, ...] = ()


class _Views:
    """Pictures of points that have several, held until all of a point are encoded, to be written together."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ready: dict[PointId, list[IndexedImage]] = {}
        self._left: dict[PointId, int] = {}

    def whole(self, images: list[IndexedImage], records: Sequence[ImageRecord]) -> list[IndexedImage]:
        """Return the images of points that are complete now; ``records`` are all records of the batch."""
        several = {record.point_id for record in records if record.views > 1}
        with self._lock:
            for image in images:
                if image.point_id in several:
                    self._ready.setdefault(image.point_id, []).append(image)
            self._expect_less(records)
            # one whose last picture could not be read became whole without a batch of its own
            whole = [point_id for point_id in self._ready if not self._left[point_id]]
            single = [image for image in images if image.point_id not in several]
            return single + [image for point_id in whole for image in self._ready.pop(point_id)]

    def failed(self, image_ids: Set[str], records: Sequence[ImageRecord]) -> None:
        """Stop waiting for pictures that cannot be read."""
        with self._lock:
            self._expect_less([record for record in records if record.image_id in image_ids])

    def rest(self) -> list[IndexedImage]:
        """Return the held images of points whose last picture could not be read."""
        with self._lock:
            rest, self._ready = [image for images in self._ready.values() for image in images], {}
            return rest

    def _expect_less(self, records: Sequence[ImageRecord]) -> None:
        for record in records:
            if record.views > 1 and record.point_id is not None:
                self._left[record.point_id] = self._left.get(record.point_id, record.views) - 1


class _Pipeline:
    """The threads of one run."""

    def __init__(
        self, collection: Collection, encoder: Encoder, bundle: Bundle, decode_threads: int, limits: PictureLimits
    ) -> None:
        self._collection = collection
        self._encoder = encoder
        self._bundle = bundle
        self._limits = limits
        self._form = TokenForm(bundle)
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="cir-decode")
        self._batches = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="cir-batch")
        self._store = ThreadPoolExecutor(1, thread_name_prefix="cir-store")
        self._writes: deque[Future[Outcome]] = deque()
        self._views = _Views()
        # sources of the images that are to be replaced, by id; of the store's thread alone
        self._standing: dict[str, str | None] = {}
        self._failure: StoreError | None = None

    def run(self, records: Iterable[ImageRecord | RejectedRow], tally: Tally, *, batch_size: int, sweeps: bool) -> None:
        """Index the records; after an exception, what was encoded is written and every thread has ended."""
        waiting: list[PreparedImage] = []
        try:
            for batch in self._prepared(records, batch_size):
                tally.add(batch.outcome)
                waiting += batch.images
                while len(waiting) >= batch_size:
                    self._encode(waiting[:batch_size], tally)
                    del waiting[:batch_size]
                tally.show()
            if waiting:
                self._encode(waiting, tally)
            self._settle(tally, behind=0)
            rest = self._views.rest()
            if rest:
                failed = _failures(self._collection.write(rest))
                tally.add(Outcome(indexed=len(rest) - len(failed), failed=tuple(failed)))
            if sweeps:
                is_ours = self._collection.attachment is None
                expected = None if is_ours else tally.indexed + tally.unchanged
                tally.add(Outcome(swept=self._collection.sweep(expected=expected)))
            if tally.indexed:
                self._collection.optimize()
        except BaseException as error:
            self._abandon(tally, writes_too=isinstance(error, StoreError))
            if isinstance(error, KeyboardInterrupt):
                # whoever watches can report what is in
                tally.show()
            raise
        finally:
            for threads in (self._batches, self._decoders, self._store):
                threads.shutdown(cancel_futures=True)

    def _prepared(self, records: Iterable[ImageRecord | RejectedRow], batch_size: int) -> Iterator[_PreparedBatch]:
        """Read, compare and decode batches of records, a few ahead of the caller."""
        ahead: deque[Future[_PreparedBatch]] = deque()
        rest = iter(records)
        seen: set[str] = set()
        while taken := list(islice(rest, batch_size)):
            fresh, refused = _sorted_out(taken, seen)
            ahead.append(self._batches.submit(self._prepare, fresh, refused))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _prepare(self, records: list[ImageRecord], refused: list[FailedImage]) -> _PreparedBatch:
        """Read, compare and decode one batch, in a thread of its own that waits for the others."""
        read = list(self._decoders.map(partial(_attempt, hash_image), records))
        failed = [result for result in read if isinstance(result, FailedImage)]
        hashed = [result for result in read if isinstance(result, HashedImage)]
        compared = self._on_store(partial(self._compare, hashed)).result()
        decode = partial(decode_image, spec=self._bundle.manifest.preprocessing, limits=self._limits)
        decoded = list(self._decoders.map(partial(_attempt, decode), compared.changed))
        failed += [result for result in decoded if isinstance(result, FailedImage)]
        self._views.failed({failure.image_id for failure in failed}, records)
        images = [result for result in decoded if isinstance(result, PreparedImage)]
        if failed and self._collection.attachment is None:
            failed = self._on_store(partial(self._told_of_older, failed)).result()
        failed += compared.failed
        outcome = Outcome(updated=compared.updated, unchanged=compared.unchanged, failed=(*refused, *failed))
        return _PreparedBatch(images, outcome)

    def _on_store(self, task: Callable[[], _Out]) -> Future[_Out]:
        """Run a task in the store's thread; after a failure none starts, so that retries are waited for once."""

        def run() -> _Out:
            if self._failure is not None:
                raise self._failure
            try:
                return task()
            except StoreError as error:
                self._failure = error
                raise

        return self._store.submit(run)

    def _compare(self, images: list[HashedImage]) -> _Compared:
        """Find the images that the collection lacks and update the metadata of the others, in the store's thread."""
        if self._collection.attachment is not None:
            other = [image for image in images if image.record.known_sha256 != image.sha256]
            return _Compared(other, updated=0, unchanged=len(images) - len(other))
        known = self._collection.known([image.record.image_id for image in images])
        changed: list[HashedImage] = []
        moved: list[HashedImage] = []
        for image in images:
            record, stored = image.record, known.get(image.record.image_id)
            if stored is None or not self._is_current(stored, image.sha256):
                changed.append(image)
                if stored is not None and stored.sha256 != image.sha256:
                    self._standing[record.image_id] = stored.source
            elif not _is_labelled(stored, record):
                moved.append(image)
        labels = {image.record.image_id: Label(image.record.source, image.record.payload) for image in moved}
        failed: list[FailedImage] = []
        try:
            if labels:
                self._collection.relabel(labels)
        except TooLargeError as error:
            ids = {self._collection.layout.point_id(image_id): image_id for image_id in labels}
            failed = [FailedImage(ids[point_id], str(error)) for point_id in error.point_ids]
        return _Compared(
            changed,
            updated=len(moved) - len(failed),
            unchanged=len(images) - len(changed) - len(moved),
            failed=tuple(failed),
        )

    def _told_of_older(self, failed: list[FailedImage]) -> list[FailedImage]:
        """Add a note to failures whose image stays in the collection as it was, in the store's thread."""
        known = self._collection.known([image.image_id for image in failed])
        return [
            replace(image, reason=f"{image.reason.rstrip('.')}. The version indexed before is kept.")
            if image.image_id in known
            else image
            for image in failed
        ]

    def _is_current(self, stored: KnownImage, sha256: str) -> bool:
        """Return whether an image need not be encoded again: made by this bundle, exactly or in this precision."""
        is_same = (stored.sha256, stored.bundle) == (sha256, self._bundle.fingerprint)
        return is_same and stored.precision in ("float32", self._encoder.precision)

    def _encode(self, images: list[PreparedImage], tally: Tally) -> None:
        """Encode a batch and hand it to the store's thread, which may be a few batches behind."""
        encoded = self._encoder.encode(np.stack([image.pixels for image in images]))
        self._writes.append(self._on_store(partial(self._write, images, encoded)))
        self._settle(tally, behind=_WRITES_BEHIND)

    def _write(self, images: list[PreparedImage], encoded: EncodedImages) -> Outcome:
        ready: list[IndexedImage] = []
        failed: list[FailedImage] = []
        for image, tokens, vector in zip(images, encoded.candidate_tokens, encoded.vectors, strict=True):
            record = image.record
            if not np.isfinite(vector).all():
                failed.append(FailedImage(record.image_id, "The encoder returned a vector that is not finite."))
                continue
            try:
                stored = self._form.encode(tokens)
            except TokensError as error:
                failed.append(FailedImage(record.image_id, str(error)))
                continue
            ready.append(
                IndexedImage(
                    image_id=record.image_id,
                    point_id=self._point_id(record),
                    source=record.source,
                    sha256=image.sha256,
                    vector=vector,
                    tokens=stored,
                    payload=record.payload,
                    bundle=self._bundle.fingerprint,
                    precision=self._encoder.precision,
                )
            )
        ready = self._views.whole(ready, [image.record for image in images])
        unwritten = _failures(self._collection.write(ready))
        left_out = {each.image_id for each in unwritten}
        written = [image for image in ready if image.image_id not in left_out]
        before = {
            image.image_id: self._standing[image.image_id] for image in written if image.image_id in self._standing
        }
        places = {image.image_id: image.source for image in written}
        return Outcome(
            indexed=len(written),
            failed=(*failed, *unwritten),
            replaced=len(before),
            elsewhere=sum(place not in (None, places[image_id]) for image_id, place in before.items()),
        )

    def _point_id(self, record: ImageRecord) -> PointId:
        return self._collection.layout.point_id(record.image_id) if record.point_id is None else record.point_id

    def _settle(self, tally: Tally, *, behind: int) -> None:
        """Count the writes that are done, and wait until at most ``behind`` are not."""
        while self._writes and (len(self._writes) > behind or self._writes[0].done()):
            outcome = self._writes[0].result()
            self._writes.popleft()
            tally.add(outcome)
            tally.show()

    def _abandon(self, tally: Tally, *, writes_too: bool) -> None:
        """Drop images that are not encoded, and write those that are, unless writing itself failed."""
        for threads in (self._batches, self._decoders):
            threads.shutdown(wait=False, cancel_futures=True)
        if writes_too:
            self._store.shutdown(cancel_futures=True)
        for write in self._writes:
            if not write.cancelled() and write.exception() is None:
                tally.add(write.result())


def _check_limits(limits: PictureLimits) -> None:
    if not isinstance(limits, PictureLimits):
        raise InputError(f"limits is a {type(limits).__name__}; expected PictureLimits.")


def _is_labelled(stored: KnownImage, record: ImageRecord) -> bool:
    """Return whether a stored image has its record's source and fields; fields that others set do not count."""
    ours = {key: value for key, value in stored.payload.items() if key in record.payload or key in stored.written}
    return (stored.source, canonical_json(ours)) == (record.source, canonical_json(record.payload)) and (
        set(stored.written) == set(record.payload)
    )


def _failures(unwritten: Sequence[Unwritten]) -> list[FailedImage]:
    return [FailedImage(each.image.image_id, each.reason) for each in unwritten]


def _sorted_out(taken: list[ImageRecord | RejectedRow], seen: set[str]) -> tuple[list[ImageRecord], list[FailedImage]]:
    """Separate records to index from rows and records that cannot be indexed, and from repeated ids."""
    fresh: list[ImageRecord] = []
    refused: list[FailedImage] = []
    for record in taken:
        if isinstance(record, RejectedRow):
            refused.append(FailedImage(record.place, record.reason))
            continue
        try:
            checked = checked_record(record)
        except InputError as error:
            refused.append(FailedImage(_name_of(record), str(error)))
            continue
        except MemoryError:
            raise
        except Exception as error:
            # a mapping or a text of somebody's own class may raise anything
            refused.append(FailedImage(_name_of(record), f"it cannot be read: {type(error).__name__}"))
            continue
        if checked.image_id in seen:
            reason = "The id was given before in this run; the first image is kept."
            refused.append(FailedImage(checked.image_id, reason))
        else:
            seen.add(checked.image_id)
            fresh.append(checked)
    return fresh, refused


def _attempt(step: Callable[[_In], _Out], item: _In) -> _Out | FailedImage:
    """Take one step with one image; any error of the image becomes a result."""
    record = item.record if isinstance(item, HashedImage) else item
    try:
        return step(item)
    except InputError as error:
        return FailedImage(record.image_id, str(error))
    except MemoryError:
        raise
    except Exception as error:
        logger.exception("%r could not be read", record.image_id)
        return FailedImage(record.image_id, f"it cannot be read: {type(error).__name__}: {error}")


def _name_of(record: object) -> str:
    """Return a name for a record that may have no usable id."""
    if isinstance(record, RejectedRow):
        return record.place
    given = getattr(record, "image_id", None)
    is_plain = type(given) is str or (isinstance(given, int) and given.bit_length() < 64)
    return str(given) if is_plain else f"{type(record).__name__} {shown(given)}"
