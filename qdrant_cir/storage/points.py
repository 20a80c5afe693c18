"""Images as points of a gallery and its tokens, and back. Pure.

A :class:`Layout` is all that differs between a gallery of our own and one that is attached to the user's collection.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from operator import attrgetter
from typing import Literal, TypeAlias
from uuid import UUID, uuid5

import numpy as np

from qdrant_cir.arguments import checked_id, shown
from qdrant_cir.errors import InputError
from qdrant_cir.storage.payload_path import PayloadPath
from qdrant_cir.storage.stores.protocol import VECTOR_NAME, Hit, Record, StoredPoint
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId, Precision

__all__ = [
    "PRECISION",
    "RESERVED",
    "GalleryHit",
    "HitTokens",
    "IndexedImage",
    "KnownImage",
    "Layout",
    "StoredImage",
    "TokensProblem",
    "TokensRecord",
    "batches_by_bytes",
    "is_marked",
    "owner_of",
    "point_id_of",
    "read_point_id",
    "tokens_in",
    "tokens_point",
    "tokens_record",
    "view_id_of",
    "views_mark",
]

RESERVED = "_cir"
"""The one payload field that is ours."""

PRECISION = f"{RESERVED}.precision"
"""Where both halves of an image say what the image encoder computed in; absent for float32."""

_TOKENS = "tokens"
_LONGEST_ID = 64
"""More characters than any way to write an id has."""
_CRC = "crc"
_MARKED = 8
"""Numbers of a vector that tell it from another one."""
_TOLERANCE = 0.01
"""What half precision and rounding change of a number of a unit vector, from above."""
_NAMESPACE = UUID("7a1f6a52-31c0-5c0f-9f0e-2b6f8e1d4c37")

TokensProblem: TypeAlias = Literal["missing", "stale", "damaged", "no picture"]
"""Why an image cannot be re-ranked: no tokens in the bundle's form, tokens of another picture, unreadable ones."""


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """One encoded picture, ready to be written.

    Attributes:
        image_id: the caller's; of an attached collection, the point's.
        point_id: of the gallery's point.
        source: where the picture was read from, None for nowhere that lasts.
        sha256: hex digest of the picture.
        vector: float32 [D].
        tokens: as the token codec wrote them.
        payload: the user's fields; none is called ``_cir``.
        bundle: fingerprint of the bundle that made vector and tokens.
        precision: what the image encoder computed in.
    """

    image_id: str
    point_id: PointId
    source: str | None
    sha256: str
    vector: Float32
    tokens: bytes
    payload: Mapping[str, JsonValue]
    bundle: str
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What a gallery's point says of its image.

    Attributes:
        image_id: the caller's; of an attached collection, the point's.
        point_id: of the point.
        source: where the picture was read from.
        sha256: of the picture; None where only the tokens know it.
        payload: the user's fields alone.
        bundle: fingerprint of the bundle that made it; None where only the tokens know it.
        precision: what the image encoder computed in.
        views: of an attached collection, the picture's source, or those of all pictures of the point.
        written: of a gallery of our own, the payload fields that indexing wrote, where the tokens were looked at.
    """

    image_id: str
    point_id: PointId
    source: str | None
    sha256: str | None
    payload: JsonObject
    bundle: str | None
    precision: str = "float32"
    views: tuple[str, ...] = ()
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One image that stage one found.

    Attributes:
        image: what the point says of it.
        score: stage one's, higher is better.
        point: as the store or the caller gave it.
        group: the value that it is grouped by, None without groups.
    """

    image: KnownImage
    score: float
    point: object
    group: JsonValue = None

    @property
    def image_id(self) -> str:
        """The image's id."""
        return self.image.image_id

    @property
    def point_id(self) -> PointId:
        """The point's id."""
        return self.image.point_id


@dataclass(frozen=True, slots=True)
class TokensRecord:
    """What a record of the companion says of its tokens, apart from the tokens themselves.

    Attributes:
        sha256: of the picture.
        bundle: fingerprint of the bundle that made them.
        source: of an attached collection, the value that named the picture.
        precision: what the image encoder computed in.
        fields: of a gallery of our own, the payload fields that indexing wrote; None for a record that lacks them.
        views: of a point with several pictures, a mark of all that it named.
        vector: of an attached collection, the first numbers of the vector; empty for a record that lacks them.
    """

    sha256: str
    bundle: str
    source: str | None = None
    precision: str = "float32"
    fields: tuple[str, ...] | None = None
    views: str | None = None
    vector: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class HitTokens:
    """The tokens of one picture, or why there are none: exactly one of ``data`` and ``problem`` is None.

    Attributes:
        point_id: of the gallery's point.
        data: as the token codec wrote them.
        problem: why there are none.
        sha256: of the picture that they are of, None where there is no record.
        view: the source of the picture among several of one point, None for the only one.
        is_outdated: the point named other pictures beside this one when it was indexed, so its vector is of those.
    """

    point_id: PointId
    data: bytes | None
    problem: TokensProblem | None
    sha256: str | None = None
    view: str | None = None
    is_outdated: bool = False


@dataclass(frozen=True, slots=True)
class StoredImage:
    """All that is stored of an image; ``vector`` is float32 [D], unit length, of the picture that ``tokens`` are of."""

    image: KnownImage
    vector: Float32
    tokens: HitTokens


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the two halves of a gallery lie, and how their points are read.

    A gallery of our own makes point ids of image ids, and ``_cir`` in the payload says what a point is. An attached one
    lies inside the user's collection: ids and payload are the user's, a path into the payload names the picture, and
    all that we know of the picture stands in the companion's record under the same id.

    Attributes:
        gallery: the collection that is searched.
        companion: the collection of tokens.
        vector: the named vector that is searched.
        picture: where an attached collection's payload names its pictures; None for a gallery of our own.
        version: of an attached collection, a payload field that changes when the picture does; None for none.
    """

    gallery: str
    companion: str
    vector: str = VECTOR_NAME
    picture: PayloadPath | None = None
    version: PayloadPath | None = None

    def point_id(self, image_id: str | PointId) -> PointId:
        """Return the id of the point that holds an image. Raises InputError for what cannot be one."""
        checked_id(image_id, name="An image id")
        if self.picture is None:
            return point_id_of(str(image_id))
        found = read_point_id(image_id)
        if found is None:
            raise InputError(
                f"{shown(image_id)} is no id of a point of {self.gallery!r}. Expected an unsigned integer of 64 bits "
                "or a UUID."
            )
        return found

    def known(self, point: Record | Hit) -> KnownImage | None:
        """Return what a gallery's point says of its image; None for a point that we did not write."""
        if self.picture is not None:
            views = self.picture.strings(point.payload)
            return KnownImage(
                image_id=str(point.point_id),
                point_id=point.point_id,
                source=views[0] if views else None,
                sha256=None,
                payload=point.payload,
                bundle=None,
                views=views if self.picture.is_many else views[:1],
            )
        ours = point.payload.get(RESERVED)
        if not isinstance(ours, dict) or not {"id", "sha256"} <= ours.keys():
            return None
        source = ours.get("source")
        return KnownImage(
            image_id=str(ours["id"]),
            point_id=point.point_id,
            source=source if isinstance(source, str) else None,
            sha256=str(ours["sha256"]),
            payload={key: value for key, value in point.payload.items() if key != RESERVED},
            bundle=_bundle_in(ours),
            precision=str(ours.get("precision", "float32")),
        )

    @property
    def is_many(self) -> bool:
        """Whether a point has several pictures."""
        return self.picture is not None and self.picture.is_many

    def record_ids(self, image: KnownImage) -> list[PointId]:
        """Return the ids under which the companion holds an image's tokens: one, or one per view."""
        if not self.is_many:
            return [image.point_id]
        return [view_id_of(image.point_id, view) for view in image.views]

    def reads_all(self, payload: Mapping[str, JsonValue]) -> bool:
        """Return whether a payload holds what is read of it; a caller may have asked Qdrant for other fields alone."""
        if self.picture is None:
            return RESERVED in payload
        return all(path.values(payload) for path in (self.picture, self.version) if path is not None)

    def version_of(self, payload: Mapping[str, JsonValue]) -> str | None:
        """Return what the payload says of the picture's version; None where nothing is looked at."""
        return None if self.version is None else "\n".join(self.version.texts(payload))

    def tokens(self, image: KnownImage, records: Mapping[PointId, Record]) -> list[HitTokens]:
        """Return the tokens of an image, one entry per view, and what is wrong where there are none."""
        views: Sequence[str | None] = image.views if self.picture is not None else [None]
        if not views:
            return [HitTokens(image.point_id, None, "no picture")]
        return [
            self._tokens(image, records.get(record_id), view=view if self.is_many else None, source=view)
            for record_id, view in zip(self.record_ids(image), views, strict=True)
        ]

    def is_of(self, image: KnownImage, made: TokensRecord, *, source: str | None) -> bool:
        """Whether a record of the companion is of the picture that the gallery's point names now."""
        if self.picture is None:
            return made.sha256 == image.sha256
        version = self.version_of(image.payload)
        return made.source == (source if version is None else f"{source}\n{version}")

    def _tokens(self, image: KnownImage, record: Record | None, *, view: str | None, source: str | None) -> HitTokens:
        made = None if record is None else tokens_record(record)
        if record is None or made is None:
            return HitTokens(image.point_id, None, "missing", view=view)
        if not self.is_of(image, made, source=source):
            return HitTokens(image.point_id, None, "stale", made.sha256, view)
        data = tokens_in(record)
        problem: TokensProblem | None = "damaged" if data is None else None
        is_outdated = self.is_many and made.views != views_mark(image.views)
        return HitTokens(image.point_id, data, problem, made.sha256, view, is_outdated)


def point_id_of(image_id: str) -> UUID:
    """Return the point id of an image id in a gallery of our own: the same in every collection, for ever.

    Raises:
        InputError: the id is empty or not valid Unicode.
    """
    if not image_id:
        raise InputError("The image id is empty. Give every image an id of its own.")
    try:
        return uuid5(_NAMESPACE, image_id)
    except UnicodeEncodeError as error:
        raise InputError(f"The image id {image_id!r} is not valid Unicode text.") from error


def read_point_id(value: object) -> PointId | None:
    """Return a value, or its text, as the id of a point; None for what is none."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
    elif not isinstance(value, str) or len(value) > _LONGEST_ID:
        return None
    elif value.isascii() and value.isdecimal():
        number = int(value)
    else:
        try:
            return UUID(value)
        except ValueError:
            return None
    return number if 0 <= number < 2**64 else None


def view_id_of(point_id: PointId, view: str) -> UUID:
    """Return the id under which the companion holds one view of a point that has several."""
    return uuid5(_NAMESPACE, f"{point_id}\n{view}")


def views_mark(views: Sequence[str]) -> str:
    """Return a short mark of the views of a point, in their order."""
    return str(uuid5(_NAMESPACE, "\n".join(views)))


def gallery_point(image: IndexedImage) -> StoredPoint:
    """Return the searchable half of an image. Raises InputError for a payload with a field named ``_cir``."""
    return StoredPoint(image.point_id, image.vector, labelled(image, image.payload))


def labelled(image: IndexedImage | KnownImage, payload: Mapping[str, JsonValue]) -> JsonObject:
    """Return the payload of a gallery's point: the user's fields and ours."""
    if RESERVED in payload:
        raise InputError(
            f"The payload of the image {image.image_id!r} has a field named {RESERVED!r}, which is kept for this "
            "library. Give the field another name."
        )
    return {**payload, RESERVED: {**_reserved(image), "source": image.source}}


def tokens_point(image: IndexedImage, layout: Layout) -> StoredPoint:
    """Return the half of an image that is fetched by id alone."""
    ours = _reserved(image)
    record_id: PointId = image.point_id
    if layout.picture is None:
        ours["fields"] = list[JsonValue](sorted(image.payload))
    else:
        version = layout.version_of(image.payload)
        ours["source"] = image.source if version is None else f"{image.source}\n{version}"
        ours["vector"] = list[JsonValue](_mark(image.vector))
        if layout.picture.is_many:
            record_id = view_id_of(image.point_id, str(image.source))
            ours["point"] = image.point_id if isinstance(image.point_id, int) else str(image.point_id)
            ours["views"] = views_mark(layout.picture.strings(image.payload))
    payload: JsonObject = {
        RESERVED: ours,
        _TOKENS: base64.b64encode(image.tokens).decode("ascii"),
        _CRC: _bound_crc(image.tokens, record_id, ours),
    }
    return StoredPoint(record_id, None, payload)


def tokens_in(record: Record) -> bytes | None:
    """Return the tokens of a record of the companion, as the token codec wrote them; None where they are damaged.

    The checksum holds the record's id, the picture and the bundle too, so that tokens that were put under another
    image are noticed. Records of earlier versions have none, and are taken as they are.
    """
    ours, text, crc = (record.payload.get(key) for key in (RESERVED, _TOKENS, _CRC))
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return None
    if _CRC in record.payload and (not isinstance(ours, dict) or crc != _bound_crc(data, record.point_id, ours)):
        return None
    return data or None


def _bound_crc(tokens: bytes, record_id: PointId, ours: Mapping[str, JsonValue]) -> int:
    bound = f"{record_id}\n{ours.get('sha256')}\n{ours.get('bundle')}\n"
    return zlib.crc32(tokens, zlib.crc32(bound.encode(errors="replace")))


def tokens_record(record: Record) -> TokensRecord | None:
    """Return what a record of the companion is made from; None for a record that we did not write."""
    ours = record.payload.get(RESERVED)
    if not isinstance(ours, dict) or "sha256" not in ours:
        return None
    source, fields, views = ours.get("source"), ours.get("fields"), ours.get("views")
    return TokensRecord(
        sha256=str(ours["sha256"]),
        bundle=_bundle_in(ours),
        source=source if isinstance(source, str) else None,
        precision=str(ours.get("precision", "float32")),
        fields=tuple(map(str, fields)) if isinstance(fields, list) else None,
        views=views if isinstance(views, str) else None,
        vector=_numbers(ours.get("vector")),
    )


def is_marked(vector: Float32, made: TokensRecord) -> bool:
    """Return whether a vector, float32 [D] or [V, D] of V views, is what was written with a record that has a mark."""
    return any(
        all(abs(one - other) < _TOLERANCE for one, other in zip(_mark(each), made.vector, strict=False))
        for each in vector.reshape(-1, vector.shape[-1])
    )


def _mark(vector: Float32) -> list[float]:
    """Return the first numbers of a vector at unit length, as Qdrant keeps it."""
    length = float(np.linalg.norm(vector)) or 1.0
    return [round(float(number) / length, 4) for number in vector[:_MARKED]]


def _numbers(value: JsonValue) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else []
    return tuple(float(number) for number in numbers if isinstance(number, int | float))


def owner_of(record: Record) -> PointId:
    """Return the id of the gallery's point that a record of the companion belongs to."""
    ours = record.payload.get(RESERVED)
    owner = ours.get("point") if isinstance(ours, dict) else None
    if isinstance(owner, int):
        return owner
    return UUID(owner) if isinstance(owner, str) else record.point_id


def batches_by_bytes(images: Iterable[IndexedImage], *, limit: int) -> Iterator[list[IndexedImage]]:
    """Yield images in batches of at most ``limit`` stored bytes; a larger point is one by itself.

    Images of one point that follow each other, which are its views, stay together.
    """
    batch: list[IndexedImage] = []
    size = 0
    for _, point in groupby(images, key=attrgetter("point_id")):
        views = list(point)
        needs = sum(map(_stored_bytes, views))
        if batch and size + needs > limit:
            yield batch
            batch, size = [], 0
        batch += views
        size += needs
    if batch:
        yield batch


def _stored_bytes(image: IndexedImage) -> int:
    """Estimate from above: base64 of the tokens, or the vector in decimal digits with the payload."""
    return max(len(image.tokens) * 4 // 3, 16 * image.vector.size + 2 * len(repr(image.payload).encode())) + 512


def _reserved(image: IndexedImage | KnownImage) -> JsonObject:
    ours: JsonObject = {"id": image.image_id, "sha256": image.sha256, "bundle": image.bundle}
    if image.precision != "float32":
        ours["precision"] = image.precision
    return ours


def _bundle_in(reserved: Mapping[str, JsonValue]) -> str:
    # compressed images once named the bundle that theirs was fitted from, and a number of the fitting beside it
    return "" if "compression" in reserved else str(reserved.get("bundle"))
