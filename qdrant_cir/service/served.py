"""A collection that is served: its gallery, its pictures, and what it holds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic

from qdrant_cir.errors import CollectionNotFoundError, ImageError, InputError
from qdrant_cir.gallery import AsyncGallery
from qdrant_cir.indexing.opening import is_address
from qdrant_cir.service.decoding import Decoder
from qdrant_cir.service.facets import Look, Looks
from qdrant_cir.service.statuses import NotHereError
from qdrant_cir.service.thumbnails import Thumbnail, Thumbnails, draw_thumbnail
from qdrant_cir.storage.steps import run
from qdrant_cir.types import ImageSource, PointId

__all__ = ["Served", "named", "refuse_files"]

_ADDRESS_SECONDS = 60.0
"""Seconds after which an address is read again."""


class Served:
    """One collection by the name under which clients know it."""

    def __init__(
        self,
        name: str,
        gallery: AsyncGallery,
        *,
        open_picture: Callable[[str], ImageSource] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Serve a gallery; ``open_picture`` opens a picture by its source, None for files."""
        self.name, self.gallery = name, gallery
        self._open_picture, self._clock = open_picture, clock
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
        source = await asyncio.to_thread(self._source, image_id)
        try:
            version = await asyncio.to_thread(self._version, source)
            key = hashlib.sha256(f"{version} {size} {source}".encode(errors="surrogatepass")).hexdigest()
            if (kept := self._thumbnails.kept(key)) is not None:
                return kept
            opened = await asyncio.to_thread(self._opened, source)
            return await decoder.run(partial(self._thumbnails.drawn, key, partial(draw_thumbnail, opened, size)))
        except (ImageError, OSError, ValueError) as error:
            # the reason names a file of this machine
            raise NotHereError(f"The picture of {image_id!r:.80} cannot be read.") from error

    async def look(self) -> Look:
        """Return what the collection holds. Raises StoreError."""
        async with self._looking:
            return await asyncio.to_thread(self._looks.look)

    def _opened(self, source: str) -> ImageSource:
        return source if self._open_picture is None else self._open_picture(source)

    def _version(self, source: str) -> str:
        """Return what changes when a picture does: of a file its time and size, of an address the minute.

        Raises:
            ImageError, OSError, ValueError: there is no such file, or it may not be opened.
        """
        if is_address(source):
            return f"minute {self._clock() // _ADDRESS_SECONDS}"
        opened = self._opened(source)
        if not isinstance(opened, str | Path):
            raise ImageError("It is neither a file nor an address.")
        found = Path(opened).stat()
        return f"file {found.st_mtime_ns} {found.st_size}"

    def _source(self, image_id: str | PointId) -> str:
        """Return where an image's picture is. Raises NotHereError."""
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
        return str(image.views[0] if image.views else image.source)


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
