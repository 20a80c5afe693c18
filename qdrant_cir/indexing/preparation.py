"""From a record to what the encoder takes: content read and hashed, metadata checked, pixels decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from qdrant_cir.errors import InputError
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.manifest import PreprocessingSpec
from qdrant_cir.model.preprocess import hash_source, read_pixels, settled
from qdrant_cir.storage.payloads import plain_object, plain_text
from qdrant_cir.storage.points import RESERVED
from qdrant_cir.types import Float32, ImageSource, JsonValue, PictureLimits

__all__ = ["HashedImage", "PreparedImage", "canonical_json", "checked_record", "decode_image", "hash_image"]


@dataclass(frozen=True, slots=True)
class HashedImage:
    """A record whose content is known but not yet decoded.

    A file is not held in memory until then, it is read again. If it changes in between, the stored digest is
    that of the older content, so the next run encodes it once more.

    Attributes:
        record: as it was given.
        content: what is decoded: bytes, a path, or a Pillow image.
        sha256: as :func:`qdrant_cir.model.preprocess.hash_source` returns it.
    """

    record: ImageRecord
    content: ImageSource
    sha256: str


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A record ready for the encoder; ``pixels`` is float32 [3, H, W]."""

    record: ImageRecord
    sha256: str
    pixels: Float32


def checked_record(record: ImageRecord) -> ImageRecord:
    """Return a record with plain metadata. Raises InputError for an id, source or payload that cannot be stored."""
    if not isinstance(record, ImageRecord):
        raise InputError(f"expected an ImageRecord, got {type(record).__name__}")
    image_id = plain_text(record.image_id, place="image_id")
    if not image_id:
        raise InputError("the image id is empty")
    payload = plain_object(record.payload, place="payload")
    if RESERVED in payload:
        raise InputError(f"The payload has a field {RESERVED!r}, which is reserved; rename it.")
    source = None if record.source is None else plain_text(record.source, place="source")
    return replace(record, image_id=image_id, payload=payload, source=source)


def hash_image(record: ImageRecord) -> HashedImage:
    """Read a record's picture and hash it. Raises ImageError where it cannot be read."""
    content = settled(record.image if record.open is None else record.open())
    return HashedImage(record, content, hash_source(content))


def decode_image(hashed: HashedImage, spec: PreprocessingSpec, limits: PictureLimits) -> PreparedImage:
    """Decode and preprocess. Raises ImageError for what is no usable picture or asks for more than the limits."""
    return PreparedImage(hashed.record, hashed.sha256, read_pixels(hashed.content, spec, limits=limits))


def canonical_json(value: JsonValue) -> str:
    """Write JSON so that equal texts mean equal values of equal types: ``1``, ``1.0`` and ``true`` differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
