"""Edits of a scene: what a modification text asks for, the scene that results, and its near misses.

The target is the reference after all steps; everything else stays. A text always says everything that its steps change,
so that the whole target scene is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qdrant_cir.drawn.scene import Part, Scene, contrasting_colors, main_part, pick, with_part
from qdrant_cir.drawn.steps import STEP_KINDS, Step, apply_step, apply_steps, recolourable, sample_step

__all__ = ["EDIT_KINDS", "Edit", "Split", "Step", "apply_step", "edit_between", "hard_negatives", "sample_edit"]

Split = Literal["train", "test"]

EDIT_KINDS = (*STEP_KINDS, "two", "recolour_all")
"""Every value of ``Edit.kind``."""

_WEIGHTED_KINDS = (
    *("recolour",) * 4,
    *("recolour_pattern",) * 2,
    *("repattern",) * 3,
    *("recount",) * 3,
    *("resize",) * 2,
    *("add",) * 2,
    *("remove",) * 2,
    *("swap",) * 3,
    *("two",) * 6,
    "recolour_all",
)
_TEST_KINDS = (*_WEIGHTED_KINDS, *("two",) * 22)
"""Kinds of test queries, half of which ask for two changes at once.

Of FashionIQ's validation captions, of which a query has two, 63 % join wishes by "and", "with" or a comma.
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that is asked for.

    Attributes:
        kind: one of ``EDIT_KINDS``.
        reference: the scene that is edited.
        steps: one step, or two for kind ``two``.
        target: the edited scene.
    """

    kind: str
    reference: Scene
    steps: tuple[Step, ...]
    target: Scene


def _recolour_all(scene: Scene, rng: np.random.Generator) -> Step | None:
    main = main_part(scene)
    colors = [color for color in scene.spec.slots[0].colors if all(recolourable(part, color) for part in scene.parts)]
    if not colors:
        return None
    return Step("recolour_all", main.name, main, replace(main, color=pick(rng, colors)))


def _two_steps(scene: Scene, rng: np.random.Generator, *, split: Split) -> tuple[Step, Step] | None:
    kinds = STEP_KINDS if split == "test" else STEP_KINDS[:-1]
    first = sample_step(scene, rng, kind=pick(rng, kinds))
    if first is None:
        return None
    touched = [first.part] if first.other is None else [first.part, first.other]
    second = sample_step(apply_step(scene, first), rng, kind=pick(rng, kinds), excluded=touched)
    return None if second is None else (first, second)


def sample_edit(scene: Scene, rng: np.random.Generator, *, split: Split) -> Edit:
    """Draw an edit of the scene.

    Args:
        scene: the reference.
        rng: source of randomness.
        split: ``test`` asks for two changes more often, and also joins a swap with a second one, which ``train`` never
            does.

    Returns:
        An edit whose target differs from the reference.
    """
    while True:
        kind = pick(rng, _TEST_KINDS if split == "test" else _WEIGHTED_KINDS)
        if kind == "two":
            steps: tuple[Step, ...] | None = _two_steps(scene, rng, split=split)
        else:
            step = _recolour_all(scene, rng) if kind == "recolour_all" else sample_step(scene, rng, kind=kind)
            steps = None if step is None else (step,)
        if steps is None:
            continue
        target = apply_steps(scene, steps)
        if target != scene:
            return Edit(kind, scene, steps, target)


_SINGLE_CHANGES = {
    ("color",): "recolour",
    ("pattern_color",): "recolour_pattern",
    ("pattern",): "repattern",
    ("pattern", "pattern_color"): "repattern",
    ("size",): "resize",
    ("count",): "recount",
}
"""From the attributes in which a part differs to the kind of step that changes them."""


def edit_between(reference: Scene, target: Scene) -> Edit | None:
    """Return the edit that turns one product into another, the reverse of :func:`sample_edit`.

    Returns:
        An edit of one step or two; None where it takes more, where no step makes a change (a part's colour and size at
        once), or where nothing changes.
    """
    if reference.family != target.family:
        return None
    names = [slot.name for slot in reference.spec.slots if reference.part(slot.name) != target.part(slot.name)]
    steps = [_step_between(reference.part(name), target.part(name)) for name in names]
    found = [step for step in steps if step is not None]
    if not found or len(found) < len(steps):
        return None
    if len(found) > 1 and all(step.kind == "recolour" for step in found):
        whole = _recolours_as_one(reference, target, found)
        if whole is not None:
            return Edit(whole.kind, reference, (whole,), target)
    if len(found) > 2:
        return None
    return Edit(found[0].kind if len(found) == 1 else "two", reference, tuple(found), target)


def _step_between(before: Part | None, after: Part | None) -> Step | None:
    """Return the step that turns one part into another; None where there is none."""
    if before is None or after is None:
        present = before or after
        kind = "add" if before is None else "remove"
        return None if present is None else Step(kind, present.name, before, after)
    names = ("color", "pattern", "pattern_color", "size", "count")
    kind_of_change = _SINGLE_CHANGES.get(tuple(n for n in names if getattr(before, n) != getattr(after, n)))
    if kind_of_change is None:
        return None
    if before.pattern_color != after.pattern_color and before.pattern != after.pattern != "solid" != before.pattern:
        return None  # a new pattern keeps the colour
    return Step(kind_of_change, before.name, before, after)


def _recolours_as_one(reference: Scene, target: Scene, steps: list[Step]) -> Step | None:
    """Return several recolourings as one step, where they are a swap of two parts or recolour the whole product."""
    first, last = steps[0], steps[-1]
    before = [step.before.color for step in (last, first) if step.before]
    if len(steps) == 2 and [step.after.color for step in steps if step.after] == before:
        return Step("swap", first.part, first.before, first.after, last.part)
    if len(steps) == len(reference.parts) and len({part.color for part in target.parts}) == 1:
        return Step("recolour_all", first.part, first.before, first.after)
    return None


def _off_by_one(scene: Scene, rng: np.random.Generator) -> Scene | None:
    step = sample_step(scene, rng, kind=pick(rng, STEP_KINDS[:-1]))
    return None if step is None else apply_step(scene, step)


def _edit_right_rest_wrong(edit: Edit, rng: np.random.Generator) -> Scene | None:
    touched = [name for step in edit.steps for name in (step.part, step.other) if name is not None]
    step = sample_step(edit.target, rng, kind=pick(rng, STEP_KINDS[:-1]), excluded=touched)
    return None if step is None else apply_step(edit.target, step)


def _wrong_value(edit: Edit, rng: np.random.Generator) -> Scene | None:
    """Change the attribute that was asked for, but to another value."""
    step = pick(rng, edit.steps)
    part = edit.target.part(step.part)
    if part is None or step.kind in ("swap", "remove"):
        return None
    kind = "recolour" if step.kind in ("add", "recolour_all") else step.kind
    for _ in range(4):
        wrong = sample_step(edit.target, rng, kind=kind)
        if wrong is not None and wrong.part == part.name:
            return apply_step(edit.target, wrong)
    return None


def _transfer(after: Part, part: Part, step: Step, scene: Scene) -> Part | None:
    """Return the part after a change that was meant for another part; None where it cannot take it."""
    slot = scene.spec.slot(part.name)
    if step.kind in ("recolour", "add") and recolourable(part, after.color):
        return replace(part, color=after.color)
    if step.kind == "recolour_pattern" and part.pattern_color is not None and after.pattern_color is not None:
        fits = after.pattern_color in contrasting_colors(part.color)
        return replace(part, pattern_color=after.pattern_color) if fits else None
    if step.kind == "repattern" and after.pattern in slot.patterns:
        color = after.pattern_color
        fits = color is None or color in contrasting_colors(part.color)
        return replace(part, pattern=after.pattern, pattern_color=color) if fits else None
    if step.kind == "recount" and after.count in slot.counts:
        return replace(part, count=after.count)
    return None


def _binding_swapped(edit: Edit, rng: np.random.Generator) -> Scene | None:
    """Apply one step of the edit to a part it was not meant for."""
    step = pick(rng, edit.steps)
    others = [part for part in edit.reference.parts if part.name not in (step.part, step.other)]
    if not others:
        return None
    other = pick(rng, others)
    if step.kind == "swap" and step.before is not None:
        return (
            with_part(edit.reference, replace(other, color=step.before.color))
            if recolourable(other, step.before.color)
            else None
        )
    if step.after is None or step.kind in ("resize", "recolour_all"):
        wrong = sample_step(
            edit.reference,
            rng,
            kind="recolour" if step.kind == "recolour_all" else step.kind,
            excluded=[step.part],
        )
        return None if wrong is None else apply_step(edit.reference, wrong)
    moved = _transfer(step.after, other, step, edit.reference)
    return None if moved is None else with_part(edit.reference, moved)


def _half_done(edit: Edit, rng: np.random.Generator) -> Scene | None:
    """Apply one of two steps; of a swap, one half of it."""
    step = pick(rng, edit.steps)
    if step.kind == "swap" and step.after is not None:
        return with_part(edit.reference, step.after)
    return apply_step(edit.reference, step) if len(edit.steps) == 2 else None


_NEGATIVES: tuple[Callable[[Edit, np.random.Generator], Scene | None], ...] = (
    _edit_right_rest_wrong,
    _wrong_value,
    _binding_swapped,
    _half_done,
    _edit_right_rest_wrong,
    _wrong_value,
    _binding_swapped,
    lambda edit, rng: _off_by_one(edit.target, rng),
    lambda edit, rng: _off_by_one(edit.reference, rng),
)


def hard_negatives(
    scene: Scene,
    edit: Edit,
    rng: np.random.Generator,
    *,
    n: int,
    allow: Callable[[Scene], bool] | None = None,
) -> list[Scene]:
    """Draw near misses of the target.

    The reference comes first (edit ignored); then, in turn: edit right but the rest wrong; the asked
    attribute at a wrong value; the edit applied to the wrong part; half of the edit; one attribute off target
    or reference.

    Args:
        scene: the reference, as in ``edit.reference``.
        edit: the edit.
        rng: source of randomness.
        n: how many to return.
        allow: scenes for which this is false are left out, e.g. those held out from training.

    Returns:
        ``n`` different scenes of the same family, none of them the target.
    """
    found: dict[Scene, None] = {} if n == 0 else {scene: None}
    turn = 0
    while len(found) < n:
        candidate = _NEGATIVES[turn % len(_NEGATIVES)](edit, rng)
        turn += 1
        if candidate is not None and candidate != edit.target and (allow is None or allow(candidate)):
            found.setdefault(candidate)
    return list(found)
