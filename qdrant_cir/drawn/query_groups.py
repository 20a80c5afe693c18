"""Queries that share a reference, with the near misses that make them hard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from qdrant_cir.drawn.edit import Edit, Split, hard_negatives, sample_edit
from qdrant_cir.drawn.language import describe_edit
from qdrant_cir.drawn.near_misses import NearMissKind, near_miss_kind
from qdrant_cir.drawn.scene import Scene, distance, sample_scene
from qdrant_cir.drawn.steps import STEP_KINDS, apply_step, apply_steps, sample_step

__all__ = ["DraftedQuery", "draft_group"]

_BALANCED: tuple[NearMissKind, ...] = ("binding swapped", "edit right, rest wrong", "one attribute off")
"""Kinds of near misses that a query gets in numbers as equal as possible, the rarest first."""

_CROSSED = 1
_MISTAKEN: tuple[NearMissKind, ...] = ("binding swapped", "one attribute off")
_SPARE_DRAWS, _TRIES = 16, 8
_WRONG_PARTS = 12


@dataclass(frozen=True, slots=True)
class DraftedQuery:
    """A query before its targets are looked up.

    Attributes:
        reference: place of the reference among the scenes.
        target: place of the target that was drawn for it.
        edit: what is asked for.
        text: the modification text.
    """

    reference: int
    target: int
    edit: Edit
    text: str


@dataclass(slots=True)
class _Group:
    """The scenes of one reference while they are collected; all are different."""

    reference: Scene
    edits: list[Edit]
    allow: Callable[[Scene], bool] | None
    scenes: dict[Scene, None] = field(default_factory=dict)

    def add(self, scene: Scene) -> bool:
        """Add a scene; False where it is there already, or not allowed."""
        if scene in self.scenes or not (self.allow is None or self.allow(scene)):
            return False
        self.scenes[scene] = None
        return True

    def kind(self, scene: Scene, edit: Edit) -> NearMissKind | None:
        """Return the kind of near miss that a scene is of the edit's target; None for others."""
        return near_miss_kind(scene, reference=self.reference, target=edit.target)


def draft_group(
    scenes: list[Scene],
    rng: np.random.Generator,
    *,
    size: int,
    near_misses: int,
    least: int,
    split: Split,
    allow: Callable[[Scene], bool] | None,
) -> list[DraftedQuery]:
    """Add one reference, the targets of several edits of it, and near misses to the scenes.

    Args:
        scenes: the products so far.
        rng: source of randomness.
        size: how many queries.
        near_misses: number of near misses of each query, besides the reference and the others' targets.
        least: the smallest number of near misses of a query, all of them counted.
        split: of edits and wordings.
        allow: scenes for which this is false are left out.
    """
    reference = sample_scene(rng, allow=allow)
    group = _Group(reference, [], allow, {reference: None})
    while len(group.edits) < size:
        edit = _sibling(group, sample_edit(reference, rng, split=split), rng)
        if group.add(edit.target):
            group.edits.append(edit)
    crossed = _cross(group)
    for number, edit in enumerate(group.edits):
        _add_near_misses(group, edit, rng, n=near_misses - crossed[number])
    for edit in group.edits:
        _add_near_misses(group, edit, rng, n=least - sum(group.kind(scene, edit) is not None for scene in group.scenes))
    place = len(scenes)
    scenes += group.scenes
    return [
        DraftedQuery(place, place + number, edit, describe_edit(edit, rng, split=split))
        for number, edit in enumerate(group.edits, start=1)
    ]


def _sibling(group: _Group, edit: Edit, rng: np.random.Generator) -> Edit:
    """Return an edit whose target is a near miss of an earlier one of its kind; the given edit where there is none.

    It asks for another value of the same part, or for the same value of another part.
    """
    for other in group.edits:
        *first, last = other.steps
        if other.kind != edit.kind or last.kind not in STEP_KINDS:
            continue
        scene = apply_steps(group.reference, first)
        touched = [name for step in first for name in (step.part, step.other) if name is not None]
        for _ in range(_TRIES):
            step = sample_step(scene, rng, kind=last.kind, excluded=touched)
            target = scene if step is None else apply_step(scene, step)
            if step is not None and target not in group.scenes and group.kind(target, other) in _MISTAKEN:
                return Edit(edit.kind, group.reference, (*first, step), target)
    return edit


def _cross(group: _Group) -> Sequence[int]:
    """Add scenes with two of the edits at once: in both queries, the edit is right and the rest is wrong.

    Returns:
        The number of scenes added for every edit, at most ``_CROSSED``.
    """
    added = [0] * len(group.edits)
    for number, edit in enumerate(group.edits):
        for other in (*group.edits[number + 1 :], *group.edits[:number]):
            is_small = distance(group.reference, other.target) == 1
            if added[number] < _CROSSED and is_small and _parts(edit).isdisjoint(_parts(other)):
                added[number] += group.add(apply_steps(edit.target, other.steps))
    return added


def _parts(edit: Edit) -> set[str]:
    """Return the names of the parts that an edit changes."""
    names = {part.name for part in (*edit.reference.parts, *edit.target.parts)}
    return {name for name in names if edit.reference.part(name) != edit.target.part(name)}


def _add_near_misses(group: _Group, edit: Edit, rng: np.random.Generator, *, n: int) -> None:
    """Add ``n`` near misses of one query, each of the kind that it has fewest of; none where ``n`` is below 1."""
    if n < 1:
        return
    drawn = hard_negatives(group.reference, edit, rng, n=1 + 2 * n + _SPARE_DRAWS, allow=group.allow)
    drawn += _on_wrong_parts(edit, rng)
    fresh = [scene for scene in dict.fromkeys(drawn) if scene not in group.scenes]
    kinds = {scene: group.kind(scene, edit) for scene in fresh}
    has = Counter(group.kind(scene, edit) for scene in group.scenes)
    while n and fresh:
        wanted = min(fresh, key=lambda scene: _want(kinds[scene], has))
        fresh.remove(wanted)
        if group.add(wanted):
            has[kinds[wanted]] += 1
            n -= 1


def _on_wrong_parts(edit: Edit, rng: np.random.Generator) -> list[Scene]:
    """Return scenes with changes like those of the edit, but of other parts; some have the value asked for."""
    named = [part for step in edit.steps for part in (step.part, step.other) if part is not None]
    kinds = [step.kind for step in edit.steps if step.kind in STEP_KINDS and step.kind != "swap"]
    steps = [sample_step(edit.reference, rng, kind=kind, excluded=named) for kind in kinds for _ in range(_WRONG_PARTS)]
    return [apply_step(edit.reference, step) for step in steps if step is not None]


def _want(kind: NearMissKind | None, has: Counter[NearMissKind | None]) -> tuple[int, int]:
    """Return a sort key: balanced kinds by their number so far, then all others."""
    return (has[kind], _BALANCED.index(kind)) if kind in _BALANCED else (1_000_000, len(_BALANCED))
