"""Payload fields to filter by, and images to begin with, from a look at the collection.

Qdrant's own facets need an index per field, and the embedded engine has none; so payloads are read and counted here,
alike for every store, at most :data:`MOST` of them, and again after a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from qdrant_cir.storage.collection import Collection
from qdrant_cir.types import JsonObject

__all__ = ["Look", "Looks"]

MOST = 10_000
"""Images that are looked at."""

_PAGE = 1000
_SECONDS = 60.0
_MOST_VALUES = 24
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Look:
    """What the first images of a collection hold.

    Attributes:
        facets: fields with at least two and few values, by name; values by count, the most frequent first.
        samples: id and payload of images, from all over those that were looked at.
        counted: how many were looked at.
    """

    facets: dict[str, list[tuple[str | int | bool, int]]]
    samples: list[tuple[str, JsonObject]]
    counted: int


class Looks:
    """The last look at a collection."""

    def __init__(self, collection: Collection, *, clock: Callable[[], float] = monotonic) -> None:
        """Look at nothing yet."""
        self._collection, self._clock = collection, clock
        self._last: tuple[float, Look] | None = None

    def look(self) -> Look:
        """Return what the collection holds, as it was at most a minute ago. Raises StoreError."""
        now = self._clock()
        if self._last is None or now - self._last[0] > _SECONDS:
            self._last = (now, _look(self._collection))
        return self._last[1]


def _look(collection: Collection) -> Look:
    layout, store = collection.layout, collection.store
    found: list[tuple[str, JsonObject]] = []
    after = None
    while len(found) < MOST:
        page = store.scroll(layout.gallery, filter=None, limit=_PAGE, after=after)
        found += [(image.image_id, image.payload) for each in page if (image := layout.known(each)) is not None]
        if len(page) < _PAGE:
            break
        after = page[-1].point_id
    counts: dict[str, Counter[tuple[type, str | int | bool]]] = {}
    for _, payload in found:
        for field, value in payload.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str | int) and len(str(each)) <= _LONGEST:
                    # True and 1 are different values
                    counts.setdefault(field, Counter())[type(each), each] += 1
    few = {field: of for field, of in counts.items() if 2 <= len(of) <= _MOST_VALUES}
    step = max(1, len(found) // 64)
    return Look(
        {
            field: [
                (value, count) for (_, value), count in sorted(of.items(), key=lambda item: (-item[1], str(item[0][1])))
            ]
            for field, of in few.items()
        },
        found[::step][:64],
        len(found),
    )
