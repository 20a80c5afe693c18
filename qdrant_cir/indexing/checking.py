"""Checks of what is stored: pairs of points and tokens, the tokens themselves, and the vectors.

Repair removes what nothing can use: tokens of no image, tokens that cannot be read, collections of tokens that belong
to no gallery. What it removes of an image, the next run of indexing writes again. Of an attached collection only our
vector and the companion are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import sleep
from typing import Literal, TypeAlias

import numpy as np

from qdrant_cir.arguments import checked_flag
from qdrant_cir.errors import TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.attachment import described_if_whole, is_replaced, list_attachments, replaced_vector
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import RESERVED, KnownImage, owner_of, tokens_in, tokens_record
from qdrant_cir.storage.schema import companions_alone
from qdrant_cir.storage.stores.protocol import PAGE, Record, Store, pages_of
from qdrant_cir.tokens.codec import check_bytes, decode_tokens
from qdrant_cir.types import Float32, PointId

__all__ = ["CheckReport", "Finding", "FindingKind", "check_collection", "check_store"]

FindingKind: TypeAlias = Literal[
    "no tokens",
    "stale tokens",
    "damaged tokens",
    "no vector",
    "no unit vector",
    "orphan tokens",
    "vector without picture",
    "foreign point",
    "companion without gallery",
    "gallery without companion",
    "unreadable collection",
]
"""What is wrong; docs/galleries.md has a sentence on each."""

_INDEX: frozenset[FindingKind] = frozenset(
    {
        "no tokens",
        "stale tokens",
        "damaged tokens",
        "no vector",
        "no unit vector",
        "gallery without companion",
        "unreadable collection",
    }
)
_REMOVE: frozenset[FindingKind] = frozenset({"orphan tokens", "vector without picture", "companion without gallery"})
_HIDDEN: frozenset[FindingKind] = frozenset({"damaged tokens", "no vector", "no unit vector"})
"""What indexing does not see: it compares what stands beside the tokens. Without the record, it encodes again."""

_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1: float16 and Qdrant's own normalisation stay far below."""

_CHECKED = 100
"""Points that are looked at together, with vectors and tokens."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: what it is.
        id: of the image; of tokens without one, of their record; of a collection, its name.
        is_removed: whether repair removed it: all of it, or what keeps indexing from seeing that the image is damaged.
    """

    kind: FindingKind
    id: str
    is_removed: bool = False

    @property
    def needs_index(self) -> bool:
        """Whether the image has to be indexed again."""
        return self.kind in _INDEX

    @property
    def is_open(self) -> bool:
        """Whether something is left to do."""
        return self.needs_index or (self.kind in _REMOVE and not self.is_removed)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found in a gallery.

    Attributes:
        collection: its name.
        vector: that is attached; None for a gallery of our own.
        images: that were looked at.
        findings: what is wrong; nothing of an image that is whole.
    """

    collection: str
    vector: str | None
    images: int
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to do."""
        return not any(finding.is_open for finding in self.findings)

    @property
    def to_index(self) -> tuple[str, ...]:
        """The ids of images that have to be indexed again, each once."""
        return tuple(dict.fromkeys(finding.id for finding in self.findings if finding.needs_index))


def check_collection(
    collection: Collection, bundle: Bundle | None = None, *, repair: bool = False, settle_seconds: float = 1.0
) -> CheckReport:
    """Look at every image of a gallery, and at every record of tokens. Nothing else should write meanwhile.

    Args:
        collection: one of our own, or what is attached.
        bundle: that made it, to check the form of the tokens too; None checks that they are whole.
        repair: remove what can be removed.
        settle_seconds: how long after the first look tokens without an image are looked at again: another process
            may be writing it.

    Raises:
        CollectionMismatchError: the owner of an attached collection has declared another vector under our name.
        StoreError: the store failed, or cannot be written.
    """
    checked_flag(repair, name="repair")
    store, layout = collection.store, collection.layout
    if collection.attachment is not None and is_replaced(store, layout):
        raise replaced_vector(collection.name, layout.vector)
    findings: list[Finding] = []
    images = 0
    paths = [path.field for path in (layout.picture, layout.version) if path is not None]
    for page in pages_of(store, layout.gallery, fields=[*paths] if paths else (RESERVED,), size=_CHECKED):
        ids = [point.point_id for point in page]
        points = store.fetch(
            layout.gallery, ids, with_vectors=True, fields=[*paths] if paths else (RESERVED,), using=layout.vector
        )
        known = [(point, layout.known(point)) for point in points]
        record_ids = [record_id for point, image in known for record_id in _record_ids(collection, point, image)]
        records = {record.point_id: record for record in _fetched(store, layout.companion, record_ids)}
        found = {point.point_id: _wrong_with(collection, point, image, records, bundle) for point, image in known}
        images += sum(image is not None and bool(image.views or layout.picture is None) for _, image in known)
        damaged = [point for point, _ in known if found[point.point_id] in _HIDDEN] if repair else []
        bare = [point for point, _ in known if found[point.point_id] == "vector without picture"] if repair else []
        if damaged:
            owners = {point.point_id for point in damaged}
            store.delete(
                layout.companion, [record_id for record_id, record in records.items() if owner_of(record) in owners]
            )
        if layout.picture is not None and damaged + bare:
            store.clear_vectors(layout.gallery, layout.vector, [point.point_id for point in damaged + bare])
        removed = {point.point_id for point in damaged + bare}
        findings += [
            Finding(kind, str(point.point_id) if image is None else image.image_id, point.point_id in removed)
            for point, image in known
            if (kind := found[point.point_id]) is not None
        ]
    findings += _orphans(collection, repair=repair, settle_seconds=settle_seconds)
    attachment = collection.attachment
    return CheckReport(collection.name, None if attachment is None else attachment.vector, images, tuple(findings))


def check_store(store: Store, name: str | None = None, *, repair: bool = False) -> list[Finding]:
    """Look for companions without a gallery, and galleries without a companion: a killed call may leave them.

    Args:
        store: is searched by the metadata of its collections.
        name: of one gallery, by its own name; None for all.
        repair: drop companions that belong to no gallery. They hold nothing that indexing does not make again.
    """
    found = {each: described_if_whole(store, each) for each in store.collection_names()}
    findings = [
        Finding("companion without gallery" if is_companion else "gallery without companion", each)
        for each, is_companion in companions_alone(found)
    ]
    attached: dict[str, str] = {}
    for attachment in list_attachments(store):
        if attachment.collection in found:
            described = found[attachment.collection]
            # what is damaged may be restored
            is_alone = described is not None and attachment.vector not in described.vectors
        else:
            is_alone = True
        if is_alone:
            attached[attachment.layout.companion] = attachment.collection
    findings += [Finding("companion without gallery", companion) for companion in attached]
    if name is not None:
        findings = [
            finding for finding in findings if name in (finding.id, attached.get(finding.id), _gallery_of(finding.id))
        ]
    if not repair:
        return findings
    for finding in findings:
        if finding.kind == "companion without gallery":
            store.drop(finding.id)
    return [replace(finding, is_removed=finding.kind == "companion without gallery") for finding in findings]


def _gallery_of(companion: str) -> str:
    return companion.removesuffix("__tokens")


def _record_ids(collection: Collection, point: Record, image: KnownImage | None) -> list[PointId]:
    return [point.point_id] if image is None else collection.layout.record_ids(image)


def _fetched(store: Store, name: str, ids: Sequence[PointId]) -> Sequence[Record]:
    return store.fetch(name, ids, with_vectors=False) if ids else []


def _wrong_with(
    collection: Collection,
    point: Record,
    image: KnownImage | None,
    records: Mapping[PointId, Record],
    bundle: Bundle | None,
) -> FindingKind | None:
    """Return what is wrong with a point, the first thing that is found; None for nothing."""
    layout = collection.layout
    if image is None:
        # with a record of tokens it is an image of ours whose payload was overwritten; indexing heals it
        return "stale tokens" if point.point_id in records else "foreign point"
    if layout.picture is None and layout.point_id(image.image_id) != point.point_id:
        return "foreign point"
    if layout.picture is not None and not image.views:
        return None if point.vector is None else "vector without picture"
    if point.vector is None:
        return "no vector"
    if not _is_unit(point.vector):
        return "no unit vector"
    wanted = bundle.fingerprint if bundle is not None else image.bundle
    for entry, record_id in zip(layout.tokens(image, records), layout.record_ids(image), strict=True):
        if entry.problem == "missing":
            return "no tokens"
        if entry.problem == "stale":
            return "stale tokens"
        record = records[record_id]
        made = tokens_record(record)
        data = tokens_in(record)
        if data is None:
            return "damaged tokens"
        if made is None or (wanted is not None and made.bundle != wanted):
            return "stale tokens"
        try:
            check_bytes(data)
            if bundle is not None:
                decode_tokens([data], bundle.manifest.sizes)
        except TokensError:
            return "damaged tokens"
    return None


def _is_unit(vector: Float32) -> bool:
    lengths = np.linalg.norm(vector.astype(np.float64), axis=-1)
    return bool(np.all(np.abs(lengths - 1) <= _TOLERANCE))


def _orphans(collection: Collection, *, repair: bool, settle_seconds: float) -> Iterator[Finding]:
    """Find the tokens whose image is gone, or names another picture now, and delete them if asked to."""
    pages = pages_of(collection.store, collection.layout.companion, fields=(RESERVED,))
    orphans = [orphan for records in pages for orphan in collection.orphans(records)]
    if orphans and collection.attachment is None:
        sleep(settle_seconds)
    for start in range(0, len(orphans), PAGE):
        still = collection.orphans(orphans[start : start + PAGE])
        if repair:
            collection.store.delete(collection.layout.companion, [record.point_id for record in still])
        for record in still:
            made = record.payload.get(RESERVED)
            image_id = made.get("id") if isinstance(made, dict) else None
            yield Finding("orphan tokens", str(record.point_id if image_id is None else image_id), repair)
