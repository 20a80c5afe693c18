"""Drawn products: a family and its parts, without background, pose and light.

Two pictures show the same product exactly when their scenes are equal, so that a query's targets are found by
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from qdrant_cir.drawn.families import COLORS, FAMILIES, FamilySpec, PartSpec
from qdrant_cir.errors import InputError

__all__ = [
    "Part",
    "Scene",
    "attributes",
    "contrasting_colors",
    "distance",
    "main_part",
    "pick",
    "sample_part",
    "sample_scene",
    "with_part",
    "without_part",
]

T = TypeVar("T")

_PATTERNED_MAIN = 0.6
_PATTERNED_OTHER = 0.35
_SAME_COLOR_AS_MAIN = 0.12
_OPTIONAL_PRESENT = 0.6
_LEAST_CONTRAST = 120.0


@dataclass(frozen=True, slots=True)
class Part:
    """One visible part of a product.

    Attributes:
        name: the part's name inside its family, e.g. ``sleeves``.
        color: its base colour, a key of ``COLORS``.
        pattern: ``solid``, ``striped``, ``dotted``, ``checked`` or ``zigzag``.
        pattern_color: colour of the stripes or dots; None exactly when the pattern is ``solid``.
        size: one of the slot's two sizes, e.g. ``short``; ``medium`` where the slot does not vary in size.
        count: how many there are, 1 where the slot does not vary in count.
    """

    name: str
    color: str
    pattern: str
    pattern_color: str | None
    size: str
    count: int


@dataclass(frozen=True, slots=True)
class Scene:
    """One product: its family and its present parts, in the order of the family's slots."""

    family: str
    parts: tuple[Part, ...]

    @property
    def spec(self) -> FamilySpec:
        """The family's table entry."""
        return FAMILIES[self.family]

    def part(self, name: str) -> Part | None:
        """Return the part of this name, or None where it is absent."""
        return next((part for part in self.parts if part.name == name), None)


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """Draw one of the values evenly; much faster than ``rng.choice`` on short sequences."""
    return values[int(rng.random() * len(values))]


def main_part(scene: Scene) -> Part:
    """Return the main part, e.g. the body; it is always present and comes first."""
    return scene.parts[0]


def with_part(scene: Scene, part: Part) -> Scene:
    """Return the scene with this part, which replaces one of the same name."""
    kept = {other.name: other for other in scene.parts}
    kept[part.name] = part
    return Scene(scene.family, tuple(kept[slot.name] for slot in scene.spec.slots if slot.name in kept))


def without_part(scene: Scene, name: str) -> Scene:
    """Return the scene without the part of this name."""
    return Scene(scene.family, tuple(part for part in scene.parts if part.name != name))


def _contrast(first: str, second: str) -> float:
    a, b = np.array(COLORS[first], dtype=float), np.array(COLORS[second], dtype=float)
    return float(np.sqrt((np.array([0.9, 1.3, 0.6]) * (a - b) ** 2).sum()))


_CONTRASTING = MappingProxyType(
    {
        color: tuple(other for other in COLORS if other != color and _contrast(color, other) >= _LEAST_CONTRAST)
        for color in COLORS
    }
)


def contrasting_colors(color: str) -> tuple[str, ...]:
    """Return the colours in which a pattern is visible on this one; the relation is symmetric."""
    return _CONTRASTING[color]


def sample_part(slot: PartSpec, rng: np.random.Generator, *, main_color: str | None, solid: bool = False) -> Part:
    """Draw one part for a slot.

    Args:
        slot: the family's slot.
        rng: source of randomness.
        main_color: colour of the main part, which other parts mostly avoid; None for the main part itself.
        solid: leave out patterns.
    """
    color = pick(rng, slot.colors)
    if main_color is not None and color == main_color and rng.random() > _SAME_COLOR_AS_MAIN:
        color = pick(rng, [other for other in slot.colors if other != main_color])
    pattern, pattern_color = "solid", None
    chance = _PATTERNED_MAIN if main_color is None else _PATTERNED_OTHER
    if not solid and len(slot.patterns) > 1 and rng.random() < chance:
        pattern = pick(rng, slot.patterns[1:])
        pattern_color = pick(rng, contrasting_colors(color))
    return Part(slot.name, color, pattern, pattern_color, pick(rng, slot.sizes), pick(rng, slot.counts))


def sample_scene(rng: np.random.Generator, *, allow: Callable[[Scene], bool] | None = None) -> Scene:
    """Draw a product.

    Args:
        rng: source of randomness; the same state gives the same scene.
        allow: scenes for which this is false are drawn again, e.g. those held out from training.
    """
    names = tuple(FAMILIES)
    while True:
        spec = FAMILIES[pick(rng, names)]
        parts: list[Part] = []
        for slot in spec.slots:
            if slot.is_optional and rng.random() > _OPTIONAL_PRESENT:
                continue
            parts.append(sample_part(slot, rng, main_color=parts[0].color if parts else None))
        scene = Scene(spec.name, tuple(parts))
        if allow is None or allow(scene):
            return scene


def attributes(scene: Scene) -> dict[str, str]:
    """Return the scene as flat text attributes; all scenes of a family have the same keys.

    There is a key for everything that varies: ``body.color``, ``body.pattern``, ``body.pattern_color``,
    ``sleeves.size``, ``buttons.count``, ``pocket.present``. Attributes of an absent part and the pattern colour of a
    solid part are ``none``. Two scenes are equal exactly when their attributes are.
    """
    flat = {"family": scene.family}
    for slot in scene.spec.slots:
        part = scene.part(slot.name)
        if slot.is_optional:
            flat[f"{slot.name}.present"] = "no" if part is None else "yes"
        flat[f"{slot.name}.color"] = "none" if part is None else part.color
        if len(slot.patterns) > 1:
            flat[f"{slot.name}.pattern"] = "none" if part is None else part.pattern
            flat[f"{slot.name}.pattern_color"] = (part and part.pattern_color) or "none"
        if len(slot.sizes) > 1:
            flat[f"{slot.name}.size"] = "none" if part is None else part.size
        if len(slot.counts) > 1:
            flat[f"{slot.name}.count"] = "none" if part is None else str(part.count)
    return flat


def distance(first: Scene, second: Scene) -> int:
    """Count the attributes in which two scenes of one family differ; a part that only one has counts as one.

    Raises:
        InputError: the families differ.
    """
    if first.family != second.family:
        raise InputError(f"Only scenes of one family can be compared; got {first.family} and {second.family}.")
    differing = 0
    for slot in first.spec.slots:
        a, b = first.part(slot.name), second.part(slot.name)
        if a is None or b is None:
            differing += a is not b
            continue
        differing += (a.color != b.color) + (a.pattern != b.pattern) + (a.size != b.size) + (a.count != b.count)
        differing += a.pattern == b.pattern and a.pattern_color != b.pattern_color
    return differing
