"""Hits to re-rank, as a caller passes them: points of any Qdrant answer, ids, and other pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from qdrant_cir.arguments import shown
from qdrant_cir.errors import InputError
from qdrant_cir.storage.points import Layout, read_point_id
from qdrant_cir.types import Candidate, GalleryImage, ImageSource, JsonObject, JsonValue, PointId

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["GivenHit", "GivenHits", "given_hits"]

GivenHits: TypeAlias = "models.QueryResponse | models.GroupsResult | Iterable[object]"
"""A QueryResponse, a GroupsResult or its groups; or points, records, ids, :class:`GalleryImage` and pictures, in their
order."""


@dataclass(frozen=True, slots=True)
class GivenHit:
    """One entry as the gallery sees it; either ``point_id`` or ``picture`` is not None.

    Attributes:
        point_id: of a point of the gallery.
        picture: a path, the bytes of a file or a Pillow image.
        score: stage one's, 0.0 where the entry has none.
        payload: as it came with the point, None where none did.
        point: the entry itself.
        group: the value that its group shares.
    """

    point_id: PointId | None
    picture: ImageSource | None
    score: float
    payload: JsonObject | None
    point: object
    group: JsonValue = None


def given_hits(hits: GivenHits, layout: Layout) -> list[list[GivenHit]]:
    """Return stage one's places, each a single entry or the members of a group.

    Raises:
        InputError: an entry cannot be re-ranked, or a point appears twice outside of groups.
    """
    given = getattr(hits, "groups", getattr(hits, "points", hits))
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"hits is {type(hits).__name__}; expected a list of points, ids or pictures, a QueryResponse or groups."
        )
    entries = list(given)
    are_groups = [hasattr(entry, "hits") for entry in entries]
    if entries and all(are_groups):
        return [[_given(hit, layout, group=group.id) for hit in group.hits] for group in entries if group.hits]
    if any(are_groups):
        raise InputError("hits holds groups and other entries. Give groups alone, or points, ids and pictures.")
    places = [[_given(entry, layout, group=None)] for entry in entries]
    seen: set[PointId] = set()
    for (entry,) in places:
        if entry.point_id is not None and entry.point_id in seen:
            raise InputError(f"The point {entry.point_id} is in hits twice. Give every point once.")
        if entry.point_id is not None:
            seen.add(entry.point_id)
    return places


def _given(entry: object, layout: Layout, *, group: JsonValue) -> GivenHit:
    if isinstance(entry, bool):
        raise _refused(entry)
    if isinstance(entry, Integral | UUID | str):
        return GivenHit(_point_id(entry), None, 0.0, None, entry, group)
    if isinstance(entry, GalleryImage):
        return GivenHit(layout.point_id(entry.image_id), None, 0.0, None, entry, group)
    if isinstance(entry, PurePath | bytes) or hasattr(entry, "convert"):
        return GivenHit(None, entry, 0.0, None, entry, group)  # type: ignore[arg-type]
    if isinstance(entry, Candidate):
        group = entry.group if group is None else group
        if entry.point_id is None:
            # a picture of the caller's, which an earlier call ranked
            return replace(_given(entry.point, layout, group=group), score=entry.retrieval_score)
        return GivenHit(entry.point_id, None, entry.retrieval_score, None, entry, group)
    point_id = getattr(entry, "id", getattr(entry, "point_id", None))
    if not isinstance(point_id, Integral | str | UUID) or isinstance(point_id, bool):
        raise _refused(entry)
    score, payload = getattr(entry, "score", 0.0), getattr(entry, "payload", None)
    return GivenHit(
        _point_id(point_id),
        None,
        float(score) if isinstance(score, int | float) else 0.0,
        dict(payload) if isinstance(payload, Mapping) else None,
        entry,
        group,
    )


def _point_id(value: Integral | str | UUID) -> PointId:
    found = read_point_id(value)
    if found is None:
        raise InputError(
            f"{shown(value)} is not the id of a point: expected an unsigned integer of 64 bits or a UUID. Give a "
            "picture's path as a pathlib.Path, and an image of a gallery as GalleryImage(id)."
        )
    return found


def _refused(entry: object) -> InputError:
    return InputError(
        f"hits holds a {type(entry).__name__}; expected points, records, ids (int, UUID or their text), GalleryImage, "
        "or pictures (Path, bytes or Pillow images)."
    )


def missing_payloads(places: Sequence[Sequence[GivenHit]], layout: Layout) -> list[PointId]:
    """Return the points whose payload lacks what a gallery reads of it, each once."""
    given = [entry for hits in places for entry in hits]
    lacking = [entry.point_id for entry in given if entry.payload is None or not layout.reads_all(entry.payload)]
    return [point_id for point_id in dict.fromkeys(lacking) if point_id is not None]
