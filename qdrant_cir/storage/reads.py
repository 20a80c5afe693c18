"""What a query reads of a gallery, as steps: one wording for the synchronous and the asynchronous world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from qdrant_cir.errors import CollectionNotFoundError, InputError, StoreError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.points import (
    RESERVED,
    GalleryHit,
    HitTokens,
    KnownImage,
    Layout,
    StoredImage,
    tokens_record,
)
from qdrant_cir.storage.schema import (
    SAMPLE,
    GallerySpec,
    check_pair,
    field_names,
    having,
    lost_tokens,
    lost_vector,
    not_found,
    tokens_name,
    unknown_field,
)
from qdrant_cir.storage.steps import Read, Steps
from qdrant_cir.storage.stores.opening import describe_companion
from qdrant_cir.storage.stores.protocol import PLAIN, CollectionSpec, Hit, HitGroup, ReadOptions, Record, Store
from qdrant_cir.storage.stores.retrying import retrying_within
from qdrant_cir.types import Float32, JsonObject, PointId

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["GalleryReads", "Nearest", "open_reads"]

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Nearest:
    """What stage one found: hits, best first, and how many points stood between them that are no images of ours."""

    hits: list[GalleryHit]
    foreign: int

    @property
    def count(self) -> int:
        """Points that the store returned."""
        return len(self.hits) + self.foreign


class GalleryReads:
    """The read path of one gallery. Its methods are paths; a driver of :mod:`qdrant_cir.storage.steps` runs them."""

    def __init__(self, layout: Layout, spec: GallerySpec, metadata: JsonObject | None = None) -> None:
        """Describe a gallery that was looked at: :func:`open_reads`, or :mod:`qdrant_cir.storage.attachment`.

        ``metadata`` is what the companion keeps.
        """
        self.layout = layout
        self.spec = spec
        self.metadata = metadata or {}
        self._seen_fields: set[str] = set()

    @property
    def name(self) -> str:
        """The gallery's name."""
        return self.layout.gallery

    def images(
        self, image_ids: Sequence[str | PointId], *, options: ReadOptions = PLAIN
    ) -> Steps[dict[str | PointId, StoredImage]]:
        """Read all that is stored of images, by the ids asked for: those that exist, in that order.

        Of a point with several views, the first one that has tokens.

        Raises:
            InputError: an id cannot be one.
        """
        ids = {image_id: self.layout.point_id(image_id) for image_id in dict.fromkeys(image_ids)}
        if not ids:
            return {}
        points = yield from self._fetch(self.layout.gallery, list(ids.values()), options, with_vectors=True)
        known = {point.point_id: (image, point) for point in points if (image := self.layout.known(point)) is not None}
        tokens = yield from self.tokens([image for image, _ in known.values()], options=options)
        found: dict[str | PointId, StoredImage] = {}
        for image_id, point_id in ids.items():
            image, point = known.get(point_id, (None, None))
            if image is None or point is None or point.vector is None:
                continue
            views = [entry for entry in tokens if entry.point_id == point_id]
            place = next((place for place, entry in enumerate(views) if entry.data is not None), 0)
            # a view that could not be read has neither tokens nor a row
            row = sum(entry.sha256 is not None for entry in views[:place])
            rows = point.vector.reshape(-1, point.vector.shape[-1])
            found[image_id] = StoredImage(image, rows[min(row, len(rows) - 1)], views[place])
        return found

    def points(self, point_ids: Sequence[PointId], *, options: ReadOptions = PLAIN) -> Steps[list[Record]]:
        """Read points of the gallery by id with their payload: those that exist, in the order asked for."""
        return (yield from self._fetch(self.layout.gallery, point_ids, options)) if point_ids else []

    def nearest(
        self, vector: Float32, *, limit: int, filter: Filter | None, options: ReadOptions = PLAIN
    ) -> Steps[Nearest]:
        """Search the images nearest to a vector float32 [D].

        Raises:
            InputError: the vector does not fit, ``limit`` is below 1, or the filter cannot be evaluated.
        """
        layout = self.layout
        try:
            found: list[Hit] = yield _read(
                lambda store: store.query(
                    layout.gallery, vector, limit=limit, filter=filter, using=layout.vector, options=options
                ),
                options,
            )
        except (InputError, StoreError):
            yield from self._check_vector()
            raise
        hits = [GalleryHit(image, hit.score, hit) for hit in found if (image := layout.known(hit)) is not None]
        return Nearest(hits, len(found) - len(hits))

    def nearest_groups(
        self,
        vector: Float32,
        *,
        group_by: str,
        limit: int,
        group_size: int,
        filter: Filter | None,
        options: ReadOptions = PLAIN,
    ) -> Steps[list[list[GalleryHit]]]:
        """Search the groups whose best image is nearest to a vector float32 [D]; foreign points are left out.

        Raises:
            InputError: as :meth:`nearest`, or the field cannot be grouped by.
        """
        layout = self.layout
        try:
            found: list[HitGroup] = yield _read(
                lambda store: store.query_groups(
                    layout.gallery,
                    vector,
                    group_by=group_by,
                    limit=limit,
                    group_size=group_size,
                    filter=filter,
                    using=layout.vector,
                    options=options,
                ),
                options,
            )
        except (InputError, StoreError):
            yield from self._check_vector()
            raise
        return [
            [
                GalleryHit(image, hit.score, hit, group.value)
                for hit in group.hits
                if (image := layout.known(hit)) is not None
            ]
            for group in found
        ]

    def digests(self, images: Sequence[KnownImage], *, options: ReadOptions = PLAIN) -> Steps[dict[PointId, set[str]]]:
        """Read the digests of the pictures that images were indexed from, by point id."""
        ids = {record_id: image.point_id for image in images for record_id in self.layout.record_ids(image)}
        records = yield from self._records(list(ids), options, fields=(RESERVED,))
        found: dict[PointId, set[str]] = {}
        for record in records:
            made = tokens_record(record)
            if made is not None:
                found.setdefault(ids[record.point_id], set()).add(made.sha256)
        return found

    def tokens(self, images: Sequence[KnownImage], *, options: ReadOptions = PLAIN) -> Steps[list[HitTokens]]:
        """Read the tokens of images, in their order, or why there are none; one entry per view.

        One call of the store, none for no images.
        """
        ids = [record_id for image in images for record_id in self.layout.record_ids(image)]
        records = (yield from self._records(ids, options)) if ids else []
        by_id = {record.point_id: record for record in records}
        return [entry for image in images for entry in self.layout.tokens(image, by_id)]

    def _check_vector(self) -> Steps[None]:
        """Raise CollectionError where the user's collection has lost our vector: it was made again under its name."""
        if self.layout.picture is None:
            return
        found: CollectionSpec | None = yield Read(lambda store: store.describe(self.layout.gallery))
        if found is not None and self.layout.vector not in found.vectors:
            raise lost_vector(self.layout.gallery, self.layout.vector)

    def check_filter(self, filter: Filter | None) -> Steps[None]:
        """Refuse a filter on a field that no image has, which would silently find nothing, or everything.

        Costs one read of one point per field, which stops at the first image that has it; a field once seen
        costs nothing again. A field counts as absent where it is null or an empty list in every image. An
        empty collection takes every filter.

        Raises:
            InputError: the filter is malformed, or names such a field; the message lists the fields of a
                sample.
        """
        if filter is None:
            return
        # loads qdrant-client, which a search without a filter need not wait for
        from qdrant_cir.storage.stores.filters import filter_fields

        for field in filter_fields(filter):
            yield from self.check_field(field)

    def check_field(self, field: str, *, named_by: str = "The filter") -> Steps[None]:
        """Refuse a field that no image has; costs and errors as of one field in :meth:`check_filter`."""
        if field in self._seen_fields:
            return
        try:
            has_field = bool((yield from self._scroll(having(field), limit=1)))
        except InputError:
            # strict mode forbids to look for it; the search itself was allowed
            has_field = True
        if has_field:
            self._seen_fields.add(field)
            return
        sample = yield from self._scroll(None, limit=SAMPLE)
        if sample:
            raise unknown_field(self.name, field, field_names(sample), named_by=named_by)

    def _records(
        self, ids: Sequence[PointId], options: ReadOptions, *, fields: Sequence[str] | None = None
    ) -> Steps[list[Record]]:
        """Read records of the companion. Raises CollectionError where it is gone."""
        layout, is_attached = self.layout, self.layout.picture is not None
        # beside an attached collection it has no shard keys
        read = replace(options, shard_key_selector=None) if is_attached else options
        try:
            records: list[Record] = yield _read(
                lambda store: store.fetch(layout.companion, ids, with_vectors=False, fields=fields, options=read), read
            )
        except CollectionNotFoundError as error:
            raise lost_tokens(layout.gallery, vector=layout.vector if is_attached else None) from error
        return records

    def _fetch(
        self, name: str, ids: Sequence[PointId], options: ReadOptions, *, with_vectors: bool = False
    ) -> Steps[list[Record]]:
        records: list[Record] = yield _read(
            lambda store: store.fetch(name, ids, with_vectors=with_vectors, using=self.layout.vector, options=options),
            options,
        )
        return records

    def _scroll(self, filter: Filter | None, *, limit: int) -> Steps[list[Record]]:
        records: list[Record] = yield Read(
            lambda store: store.scroll(self.name, filter=filter, limit=limit, after=None)
        )
        return records


def _read(call: Callable[[Store], _Value], options: ReadOptions) -> Read:
    """Return a read that is tried again for no longer than its options say."""
    seconds = options.retry_seconds
    if seconds is None:
        return Read(call)

    def limited(store: Store) -> _Value:
        with retrying_within(seconds):
            return call(store)

    return Read(limited)


def open_reads(name: str, bundle: Bundle | None = None) -> Steps[GalleryReads]:
    """Look at what stands under a gallery's two names.

    Args:
        name: as it was made, or an alias of it.
        bundle: that vectors and tokens are from; None checks no bundle.

    Raises:
        CollectionNotFoundError: there is none of that name; the message lists what there is.
        CollectionMismatchError: it was made with another bundle, or by somebody else.
        CollectionError: its tokens are gone.
    """
    resolved: str = yield Read(lambda store: store.resolve(name))
    gallery: CollectionSpec | None = yield Read(lambda store: store.describe(resolved))
    if gallery is None:
        names: list[str] = yield Read(lambda store: store.collection_names())
        raise not_found(name, names)
    companion = tokens_name(resolved)
    tokens: CollectionSpec | None = yield Read(lambda store: describe_companion(store, companion, name))
    checked = check_pair(resolved, gallery, tokens, bundle)
    return GalleryReads(Layout(resolved, companion), checked, None if tokens is None else tokens.metadata)
