"""Groups of hits by a payload field, for an engine that does not group by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qdrant_cir.storage.payload_path import PayloadPath
from qdrant_cir.storage.stores.protocol import Hit, HitGroup
from qdrant_cir.types import JsonValue

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["grouped"]


def grouped(
    search: Callable[..., list[Hit]], *, group_by: str, limit: int, group_size: int, filter: Filter | None
) -> list[HitGroup]:
    """Return the best groups by their best hit, as a server makes them.

    Searches until there are enough groups, then once more within these groups until each is full.

    Args:
        search: returns the best hits; called with ``limit`` and ``filter``.
        group_by: path of the field; values are texts or integers.
        limit: groups, at least 1.
        group_size: hits of a group, at least 1.
        filter: of the caller.
    """
    from qdrant_client import models

    path = PayloadPath.parse(group_by)
    asked = limit * group_size
    while True:
        found = search(limit=asked, filter=filter)
        groups = _by_value(found, path)
        if len(groups) >= limit or len(found) < asked:
            break
        asked *= 2
    chosen = dict(list(groups.items())[:limit])
    if len(found) < asked or all(len(hits) >= group_size for hits in chosen.values()):
        return [HitGroup(value, tuple(hits[:group_size])) for value, hits in chosen.items()]
    # any of several values of one kind; a field may hold texts and integers
    conditions: list[models.Condition] = [
        models.FieldCondition(key=group_by, match=models.MatchAny(any=values))
        for values in ([v for v in chosen if isinstance(v, str)], [v for v in chosen if isinstance(v, int)])
        if values
    ]
    within = models.Filter(must=[models.Filter(should=conditions), *([] if filter is None else [filter])])
    while True:
        members = search(limit=asked, filter=within)
        full = _by_value(members, path)
        if len(members) < asked or all(len(full.get(value, ())) >= group_size for value in chosen):
            return [HitGroup(value, tuple(full.get(value, hits)[:group_size])) for value, hits in chosen.items()]
        asked *= 2


def _by_value(hits: list[Hit], path: PayloadPath) -> dict[str | int, list[Hit]]:
    """Return hits by the values of a field, in the order of each value's first hit."""
    groups: dict[str | int, list[Hit]] = {}
    for hit in sorted(hits, key=lambda hit: -hit.score):
        for value in dict.fromkeys(_keys(path.values(hit.payload))):
            groups.setdefault(value, []).append(hit)
    return groups


def _keys(values: list[JsonValue]) -> list[str | int]:
    found = [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    return [value for value in found if isinstance(value, str | int) and not isinstance(value, bool)]
