"""A collection that is served: its gallery, its pictures, and what it holds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import partial

from qdrant_cir.errors import CollectionNotFoundError, ImageError, InputError
from qdrant_cir.gallery import AsyncGallery
from qdrant_cir.service.decoding import Decoder
from qdrant_cir.service.facets import Look, Looks
from qdrant_cir.service.statuses import NotHereError
from qdrant_cir.service.thumbnails import Thumbnail, Thumbnails, draw_thumbnail
from qdrant_cir.storage.steps import run
from qdrant_cir.types import ImageSource, PointId

__all__ = ["Served", "named", "refuse_files"]


class Served:
    """One collection by the name under which clients know it."""

    def __init__(
        self, name: str, gallery: AsyncGallery, *, open_picture: Callable[[str], ImageSource] | None = None
    ) -> None:
        """Serve a gallery; ``open_picture`` opens a picture by its source, None for files."""
        self.name, self.gallery = name, gallery
        self._open_picture = open_picture
        self._thumbnails = Thumbnails()
        self._looks = Looks(gallery.collection)
        self._looking = asyncio.Lock()

    async def thumbnail(self, image_id: str | PointId, size: int, decoder: Decoder) -> Thumbnail:
        """Return a picture of the collection, made small.

        Raises:
            NotHereError: there is no such image, or its picture cannot be read.
            BusyError: too many pictures wait to be decoded.
            StoreError: the store failed.
        """
        sha256, source = await asyncio.to_thread(self._found, image_id)
        key = hashlib.sha256(f"{sha256} {size} {source}".encode(errors="surrogatepass")).hexdigest()
        if (kept := self._thumbnails.kept(key)) is not None:
            return kept
        try:
            opened: ImageSource = source
            if self._open_picture is not None:
                opened = await asyncio.to_thread(self._open_picture, source)
            return await decoder.run(partial(self._thumbnails.drawn, key, partial(draw_thumbnail, opened, size)))
        except ImageError as error:
            # the reason names a file of this machine
            raise NotHereError(f"The picture of {image_id!r:.80} cannot be read.") from error

    async def look(self) -> Look:
        """Return what the collection holds. Raises StoreError."""
        async with self._looking:
            return await asyncio.to_thread(self._looks.look)

    def _found(self, image_id: str | PointId) -> tuple[str | None, str]:
        """Return the digest and the source of an image's picture. Raises NotHereError."""
        collection = self.gallery.collection
        layout = collection.layout
        try:
            point_id = layout.point_id(image_id)
        except InputError as error:
            raise NotHereError(str(error)) from error
        records = run(collection.reads.points([point_id]), collection.store)
        images = [image for record in records if (image := layout.known(record)) is not None]
        if not images or images[0].source is None:
            raise NotHereError(f"There is no picture of {image_id!r:.80} in {self.name!r}.")
        (image,) = images
        return image.sha256, str(image.views[0] if image.views else image.source)


def named(served: Mapping[str, Served], name: str | None) -> Served:
    """Return a collection by its name; None for the only one.

    Raises:
        InputError: no name, and several are served.
        CollectionNotFoundError: it is not served.
    """
    if name is None:
        if len(served) != 1:
            raise InputError(f"Name the collection; served are: {', '.join(served)}.")
        return next(iter(served.values()))
    if name not in served:
        raise CollectionNotFoundError(f"The collection {name!r:.80} is not served; served are: {', '.join(served)}.")
    return served[name]


def refuse_files(opener: Callable[[str], ImageSource]) -> Callable[[str], ImageSource]:
    """Return an opener that opens addresses alone: what a payload says is no reason to read a file of this machine."""

    def opened(value: str) -> ImageSource:
        found = opener(value)
        # the content of an address; of a file it is the path, and nothing has been read
        if not isinstance(found, bytes):
            raise ImageError("A file outside of a root is not served. Start the service with --root DIR.")
        return found

    return opened
