"""A gallery inside a collection that stands: one named vector of its points, and a companion with all bookkeeping.

Nothing of the user's is written but that vector, and no point is ever deleted. What belongs to what stands in the
companion's metadata.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from itertools import islice

from qdrant_cir.errors import CollectionMismatchError, CollectionNotFoundError, InputError, StoreError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.collection_options import of_companion
from qdrant_cir.storage.payload_path import PayloadPath
from qdrant_cir.storage.points import RESERVED, Layout, is_marked, owner_of, tokens_record
from qdrant_cir.storage.reads import GalleryReads
from qdrant_cir.storage.schema import FORMAT_VERSION, GallerySpec, lost_vector
from qdrant_cir.storage.steps import Read, Steps
from qdrant_cir.storage.stores.checks import check_vector_name
from qdrant_cir.storage.stores.opening import describe_companion, name_companion
from qdrant_cir.storage.stores.protocol import CollectionSpec, Store, VectorSpec, pages_of
from qdrant_cir.types import AddressLimits, JsonObject

__all__ = [
    "Attachment",
    "attach_collection",
    "attached_vectors",
    "companion_name",
    "described_if_whole",
    "detach_collection",
    "is_replaced",
    "list_attachments",
    "open_attached",
    "replaced_vector",
]

logger = logging.getLogger(__name__)

ROLE = "attached"
_BATCH = 1000
_LOOKED_AT, _LOOKS = 64, 16
"""Records that are looked at together, and how many times, for one whose point has a vector."""

_SIZES = {"max_collection_vector_size_bytes", "max_collection_payload_size_bytes", "max_points_count"}
"""Limits of strict mode that are about what one collection holds, and not about calls."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """How a gallery lies in the user's collection; kept in the companion's metadata.

    Attributes:
        collection: the user's, by its own name.
        vector: the named vector that we fill.
        picture: path of the picture in the payload.
        version: path of a payload field that changes when the picture does; None for none.
        made_vector: whether attaching made the vector, so that detaching removes it.
        root: folder that pictures must lie below; None for any.
        private_addresses: whether pictures may be opened from addresses of a private network.
        address_limits: of a picture that is opened by its address; None for the usual ones.
    """

    collection: str
    vector: str
    picture: str
    version: str | None = None
    made_vector: bool = True
    root: str | None = None
    private_addresses: bool = False
    address_limits: AddressLimits | None = None

    @property
    def layout(self) -> Layout:
        """Where its halves lie. Raises InputError for what is no path."""
        return Layout(
            gallery=self.collection,
            companion=companion_name(self.collection, self.vector),
            vector=self.vector,
            picture=PayloadPath.parse(self.picture),
            version=None if self.version is None else PayloadPath.parse(self.version),
        )

    def metadata(self, bundle: Bundle) -> JsonObject:
        """Return what the companion keeps."""
        return {
            RESERVED: {
                "format_version": FORMAT_VERSION,
                "role": ROLE,
                "fingerprint": bundle.fingerprint,
                "bundle_name": bundle.manifest.name,
                "collection": self.collection,
                "vector": self.vector,
                "picture": self.picture,
                "version": self.version,
                "made_vector": self.made_vector,
                "root": self.root,
                "private_addresses": self.private_addresses,
                "address_limits": None if self.address_limits is None else asdict(self.address_limits),
            }
        }


def companion_name(collection: str, vector: str) -> str:
    """Return the name of an attached gallery's companion."""
    return f"{collection}__{vector}"


def attach_collection(store: Store, wanted: Attachment, bundle: Bundle, *, overwrite: bool = False) -> Attachment:
    """Add the vector and the companion to a collection that stands; what stands of them already is checked and kept.

    Args:
        store: where the collection is.
        wanted: what to attach; an alias is resolved.
        bundle: whose vectors and tokens it will hold.
        overwrite: fill a vector that stood before and holds values that are not ours.

    Returns:
        The attachment as it stands now.

    Raises:
        CollectionNotFoundError: there is no such collection.
        CollectionMismatchError: the vector stands in another size or distance or holds values that are not ours, or
            a companion of another bundle or picture field stands.
        InputError: a path or a name cannot be used.
    """
    if not isinstance(wanted.vector, str) or wanted.vector in ("", "tokens"):
        raise InputError(f"A vector named {wanted.vector!r} cannot be attached. Choose another name with vector=.")
    collection = store.resolve(wanted.collection)
    found = store.describe(collection)
    if found is None:
        raise CollectionNotFoundError(f"There is no collection {wanted.collection!r} to attach to.")
    if isinstance(found.metadata.get(RESERVED), dict):
        raise CollectionMismatchError(
            f"{collection!r} is a collection that qdrant-cir made. Open it with Gallery.open instead; `index` and "
            "`search` take it as it is."
        )
    companion = companion_name(collection, wanted.vector)
    check_vector_name(wanted.vector, wanted.collection, companion)
    layout = Attachment(collection, wanted.vector, wanted.picture, wanted.version).layout
    spec = VectorSpec(bundle.manifest.vector_size, is_multi=layout.picture is not None and layout.picture.is_many)
    vector_stands = wanted.vector in found.vectors
    described = describe_companion(store, companion, wanted.collection)
    standing = None if described is None else _attachment_of(collection, wanted.vector, described)
    if vector_stands:
        if standing is not None and described is not None:
            # a bundle of another size is named as such
            _check_bundle(standing, described, bundle)
        _check_vector(collection, wanted.vector, found.vectors[wanted.vector], spec)
    if standing is not None and vector_stands and is_replaced(store, standing.layout):
        if not overwrite:
            raise replaced_vector(collection, wanted.vector)
        store.drop(companion)
        standing = described = None
    if standing is not None and described is not None and not vector_stands:
        # the collection was dropped and made again under its name, or the vector was removed by hand
        logger.warning("%s has no vector %r any more; its old tokens are removed", collection, wanted.vector)
        store.drop(companion)
        standing = described = None
    if standing is not None and described is not None:
        _check_standing(standing, wanted, described, bundle)
        if wanted.address_limits not in (None, standing.address_limits):
            standing = replace(standing, address_limits=wanted.address_limits)
            store.update_metadata(companion, standing.metadata(bundle))
        return standing
    if vector_stands and not overwrite and _holds_values(store, collection, wanted.vector):
        raise CollectionMismatchError(
            f"The vector {wanted.vector!r} of {collection!r} holds values that qdrant-cir did not write, or of which "
            "the tokens are gone. Choose another name with vector= (--vector), or give overwrite=True (--overwrite) to "
            "replace them."
        )
    made = Attachment(
        collection,
        wanted.vector,
        wanted.picture,
        wanted.version,
        made_vector=not vector_stands,
        root=wanted.root,
        private_addresses=wanted.private_addresses,
        address_limits=wanted.address_limits,
    )
    # the companion first: it says whether the vector is ours to remove
    # and it lies as the collection does: a search needs both
    store.create(companion, CollectionSpec(None, made.metadata(bundle), placement=_of_companion(found)))
    if not vector_stands:
        try:
            store.add_vector(collection, wanted.vector, spec)
        except BaseException:
            store.drop(companion)
            raise
    return made


def open_attached(collection: str, vector: str, bundle: Bundle | None = None) -> Steps[tuple[GalleryReads, Attachment]]:
    """Look at an attached gallery.

    Raises:
        CollectionNotFoundError: there is no such collection, or nothing of ours is attached to it under this vector.
        CollectionMismatchError: it was attached with another bundle.
    """
    resolved: str = yield Read(lambda store: store.resolve(collection))
    found: CollectionSpec | None = yield Read(lambda store: store.describe(resolved))
    if found is None:
        raise CollectionNotFoundError(f"There is no collection {collection!r}.")
    companion = companion_name(resolved, vector)
    described: CollectionSpec | None = yield Read(lambda store: describe_companion(store, companion, collection))
    if described is None:
        raise CollectionNotFoundError(
            f"Nothing is attached to {collection!r} under the vector {vector!r}. Attach first: qdrant_cir.attach(...), "
            f"or `qdrant-cir attach -c {collection} --picture FIELD --vector {vector}`."
        )
    standing = _attachment_of(resolved, vector, described)
    if vector not in found.vectors:
        raise lost_vector(collection, vector)
    if bundle is not None:
        _check_bundle(standing, described, bundle)
    ours = _ours(companion, described)
    spec = GallerySpec(str(ours.get("fingerprint")), str(ours.get("bundle_name")), found.vectors[vector].size)
    return GalleryReads(standing.layout, spec, described.metadata), standing


def attached_vectors(store: Store, collection: str) -> list[str]:
    """Return the vectors that are attached to a collection, sorted; ``collection`` is its own name, no alias."""
    begin = companion_name(collection, "")
    vectors = []
    for name in store.collection_names():
        if not name.startswith(begin):
            continue
        name_companion(store, name, collection)
        described = described_if_whole(store, name)
        ours = None if described is None else described.metadata.get(RESERVED)
        if isinstance(ours, dict) and ours.get("role") == ROLE and ours.get("collection") == collection:
            vectors.append(str(ours.get("vector")))
        else:
            name_companion(store, name, None)
    return sorted(vectors)


def list_attachments(store: Store) -> list[Attachment]:
    """List all that is attached in a store, by collection and vector; also what a killed call left half attached."""
    found = []
    for name in store.collection_names():
        described = described_if_whole(store, name) if "__" in name else None
        ours = None if described is None else described.metadata.get(RESERVED)
        if described is not None and isinstance(ours, dict) and ours.get("role") == ROLE:
            found.append(_attachment_of(str(ours.get("collection")), str(ours.get("vector")), described))
    return sorted(found, key=lambda attachment: (attachment.collection, attachment.vector))


def described_if_whole(store: Store, name: str) -> CollectionSpec | None:
    """Describe a collection; None where there is none, or where damage to its files keeps it from being read.

    Raises:
        StoreError: a server failed.
    """
    try:
        return store.describe(name)
    except StoreError:
        from qdrant_cir.storage.stores.edge import EdgeStore

        # one damaged collection must not hide the others of its folder
        if not isinstance(store, EdgeStore):
            raise
        return None


def detach_collection(store: Store, attachment: Attachment) -> bool:
    """Leave the collection as it was: remove the companion, and the vector if attaching made it, else our values.

    May be repeated; killed in between, the next call goes on. Of a collection that is gone, the companion is removed.
    A vector that its owner declared again meanwhile is left with all its values.

    Returns:
        Whether the vector, or our values, are gone; False for one that is left.
    """
    layout = attachment.layout
    described = store.describe(layout.companion)
    if described is None:
        # whatever stands under the name of our vector now came after us
        return True
    # what is attached now may have been attached by another process since this one looked
    standing = _attachment_of(attachment.collection, attachment.vector, described)
    is_left = False
    found = store.describe(layout.gallery)
    if found is not None and layout.vector in found.vectors:
        is_left = is_replaced(store, layout)
        if is_left:
            logger.warning(
                "The vector %r of %s holds values that qdrant-cir did not write. It is left as it is.",
                layout.vector,
                layout.gallery,
            )
        elif standing.made_vector:
            store.remove_vector(layout.gallery, layout.vector)
        else:
            for records in pages_of(store, layout.companion, fields=(RESERVED,), size=_BATCH):
                store.clear_vectors(
                    layout.gallery, layout.vector, list(dict.fromkeys(owner_of(record) for record in records))
                )
    store.drop(layout.companion)
    return not is_left


def is_replaced(store: Store, layout: Layout) -> bool:
    """Return whether the vector is another one than we filled: removed and declared again by the collection's owner.

    Looks at points whose picture is the one that we encoded. It is another one where some of them have a vector and
    not one has ours.
    """
    has_values = False
    fields = [path.field for path in (layout.picture, layout.version) if path is not None]
    for records in islice(pages_of(store, layout.companion, fields=(RESERVED,), size=_LOOKED_AT), _LOOKS):
        marked = [(owner_of(record), made) for record in records if (made := tokens_record(record)) and made.vector]
        points = store.fetch(
            layout.gallery,
            list(dict.fromkeys(point_id for point_id, _ in marked)),
            with_vectors=True,
            fields=fields,
            using=layout.vector,
        )
        standing = {point.point_id: point for point in points}
        for point_id, made in marked:
            point = standing.get(point_id)
            image = None if point is None else layout.known(point)
            if point is None or point.vector is None or image is None:
                continue
            if any(layout.is_of(image, made, source=view) for view in image.views):
                if is_marked(point.vector, made):
                    return False
                has_values = True
    return has_values


def replaced_vector(collection: str, vector: str) -> CollectionMismatchError:
    """Return what is wrong with a vector that somebody else declared again under our name."""
    return CollectionMismatchError(
        f"The vector {vector!r} of {collection!r} holds values that qdrant-cir did not write: it was removed and "
        "declared again. Attach under another name with vector= (--vector), or give overwrite=True (--overwrite) to "
        "replace them. Detaching removes the tokens and leaves this vector."
    )


def _of_companion(found: CollectionSpec) -> dict[str, object]:
    """Return how the companion lies: as the collection does, without its limits of points and bytes."""
    placement = of_companion(found.placement)
    if (strict := placement.get("strict_mode_config")) is not None:
        from qdrant_client.models import StrictModeConfig

        if isinstance(strict, StrictModeConfig):
            limits = strict.model_dump(exclude_none=True, exclude=_SIZES)
            placement["strict_mode_config"] = StrictModeConfig.model_validate(limits)
    return placement


def _check_vector(collection: str, name: str, found: VectorSpec, wanted: VectorSpec) -> None:
    if found != wanted:
        raise CollectionMismatchError(
            f"The vector {name!r} of {collection!r} is {_described(found)}; the bundle needs {_described(wanted)}. "
            "Choose another name with vector= (--vector)."
        )


def _described(spec: VectorSpec) -> str:
    return f"{'a multivector' if spec.is_multi else 'a vector'} of {spec.size} numbers by {spec.distance}"


def _holds_values(store: Store, collection: str, vector: str) -> bool:
    from qdrant_client import models

    having = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
    return bool(store.scroll(collection, filter=having, limit=1, after=None, fields=()))


def _check_standing(standing: Attachment, wanted: Attachment, described: CollectionSpec, bundle: Bundle) -> None:
    _check_bundle(standing, described, bundle)
    for what, before, now in (
        ("picture", standing.picture, wanted.picture),
        ("version", standing.version, wanted.version),
    ):
        if before != now:
            raise CollectionMismatchError(
                f"{standing.collection!r} was attached under {standing.vector!r} with {what}={before!r}, not {now!r}. "
                "Attach with the same, or detach first."
            )


def _check_bundle(standing: Attachment, described: CollectionSpec, bundle: Bundle) -> None:
    ours = _ours(standing.collection, described)
    if ours.get("fingerprint") != bundle.fingerprint:
        raise CollectionMismatchError(
            f"{standing.collection!r} was attached under {standing.vector!r} with the bundle "
            f"{ours.get('bundle_name')!r} ({str(ours.get('fingerprint'))[:12]}), not {bundle.manifest.name!r} "
            f"({bundle.fingerprint[:12]}). Use that bundle, or attach this one under another vector name."
        )


def _attachment_of(collection: str, vector: str, described: CollectionSpec) -> Attachment:
    """Return what a companion says. Raises CollectionMismatchError where it is not of this collection and vector."""
    companion = companion_name(collection, vector)
    ours = _ours(companion, described)
    if (ours.get("collection"), ours.get("vector")) != (collection, vector):
        # a__b__c is of the vector b__c of a, and of the vector c of a__b
        raise CollectionMismatchError(
            f"The collection {companion!r}, where the tokens would be stored, belongs to the vector "
            f"{ours.get('vector')!r} of {ours.get('collection')!r}. Choose another vector name."
        )
    version, root = ours.get("version"), ours.get("root")
    return Attachment(
        collection=str(ours.get("collection")),
        vector=str(ours.get("vector")),
        picture=str(ours.get("picture")),
        version=version if isinstance(version, str) else None,
        made_vector=ours.get("made_vector") is True,
        root=root if isinstance(root, str) else None,
        private_addresses=ours.get("private_addresses") is True,
        address_limits=_limits_of(ours),
    )


def _limits_of(ours: JsonObject) -> AddressLimits | None:
    """Return the limits of addresses that a companion names; None where it names none."""
    limits = ours.get("address_limits")
    if not isinstance(limits, dict):
        return None
    most, seconds = limits.get("max_bytes"), limits.get("seconds")
    if not isinstance(most, int) or not isinstance(seconds, int | float):
        return None
    return AddressLimits(max_bytes=most, seconds=seconds)


def _ours(companion: str, described: CollectionSpec) -> JsonObject:
    ours = described.metadata.get(RESERVED)
    if not isinstance(ours, dict) or ours.get("role") != ROLE:
        raise CollectionMismatchError(
            f"There is a collection {companion!r} of another origin, where the tokens would lie. Choose another vector "
            "name."
        )
    if ours.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"What is attached to {ours.get('collection')!r} under the vector {ours.get('vector')!r} has the format "
            f"version {ours.get('format_version')!r}; this version of qdrant-cir reads {FORMAT_VERSION}. Install the "
            "version that wrote it."
        )
    return ours
