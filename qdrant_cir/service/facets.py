"""Payload fields to filter by, and images to begin with, from a look at the collection.

Qdrant's own facets need an index per field, and the embedded engine has none; so payloads are read and counted here,
alike for every store, at most :data:`MOST` of them, and again after a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

from qdrant_cir.storage.collection import Collection
from qdrant_cir.types import JsonObject

__all__ = ["Look", "Looks", "facets_of"]

MOST = 10_000
"""Images that are looked at."""

_PAGE = 1000
_SECONDS = 60.0
_MOST_VALUES = 24
_LONGEST = 60
_MOST_DISTINCT = 0.8
"""Different values for each one that there is: above it nearly every image has its own."""


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
    step = max(1, len(found) // 64)
    return Look(facets_of(payload for _, payload in found), found[::step][:64], len(found))


def facets_of(payloads: Iterable[JsonObject]) -> dict[str, list[tuple[str | int | bool, int]]]:
    """Return the fields to filter by, with their values by count.

    A field is none where it has one value or more than 24, where most of them are long, or where nearly every image has
    a value of its own: a title is no filter.
    """
    counts: dict[str, Counter[tuple[type, str | int | bool]]] = {}
    for payload in payloads:
        for field, value in payload.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str | int):
                    # True and 1 are different values
                    counts.setdefault(field, Counter())[type(each), each] += 1
    facets: dict[str, list[tuple[str | int | bool, int]]] = {}
    for field, of in counts.items():
        short = Counter({key: count for key, count in of.items() if len(str(key[1])) <= _LONGEST})
        mostly_long = short.total() < of.total() / 2
        if 2 <= len(short) <= _MOST_VALUES and not mostly_long and len(of) <= _MOST_DISTINCT * of.total():
            ordered = sorted(short.items(), key=lambda item: (-item[1], str(item[0][1])))
            facets[field] = [(value, count) for (_, value), count in ordered]
    return facets
