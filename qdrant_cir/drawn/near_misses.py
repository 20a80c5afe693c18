"""Near misses: products that nearly answer a query, and in which way. Scenes are compared, not pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.drawn.scene import Part, Scene, distance

__all__ = [
    "NEAR_MISS_KINDS",
    "NearMissKind",
    "NearMissSummary",
    "count_near_misses",
    "near_miss_kind",
    "summarise_near_misses",
]

NearMissKind: TypeAlias = Literal[
    "reference", "edit right, rest wrong", "binding swapped", "one attribute off", "another edit"
]

NEAR_MISS_KINDS: tuple[NearMissKind, ...] = (
    "reference",
    "edit right, rest wrong",
    "binding swapped",
    "one attribute off",
    "another edit",
)
"""Kinds of near misses; a product counts as the first kind that fits.

``reference``: the edit is ignored. ``edit right, rest wrong``: everything that the edit changes is right, and one or
two other attributes are wrong. ``binding swapped``: another part than asked has the change. ``one attribute off``: one
attribute differs from the target, so the edit is wrong or half done. ``another edit``: the reference with one or two
other changes.
"""

_MOST_WRONG = 2


def near_miss_kind(scene: Scene, *, reference: Scene, target: Scene) -> NearMissKind | None:
    """Return the kind of near miss that a scene is; None for the target and for scenes far from it."""
    if scene == target or scene.family != target.family:
        return None
    if scene == reference:
        return "reference"
    if distance(scene, target) <= _MOST_WRONG and _has_edit(scene, reference, target):
        return "edit right, rest wrong"
    if _is_binding_swapped(scene, reference, target):
        return "binding swapped"
    if distance(scene, target) == 1:
        return "one attribute off"
    return "another edit" if distance(scene, reference) <= _MOST_WRONG else None


@dataclass(frozen=True, slots=True)
class NearMissSummary:
    """Numbers of near misses per query.

    Attributes:
        least: the smallest number.
        mean: the mean.
        mean_by_kind: the mean of each kind.
    """

    least: int
    mean: float
    mean_by_kind: dict[NearMissKind, float]


def count_near_misses(scenes: Sequence[Scene], queries: Iterable[tuple[int, int]]) -> list[Counter[NearMissKind]]:
    """Count the products that nearly answer each query, by kind, in the order of the queries.

    Args:
        scenes: the products.
        queries: places of each query's reference and target among them.
    """
    parts = _part_numbers(scenes)
    counts = []
    for reference, target in queries:
        # what differs in at most two attributes differs in at most two parts
        near = (parts != parts[target]).sum(axis=1) <= _MOST_WRONG
        near |= (parts != parts[reference]).sum(axis=1) <= _MOST_WRONG
        kinds = [
            near_miss_kind(scenes[place], reference=scenes[reference], target=scenes[target])
            for place in np.flatnonzero(near).tolist()
        ]
        counts.append(Counter(kind for kind in kinds if kind is not None))
    return counts


def summarise_near_misses(counts: Sequence[Counter[NearMissKind]]) -> NearMissSummary:
    """Summarise the counts of at least one query."""
    totals = [count.total() for count in counts]
    by_kind = {kind: sum(count[kind] for count in counts) / len(counts) for kind in NEAR_MISS_KINDS}
    return NearMissSummary(min(totals), sum(totals) / len(totals), by_kind)


def _part_numbers(scenes: Sequence[Scene]) -> NDArray[np.int64]:
    """Number the parts of scenes, int64 [S, 1 + slots]: equal numbers are equal parts, the first the family."""
    numbers: dict[object, int] = {}
    most = max(len(scene.spec.slots) for scene in scenes)
    rows = []
    for scene in scenes:
        parts: list[object] = [scene.family, *(scene.part(slot.name) for slot in scene.spec.slots)]
        rows.append([numbers.setdefault(part, len(numbers)) for part in parts + [None] * (most + 1 - len(parts))])
    return np.array(rows)


def _changed(first: Scene, second: Scene) -> tuple[str, ...]:
    """Name the parts in which two scenes of one family differ."""
    return tuple(slot.name for slot in first.spec.slots if first.part(slot.name) != second.part(slot.name))


def _has_edit(scene: Scene, reference: Scene, target: Scene) -> bool:
    """Return whether every attribute that differs between reference and target is as in the target."""
    return all(
        _values(scene.part(name), changed) == _values(target.part(name), changed)
        for name in _changed(reference, target)
        for changed in [_changed_attributes(reference.part(name), target.part(name))]
    )


def _is_binding_swapped(scene: Scene, reference: Scene, target: Scene) -> bool:
    """Return whether one part has a change that was meant for another, which does not have it."""
    moved = _changed(reference, scene)
    if len(moved) != 1:
        return False
    before, after = reference.part(moved[0]), scene.part(moved[0])
    wanted = _changed(reference, target)
    return moved[0] not in wanted and any(
        _same_change(before, after, reference.part(name), target.part(name)) for name in wanted
    )


def _same_change(before: Part | None, after: Part | None, asked_before: Part | None, asked_after: Part | None) -> bool:
    """Return whether two parts changed alike: both were removed, or the same attributes took the same values."""
    if after is None or asked_after is None:
        return after is asked_after
    changed = _said_attributes(before, after)
    if asked_before is None:
        return changed == ("color",) and after.color == asked_after.color
    if before is None or changed != _said_attributes(asked_before, asked_after):
        return False
    return "size" in changed or _values(after, changed) == _values(asked_after, changed)


def _said_attributes(before: Part | None, after: Part | None) -> tuple[str, ...]:
    """Return the attributes that changed; where the pattern did, without its colour, which may be unchanged."""
    changed = _changed_attributes(before, after)
    return tuple(name for name in changed if name != "pattern_color" or "pattern" not in changed)


def _changed_attributes(before: Part | None, after: Part | None) -> tuple[str, ...]:
    if before is None or after is None:
        return ()
    pairs: Iterable[tuple[str, object, object]] = zip(_ATTRIBUTES, _all(before), _all(after), strict=True)
    return tuple(name for name, old, new in pairs if old != new)


_ATTRIBUTES = ("color", "pattern", "pattern_color", "size", "count")


def _all(part: Part) -> tuple[object, ...]:
    return part.color, part.pattern, part.pattern_color, part.size, part.count


def _values(part: Part | None, names: Sequence[str]) -> object:
    """Return some attributes of a part, or the whole part where none is named: it was added or removed."""
    if part is None or not names:
        return part
    return tuple(value for name, value in zip(_ATTRIBUTES, _all(part), strict=True) if name in names)
