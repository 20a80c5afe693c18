"""The family of a garment: its photograph, and what it would look like in other colours, patterns and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from qdrant_cir.photographs.colours import BASIC_COLOURS, COLOURS, HELD_OUT_COLOURS, basic_colour, rgb_of_lab
from qdrant_cir.photographs.edits import GRAPHICS, PATTERNS, Graphic, Look, Pattern, dressed
from qdrant_cir.photographs.labels import Kind
from qdrant_cir.photographs.masks import GarmentMask
from qdrant_cir.photographs.rendering import Background, photographed
from qdrant_cir.photographs.wording import Shade
from qdrant_cir.types import Float32

FAMILY_SIZE = 7
PLAIN_SPREAD, EMPTY_SPREAD = 8.0, 4.5
"""Spread of colour up to which a garment counts as plain, and as having nothing printed on it either."""
SURE_MARGIN = 4.0
"""Margin from which on the automatic name of a colour is told in texts."""
_CONTRAST = 30.0
_SHADES: tuple[Shade, ...] = ("lighter", "darker", "brighter", "duller")
OPPOSITE: dict[Shade, Shade] = {
    "lighter": "darker",
    "darker": "lighter",
    "brighter": "duller",
    "duller": "brighter",
}
EditKind = Literal["colour", "shade", "pattern", "graphic", "own"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One member of a family.

    Attributes:
        edit: what was done to the photograph, for counting.
        look: how the garment looks.
        colour: number of its name in ``COLOURS``; -1 where it has its own colour, or a shade of a named one.
        basic: number in ``BASIC_COLOURS``; -1 where it is not sure.
        second: number in ``COLOURS`` of the pattern's or the graphic's colour; -1 where there is none.
        shade: what it is of ``base``; empty where it is no shade of another.
        base: number of that member of the family; -1 likewise.
    """

    edit: EditKind
    look: Look
    colour: int
    basic: int
    second: int = -1
    shade: Shade | Literal[""] = ""
    base: int = -1


@dataclass(frozen=True, slots=True)
class Member:
    """A variant and its picture."""

    variant: Variant
    picture: Image


@dataclass(frozen=True, slots=True)
class Family:
    """What became of one photograph.

    Attributes:
        members: those whose edits succeeded; the first is the photograph itself, almost as it is.
        tried: edits by kind.
        refused: edits by kind that could not be made.
    """

    members: tuple[Member, ...]
    tried: dict[str, int]
    refused: dict[str, int]


def _trained_names() -> dict[str, list[int]]:
    names: dict[str, list[int]] = {basic: [] for basic in BASIC_COLOURS}
    for number, colour in enumerate(COLOURS):
        if colour.name not in HELD_OUT_COLOURS:
            names[colour.basic].append(number)
    return names


_NAMES = _trained_names()
_BASIC_NUMBERS = {basic: next(n for n in _NAMES[basic] if COLOURS[n].name == basic) for basic in BASIC_COLOURS}


def draw_family(
    rgb: NDArray[np.uint8],
    lab: Float32,
    mask: GarmentMask,
    kind: Kind,
    *,
    floors: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    size: int,
    rng: np.random.Generator,
) -> Family:
    """Draw a garment's family.

    Args:
        rgb: uint8 [H, W, 3], the photograph.
        lab: float32 [H, W, 3] of it.
        mask: where the garment is.
        kind: what it is; prints go on tops and dresses alone.
        floors: cuttings of other photographs to lay it on.
        size: side of the pictures in pixels.
        rng: of everything.
    """
    members: list[Member] = []
    places: dict[int, int] = {}
    tried: dict[str, int] = {}
    refused: dict[str, int] = {}
    for number, variant in enumerate(plan_family(mask, kind, rng)):
        edit = variant.edit
        tried[edit] = tried.get(edit, 0) + 1
        changed = dressed(lab, mask, variant.look, rng)
        if changed is None or (variant.base >= 0 and variant.base not in places):
            refused[edit] = refused.get(edit, 0) + 1
            continue
        shown = rgb
        if changed is not lab:
            shown = (rgb + mask.alpha[..., None] * (rgb_of_lab(changed).astype(np.float32) - rgb)).astype(np.uint8)
        floor = floors[int(rng.integers(len(floors)))] if len(floors) else None
        background: Background = "own" if number == 0 else _background(rng)
        picture = photographed(shown, mask, background, floor, size=size, rng=rng)
        places[number] = len(members)
        members.append(Member(replace(variant, base=places.get(variant.base, -1)), picture))
    return Family(tuple(members), tried, refused)


def plan_family(mask: GarmentMask, kind: Kind, rng: np.random.Generator) -> tuple[Variant, ...]:
    """Choose the looks of a family; the first two are the garment as it is."""
    plain: Pattern = "plain" if mask.spread < PLAIN_SPREAD else "unknown"
    empty: Graphic = "none" if mask.spread < EMPTY_SPREAD else "unknown"
    named = basic_colour(mask.lab)
    own_basic = BASIC_COLOURS.index(named.name) if named.margin > SURE_MARGIN else -1
    own = Variant("own", Look(None, plain, empty, None), -1, own_basic)
    colours = _different_colours(3, own_basic, rng)
    first, second, third = (_coloured(colours[i], plain, empty, rng) for i in range(3))
    members = [own, own, first, second, _shaded(first, 2, rng)]
    if plain == "unknown":
        return (*members, third, _shaded(own, 0, rng, lab=mask.lab))
    patterns = rng.permutation(len(PATTERNS))
    one, other = PATTERNS[int(patterns[0])], PATTERNS[int(patterns[1])]
    ground = own if rng.random() < 0.5 else first
    members.append(_with_second(ground, mask, "pattern", one, ground.look.graphic, rng))
    if kind.region in ("upper", "whole") and empty == "none" and rng.random() < 0.6:
        graphic = GRAPHICS[int(rng.integers(len(GRAPHICS)))]
        members.append(_with_second(own if rng.random() < 0.6 else first, mask, "graphic", "plain", graphic, rng))
    else:
        on = first if rng.random() < 0.5 else third
        members.append(_with_second(on, mask, "pattern", other, on.look.graphic, rng))
    return tuple(members)


def _different_colours(count: int, own_basic: int, rng: np.random.Generator) -> list[int]:
    """Choose names of colours, of different basic colours and none of the garment's own; half of them basic names."""
    order = [b for b in rng.permutation(len(BASIC_COLOURS)).tolist() if b != own_basic][:count]
    chosen = []
    for basic in (BASIC_COLOURS[number] for number in order):
        names = _NAMES[basic]
        chosen.append(_BASIC_NUMBERS[basic] if rng.random() < 0.45 else names[int(rng.integers(len(names)))])
    return chosen


def _coloured(number: int, pattern: Pattern, graphic: Graphic, rng: np.random.Generator) -> Variant:
    colour = COLOURS[number]
    lab = colour.lab + rng.normal(0, 1, 3).astype(np.float32) * np.array([2.5, 1.5, 1.5], np.float32)
    look = Look(lab.astype(np.float32), pattern, graphic, None)
    return Variant("colour", look, number, BASIC_COLOURS.index(colour.basic))


def _shaded(of: Variant, base: int, rng: np.random.Generator, *, lab: Float32 | None = None) -> Variant:
    """Change the lightness or the chroma of a look clearly, where there is room for it."""
    before = of.look.lab if of.look.lab is not None else lab
    if before is None:
        return of
    chroma = float(np.hypot(before[1], before[2]))
    fitting = [
        shade
        for shade, fits in zip(_SHADES, (before[0] < 66, before[0] > 34, 12 < chroma < 45, chroma > 28), strict=True)
        if fits
    ]
    shade = fitting[int(rng.integers(len(fitting)))]
    amount = float(rng.uniform(15, 26))
    changed = before.copy()
    if shade in ("lighter", "darker"):
        changed[0] += amount if shade == "lighter" else -amount
    else:
        changed[1:] *= (chroma + amount) / chroma if shade == "brighter" else (chroma - amount) / chroma
    basic = basic_colour(changed)
    number = BASIC_COLOURS.index(basic.name) if basic.margin > SURE_MARGIN else -1
    return Variant("shade", replace(of.look, lab=changed), -1, number, of.second, shade, base)


def _with_second(
    of: Variant, mask: GarmentMask, edit: EditKind, pattern: Pattern, graphic: Graphic, rng: np.random.Generator
) -> Variant:
    """Add a pattern or a graphic in a colour that stands out from the ground."""
    ground = mask.lab if of.look.lab is None else of.look.lab
    while True:
        number = _different_colours(1, of.basic, rng)[0]
        second = COLOURS[number].lab
        if np.linalg.norm(second - ground) > _CONTRAST:
            look = Look(of.look.lab, pattern, graphic, second)
            return replace(of, edit=edit, look=look, second=number)


def _background(rng: np.random.Generator) -> Background:
    draw = rng.random()
    return "own" if draw < 0.3 else "floor" if draw < 0.7 else "studio"
