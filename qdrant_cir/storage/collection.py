"""A gallery of images in a store: two collections, one to search and one with the candidate tokens.

``NAME`` holds a vector and the user's fields per image, ``NAME__tokens`` the tokens, under the same point
ids. Tokens are written before the gallery's point and deleted after it, so an image that can be found has its
tokens; the digest of the picture on both sides shows a pair whose halves are of different pictures
(``docs/adr/0002-storage.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from qdrant_cir.errors import CollectionMismatchError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.points import (
    RESERVED,
    GalleryHit,
    HitTokens,
    IndexedImage,
    KnownImage,
    MadeFrom,
    StoredImage,
    TokensProblem,
    batches_by_bytes,
    gallery_hit,
    gallery_point,
    known_image,
    made_from,
    pair_tokens,
    point_id_of,
    relabelled_point,
    stored_images,
    tokens_point,
)
from qdrant_cir.storage.schema import (
    SAMPLE,
    GallerySpec,
    check_pair,
    encoded_in_low_precision,
    field_names,
    gallery_names,
    gallery_specs,
    having,
    not_found,
    tokens_name,
    unknown_field,
)
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import Float32, JsonValue

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = [
    "RESERVED",
    "Collection",
    "CollectionInfo",
    "GalleryHit",
    "HitTokens",
    "IndexedImage",
    "KnownImage",
    "StoredImage",
    "TokensProblem",
    "list_collections",
]

BATCH_BYTES = 4 * 2**20
"""Largest stored form of one write: servers cap a REST body at 32 MB, and smaller ones pass faster."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a gallery holds.

    Attributes:
        name: of the collection.
        images: how many, exactly.
        vector_size: dimensions of their vectors.
        fingerprint: of the bundle that made it, without compression.
        bundle_name: of that bundle.
        token_bytes: mean bytes of tokens per image, of a sample; None for an empty collection.
        fields: the user's payload fields, of a sample, sorted.
        encoded_in_low_precision: exact number of images whose encoder did not compute in float32.
    """

    name: str
    images: int
    vector_size: int
    fingerprint: str
    bundle_name: str
    token_bytes: int | None
    fields: tuple[str, ...]
    encoded_in_low_precision: int


def list_collections(store: Store) -> list[str]:
    """List the galleries of a store, sorted, without collections of other origin. Raises StoreError."""
    return gallery_names(store.collection_names())


class Collection:
    """One gallery, opened with the bundle that made it, or with none for upkeep that needs no model.

    Every method raises StoreError where the store fails and CollectionNotFoundError where the collection was
    dropped.
    """

    def __init__(self, store: Store, name: str, spec: GallerySpec) -> None:
        """Join what :meth:`create` and :meth:`open` have checked."""
        self._store = store
        self._name = name
        self._tokens_name = tokens_name(name)
        self._spec = spec
        self._seen_fields: set[str] = set()

    @classmethod
    def create(cls, store: Store, name: str, bundle: Bundle) -> Self:
        """Make a gallery where there is none, and open it.

        One that stands is opened as it is; halves that an interrupted call left alone are completed.

        Raises:
            InputError: the name cannot be used.
            CollectionMismatchError: one of that name was made with another bundle, or by somebody else.
        """
        gallery, tokens = gallery_specs(bundle)
        companion = tokens_name(name)
        standing = store.describe(companion)
        if store.describe(name) is not None:
            # a gallery of another bundle is refused before anything is made beside it
            check_pair(name, store.describe(name) or gallery, standing or tokens, bundle)
        elif standing is not None and standing.metadata != tokens.metadata:
            if store.count(companion, None):
                raise CollectionMismatchError(
                    f"There is a collection {companion!r} of another origin, beside which {name!r} cannot be "
                    "made. "
                    "Drop it, or use another name."
                )
            store.drop(companion)
            standing = None
        if standing is None:
            store.create(companion, tokens)
        if store.describe(name) is None:
            store.create(name, gallery)
        return cls.open(store, name, bundle)

    @classmethod
    def open(cls, store: Store, name: str, bundle: Bundle | None = None) -> Self:
        """Open a gallery.

        Args:
            store: stays the caller's.
            name: as it was made.
            bundle: that vectors and tokens are from; None checks no bundle.

        Raises:
            CollectionNotFoundError: there is none of that name; the message lists what there is.
            CollectionMismatchError: it was made with another bundle, or by somebody else.
            CollectionError: its tokens are gone.
        """
        gallery = store.describe(name)
        if gallery is None:
            raise not_found(name, store.collection_names())
        return cls(store, name, check_pair(name, gallery, store.describe(tokens_name(name)), bundle))

    @property
    def name(self) -> str:
        """The gallery's name."""
        return self._name

    @property
    def spec(self) -> GallerySpec:
        """The bundle that made it, and the size of its vectors."""
        return self._spec

    def write(self, images: Iterable[IndexedImage]) -> None:
        """Write images, replacing those of the same ids, in batches of at most 4 MB.

        Raises:
            InputError: an id, vector or payload cannot be stored; batches before it are written then.
        """
        for batch in batches_by_bytes(images, limit=BATCH_BYTES):
            gallery = [gallery_point(image) for image in batch]
            self._store.upsert(self._tokens_name, [tokens_point(image) for image in batch])
            self._store.upsert(self._name, gallery)

    def relabel(self, labels: Mapping[str, tuple[str | None, Mapping[str, JsonValue]]]) -> None:
        """Replace source and payload of images, by image id; vectors and tokens stay.

        Unknown ids are passed over.

        Raises:
            InputError: a payload cannot be stored; nothing is changed then.
        """
        ids = {point_id_of(image_id): image_id for image_id in labels}
        records = self._store.fetch(self._name, list(ids), with_vectors=True)
        points = []
        for record in records:
            source, payload = labels[ids[record.point_id]]
            points.append(relabelled_point(record, image_id=ids[record.point_id], source=source, payload=payload))
        self._store.upsert(self._name, points)

    def delete(self, image_ids: Sequence[str]) -> set[str]:
        """Delete images and give the ids that were there; others are passed over."""
        ids = {point_id_of(image_id): image_id for image_id in image_ids}
        found = self._store.fetch(self._name, list(ids), with_vectors=False, fields=(RESERVED,))
        self._store.delete(self._name, list(ids))
        self._store.delete(self._tokens_name, list(ids))
        return {ids[record.point_id] for record in found}

    def known(self, image_ids: Sequence[str]) -> dict[str, KnownImage]:
        """Return what stands under ids: images of which both halves are there, of one picture and one bundle.

        What is missing here needs to be written (again); so an interrupted write heals at the next one.
        """
        ids = [point_id_of(image_id) for image_id in dict.fromkeys(image_ids)]
        if not ids:
            return {}
        gallery = self._store.fetch(self._name, ids, with_vectors=False)
        tokens = self._store.fetch(self._tokens_name, ids, with_vectors=False, fields=(RESERVED,))
        written = {record.point_id: made_from(record) for record in tokens}
        images = [known_image(record) for record in gallery]
        return {
            image.image_id: image
            for image in images
            if written.get(point_id_of(image.image_id)) == MadeFrom(image.sha256, image.bundle)
        }

    def query(self, vector: Float32, *, limit: int, filter: Filter | None) -> list[GalleryHit]:
        """Give the images nearest to a vector float32 [D], best first.

        Raises:
            InputError: the vector does not fit, ``limit`` is below 1, or the filter cannot be evaluated.
        """
        return [gallery_hit(hit) for hit in self._store.query(self._name, vector, limit=limit, filter=filter)]

    def hit_tokens(self, hits: Sequence[GalleryHit]) -> list[HitTokens]:
        """Give the tokens of hits, in their order, or why there are none. One call of the store."""
        ids = [point_id_of(hit.image_id) for hit in hits]
        return pair_tokens(hits, self._store.fetch(self._tokens_name, ids, with_vectors=False) if ids else [])

    def tokens(self, image_ids: Sequence[str]) -> dict[str, bytes]:
        """Give the tokens of images by id, of those that have valid ones."""
        return {
            image_id: image.tokens.data
            for image_id, image in self.stored(image_ids).items()
            if image.tokens.data is not None
        }

    def stored(self, image_ids: Sequence[str]) -> dict[str, StoredImage]:
        """Give all that is stored of images, by id: those that exist, in the order asked for."""
        ids = [point_id_of(image_id) for image_id in dict.fromkeys(image_ids)]
        if not ids:
            return {}
        gallery = self._store.fetch(self._name, ids, with_vectors=True)
        return stored_images(gallery, self._store.fetch(self._tokens_name, ids, with_vectors=False))

    def check_filter(self, filter: Filter | None) -> None:
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
        from qdrant_cir.storage.stores.filter_fields import filter_fields

        for field in filter_fields(filter):
            if field in self._seen_fields:
                continue
            if self._store.scroll(self._name, filter=having(field), limit=1, after=None):
                self._seen_fields.add(field)
                continue
            sample = self._store.scroll(self._name, filter=None, limit=SAMPLE, after=None)
            if sample:
                raise unknown_field(self._name, field, field_names(sample))

    def create_payload_index(self, field: str, kind: str) -> None:
        """Index a payload field; ``kind`` is keyword, integer, float, bool or datetime. Raises InputError."""
        self._store.create_payload_index(self._name, field, kind)

    def count(self, filter: Filter | None) -> int:
        """Count images exactly. Raises InputError for a filter that cannot be evaluated."""
        return self._store.count(self._name, filter)

    def info(self) -> CollectionInfo:
        """Describe the gallery."""
        sample = self._store.scroll(self._name, filter=None, limit=SAMPLE, after=None)
        images = [known_image(record) for record in sample[:10]]
        sizes = [len(data) for data in self.tokens([image.image_id for image in images]).values()]
        return CollectionInfo(
            name=self._name,
            images=self.count(None),
            vector_size=self._spec.vector_size,
            fingerprint=self._spec.fingerprint,
            bundle_name=self._spec.bundle_name,
            token_bytes=sum(sizes) // len(sizes) if sizes else None,
            fields=field_names(sample),
            encoded_in_low_precision=self.count(encoded_in_low_precision()),
        )

    def optimize(self) -> None:
        """Build what queries need, where the store does not by itself; takes the embedded store seconds."""
        self._store.optimize(self._name)
        self._store.optimize(self._tokens_name)

    def drop(self) -> None:
        """Remove the gallery and its tokens."""
        self._store.drop(self._name)
        self._store.drop(self._tokens_name)
