"""Changes of one part: their kinds, how each is drawn, and how it is applied to a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qdrant_cir.drawn.families import PartSpec
from qdrant_cir.drawn.scene import (
    Part,
    Scene,
    contrasting_colors,
    main_part,
    pick,
    sample_part,
    with_part,
    without_part,
)

__all__ = ["STEP_KINDS", "Step", "apply_step", "apply_steps", "recolourable", "sample_step"]

STEP_KINDS = ("recolour", "recolour_pattern", "repattern", "recount", "resize", "add", "remove", "swap")
"""Kinds of steps that change one part, or two for ``swap``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one part, or a swap of two.

    Attributes:
        kind: one of the single kinds, or ``recolour_all``.
        part: the part that changes; the main part's name for ``recolour_all``.
        before: the part as it was; None when it is added.
        after: the part as it becomes; None when it is removed.
        other: the second part of a swap, None otherwise.
    """

    kind: str
    part: str
    before: Part | None
    after: Part | None
    other: str | None = None


def apply_step(scene: Scene, step: Step) -> Scene:
    """Return the scene after one step, whose parts must be as the step expects them."""
    if step.kind == "recolour_all" and step.after is not None:
        color = step.after.color
        return Scene(scene.family, tuple(replace(part, color=color) for part in scene.parts))
    if step.kind == "swap" and step.other is not None:
        first, second = scene.part(step.part), scene.part(step.other)
        if first is None or second is None:
            return scene
        return with_part(with_part(scene, replace(first, color=second.color)), replace(second, color=first.color))
    if step.after is None:
        return without_part(scene, step.part)
    return with_part(scene, step.after)


def recolourable(part: Part, color: str) -> bool:
    """Return whether the part may take this base colour: it is a new one, and the pattern stays visible on it."""
    return color != part.color and (part.pattern_color is None or color in contrasting_colors(part.pattern_color))


def _recolour(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None:
        return None
    colors = [color for color in slot.colors if recolourable(part, color)]
    return Step("recolour", slot.name, part, replace(part, color=pick(rng, colors)))


def _recolour_pattern(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None or part.pattern_color is None:
        return None
    colors = [color for color in contrasting_colors(part.color) if color != part.pattern_color]
    return Step("recolour_pattern", slot.name, part, replace(part, pattern_color=pick(rng, colors)))


def _repattern(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None or len(slot.patterns) == 1:
        return None
    pattern = pick(rng, [other for other in slot.patterns if other != part.pattern])
    color = None
    if pattern != "solid":
        color = part.pattern_color or pick(rng, contrasting_colors(part.color))
    return Step("repattern", slot.name, part, replace(part, pattern=pattern, pattern_color=color))


def _recount(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None or len(slot.counts) == 1:
        return None
    count = pick(rng, [other for other in slot.counts if other != part.count])
    return Step("recount", slot.name, part, replace(part, count=count))


def _resize(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None or len(slot.sizes) == 1:
        return None
    size = pick(rng, [other for other in slot.sizes if other != part.size])
    return Step("resize", slot.name, part, replace(part, size=size))


def _add(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    if not slot.is_optional or scene.part(slot.name) is not None:
        return None
    part = sample_part(slot, rng, main_color=main_part(scene).color, solid=rng.random() < 0.6)
    return Step("add", slot.name, None, part)


def _remove(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None or not slot.is_optional:
        return None
    return Step("remove", slot.name, part, None)


def _swap(scene: Scene, slot: PartSpec, rng: np.random.Generator) -> Step | None:
    part = scene.part(slot.name)
    if part is None:
        return None
    others = [
        other
        for other in scene.parts
        if other.name != part.name and recolourable(part, other.color) and recolourable(other, part.color)
    ]
    if not others:
        return None
    other = pick(rng, others)
    return Step("swap", slot.name, part, replace(part, color=other.color), other.name)


_PROPOSALS: dict[str, Callable[[Scene, PartSpec, np.random.Generator], Step | None]] = {
    "recolour": _recolour,
    "recolour_pattern": _recolour_pattern,
    "repattern": _repattern,
    "recount": _recount,
    "resize": _resize,
    "add": _add,
    "remove": _remove,
    "swap": _swap,
}


def sample_step(scene: Scene, rng: np.random.Generator, *, kind: str, excluded: Sequence[str] = ()) -> Step | None:
    """Draw a step of this kind on any part that can take it.

    Args:
        scene: the scene to change.
        rng: source of randomness.
        kind: one of the single kinds.
        excluded: names of parts to leave alone.

    Returns:
        The step, or None when no part can take one of this kind.
    """
    slots = [slot for slot in scene.spec.slots if slot.name not in excluded]
    propose = _PROPOSALS[kind]
    for place in rng.permutation(len(slots)):
        step = propose(scene, slots[int(place)], rng)
        if step is not None and step.other not in excluded:
            return step
    return None


def apply_steps(scene: Scene, steps: Sequence[Step]) -> Scene:
    """Return the scene after all steps in order."""
    for step in steps:
        scene = apply_step(scene, step)
    return scene
