"""Images as points of a gallery and its tokens, and back. Pure: shared by sync and async collection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import UUID, uuid5

from qdrant_cir.errors import CollectionError, InputError
from qdrant_cir.storage.stores.protocol import Hit, Record, StoredPoint
from qdrant_cir.types import Float32, JsonObject, JsonValue, Precision

__all__ = [
    "PRECISION",
    "RESERVED",
    "GalleryHit",
    "HitTokens",
    "IndexedImage",
    "KnownImage",
    "MadeFrom",
    "StoredImage",
    "TokensProblem",
    "batches_by_bytes",
    "gallery_hit",
    "gallery_point",
    "known_image",
    "made_from",
    "pair_tokens",
    "point_id_of",
    "relabelled_point",
    "stored_images",
    "tokens_point",
]

RESERVED = "_cir"
"""The one payload field that is ours."""

PRECISION = f"{RESERVED}.precision"
"""Where both halves of an image say what the image encoder computed in; absent for float32."""

_TOKENS = "tokens"
_NAMESPACE = UUID("7a1f6a52-31c0-5c0f-9f0e-2b6f8e1d4c37")

TokensProblem: TypeAlias = Literal["missing", "stale", "damaged"]
"""Why an image cannot be re-ranked: no tokens in the bundle's form, tokens of another picture, or unreadable ones."""


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """One encoded image, ready to be written.

    Attributes:
        image_id: the caller's; not empty.
        source: where the picture was read from, None for nowhere that lasts.
        sha256: hex digest of the picture.
        vector: float32 [D].
        tokens: as the token codec wrote them.
        payload: the user's fields; none is called ``_cir``.
        bundle: fingerprint of the bundle that made vector and tokens.
        precision: what the image encoder computed in.
    """

    image_id: str
    source: str | None
    sha256: str
    vector: Float32
    tokens: bytes
    payload: Mapping[str, JsonValue]
    bundle: str
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One image that stage one found.

    ``score`` is a cosine, ``payload`` the user's fields alone; ``precision`` is what the image encoder computed in.
    """

    image_id: str
    score: float
    source: str | None
    sha256: str
    payload: JsonObject
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What stands in the collection under an id.

    ``payload`` holds the user's fields alone; ``bundle`` is the fingerprint of the bundle that made it; ``precision``
    is what the image encoder computed in.
    """

    image_id: str
    source: str | None
    sha256: str
    payload: JsonObject
    bundle: str
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """What an image was made from: the digest of the picture and the fingerprint of the bundle."""

    sha256: str
    bundle: str


@dataclass(frozen=True, slots=True)
class HitTokens:
    """The tokens of one image, or why there are none: exactly one of ``data`` and ``problem`` is None."""

    image_id: str
    data: bytes | None
    problem: TokensProblem | None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """All that is stored of an image; ``vector`` is float32 [D], unit length."""

    image: KnownImage
    vector: Float32
    tokens: HitTokens


def point_id_of(image_id: str) -> UUID:
    """Give the point id of an image id: the same in every collection, for ever.

    Raises:
        InputError: the id is empty or not valid Unicode.
    """
    if not image_id:
        raise InputError("The image id is empty. Give every image an id of its own.")
    try:
        return uuid5(_NAMESPACE, image_id)
    except UnicodeEncodeError as error:
        raise InputError(f"The image id {image_id!r} is not valid Unicode text.") from error


def gallery_point(image: IndexedImage) -> StoredPoint:
    """Return the searchable half of an image. Raises InputError for a payload with a field named ``_cir``."""
    return _labelled_point(
        image.image_id, _reserved(image), source=image.source, payload=image.payload, vector=image.vector
    )


def relabelled_point(
    record: Record, *, image_id: str, source: str | None, payload: Mapping[str, JsonValue]
) -> StoredPoint:
    """Give a gallery point, read with its vector, other metadata. Raises InputError as gallery_point."""
    return _labelled_point(image_id, _reserved_of(record), source=source, payload=payload, vector=record.vector)


def tokens_point(image: IndexedImage) -> StoredPoint:
    """Return the half of an image that is fetched by id alone."""
    payload: JsonObject = {
        RESERVED: _reserved(image),
        _TOKENS: base64.b64encode(image.tokens).decode("ascii"),
    }
    return StoredPoint(point_id_of(image.image_id), None, payload)


def gallery_hit(hit: Hit) -> GalleryHit:
    """Part a hit's payload into the user's fields and ours. Raises CollectionError for a foreign point."""
    known = known_image(Record(hit.point_id, hit.payload, None))
    return GalleryHit(known.image_id, hit.score, known.source, known.sha256, known.payload, known.precision)


def known_image(record: Record) -> KnownImage:
    """Part a gallery point's payload into the user's fields and ours. Raises CollectionError as above."""
    reserved = _reserved_of(record)
    source = reserved.get("source")
    return KnownImage(
        image_id=str(reserved["id"]),
        source=source if isinstance(source, str) else None,
        sha256=str(reserved["sha256"]),
        payload={key: value for key, value in record.payload.items() if key != RESERVED},
        bundle=_bundle_in(reserved),
        precision=str(reserved.get("precision", "float32")),
    )


def made_from(record: Record) -> MadeFrom:
    """Return what either half of an image was made from. Raises CollectionError."""
    reserved = _reserved_of(record)
    return MadeFrom(str(reserved["sha256"]), _bundle_in(reserved))


def pair_tokens(images: Iterable[GalleryHit | KnownImage], records: Sequence[Record]) -> list[HitTokens]:
    """Find the tokens of every image, in the images' order, and say what is wrong where there are none."""
    by_id = {record.point_id: record for record in records}
    return [_tokens_of(image, by_id.get(point_id_of(image.image_id))) for image in images]


def stored_images(gallery: Sequence[Record], tokens: Sequence[Record]) -> dict[str, StoredImage]:
    """Join both halves of images, the gallery's read with vectors, by image id in the gallery's order."""
    images = [known_image(record) for record in gallery]
    return {
        image.image_id: StoredImage(image, record.vector, paired)
        for image, record, paired in zip(images, gallery, pair_tokens(images, tokens), strict=True)
        if record.vector is not None
    }


def batches_by_bytes(images: Iterable[IndexedImage], *, limit: int) -> Iterator[list[IndexedImage]]:
    """Part images into batches of at most ``limit`` stored bytes; a larger image is one by itself."""
    batch: list[IndexedImage] = []
    size = 0
    for image in images:
        needs = _stored_bytes(image)
        if batch and size + needs > limit:
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += needs
    if batch:
        yield batch


def _stored_bytes(image: IndexedImage) -> int:
    """Estimate from above: base64 of the tokens, or the vector in decimal digits with the payload."""
    return max(len(image.tokens) * 4 // 3, 16 * image.vector.size + 2 * len(repr(image.payload).encode())) + 512


def _tokens_of(image: GalleryHit | KnownImage, record: Record | None) -> HitTokens:
    if record is None:
        return HitTokens(image.image_id, None, "missing")
    if made_from(record).sha256 != image.sha256:
        return HitTokens(image.image_id, None, "stale")
    text = record.payload.get(_TOKENS)
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    return HitTokens(image.image_id, data or None, None if data else "damaged")


def _reserved(image: IndexedImage) -> JsonObject:
    ours: JsonObject = {"id": image.image_id, "sha256": image.sha256, "bundle": image.bundle}
    if image.precision != "float32":
        ours["precision"] = image.precision
    return ours


def _bundle_in(reserved: JsonObject) -> str:
    # compressed images once named the bundle that theirs was fitted from, and a number of the fitting beside it
    return "" if "compression" in reserved else str(reserved.get("bundle"))


def _labelled_point(
    image_id: str,
    reserved: JsonObject,
    *,
    source: str | None,
    payload: Mapping[str, JsonValue],
    vector: Float32 | None,
) -> StoredPoint:
    if RESERVED in payload:
        raise InputError(
            f"The payload of the image {image_id!r} has a field named {RESERVED!r}, which is kept for this "
            "library. "
            "Give the field another name."
        )
    return StoredPoint(point_id_of(image_id), vector, {**payload, RESERVED: {**reserved, "source": source}})


def _reserved_of(record: Record) -> JsonObject:
    reserved = record.payload.get(RESERVED)
    if not isinstance(reserved, dict) or not {"id", "sha256"} <= reserved.keys():
        raise CollectionError(
            f"The point {record.point_id} was not written by this library: its payload has no {RESERVED!r} "
            "with id and "
            "sha256. Remove it, or index into a collection of its own."
        )
    return reserved
