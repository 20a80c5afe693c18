"""True and false statements about one part of a product, to learn image-text matching from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from qdrant_cir.drawn.families import COLORS, PartSpec
from qdrant_cir.drawn.scene import Part, Scene, contrasting_colors, pick
from qdrant_cir.drawn.wording import (
    COUNT_WORDS,
    PATTERN_ADJECTIVES,
    PATTERN_NOUNS,
    SIZE_WORDS,
    article,
    color_word,
    look_phrase,
    part_noun,
    verb,
)

__all__ = ["Statement", "statement"]

T = TypeVar("T")

_ABOUT_PRESENCE = 0.2
_BORROWED = 0.75


@dataclass(frozen=True, slots=True)
class Statement:
    """A claim about one part of a picture.

    Attributes:
        text: the claim.
        part: name of the part it is about.
        attribute: ``color``, ``pattern``, ``pattern_color``, ``size``, ``count`` or ``present``.
        is_true: whether it holds for the scene.
    """

    text: str
    part: str
    attribute: str
    is_true: bool


def _claims(part: Part, slot: PartSpec, attribute: str, rng: np.random.Generator) -> Sequence[str]:
    """Return the ways to state one attribute of a part."""
    noun, is_ = part_noun(slot, rng, count=part.count), verb(slot, count=part.count)
    has, a = ("have", "") if is_ == "are" else ("has", "a ")
    if attribute == "color":
        word = color_word(part.color, rng)
        if part.pattern_color in (None, part.color) or rng.random() < 0.5:
            return (
                f"the {noun} {is_} {word}",
                f"it has {a}{word} {noun}",
                f"{word} {noun}",
                f"the {noun} in {word}",
            )
        return (f"the {noun} {is_} {look_phrase(part, rng)}",)
    if attribute == "pattern":
        if part.pattern_color is None:
            return (f"the {noun} {is_} plain", f"the {noun} {is_} solid", f"no pattern on the {noun}")
        adjective = pick(rng, PATTERN_ADJECTIVES[part.pattern])
        things = pick(rng, PATTERN_NOUNS[part.pattern])
        return (
            f"the {noun} {is_} {adjective}",
            f"there are {things} on the {noun}",
            f"{a}{adjective} {noun}",
        )
    if attribute == "pattern_color":
        look = f"{color_word(part.pattern_color or '', rng)} {pick(rng, PATTERN_NOUNS[part.pattern])}"
        return (f"the {noun} {has} {look}", f"{look} on the {noun}", f"{noun} with {look}")
    if attribute == "size":
        size = pick(rng, SIZE_WORDS[part.size])
        return (f"the {noun} {is_} {size}", f"{a}{size} {noun}", f"it has {a}{size} {noun}")
    number = pick(rng, COUNT_WORDS[part.count])
    return (f"there {is_} {number} {noun}", f"it has {number} {noun}", f"{number} {noun}")


def _near_or_any(near: Sequence[T], others: Sequence[T], rng: np.random.Generator) -> T:
    return pick(rng, near) if near and rng.random() < _BORROWED else pick(rng, others)


def _falsified(part: Part, slot: PartSpec, scene: Scene, attribute: str, rng: np.random.Generator) -> Part:
    """Return the part with one wrong attribute, most often the value of another part of the scene."""
    others = [other for other in scene.parts if other.name != part.name]
    if attribute == "color":
        near = [color for other in others for color in (other.color, part.pattern_color) if color]
        near = [color for color in near if color != part.color]
        free = [color for color in COLORS if color != part.color]
        return replace(part, color=_near_or_any(near, free, rng))
    if attribute == "pattern":
        near = [other.pattern for other in others if other.pattern != part.pattern and other.pattern in slot.patterns]
        pattern = _near_or_any(near, [other for other in slot.patterns if other != part.pattern], rng)
        color = None if pattern == "solid" else part.pattern_color or pick(rng, contrasting_colors(part.color))
        return replace(part, pattern=pattern, pattern_color=color)
    if attribute == "pattern_color":
        near = [
            part.color,
            *(color for other in others for color in (other.color, other.pattern_color) if color),
        ]
        near = [color for color in near if color != part.pattern_color]
        return replace(
            part,
            pattern_color=_near_or_any(near, [color for color in COLORS if color != part.pattern_color], rng),
        )
    if attribute == "size":
        return replace(part, size=next(size for size in slot.sizes if size != part.size))
    return replace(part, count=pick(rng, [other for other in slot.counts if other != part.count]))


def _about_presence(part: Part | None, slot: PartSpec, rng: np.random.Generator, *, is_true: bool) -> Statement:
    count = 0 if part is None else part.count
    noun, is_ = part_noun(slot, rng, count=count), verb(slot, count=count)
    a = "" if is_ == "are" else "a "
    if (part is not None) == is_true:
        text = pick(rng, (f"there {is_} {a}{noun}", f"it has {a}{noun}"))
    else:
        text = pick(rng, (f"there {is_} no {noun}", f"no {noun}", f"it has no {noun}"))
    return Statement(text, slot.name, "present", is_true)


def statement(scene: Scene, rng: np.random.Generator, *, only_true: bool = False) -> Statement:
    """Draw a claim about one part: true or false with equal chance, or always true with ``only_true``.

    A false claim is wrong in one attribute, most often by the value of another part.
    """
    is_true = only_true or bool(rng.random() < 0.5)
    slot = pick(rng, scene.spec.slots)
    part = scene.part(slot.name)
    if part is None or (slot.is_optional and rng.random() < _ABOUT_PRESENCE):
        return _about_presence(part, slot, rng, is_true=is_true)
    attributes = ["color", "color"]
    if len(slot.patterns) > 1:
        attributes += ["pattern"] if part.pattern_color is None else ["pattern", "pattern_color"]
    if len(slot.sizes) > 1:
        attributes.append("size")
    if len(slot.counts) > 1:
        attributes += ["count"] * 2
    attribute = pick(rng, attributes)
    claimed = part if is_true else _falsified(part, slot, scene, attribute, rng)
    return Statement(article(pick(rng, _claims(claimed, slot, attribute, rng))), slot.name, attribute, is_true)
