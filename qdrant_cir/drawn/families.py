"""Everything that can be drawn: colours, patterns, families and the part slots of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["COLORS", "FAMILIES", "PATTERNS", "FamilySpec", "PartSpec"]

COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (212, 36, 40),
        "orange": (247, 134, 30),
        "yellow": (252, 216, 54),
        "green": (48, 150, 70),
        "blue": (66, 146, 236),
        "navy": (24, 38, 104),
        "purple": (132, 60, 168),
        "pink": (250, 158, 196),
        "brown": (120, 74, 42),
        "black": (30, 30, 32),
        "white": (248, 248, 246),
        "grey": (144, 148, 154),
    }
)
"""Colour names and their RGB values, 0 to 255, before light and noise."""

PATTERNS = ("solid", "striped", "dotted", "checked", "zigzag")
_SMALL = ("solid", "striped", "dotted", "checked")
_PLAIN = ("solid",)
_ANY = tuple(COLORS)
_LENGTH = ("short", "long")
_WHOLE = ("medium",)
_ONE = (1,)


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part that products of a family may have.

    Attributes:
        name: canonical name, as in ``Part.name``.
        singular: noun for one of them.
        plural: noun for several; equal to ``singular`` where there is only ever one.
        is_plural: whether the part is always spoken of in the plural, e.g. sleeves.
        is_optional: whether it may be absent.
        patterns: allowed patterns, ``solid`` first.
        sizes: allowed sizes, small one first; one value where the size does not vary.
        counts: allowed counts; one value where the count does not vary.
        colors: allowed colours.
        synonyms: other nouns for it, in the number of ``is_plural``.
    """

    name: str
    singular: str
    plural: str
    is_plural: bool = False
    is_optional: bool = False
    patterns: tuple[str, ...] = _PLAIN
    sizes: tuple[str, ...] = _WHOLE
    counts: tuple[int, ...] = _ONE
    colors: tuple[str, ...] = _ANY
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilySpec:
    """A kind of product.

    Attributes:
        name: canonical name, as in ``Scene.family``.
        nouns: names for it, the most common first.
        is_plural: whether the noun is plural (trousers).
        slots: the part slots, main part first.
        prices: lowest and highest price in the gallery manifest.
    """

    name: str
    nouns: tuple[str, ...]
    slots: tuple[PartSpec, ...]
    prices: tuple[int, int]
    is_plural: bool = False

    def slot(self, name: str) -> PartSpec:
        """Return the slot of this name."""
        return next(slot for slot in self.slots if slot.name == name)


def _main(name: str = "body", *, sizes: tuple[str, ...] = _WHOLE, synonyms: tuple[str, ...] = ()) -> PartSpec:
    return PartSpec(name, name, name, patterns=PATTERNS, sizes=sizes, synonyms=synonyms)


def _one(
    name: str,
    *,
    patterns: tuple[str, ...] = _PLAIN,
    optional: bool = False,
    sizes: tuple[str, ...] = _WHOLE,
    synonyms: tuple[str, ...] = (),
) -> PartSpec:
    return PartSpec(name, name, name, is_optional=optional, patterns=patterns, sizes=sizes, synonyms=synonyms)


def _pair(
    name: str,
    singular: str,
    *,
    patterns: tuple[str, ...] = _PLAIN,
    sizes: tuple[str, ...] = _WHOLE,
    optional: bool = False,
    synonyms: tuple[str, ...] = (),
) -> PartSpec:
    return PartSpec(
        name,
        singular,
        name,
        is_plural=True,
        is_optional=optional,
        patterns=patterns,
        sizes=sizes,
        synonyms=synonyms,
    )


def _counted(
    plural: str,
    singular: str,
    counts: tuple[int, ...],
    *,
    optional: bool = False,
    patterns: tuple[str, ...] = _PLAIN,
) -> PartSpec:
    return PartSpec(plural, singular, plural, is_plural=True, is_optional=optional, counts=counts, patterns=patterns)


_FAMILY_LIST = (
    FamilySpec(
        "t-shirt",
        ("t-shirt", "tshirt", "tee"),
        (
            _main(synonyms=("shirt",)),
            _pair("sleeves", "sleeve", patterns=_SMALL, sizes=_LENGTH, synonyms=("arms",)),
            _one("collar", synonyms=("neckline",)),
            _one("pocket", patterns=_SMALL, optional=True),
        ),
        (12, 45),
    ),
    FamilySpec(
        "shirt",
        ("shirt", "blouse"),
        (
            _main(),
            _pair("sleeves", "sleeve", patterns=_SMALL, sizes=_LENGTH, synonyms=("arms",)),
            _one("collar"),
            _counted("buttons", "button", (1, 2, 3, 4, 5)),
            _counted("pockets", "pocket", (1, 2), optional=True),
        ),
        (25, 90),
    ),
    FamilySpec(
        "dress",
        ("dress", "gown"),
        (
            _main(sizes=_LENGTH),
            _pair("sleeves", "sleeve", sizes=_LENGTH, patterns=_SMALL, synonyms=("arms",)),
            _one("collar", synonyms=("neckline",)),
            _one("belt", optional=True, synonyms=("sash",)),
            _counted("buttons", "button", (1, 2, 3, 4), optional=True),
        ),
        (35, 160),
    ),
    FamilySpec(
        "skirt",
        ("skirt",),
        (
            _main(sizes=_LENGTH),
            _one("waistband", patterns=_SMALL, synonyms=("waist",)),
            _counted("pockets", "pocket", (1, 2), optional=True),
            _one("hem", optional=True, patterns=_SMALL, synonyms=("trim",)),
        ),
        (20, 80),
    ),
    FamilySpec(
        "trousers",
        ("trousers", "pants"),
        (
            PartSpec("legs", "leg", "legs", is_plural=True, patterns=PATTERNS, sizes=_LENGTH),
            _one("waistband", synonyms=("waist",)),
            _counted("patches", "patch", (1, 2), optional=True, patterns=_SMALL),
            _pair("cuffs", "cuff", optional=True),
        ),
        (30, 110),
        is_plural=True,
    ),
    FamilySpec(
        "hoodie",
        ("hoodie", "jumper", "sweater"),
        (
            _main(),
            _pair("sleeves", "sleeve", patterns=_SMALL, synonyms=("arms",)),
            _one("hood", patterns=_SMALL),
            _one("pocket", patterns=_SMALL, optional=True),
            _pair("cuffs", "cuff", optional=True),
        ),
        (30, 95),
    ),
    FamilySpec(
        "handbag",
        ("handbag", "bag", "purse"),
        (
            _main(),
            _one("flap", patterns=_SMALL, synonyms=("cover",)),
            _one("strap", sizes=_LENGTH, synonyms=("handle",)),
            _counted("buttons", "button", (1, 2, 3)),
        ),
        (40, 220),
    ),
    FamilySpec(
        "backpack",
        ("backpack", "rucksack", "bag"),
        (
            _main(),
            _one("flap", patterns=_SMALL, synonyms=("lid",)),
            _pair("straps", "strap"),
            _one("pocket", patterns=_SMALL, optional=True),
            _counted("badges", "badge", (1, 2, 3), optional=True),
        ),
        (35, 140),
    ),
    FamilySpec(
        "sneaker",
        ("sneaker", "shoe", "trainer"),
        (
            _main(synonyms=("upper",)),
            _one("sole", sizes=("thin", "thick")),
            _one("toe"),
            _one("heel", patterns=_SMALL),
            _counted("stars", "star", (1, 2, 3), optional=True),
        ),
        (45, 150),
    ),
    FamilySpec(
        "mug",
        ("mug", "cup"),
        (
            _main(sizes=("short", "tall")),
            _one("handle", sizes=("small", "large")),
            _one("rim", synonyms=("edge",)),
            _counted("hearts", "heart", (1, 2, 3), optional=True),
        ),
        (8, 30),
    ),
    FamilySpec(
        "lamp",
        ("lamp", "light"),
        (
            _main("shade", sizes=("small", "large")),
            _one("stem", sizes=("thin", "thick"), synonyms=("stand",)),
            _one("base", patterns=_SMALL, synonyms=("foot",)),
            _counted("tassels", "tassel", (1, 2, 3, 4), optional=True),
        ),
        (25, 130),
    ),
    FamilySpec(
        "hat",
        ("hat",),
        (
            _main("crown", sizes=("low", "tall"), synonyms=("top",)),
            _one("brim", patterns=_SMALL, sizes=("narrow", "wide")),
            _one("band", optional=True, synonyms=("ribbon",)),
            _counted("feathers", "feather", (1, 2, 3), optional=True),
        ),
        (18, 75),
    ),
)

FAMILIES: Mapping[str, FamilySpec] = MappingProxyType({spec.name: spec for spec in _FAMILY_LIST})
"""Every family by its name."""
