"""Texts that say how one picture of a garment differs from another; all templates are this project's own.

Every group of templates has wordings for training and others that are held out, to measure whether a model reads words
or has learnt sentences by heart. ``{c}`` is a colour, ``{n}`` a kind of clothing, ``{p}`` a pattern, ``{a}`` its
adjective; ``{old_c}`` and so on speak of the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qdrant_cir.photographs.edits import Graphic, Pattern
from qdrant_cir.photographs.labels import Kind

__all__ = [
    "Appearance",
    "Change",
    "Shade",
    "change_text",
    "class_text",
    "length_text",
    "shade_text",
    "sleeve_text",
    "training_words",
]

Shade = Literal["lighter", "darker", "brighter", "duller"]
Change = Literal["colour", "pattern", "graphic"]


@dataclass(frozen=True, slots=True)
class Appearance:
    """What texts may say of a picture.

    Attributes:
        kind: of clothing.
        colour: a name; empty where it is not known for sure.
        pattern: likewise ``unknown``.
        graphic: likewise ``unknown``.
        second: the name of the pattern's or the graphic's colour; empty where there is none or it is not known.
    """

    kind: Kind
    colour: str
    pattern: Pattern = "unknown"
    graphic: Graphic = "unknown"
    second: str = ""


@dataclass(frozen=True, slots=True)
class Templates:
    """Ways to say one thing: those of training, and those that are held out."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


COLOUR = Templates(
    (
        "in {c}",
        "{c}",
        "in {c}",
        "is {c}",
        "the same in {c}",
        "the same but {c}",
        "the same, but in {c}",
        "make it {c}",
        "{c} instead",
        "but in {c}",
        "it is {c}",
        "has a {c} color",
        "is {c} in color",
        "a {c} {n}",
        "is a {c} {n}",
        "the same {n} in {c}",
        "this {n} but {c}",
        "this {n} in {c}",
        "change the color to {c}",
        "change the colour to {c}",
        "with the color {c}",
        "i want it in {c}",
        "i would like this in {c}",
        "is more {c}",
        "{c} colored",
        "is {c} colored",
        "a {c} one",
        "the {c} one",
        "in a {c} shade",
        "{c} in place of {old_c}",
        "is {c} instead of {old_c}",
        "{c} and not {old_c}",
        "not {old_c} but {c}",
        "is {c} rather than {old_c}",
        "no longer {old_c}, now {c}",
        "it should be {c}",
        "find it in {c}",
        "same style in {c}",
        "same cut, {c} fabric",
        "turn it {c}",
        "is all {c}",
    ),
    ("could this be {c}", "only {c} this time", "show me that in {c}", "swap the {old_c} for {c}", "paint it {c}"),
)
CLASS = Templates(
    (
        "rather a {n}",
        "a {n}",
        "{n}",
        "a {n} instead",
        "make it a {n}",
        "is a {n}",
        "is a {n} instead of a {old_n}",
        "a {n} in the same color",
        "the same color but a {n}",
        "not a {old_n} but a {n}",
        "i want a {n}",
        "i would like a {n} like this",
        "change it to a {n}",
        "as a {n}",
        "a {n} that goes with this",
        "a matching {n}",
        "a {n} and not a {old_n}",
        "a {n} rather than a {old_n}",
        "it is a {n}",
        "a {n} in this color",
        "same color, {n}",
        "find a {n} of this color",
        "turn it into a {n}",
    ),
    ("could i have a {n}", "show me a {n} of that color", "better a {n}", "swap the {old_n} for a {n}"),
)
LONG_SLEEVES = Templates(
    (
        "with long sleeves",
        "has long sleeves",
        "has longer sleeves",
        "longer sleeves",
        "is long sleeved",
        "long sleeved",
        "make the sleeves longer",
        "with longer sleeves",
        "the sleeves are longer",
        "long sleeves instead of short sleeves",
        "not short sleeved",
        "sleeves down to the wrist",
    ),
    ("same thing, long sleeved please", "the arms are covered"),
)
SHORT_SLEEVES = Templates(
    (
        "with short sleeves",
        "has short sleeves",
        "has shorter sleeves",
        "shorter sleeves",
        "is short sleeved",
        "short sleeved",
        "make the sleeves shorter",
        "with shorter sleeves",
        "the sleeves are shorter",
        "short sleeves instead of long sleeves",
        "not long sleeved",
    ),
    ("same thing, short sleeved please", "for the summer, sleeves only to the elbow"),
)
NO_SLEEVES = Templates(
    (
        "sleeveless",
        "is sleeveless",
        "without sleeves",
        "has no sleeves",
        "no sleeves",
        "remove the sleeves",
        "with straps",
        "has straps instead of sleeves",
        "has thin straps",
        "with bare arms",
        "spaghetti straps",
    ),
    ("the sleeves are gone", "straps, no sleeves at all"),
)
LONGER = Templates(
    ("longer", "is longer", "with long legs", "full length", "with longer legs", "make it longer", "down to the ankle"),
    ("legs all the way down",),
)
SHORTER = Templates(
    (
        "shorter",
        "is shorter",
        "with short legs",
        "knee length",
        "with shorter legs",
        "make it shorter",
        "above the knee",
    ),
    ("legs cut off at the knee",),
)
SHADES: dict[Shade, Templates] = {
    "lighter": Templates(
        (
            "lighter",
            "is lighter",
            "in a lighter shade",
            "lighter in color",
            "has a lighter color",
            "a lighter tone",
            "paler",
            "is paler",
            "a bit lighter",
            "much lighter",
            "make it lighter",
            "is lighter in color",
            "not so dark",
            "less dark",
            "a lighter shade of {old_c}",
        ),
        ("the color a little less dark", "same hue, lighter"),
    ),
    "darker": Templates(
        (
            "darker",
            "is darker",
            "in a darker shade",
            "darker in color",
            "has a darker color",
            "a darker tone",
            "deeper in color",
            "a bit darker",
            "much darker",
            "make it darker",
            "is darker in color",
            "not so light",
            "less light",
            "a darker shade of {old_c}",
        ),
        ("the color a little less light", "same hue, darker"),
    ),
    "brighter": Templates(
        (
            "brighter",
            "is brighter",
            "more vivid",
            "more colorful",
            "is more colorful",
            "in a brighter color",
            "has brighter colors",
            "a stronger color",
            "is more vibrant",
            "less grey",
            "bolder",
            "is bolder",
        ),
        ("with stronger colors",),
    ),
    "duller": Templates(
        (
            "more muted",
            "is more muted",
            "less bright",
            "is less bright",
            "duller",
            "in a duller color",
            "less colorful",
            "more subtle",
            "a softer color",
            "washed out",
            "faded",
            "is faded",
            "not so bright",
        ),
        ("with weaker colors",),
    ),
}
PATTERN_ON = Templates(
    (
        "with {p}",
        "has {p}",
        "add {p}",
        "is {a}",
        "{a}",
        "the same with {p}",
        "make it {a}",
        "a {a} {n}",
        "a {a} one",
        "has a {a} pattern",
        "with a {a} pattern",
        "a {a} print",
        "{p} all over",
        "{a} instead of plain",
        "with {p} instead of plain",
        "is not plain but {a}",
        "is {a} and not solid",
        "with {c} {p}",
        "has {c} {p}",
        "with {p} in {c}",
        "the {p} are {c}",
    ),
    ("put {p} on it", "could it be {a}", "covered in {p}"),
)
PATTERN_OFF = Templates(
    (
        "plain",
        "is plain",
        "solid",
        "is solid",
        "without the {old_p}",
        "no {old_p}",
        "without {old_p}",
        "remove the {old_p}",
        "has no {old_p}",
        "has no pattern",
        "no pattern",
        "without a pattern",
        "not {old_a}",
        "is not {old_a}",
        "a plain {n}",
        "solid colored",
        "is a solid color",
        "in one color only",
        "plain instead of {old_a}",
        "less {old_a}, more plain",
    ),
    ("take the {old_p} away", "nothing on the fabric"),
)
PATTERN_CHANGED = Templates(
    (
        "{p} instead of {old_p}",
        "{a} instead of {old_a}",
        "with {p} and not {old_p}",
        "is {a}, not {old_a}",
        "not {old_a} but {a}",
        "change the {old_p} to {p}",
        "has {p}",
        "with {p}",
        "is {a}",
        "{a}",
        "no {old_p} but {p}",
    ),
    ("swap the {old_p} for {p}",),
)
GRAPHIC_ON = Templates(
    (
        "with {p}",
        "has {p}",
        "add {p}",
        "the same with {p}",
        "there is {p}",
        "has {p} on it",
        "has {p} on the front",
        "with {p} on the chest",
        "has {p} on the chest",
        "with {p} on the front",
        "has {c} {a}",
        "with {c} {a}",
        "with {c} {a} on the front",
        "is not plain, it has {p}",
    ),
    ("put {p} on it", "{p} printed across"),
)
GRAPHIC_OFF = Templates(
    (
        "without {old_a}",
        "no {old_a}",
        "has no {old_a}",
        "without the {old_a}",
        "remove the {old_a}",
        "plain",
        "is plain",
        "plain front",
        "with nothing on the front",
        "has nothing on it",
        "without a print",
        "no print on the chest",
        "a plain {n}",
    ),
    ("take the {old_a} away", "an empty front"),
)
PATTERN_NOUNS: dict[Pattern, tuple[str, ...]] = {
    "stripes": ("stripes", "lines", "a striped pattern", "stripes"),
    "checks": ("checks", "plaid", "squares", "a plaid pattern", "a checkered pattern", "a checked pattern"),
    "dots": ("dots", "polka dots", "spots", "a dotted pattern"),
    "flowers": ("flowers", "a floral pattern", "a flower print", "blossoms", "a floral print"),
}
PATTERN_ADJECTIVES: dict[Pattern, tuple[str, ...]] = {
    "stripes": ("striped", "stripy"),
    "checks": ("checked", "checkered", "plaid"),
    "dots": ("dotted", "polka dot", "spotted"),
    "flowers": ("floral", "flowery", "flowered"),
}
GRAPHIC_NOUNS: dict[Graphic, tuple[str, ...]] = {
    "picture": ("a graphic", "a print", "a picture", "a logo", "a design", "an image", "a symbol", "a large graphic"),
    "letters": ("text", "letters", "words", "writing", "a slogan", "lettering", "a text print", "a word"),
}
GRAPHIC_BARE: dict[Graphic, tuple[str, ...]] = {
    "picture": ("graphic", "print", "picture", "logo", "design", "image"),
    "letters": ("text", "letters", "words", "writing", "lettering", "slogan"),
}
JOINS = (" and ", " and ", ", ", ", and ", " and also ")
BOTH = ("{c} with {p}", "in {c} with {p}", "{c} and {a}", "a {c} {n} with {p}", "{a} and {c}", "is {c} and has {p}")
POLITE = ("", "", "", "", "", "", "please ", "now ", "the new one is ", "the other one, ", "something similar, ")


def change_text(before: Appearance, after: Appearance, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Return how a garment's look has changed: colour, pattern, graphic, or several of them.

    Args:
        before: the reference.
        after: the target; of the same kind.
        rng: which wording.
        held_out: take wordings that training never sees.

    Returns:
        The text; empty where nothing that both pictures are known for differs.
    """
    parts: list[str] = []
    if after.colour and after.colour != before.colour:
        parts.append(_filled(COLOUR, before, after, rng, held_out=held_out))
    if after.pattern != before.pattern and "unknown" not in (before.pattern, after.pattern):
        parts.append(_filled(_pattern_templates(before, after), before, after, rng, held_out=held_out))
    if after.graphic != before.graphic and "unknown" not in (before.graphic, after.graphic):
        group = GRAPHIC_ON if after.graphic != "none" else GRAPHIC_OFF
        parts.append(_filled(group, before, after, rng, held_out=held_out))
    is_both = len(parts) == 2 and after.pattern in PATTERN_NOUNS and after.colour not in ("", before.colour)
    if is_both and not held_out and rng.random() < 0.4:
        return _fill(_pick(BOTH, rng), before, after, rng, colour=after.colour)
    rng.shuffle(parts)
    joined = parts[0] if parts else ""
    for part in parts[1:]:
        joined += _pick(JOINS, rng) + part
    return joined if held_out or not joined else _pick(POLITE, rng) + joined


def class_text(before: Appearance, kind: Kind, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Ask for another kind of clothing in the same colour."""
    return _filled(CLASS, before, Appearance(kind, ""), rng, held_out=held_out)


def sleeve_text(sleeves: str, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Ask for ``long``, ``short`` or no (``none``) sleeves."""
    groups = {"long": LONG_SLEEVES, "short": SHORT_SLEEVES, "none": NO_SLEEVES}
    return _template(groups[sleeves], rng, held_out=held_out)


def length_text(*, is_longer: bool, rng: np.random.Generator, held_out: bool = False) -> str:
    """Ask for longer or shorter legs."""
    return _template(LONGER if is_longer else SHORTER, rng, held_out=held_out)


def shade_text(shade: Shade, before: Appearance, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Ask for the same hue in another shade."""
    return _filled(SHADES[shade], before, before, rng, held_out=held_out)


def training_words(colours: tuple[str, ...], kinds: tuple[Kind, ...]) -> frozenset[str]:
    """Collect every word that a training text can hold."""
    texts: list[str] = [*colours, *JOINS, *BOTH, *POLITE]
    texts += [noun for kind in kinds for noun in kind.nouns]
    for group in _all_templates():
        texts += group.training
    for nouns in (PATTERN_NOUNS, PATTERN_ADJECTIVES, GRAPHIC_NOUNS, GRAPHIC_BARE):
        texts += [noun for listed in nouns.values() for noun in listed]
    bare = re.sub(r"\{\w+\}", " ", " ".join(texts))
    return frozenset(re.findall(r"\w+", bare))


def _all_templates() -> Iterator[Templates]:
    yield from (COLOUR, CLASS, LONG_SLEEVES, SHORT_SLEEVES, NO_SLEEVES, LONGER, SHORTER, *SHADES.values())
    yield from (PATTERN_ON, PATTERN_OFF, PATTERN_CHANGED, GRAPHIC_ON, GRAPHIC_OFF)


def _pattern_templates(before: Appearance, after: Appearance) -> Templates:
    if after.pattern == "plain":
        return PATTERN_OFF
    return PATTERN_ON if before.pattern == "plain" else PATTERN_CHANGED


def _filled(
    group: Templates, before: Appearance, after: Appearance, rng: np.random.Generator, *, held_out: bool
) -> str:
    colour = after.colour if group is COLOUR else after.second
    while True:
        template = _template(group, rng, held_out=held_out)
        # a template that names what is not known cannot be used
        if ("{old_c}" in template and not before.colour) or ("{c}" in template and not colour):
            continue
        return _fill(template, before, after, rng, colour=colour)


def _fill(template: str, before: Appearance, after: Appearance, rng: np.random.Generator, *, colour: str) -> str:
    words = {
        "c": colour,
        "old_c": before.colour,
        "n": _pick(after.kind.nouns, rng),
        "old_n": _pick(before.kind.nouns, rng),
        "p": _noun(after, rng),
        "a": _adjective(after, rng),
        "old_p": _noun(before, rng),
        "old_a": _adjective(before, rng),
    }
    if "{c} {p}" in template and words["p"].startswith("a "):
        words["p"] = words["p"].removeprefix("a ")
    if "no {old_p}" in template or "the {old_p}" in template:
        words["old_p"] = words["old_p"].removeprefix("a ")
    return template.format(**words)


def _noun(look: Appearance, rng: np.random.Generator) -> str:
    if look.pattern in PATTERN_NOUNS:
        return _pick(PATTERN_NOUNS[look.pattern], rng)
    return _pick(GRAPHIC_NOUNS[look.graphic], rng) if look.graphic in GRAPHIC_NOUNS else "a pattern"


def _adjective(look: Appearance, rng: np.random.Generator) -> str:
    if look.pattern in PATTERN_ADJECTIVES:
        return _pick(PATTERN_ADJECTIVES[look.pattern], rng)
    return _pick(GRAPHIC_BARE[look.graphic], rng) if look.graphic in GRAPHIC_BARE else "plain"


def _template(group: Templates, rng: np.random.Generator, *, held_out: bool) -> str:
    return _pick(group.held_out if held_out else group.training, rng)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
