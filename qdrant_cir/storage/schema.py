"""What makes two collections of Qdrant a gallery: names, metadata, and the check of both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdrant_cir.errors import (
    CollectionError,
    CollectionMismatchError,
    CollectionNotFoundError,
    InputError,
)
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.points import RESERVED
from qdrant_cir.storage.stores.protocol import CollectionSpec, Record
from qdrant_cir.types import JsonObject

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = [
    "FORMAT_VERSION",
    "SAMPLE",
    "GallerySpec",
    "check_pair",
    "field_names",
    "gallery_names",
    "gallery_specs",
    "having",
    "not_found",
    "tokens_name",
    "unknown_field",
]

FORMAT_VERSION = 1
_TOKENS_SUFFIX = "__tokens"

SAMPLE = 100
"""Points that are read to learn which fields there are."""


@dataclass(frozen=True, slots=True)
class GallerySpec:
    """What a gallery was made for: bundle name and the fingerprint of its vectors, and the size of its vectors."""

    fingerprint: str
    bundle_name: str
    vector_size: int


def tokens_name(name: str) -> str:
    """Name the companion collection. Raises InputError where ``name`` itself is a companion's."""
    if name.endswith(_TOKENS_SUFFIX):
        raise InputError(
            f"{name!r} cannot name a gallery: names that end in {_TOKENS_SUFFIX!r} are kept for the tokens beside it."
        )
    return name + _TOKENS_SUFFIX


def gallery_names(names: Iterable[str]) -> list[str]:
    """Choose from the collections of a store those that have a companion, sorted."""
    every = set(names)
    return sorted(name for name in every if name + _TOKENS_SUFFIX in every)


def gallery_specs(bundle: Bundle) -> tuple[CollectionSpec, CollectionSpec]:
    """Give what the gallery and its companion are made of, in this order."""

    def spec(role: str, vector_size: int | None) -> CollectionSpec:
        ours: JsonObject = {
            "format_version": FORMAT_VERSION,
            "role": role,
            "fingerprint": bundle.vectors_fingerprint,
            "bundle_name": bundle.manifest.name,
        }
        return CollectionSpec(vector_size=vector_size, metadata={RESERVED: ours})

    return spec("gallery", bundle.manifest.vector_size), spec("tokens", None)


def check_pair(name: str, gallery: CollectionSpec, tokens: CollectionSpec | None, bundle: Bundle | None) -> GallerySpec:
    """Check what stands under a gallery's two names.

    Args:
        name: of the gallery.
        gallery: as the store describes it.
        tokens: the companion, None where there is none.
        bundle: that the gallery is to be used with; None for any.

    Raises:
        CollectionMismatchError: another bundle made it, a later version of this library, or somebody else.
        CollectionError: the companion is missing.
    """
    spec = _spec_of(name, gallery, role="gallery")
    if tokens is None:
        raise CollectionError(
            f"The collection {name!r} has lost its tokens: there is no collection {tokens_name(name)!r}. "
            "Index the "
            "images again, which makes it anew."
        )
    companion = _spec_of(tokens_name(name), tokens, role="tokens")
    wanted = spec.fingerprint if bundle is None else bundle.vectors_fingerprint
    for found in (spec, companion):
        if found.fingerprint != wanted:
            expected = "one bundle for both halves" if bundle is None else repr(bundle.manifest.name)
            raise CollectionMismatchError(
                f"The collection {name!r} was made with the bundle {found.bundle_name!r} "
                f"({found.fingerprint[:12]}); "
                f"expected {expected} ({wanted[:12]}). Their vectors cannot be compared: use that bundle, or "
                "index the "
                "images into another collection."
            )
    if bundle is not None and spec.vector_size != bundle.manifest.vector_size:
        raise CollectionMismatchError(
            f"The collection {name!r} holds vectors of {spec.vector_size} numbers; the bundle makes "
            f"{bundle.manifest.vector_size}. Drop the collection and index the images again."
        )
    return spec


def not_found(name: str, names: Iterable[str]) -> CollectionNotFoundError:
    """Say that there is no such gallery, and which there are."""
    others = ", ".join(gallery_names(names))
    return CollectionNotFoundError(
        f"There is no collection {name!r}. "
        + (f"There is: {others}." if others else "There is none at all: index images into it first.")
    )


def having(field: str) -> Filter:
    """Give the filter for images in which a field holds something."""
    from qdrant_client.models import Filter, IsEmptyCondition, PayloadField

    return Filter(must_not=[IsEmptyCondition(is_empty=PayloadField(key=field))])


def field_names(records: Iterable[Record]) -> tuple[str, ...]:
    """List the user's payload fields that the points have, sorted."""
    return tuple(sorted({key for record in records for key in record.payload} - {RESERVED}))


def unknown_field(name: str, field: str, fields: Sequence[str]) -> InputError:
    """Say that no image has a field that a filter names, and which fields there are."""
    known = ", ".join(fields) if fields else "none at all"
    return InputError(
        f"The filter names the field {field!r}, which no image of the collection {name!r} has. "
        f"Fields that images have: {known}."
    )


def _spec_of(name: str, found: CollectionSpec, *, role: str) -> GallerySpec:
    ours = found.metadata.get(RESERVED)
    if not isinstance(ours, dict) or ours.get("role") != role:
        raise CollectionMismatchError(
            f"The collection {name!r} was not made by this library as a {role} collection. Use another name."
        )
    if ours.get("format_version") != FORMAT_VERSION:
        raise CollectionMismatchError(
            f"The collection {name!r} has the format version {ours.get('format_version')!r}; this version of "
            f"qdrant-cir reads {FORMAT_VERSION}. Install the version that wrote it, or index the images "
            "again."
        )
    return GallerySpec(
        fingerprint=str(ours.get("fingerprint")),
        bundle_name=str(ours.get("bundle_name")),
        vector_size=found.vector_size or 0,
    )
