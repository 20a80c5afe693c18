"""A gallery of images in a store: two collections, one to search and one with the candidate tokens.

A gallery of our own, ``NAME``, holds a vector and the user's fields per image, ``NAME__tokens`` the tokens, under the
same point ids. Its tokens are written before the gallery's half and deleted after it, so an image that can be found
has its tokens; what stands on both sides shows a pair whose halves are of different pictures
(``docs/adr/0002-storage.md``).

An attached one is a named vector in the user's collection, with a companion of tokens beside it. There only the tokens
say of which picture they are, so the vector is written first: what an interrupted run leaves is known to be of none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Self

from qdrant_cir.errors import CirError, CollectionError, CollectionMismatchError, InputError, TooLargeError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.attachment import (
    Attachment,
    attached_vectors,
    is_replaced,
    open_attached,
    replaced_vector,
)
from qdrant_cir.storage.collection_options import CollectionOptions, differences
from qdrant_cir.storage.points import (
    RESERVED,
    IndexedImage,
    KnownImage,
    StoredImage,
    TokensRecord,
    batches_by_bytes,
    gallery_point,
    labelled,
    owner_of,
    tokens_point,
    tokens_record,
    views_mark,
)
from qdrant_cir.storage.reads import GalleryReads, open_reads
from qdrant_cir.storage.schema import (
    SAMPLE,
    GallerySpec,
    check_pair,
    field_names,
    gallery_names,
    gallery_specs,
    tokens_name,
)
from qdrant_cir.storage.steps import run
from qdrant_cir.storage.stores.checks import check_limit, check_name, checked_points
from qdrant_cir.storage.stores.opening import check_placement, describe_companion, make_shard_key
from qdrant_cir.storage.stores.protocol import PAGE, CollectionSpec, ReadOptions, Record, Store, pages_of
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["Collection", "CollectionInfo", "Label", "Unwritten", "list_collections"]

logger = logging.getLogger(__name__)

BATCH_BYTES = 4 * 2**20
"""Largest stored form of one write: servers cap a REST body at 32 MB, and smaller ones pass faster."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a gallery holds.

    Attributes:
        name: of the collection.
        images: points that can be searched.
        points: points of the collection, whether they are images of ours or not.
        pictures: pictures that have tokens; more than ``images`` where points have several.
        vector_size: dimensions of the vectors.
        fingerprint: of the bundle that made them, without compression.
        bundle_name: of that bundle.
        token_bytes: mean bytes of tokens per image, of a sample; None for an empty collection.
        fields: the user's payload fields, of a sample, sorted.
        precisions: what the image encoder computed in, of a sample, sorted.
        attachment: how it lies in the user's collection; None for a gallery of our own.
        is_approximate: whether the server's strict mode forbids exact counts, so that they are about right.
        expected_memory: how many bytes searches of a process take at most, as :meth:`Gallery.info` says; None where no
            model is open.
    """

    name: str
    images: int
    points: int
    pictures: int
    vector_size: int
    fingerprint: str
    bundle_name: str
    token_bytes: int | None
    fields: tuple[str, ...]
    precisions: tuple[str, ...]
    attachment: Attachment | None = None
    is_approximate: bool = False
    expected_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What may change of an image without encoding it again."""

    source: str | None
    payload: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Unwritten:
    """An image that was not written, and why."""

    image: IndexedImage
    reason: str


_VANISHED = "The point is gone: it was deleted while this run wrote. Index again if it came back."


_TOO_LARGE = (
    "Its {} larger than the server, or a proxy before it, takes in one request. Let it take larger ones, and index "
    "again."
)


def list_collections(store: Store) -> list[str]:
    """List the galleries of a store, sorted, without collections of other origin. Raises StoreError."""
    return gallery_names(store.collection_names())


class Collection:
    """One gallery, opened with the bundle that made it, or with none for upkeep that needs no model.

    Every method raises StoreError where the store fails and CollectionNotFoundError where the collection was
    dropped.
    """

    def __init__(self, store: Store, reads: GalleryReads, attachment: Attachment | None = None) -> None:
        """Join what :meth:`create`, :meth:`open` or :meth:`open_attached` have checked."""
        self.store = store
        self.reads = reads
        self.layout = reads.layout
        self.attachment = attachment

    @classmethod
    def create(
        cls,
        store: Store,
        name: str,
        bundle: Bundle,
        options: CollectionOptions = CollectionOptions(),  # noqa: B008
    ) -> Self:
        """Make a gallery where there is none, and open it.

        One that stands is opened as it is; a warning names the options that it was not made with. Halves that an
        interrupted call left alone are completed.

        Raises:
            InputError: the name cannot be used, or the store takes no options.
            CollectionMismatchError: one of that name was made with another bundle, or by somebody else.
        """
        check_name(name, room=len(tokens_name("")))
        name = store.resolve(name)
        gallery, tokens = gallery_specs(bundle, options)
        check_placement(store, gallery.placement)
        companion = tokens_name(name)
        standing = describe_companion(store, companion, name)
        found = store.describe(name)
        if found is not None:
            # a gallery of another bundle is refused before anything is made beside it
            check_pair(name, found, standing or tokens, bundle)
            if unlike := differences(gallery.placement, found.placement):
                logger.warning(
                    "%s stands already, and options are for a new collection. It stays as it is: %s. Change what can "
                    "be changed with update_collection of qdrant-client; shards take a new collection.",
                    name,
                    "; ".join(unlike),
                )
        elif standing is not None and standing.metadata.get(RESERVED) != tokens.metadata[RESERVED]:
            if store.scroll(companion, filter=None, limit=1, after=None, fields=()):
                raise CollectionMismatchError(
                    f"There is a collection {companion!r} of another origin, beside which {name!r} cannot be "
                    "made. "
                    "Drop it, or use another name."
                )
            store.drop(companion)
            standing = None
        made = standing is None and _make(store, companion, tokens)
        if found is None:
            try:
                _make(store, name, gallery)
            except BaseException:
                # half a gallery would be in the way of every other program
                with suppress(CirError):
                    if made and store.describe(name) is None:
                        store.drop(companion)
                raise
        for half in (companion, name):
            make_shard_key(store, half)
        return cls.open(store, name, bundle)

    @classmethod
    def open(cls, store: Store, name: str, bundle: Bundle | None = None) -> Self:
        """Open a gallery; arguments and errors as :func:`open_reads`. The store stays the caller's."""
        return cls(store, run(open_reads(name, bundle), store))

    @classmethod
    def open_attached(cls, store: Store, name: str, vector: str, bundle: Bundle | None = None) -> Self:
        """Open what is attached to a collection; arguments and errors as :func:`open_attached`."""
        reads, attachment = run(open_attached(name, vector, bundle), store)
        return cls(store, reads, attachment)

    @classmethod
    def find(cls, store: Store, name: str, *, vector: str | None = None, bundle: Bundle | None = None) -> Self:
        """Open a gallery of our own, or what is attached to a collection.

        Args:
            store: stays the caller's.
            name: of the collection, or an alias.
            vector: that was attached; None for a gallery of our own, else for the only vector that is attached.
            bundle: that vectors and tokens are from; None checks no bundle.

        Raises:
            InputError: several vectors are attached and none was named.
            CollectionError: as :meth:`open` and :meth:`open_attached`.
        """
        if vector is not None:
            return cls.open_attached(store, name, vector, bundle)
        resolved = store.resolve(name)
        found = store.describe(resolved)
        if found is None or isinstance(found.metadata.get(RESERVED), dict):
            return cls.open(store, name, bundle)
        attached = attached_vectors(store, resolved)
        if len(attached) > 1:
            raise InputError(
                f"{name!r} has {len(attached)} attached vectors: {', '.join(attached)}. Name one: vector=, --vector."
            )
        return cls.open_attached(store, name, attached[0] if attached else "cir", bundle)

    def update_metadata(self, values: JsonObject) -> None:
        """Set top-level keys of what the companion keeps; the user's collection is not touched."""
        self.store.update_metadata(self.layout.companion, values)
        self.reads.metadata = {**self.reads.metadata, **values}

    @property
    def name(self) -> str:
        """The gallery's name."""
        return self.layout.gallery

    @property
    def spec(self) -> GallerySpec:
        """The bundle that made it, and the size of its vectors."""
        return self.reads.spec

    def write(self, images: Iterable[IndexedImage]) -> list[Unwritten]:
        """Write images, replacing those of the same ids, in batches of at most 4 MB.

        Of an attached collection only our vector is written, before the tokens: only they say of which picture it is,
        so an interrupted write leaves a vector that is known to be of none. The views of one point come together.

        Returns:
            Images that are larger than the server takes, and those of points that the collection does not have any
            more; nothing of them can be found.

        Raises:
            InputError: an id, vector or payload cannot be stored; batches before it are written then.
        """
        unwritten: list[Unwritten] = []
        for batch in batches_by_bytes(images, limit=BATCH_BYTES):
            if self.attachment is None:
                # checked before the tokens go: a refused point must not leave its old half beside new tokens
                points = checked_points(
                    [gallery_point(image) for image in batch], name=self.name, size=self.spec.vector_size
                )
                refused = self._write_tokens(batch)
                left_out = {each.image.point_id for each in refused}
                try:
                    self.store.upsert(self.name, [point for point in points if point.point_id not in left_out])
                except TooLargeError as error:
                    refused += [
                        Unwritten(each, _TOO_LARGE.format("payload is"))
                        for each in batch
                        if each.point_id in error.point_ids
                    ]
                unwritten += refused
                continue
            if not self.attachment.made_vector:
                # detaching clears the values that we wrote, and finds them by their records
                self._write_tokens([replace(image, sha256="", bundle="", source=None, tokens=b"") for image in batch])
            vectors = _vectors_by_point(batch, is_many=self.layout.is_many)
            gone = set(self.store.update_vectors(self.name, self.layout.vector, vectors))
            unwritten += self._write_tokens([image for image in batch if image.point_id not in gone])
            unwritten += [Unwritten(image, _VANISHED) for image in batch if image.point_id in gone]
        return unwritten

    def relabel(self, labels: Mapping[str, Label]) -> None:
        """Bring source and payload of images of a gallery of our own to what their source says, by image id.

        Fields that indexing wrote and that the source dropped are removed; fields that somebody else set stay. Unknown
        ids are passed over.

        Raises:
            InputError: a payload cannot be stored; nothing is changed then.
        """
        standing = self.known(list(labels))
        images = [replace(image, source=labels[image.image_id].source) for image in standing.values()]
        new = {image.point_id: labelled(image, labels[image.image_id].payload) for image in images}
        dropped = {
            image.point_id: [
                field
                for field in image.written
                if field in image.payload and field not in labels[image.image_id].payload
            ]
            for image in images
        }
        self.store.set_payloads(self.name, new)
        self.store.delete_payloads(self.name, {point_id: fields for point_id, fields in dropped.items() if fields})
        records: dict[PointId, JsonObject] = {}
        for image in images:
            fields = sorted(labels[image.image_id].payload)
            if tuple(fields) != image.written:
                ours = new[image.point_id][RESERVED]
                kept = {key: value for key, value in ours.items() if key != "source"} if isinstance(ours, dict) else {}
                records[image.point_id] = {RESERVED: {**kept, "fields": list[JsonValue](fields)}}
        self.store.set_payloads(self.layout.companion, records)

    def delete(self, image_ids: Sequence[str | PointId]) -> set[str | PointId]:
        """Delete images and return the ids that were there; others are passed over.

        Of an attached collection the points stay; they lose our vector and their tokens.

        Raises:
            InputError: an id cannot be one, or they are no list.
        """
        if isinstance(image_ids, str | bytes) or not isinstance(image_ids, Iterable):
            raise InputError(f"The ids to delete are {image_ids!r:.80}; expected a list of ids.")
        if self.attachment is not None:
            self.check_attached()
        ids = {self.layout.point_id(image_id): image_id for image_id in image_ids}
        fields = (RESERVED,) if self.layout.picture is None else (self.layout.picture.field,)
        found = self.store.fetch(self.name, list(ids), with_vectors=False, fields=fields)
        records = [
            record_id
            for record in found
            if (image := self.layout.known(record)) is not None
            for record_id in self.layout.record_ids(image)
        ]
        if self.attachment is None:
            self.store.delete(self.name, list(ids))
            records = list(ids)
        else:
            self.store.clear_vectors(self.name, self.layout.vector, [record.point_id for record in found])
        self.store.delete(self.layout.companion, records)
        return {ids[record.point_id] for record in found}

    def known(self, image_ids: Sequence[str]) -> dict[str, KnownImage]:
        """Return what stands under ids: those images of which both halves are there and of one picture.

        What is missing here needs to be written (again); so an interrupted write heals at the next one. A point whose
        payload was overwritten is known by its tokens.
        """
        ids = {self.layout.point_id(image_id): image_id for image_id in dict.fromkeys(image_ids)}
        if not ids:
            return {}
        points = self.store.fetch(self.name, list(ids), with_vectors=False)
        made = self._made(list(ids))
        nameless = [point.point_id for point in points if self.layout.known(point) is None and point.point_id in made]
        with_vector = self.store.fetch(self.name, nameless, with_vectors=True, fields=()) if nameless else []
        whole = {point.point_id for point in with_vector if point.vector is not None}
        found: dict[str, KnownImage] = {}
        for point in points:
            record = made.get(point.point_id)
            image = self.layout.known(point)
            if record is not None and image is None and point.point_id in whole:
                image = KnownImage(
                    ids[point.point_id], point.point_id, None, record.sha256, point.payload, record.bundle
                )
            if (
                record is not None
                and image is not None
                and (image.sha256, image.bundle) == (record.sha256, record.bundle)
            ):
                written = tuple(image.payload) if record.fields is None else record.fields
                found[image.image_id] = replace(image, written=written)
        return found

    def check_attached(self) -> None:
        """Check that what is attached still stands: the collection may have been dropped and made again.

        Raises:
            CollectionNotFoundError: the collection or the companion is gone.
            CollectionError: the collection has lost our vector, or has another one under its name.
        """
        run(open_attached(self.name, self.layout.vector), self.store)
        if is_replaced(self.store, self.layout):
            raise replaced_vector(self.name, self.layout.vector)

    def up_to_date(self, images: Sequence[KnownImage], bundle: Bundle) -> dict[PointId, tuple[str, ...]]:
        """Return the points of an attached collection whose tokens are all of the pictures that they name now.

        Returns:
            The digests of a point's pictures, in the order of its views, by point id.
        """
        made = self._made([record_id for image in images for record_id in self.layout.record_ids(image)])
        current: dict[PointId, tuple[str, ...]] = {}
        for image in images:
            records = [made.get(record_id) for record_id in self.layout.record_ids(image)]
            digests = tuple(
                record.sha256
                for record, view in zip(records, image.views, strict=True)
                if record is not None
                and record.bundle == bundle.fingerprint
                and self.layout.is_of(image, record, source=view)
                and (not self.layout.is_many or record.views == views_mark(image.views))
            )
            if len(digests) == len(image.views):
                current[image.point_id] = digests
        return current

    def pages(self, *, has_vector: bool, fields: Sequence[str]) -> Iterator[list[Record]]:
        """Yield the points that have our vector, or those that lack it, in id order, a page at a time."""
        from qdrant_client import models

        having: list[models.Condition] = [models.HasVectorCondition(has_vector=self.layout.vector)]
        filter = models.Filter(must=having) if has_vector else models.Filter(must_not=having)
        yield from pages_of(self.store, self.name, filter=filter, fields=fields)

    def image_ids(self) -> Iterator[str]:
        """Yield the ids of the images of a gallery of our own, a page at a time."""
        for records in pages_of(self.store, self.name, fields=(RESERVED,)):
            yield from (image.image_id for record in records if (image := self.layout.known(record)) is not None)

    def sweep(self, *, expected: int | None = None, settle_seconds: float = 1.0) -> int:
        """Delete tokens whose picture is gone, and return how many there were.

        Looks only where there are not as many tokens as expected. A point of an attached collection that names no
        picture any more loses our vector. In a gallery of our own tokens come before their point, so those without one
        are looked at again after a moment: another process may be writing it.

        Args:
            expected: pictures of the gallery; None for as many as it has points.
            settle_seconds: how long after the first look.
        """
        pictures = self.store.count(self.name, None) if expected is None else expected
        if self.store.count(self.layout.companion, None) == pictures:
            return 0
        pages = pages_of(self.store, self.layout.companion, fields=(RESERVED,))
        orphans = [orphan for records in pages for orphan in self.orphans(records)]
        if orphans and self.attachment is None:
            sleep(settle_seconds)
        swept = 0
        for start in range(0, len(orphans), PAGE):
            still = self.orphans(orphans[start : start + PAGE])
            if self.layout.picture is not None:
                owners = list(dict.fromkeys(map(owner_of, still)))
                points = self.store.fetch(self.name, owners, with_vectors=False, fields=(self.layout.picture.field,))
                bare = [point.point_id for point in points if not self._named(point)]
                self.store.clear_vectors(self.name, self.layout.vector, bare)
            self.store.delete(self.layout.companion, [record.point_id for record in still])
            # the marks of points that are being filled are ours alone, and no tokens
            swept += sum(made is None or bool(made.sha256) for made in map(tokens_record, still))
        return swept

    def orphans(self, records: Sequence[Record]) -> list[Record]:
        """Return the records of tokens whose point is gone, or does not name their picture any more."""
        fields = () if self.layout.picture is None else (self.layout.picture.field,)
        owners = list(dict.fromkeys(map(owner_of, records)))
        points = self.store.fetch(self.name, owners, with_vectors=False, fields=fields)
        standing = {record_id for point in points for record_id in self._named(point)}
        return [record for record in records if record.point_id not in standing]

    def _named(self, point: Record) -> list[PointId]:
        """Return the ids of the records that belong to a point; none where it names no picture."""
        if self.layout.picture is None:
            return [point.point_id]
        image = self.layout.known(point)
        return [] if image is None or not image.views else self.layout.record_ids(image)

    def stored(self, image_ids: Sequence[str | PointId]) -> dict[str | PointId, StoredImage]:
        """Read all that is stored of images, by id; as :meth:`GalleryReads.images`."""
        return run(self.reads.images(image_ids), self.store)

    def tokens(self, image_ids: Sequence[str | PointId]) -> dict[str | PointId, bytes]:
        """Read the tokens of images by id, of those that have valid ones."""
        return {
            image_id: image.tokens.data
            for image_id, image in self.stored(image_ids).items()
            if image.tokens.data is not None
        }

    def set_payload(self, image_id: str | PointId, payload: Mapping[str, JsonValue]) -> None:
        """Set payload fields of one image of a gallery of our own. Raises InputError for an unknown id."""
        if self.attachment is not None:
            raise InputError(f"The payload of {self.name!r} is not qdrant-cir's to change: it is attached to it.")
        self.layout.point_id(image_id)
        if image_id not in self.stored([image_id]):
            raise InputError(f"There is no image {image_id!r} in {self.name!r}.")
        self.store.set_payloads(self.name, {self.layout.point_id(image_id): payload})

    def create_payload_index(self, field: str, kind: str) -> None:
        """Index a payload field for filters. Raises InputError for an unknown kind."""
        self.store.create_payload_index(self.name, field, kind)

    def count(self, filter: Filter | None = None) -> int:
        """Count images exactly. Raises InputError for a filter that cannot be evaluated."""
        if filter is not None:
            # loads qdrant-client
            from qdrant_cir.storage.stores.filters import check_filter_form

            check_filter_form(filter)
        return self.store.count(self.name, filter if self.attachment is None else self._having_vector(filter))

    @property
    def counts_exactly(self) -> bool:
        """Whether the counts that were made are exact; a server in strict mode may forbid that."""
        return self.store.counts_exactly(self.name) and self.store.counts_exactly(self.layout.companion)

    def info(self) -> CollectionInfo:
        """Describe the gallery."""
        if self.attachment is not None:
            self.check_attached()
        sample = self.store.scroll(self.name, filter=None, limit=SAMPLE, after=None)
        images = [image for record in sample if (image := self.layout.known(record)) is not None]
        records = [record_id for image in images[:10] for record_id in self.layout.record_ids(image)]
        sizes = [len(data) for data in self.tokens([image.image_id for image in images[:10]]).values()]
        made = self._made(records)
        points, pictures = self.store.count(self.name, None), self.store.count(self.layout.companion, None)
        return CollectionInfo(
            name=self.name,
            images=min(points, pictures) if self.attachment is None else self.count(),
            points=points,
            pictures=pictures,
            vector_size=self.spec.vector_size,
            fingerprint=self.spec.fingerprint,
            bundle_name=self.spec.bundle_name,
            token_bytes=sum(sizes) // len(sizes) if sizes else None,
            fields=field_names(sample),
            precisions=tuple(sorted({record.precision for record in made.values()})),
            attachment=self.attachment,
            is_approximate=not self.counts_exactly,
        )

    def index_recall(self, depth: int, *, sample: int = 20) -> float | None:
        """Return how many of the exactly nearest images a search finds, as a share, at a depth; None without images.

        Searches with a sample of the stored vectors, exactly and through the index.

        Raises:
            InputError: ``depth`` is below 1, or the server's strict mode forbids exact searches.
        """
        from qdrant_client.models import SearchParams

        check_limit(depth)
        ids = [
            record.point_id for record in self.store.scroll(self.name, filter=None, limit=sample, after=None, fields=())
        ]
        records = self.store.fetch(self.name, ids, with_vectors=True, fields=(), using=self.layout.vector)
        shares: list[float] = []
        for vector in (record.vector for record in records if record.vector is not None):
            one = vector.reshape(-1, vector.shape[-1])[0]
            search = partial(self.store.query, self.name, one, limit=depth, filter=None, using=self.layout.vector)
            exact = {hit.point_id for hit in search(options=ReadOptions(params=SearchParams(exact=True)))}
            found = {hit.point_id for hit in search()}
            shares.append(len(exact & found) / max(len(exact), 1))
        return sum(shares) / len(shares) if shares else None

    def optimize(self) -> None:
        """Build what queries need, where the store does not by itself; takes the embedded store seconds."""
        self.store.optimize(self.name)
        self.store.optimize(self.layout.companion)

    def drop(self) -> None:
        """Remove the gallery and its tokens. Raises InputError for an attached one, which :meth:`detach` leaves."""
        if self.attachment is not None:
            raise InputError(
                f"{self.name!r} is not qdrant-cir's to remove: it is attached to it. Detach instead: it removes the "
                f"vector {self.layout.vector!r} and the tokens, and leaves the collection as it was."
            )
        # the tokens first: a gallery without tokens is known for what it is, tokens alone are not
        self.store.drop(self.layout.companion)
        self.store.drop(self.name)

    def _write_tokens(self, images: Sequence[IndexedImage]) -> list[Unwritten]:
        """Write tokens, and return the images of which they are larger than the server takes."""
        points = [tokens_point(image, self.layout) for image in images]
        try:
            self.store.upsert(self.layout.companion, points)
        except TooLargeError as error:
            by_id = {point.point_id: image for point, image in zip(points, images, strict=True)}
            reason = _TOO_LARGE.format("tokens are")
            return [Unwritten(by_id[point_id], reason) for point_id in error.point_ids]
        return []

    def _made(self, record_ids: Sequence[PointId]) -> dict[PointId, TokensRecord]:
        if not record_ids:
            return {}
        records = self.store.fetch(self.layout.companion, record_ids, with_vectors=False, fields=(RESERVED,))
        return {record.point_id: made for record in records if (made := tokens_record(record)) is not None}

    def _having_vector(self, filter: Filter | None) -> Filter:
        from qdrant_client import models

        from qdrant_cir.storage.stores.filters import check_filter_form

        check_filter_form(filter)
        having = models.HasVectorCondition(has_vector=self.layout.vector)
        return models.Filter(must=[having] if filter is None else [having, filter])


def _make(store: Store, name: str, spec: CollectionSpec) -> bool:
    """Make a collection, and return whether it was this call that made it: another process may make it meanwhile."""
    try:
        store.create(name, spec)
    except CollectionError:
        found = store.describe(name)
        if found is None or found.metadata.get(RESERVED) != spec.metadata[RESERVED]:
            raise
        return False
    return True


def _vectors_by_point(images: Sequence[IndexedImage], *, is_many: bool) -> dict[PointId, Float32]:
    """Return the vector of every point, float32 [D], or [V, D] where points have several views."""
    import numpy as np

    by_point: dict[PointId, list[Float32]] = {}
    for image in images:
        by_point.setdefault(image.point_id, []).append(image.vector)
    return {point_id: np.stack(rows) if is_many else rows[0] for point_id, rows in by_point.items()}
