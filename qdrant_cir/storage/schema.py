"""The two Qdrant collections of a gallery: their names, metadata and checks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdrant_cir.arguments import checked_text
from qdrant_cir.errors import (
    CollectionError,
    CollectionMismatchError,
    CollectionNotFoundError,
    InputError,
)
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.collection_options import CollectionOptions, check_options, of_companion
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
    "companions_alone",
    "field_names",
    "gallery_names",
    "gallery_specs",
    "having",
    "lost_tokens",
    "lost_vector",
    "not_found",
    "tokens_name",
    "unknown_field",
]

FORMAT_VERSION = 1
_TOKENS_SUFFIX = "__tokens"

SAMPLE = 100
"""Points that are read to find the fields that exist."""


class OtherVersionError(CollectionMismatchError):
    """The collection was made with another version of the bundle, which has the same name."""


@dataclass(frozen=True, slots=True)
class GallerySpec:
    """The model that a gallery was made with: bundle name, and fingerprint and size of its vectors."""

    fingerprint: str
    bundle_name: str
    vector_size: int


def tokens_name(name: str) -> str:
    """Name the companion collection. Raises InputError where ``name`` itself is a companion's."""
    if checked_text(name, name="The name of a collection").endswith(_TOKENS_SUFFIX):
        raise InputError(
            f"{name!r} cannot name a gallery: names that end in {_TOKENS_SUFFIX!r} are reserved for tokens."
        )
    return name + _TOKENS_SUFFIX


def gallery_names(names: Iterable[str]) -> list[str]:
    """Return the names of collections that have a companion, sorted."""
    every = set(names)
    return sorted(name for name in every if name + _TOKENS_SUFFIX in every)


def companions_alone(found: Mapping[str, CollectionSpec | None]) -> list[tuple[str, bool]]:
    """Return the halves of galleries of our own that stand alone, sorted, and whether each is the companion."""
    alone = []
    for name, spec in sorted(found.items()):
        ours = None if spec is None else spec.metadata.get(RESERVED)
        role = ours.get("role") if isinstance(ours, dict) else None
        if role == "tokens" and name.removesuffix(_TOKENS_SUFFIX) not in found:
            alone.append((name, True))
        if role == "gallery" and name + _TOKENS_SUFFIX not in found:
            alone.append((name, False))
    return alone


def gallery_specs(
    bundle: Bundle,
    options: CollectionOptions = CollectionOptions(),  # noqa: B008 - frozen
) -> tuple[CollectionSpec, CollectionSpec]:
    """Return the specifications of the gallery and its companion, in this order."""
    check_options(options)

    def spec(role: str, vector_size: int | None) -> CollectionSpec:
        ours: JsonObject = {
            "format_version": FORMAT_VERSION,
            "role": role,
            "fingerprint": bundle.vectors_fingerprint,
            "bundle_name": bundle.manifest.name,
        }
        placement = of_companion(options.given) if vector_size is None else options.given
        return CollectionSpec(vector_size=vector_size, metadata={RESERVED: ours}, placement=placement)

    return spec("gallery", bundle.manifest.vector_size), spec("tokens", None)


def check_pair(name: str, gallery: CollectionSpec, tokens: CollectionSpec | None, bundle: Bundle | None) -> GallerySpec:
    """Check the two collections of a gallery.

    Args:
        name: of the gallery.
        gallery: as the store describes it.
        tokens: the companion, None where there is none.
        bundle: that the gallery is to be used with; None for any.

    Raises:
        CollectionMismatchError: another bundle, another version of this library or another program made it.
        CollectionError: the companion is missing.
    """
    spec = _spec_of(name, gallery, role="gallery")
    if tokens is None:
        raise lost_tokens(name, vector=None)
    companion = _spec_of(tokens_name(name), tokens, role="tokens")
    wanted = spec.fingerprint if bundle is None else bundle.vectors_fingerprint
    for found in (spec, companion):
        if found.fingerprint != wanted:
            expected = "one bundle for both halves" if bundle is None else repr(bundle.manifest.name)
            is_version = bundle is not None and found.bundle_name == bundle.manifest.name
            raise (OtherVersionError if is_version else CollectionMismatchError)(
                f"The collection {name!r} was made with the bundle {found.bundle_name!r} "
                f"({found.fingerprint[:12]}); expected {'another version of it' if is_version else expected} "
                f"({wanted[:12]}). Use that bundle, or index the images into another collection."
            )
    if bundle is not None and spec.vector_size != bundle.manifest.vector_size:
        raise CollectionMismatchError(
            f"The collection {name!r} holds vectors of {spec.vector_size} numbers; the bundle makes "
            f"{bundle.manifest.vector_size}. Drop the collection and index the images again."
        )
    return spec


def not_found(name: str, names: Iterable[str]) -> CollectionNotFoundError:
    """Return the error for a gallery that does not exist; it names those that do, attached ones too."""
    every = sorted(names)
    others = ", ".join(each for each in every if any(other.startswith(f"{each}__") for other in every))
    return CollectionNotFoundError(
        f"There is no collection {name!r}. "
        + (f"There is: {others}." if others else "There are none yet: index images first.")
    )


def lost_vector(name: str, vector: str) -> CollectionError:
    """Return what is wrong with a collection to which a vector was attached that it has no more."""
    return CollectionError(
        f"{name!r} has no vector {vector!r} any more: the collection was made again, or the vector was removed. "
        "Attach and index again."
    )


def lost_tokens(name: str, *, vector: str | None) -> CollectionError:
    """Return what is wrong with a gallery without tokens; ``vector`` is the attached one, None for one of our own."""
    gone = f"The collection {name!r} has lost its tokens."
    if vector is None:
        return CollectionError(f"{gone} Index the images again, which makes it anew.")
    return CollectionError(
        f"{gone} Attach again and index; the vector {vector!r} still holds values, so attach with overwrite=True "
        "(--overwrite)."
    )


def having(field: str) -> Filter:
    """Return the filter for images whose field is not empty."""
    from qdrant_client.models import Filter, IsEmptyCondition, PayloadField

    return Filter(must_not=[IsEmptyCondition(is_empty=PayloadField(key=field))])


def field_names(records: Iterable[Record]) -> tuple[str, ...]:
    """List the user's payload fields that the points have, sorted."""
    return tuple(sorted({key for record in records for key in record.payload} - {RESERVED}))


_PLAIN_NAME = re.compile(r"[\w-]+")


def unknown_field(name: str, field: str, fields: Sequence[str], *, named_by: str = "The filter") -> InputError:
    """Return the error for a filter, or another argument, on a field that no image has; it names those that exist.

    They are written as in a filter, so that it never denies a field and lists it.
    """
    written = [known if _PLAIN_NAME.fullmatch(known) else f'"{known}"' for known in fields]
    is_quoted = any(known.startswith('"') for known in written)
    return InputError(
        f"{named_by} names the field {field!r}, which no image of the collection {name!r} has. "
        f"Fields that images have: {', '.join(written) or 'none'}."
        + (" Give a name in double quotes with them; without them a dot is a step." if is_quoted else "")
    )


def _spec_of(name: str, found: CollectionSpec, *, role: str) -> GallerySpec:
    ours = found.metadata.get(RESERVED)
    if isinstance(ours, dict) and (attached_to := ours.get("collection")) is not None:
        raise CollectionMismatchError(
            f"The collection {name!r} holds the tokens of {attached_to!r}, to which it is attached. Name that one."
        )
    if not isinstance(ours, dict) or ours.get("role") != role:
        raise CollectionMismatchError(
            f"The collection {name!r} was not made by this library as a {role} collection. Use another name"
            + (", or join it with qdrant_cir.attach(...) or `qdrant-cir attach`." if role == "gallery" else ".")
        )
    if ours.get("format_version") != FORMAT_VERSION:
        raise CollectionMismatchError(
            f"The collection {name!r} has the format version {ours.get('format_version')!r}; this version of "
            f"qdrant-cir reads {FORMAT_VERSION}. Install the version that wrote it, or "
            "index the images again."
        )
    return GallerySpec(
        fingerprint=str(ours.get("fingerprint")),
        bundle_name=str(ours.get("bundle_name")),
        vector_size=found.vector_size or 0,
    )
