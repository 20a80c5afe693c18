"""The read path of a gallery, asynchronously: the methods of :class:`Collection` that a query needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.points import (
    GalleryHit,
    HitTokens,
    StoredImage,
    gallery_hit,
    pair_tokens,
    point_id_of,
    stored_images,
)
from qdrant_cir.storage.schema import (
    SAMPLE,
    GallerySpec,
    check_pair,
    field_names,
    having,
    not_found,
    tokens_name,
    unknown_field,
)
from qdrant_cir.storage.stores.protocol import AsyncReader
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["AsyncCollection"]


class AsyncCollection:
    """One gallery, with the answers and errors of :class:`~qdrant_cir.storage.collection.Collection`."""

    def __init__(self, reader: AsyncReader, name: str, spec: GallerySpec) -> None:
        """Join what :meth:`open` has checked."""
        self._reader = reader
        self._name = name
        self._tokens_name = tokens_name(name)
        self._spec = spec
        self._seen_fields: set[str] = set()

    @classmethod
    async def open(cls, reader: AsyncReader, name: str, bundle: Bundle | None = None) -> Self:
        """Open a gallery; as :meth:`Collection.open`. The reader stays the caller's."""
        gallery = await reader.describe(name)
        if gallery is None:
            raise not_found(name, await reader.collection_names())
        tokens = await reader.describe(tokens_name(name))
        return cls(reader, name, check_pair(name, gallery, tokens, bundle))

    @property
    def name(self) -> str:
        """The gallery's name."""
        return self._name

    @property
    def spec(self) -> GallerySpec:
        """The bundle that made it, and the size of its vectors."""
        return self._spec

    async def query(self, vector: Float32, *, limit: int, filter: Filter | None) -> list[GalleryHit]:
        """Give the images nearest to a vector; as :meth:`Collection.query`."""
        hits = await self._reader.query(self._name, vector, limit=limit, filter=filter)
        return [gallery_hit(hit) for hit in hits]

    async def hit_tokens(self, hits: Sequence[GalleryHit]) -> list[HitTokens]:
        """Give the tokens of hits; as :meth:`Collection.hit_tokens`."""
        ids = [point_id_of(hit.image_id) for hit in hits]
        records = await self._reader.fetch(self._tokens_name, ids, with_vectors=False) if ids else []
        return pair_tokens(hits, records)

    async def stored(self, image_ids: Sequence[str]) -> dict[str, StoredImage]:
        """Give all that is stored of images, by id; as :meth:`Collection.stored`."""
        ids = [point_id_of(image_id) for image_id in dict.fromkeys(image_ids)]
        if not ids:
            return {}
        gallery = await self._reader.fetch(self._name, ids, with_vectors=True)
        tokens = await self._reader.fetch(self._tokens_name, ids, with_vectors=False)
        return stored_images(gallery, tokens)

    async def check_filter(self, filter: Filter | None) -> None:
        """Refuse a filter on a field that no image has; as :meth:`Collection.check_filter`."""
        if filter is None:
            return
        # loads qdrant-client, which a search without a filter need not wait for
        from qdrant_cir.storage.stores.filter_fields import filter_fields

        for field in filter_fields(filter):
            if field in self._seen_fields:
                continue
            if await self._reader.scroll(self._name, filter=having(field), limit=1, after=None):
                self._seen_fields.add(field)
                continue
            sample = await self._reader.scroll(self._name, filter=None, limit=SAMPLE, after=None)
            if sample:
                raise unknown_field(self._name, field, field_names(sample))
