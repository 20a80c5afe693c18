"""From a record to what the encoder takes: content read and hashed, metadata checked, pixels decoded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from PIL import Image

from qdrant_cir.errors import ImageError, InputError
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.manifest import PreprocessingSpec
from qdrant_cir.model.preprocess import load_image, preprocess
from qdrant_cir.types import Float32, ImageSource, JsonValue

__all__ = ["HashedImage", "PreparedImage", "canonical_json", "decode_image", "hash_image"]

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class HashedImage:
    """A record whose content is known but not yet decoded.

    A file is not held in memory until then, it is read again. If it changes in between, the stored digest is
    that of the older content, so the next run encodes it once more.

    Attributes:
        record: as it was given.
        content: what is decoded: bytes, a path, or an RGB Pillow image.
        sha256: hex digest of the file's bytes; for a Pillow image, of its size and RGB pixels.
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


def hash_image(record: ImageRecord) -> HashedImage:
    """Check a record's metadata, read its picture and hash it.

    Raises:
        InputError: the id or the payload cannot be stored.
        ImageError: the picture cannot be read.
    """
    if not record.image_id:
        raise InputError("the image id is empty")
    _check_json(record.image_id, field="image_id")
    _check_json(record.payload, field="payload")
    image = record.image
    if isinstance(image, Image.Image):
        rgb = load_image(image)
        digest = hashlib.sha256(f"RGB {rgb.width}x{rgb.height} ".encode() + rgb.tobytes()).hexdigest()
        return HashedImage(record, rgb, digest)
    if isinstance(image, bytes):
        return HashedImage(record, image, hashlib.sha256(image).hexdigest())
    path = Path(image)
    try:
        if not path.is_file():
            raise ImageError(f"{path} is not a file" if path.exists() else f"there is no file {path}")
        with path.open("rb") as file:
            return HashedImage(record, path, hashlib.file_digest(file, "sha256").hexdigest())
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error


def decode_image(hashed: HashedImage, spec: PreprocessingSpec) -> PreparedImage:
    """Decode and preprocess. Raises ImageError for what is no usable picture."""
    return PreparedImage(hashed.record, hashed.sha256, preprocess(load_image(hashed.content), spec))


def canonical_json(value: JsonValue) -> str:
    """Write JSON so that equal texts mean equal values of equal types: ``1``, ``1.0`` and ``true`` differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _check_json(value: object, *, field: str) -> None:
    """Raise InputError for what a payload cannot hold: the store would refuse the whole batch."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{field} {value!r} is not valid Unicode text") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{field} has the key {key!r}; keys must be strings")
            _check_json(key, field=f"a key of {field}")
            _check_json(item, field=f"{field}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_json(item, field=field)
    elif isinstance(value, float):
        if not isfinite(value):
            raise InputError(f"{field} is {value}; numbers must be finite")
    elif isinstance(value, int):
        if value not in _INT64:
            raise InputError(f"{field} is {value}; integers must fit 64 bits")
    elif value is not None:
        raise InputError(f"{field} is of type {type(value).__name__}; expected what JSON may hold")
