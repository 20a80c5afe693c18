"""Words for colours, patterns, counts, sizes and parts, to fill the templates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qdrant_cir.drawn.families import FAMILIES, FamilySpec, PartSpec
from qdrant_cir.drawn.scene import Part, pick

__all__ = [
    "COLOR_WORDS",
    "COMPARATIVES",
    "COUNT_WORDS",
    "PATTERN_ADJECTIVES",
    "PATTERN_NOUNS",
    "SIZE_WORDS",
    "article",
    "attribute_words",
    "bare_phrase",
    "color_word",
    "family_noun",
    "look_phrase",
    "part_noun",
    "part_phrase",
    "part_words",
    "verb",
]

COLOR_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "red": ("red", "red", "red", "scarlet"),
        "orange": ("orange", "orange", "orange", "tangerine"),
        "yellow": ("yellow", "yellow", "yellow", "golden yellow"),
        "green": ("green",),
        "blue": ("blue", "blue", "light blue", "sky blue"),
        "navy": ("navy", "navy", "navy blue", "dark blue"),
        "purple": ("purple", "purple", "violet"),
        "pink": ("pink", "pink", "pink", "rose"),
        "brown": ("brown", "brown", "brown", "chocolate"),
        "black": ("black",),
        "white": ("white",),
        "grey": ("grey", "gray"),
    }
)
"""Names of each colour, common ones repeated; no name stands for two colours."""

PATTERN_ADJECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "solid": ("plain", "solid"),
        "striped": ("striped", "striped", "stripy"),
        "dotted": ("dotted", "spotted", "polka dot"),
        "checked": ("checked", "checked", "plaid", "checkered"),
        "zigzag": ("zigzag", "zigzag", "chevron"),
    }
)

PATTERN_NOUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "striped": ("stripes", "stripes", "lines"),
        "dotted": ("dots", "polka dots", "spots"),
        "checked": ("checks", "squares"),
        "zigzag": ("zigzags", "chevrons"),
    }
)

COUNT_WORDS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("one", "one", "a single", "1"),
        2: ("two", "two", "2"),
        3: ("three", "three", "3"),
        4: ("four", "four", "4"),
        5: ("five", "five", "5"),
    }
)

SIZE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "short": ("short",),
        "long": ("long",),
        "small": ("small", "little"),
        "large": ("large", "big"),
        "thin": ("thin", "slim"),
        "thick": ("thick", "chunky"),
        "narrow": ("narrow", "small"),
        "wide": ("wide", "broad"),
        "low": ("low",),
        "tall": ("tall", "high"),
    }
)

COMPARATIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "short": ("shorter",),
        "long": ("longer",),
        "small": ("smaller",),
        "large": ("larger", "bigger"),
        "thin": ("thinner", "slimmer"),
        "thick": ("thicker", "chunkier"),
        "narrow": ("narrower", "smaller"),
        "wide": ("wider", "broader"),
        "low": ("lower",),
        "tall": ("taller", "higher"),
    }
)


def attribute_words() -> frozenset[str]:
    """Return every word for a colour, a pattern, a count or a size."""
    tables = (COLOR_WORDS, PATTERN_ADJECTIVES, PATTERN_NOUNS, COUNT_WORDS, SIZE_WORDS, COMPARATIVES)
    phrases = (phrase for table in tables for phrases in table.values() for phrase in phrases)
    return frozenset(word for phrase in phrases for word in phrase.split() if word != "a")


def part_words() -> frozenset[str]:
    """Return every word for a part."""
    slots = (slot for spec in FAMILIES.values() for slot in spec.slots)
    names = (name for slot in slots for name in (slot.name, slot.singular, slot.plural, *slot.synonyms))
    return frozenset(word for name in names for word in name.split())


def color_word(color: str, rng: np.random.Generator) -> str:
    """Return a name of the colour."""
    return pick(rng, COLOR_WORDS[color])


def family_noun(spec: FamilySpec, rng: np.random.Generator) -> str:
    """Return a noun for the family, mostly the most common one."""
    return spec.nouns[0] if rng.random() < 0.5 else pick(rng, spec.nouns)


def part_noun(slot: PartSpec, rng: np.random.Generator, *, count: int = 0) -> str:
    """Return a noun for the part, in the singular where there is one of it.

    Args:
        slot: the part's slot.
        rng: source of randomness.
        count: how many there are; 0 for the noun in general.
    """
    if len(slot.counts) > 1:
        return slot.singular if count == 1 else slot.plural
    if slot.synonyms and rng.random() < 0.3:
        return pick(rng, slot.synonyms)
    return slot.plural if slot.is_plural else slot.singular


def verb(slot: PartSpec, *, count: int = 0) -> str:
    """Return ``is`` or ``are``."""
    return "are" if slot.is_plural and not (len(slot.counts) > 1 and count == 1) else "is"


def look_phrase(part: Part, rng: np.random.Generator) -> str:
    """Return colour and pattern after a verb: ``red with white dots``, ``striped in red and white``."""
    base = color_word(part.color, rng)
    if part.pattern_color is None:
        return f"plain {base}" if rng.random() < 0.25 else base
    second, chance = color_word(part.pattern_color, rng), rng.random()
    if chance < 0.6:
        return f"{base} with {second} {pick(rng, PATTERN_NOUNS[part.pattern])}"
    adjective = pick(rng, PATTERN_ADJECTIVES[part.pattern])
    return f"{base} and {second} {adjective}" if chance < 0.85 else f"{adjective} in {base} and {second}"


def part_phrase(part: Part, slot: PartSpec, rng: np.random.Generator) -> str:
    """Return the part with all its attributes: ``three black buttons``, ``long sleeves with white dots``."""
    words = []
    if len(slot.counts) > 1:
        words.append(pick(rng, COUNT_WORDS[part.count]))
    elif not slot.is_plural:
        words.append("a")
    if len(slot.sizes) > 1:
        words.append(pick(rng, SIZE_WORDS[part.size]))
    noun = part_noun(slot, rng, count=part.count)
    words.append(color_word(part.color, rng))
    if part.pattern_color is not None:
        second = color_word(part.pattern_color, rng)
        if rng.random() < 0.5:
            words += ["and", second, pick(rng, PATTERN_ADJECTIVES[part.pattern]), noun]
        else:
            words += [noun, "with", second, pick(rng, PATTERN_NOUNS[part.pattern])]
    else:
        words.append(noun)
    return article(" ".join(words))


def bare_phrase(part: Part, slot: PartSpec, rng: np.random.Generator) -> str:
    """Return the part with its colour alone: ``navy sleeves``."""
    return f"{color_word(part.color, rng)} {part_noun(slot, rng, count=part.count)}"


def article(phrase: str) -> str:
    """Turn ``a orange`` into ``an orange``."""
    words = phrase.split(" ")
    for i in range(len(words) - 1):
        if words[i] == "a" and words[i + 1][0] in "aeiou" and words[i + 1] != "one":
            words[i] = "an"
    return " ".join(words)
