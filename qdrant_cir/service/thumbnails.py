"""Pictures as small JPEG files: what the service sends of a picture, never the file itself."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from qdrant_cir.model.preprocess import load_image
from qdrant_cir.types import ImageSource

__all__ = ["Thumbnail", "Thumbnails", "draw_thumbnail"]

MOST_BYTES = 64_000_000
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG file and its ETag, in quotes."""

    data: bytes
    etag: str


class Thumbnails:
    """Thumbnails that were drawn lately. Threads may share it."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        """Keep nothing yet."""
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._lock = Lock()

    def kept(self, key: str) -> Thumbnail | None:
        """Return the thumbnail of a key, None where it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def drawn(self, key: str, draw: Callable[[], bytes]) -> Thumbnail:
        """Return the thumbnail of a key, which must change when the picture does; draw it where it is not kept."""
        if (kept := self.kept(key)) is not None:
            return kept
        data = draw()
        made = Thumbnail(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(data)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return made


def draw_thumbnail(source: ImageSource, size: int) -> bytes:
    """Return a picture as JPEG whose longer side has at most ``size`` pixels. Raises ImageError."""
    image = load_image(source)
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
