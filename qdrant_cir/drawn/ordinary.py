"""Ordinary queries: a text names one look, "in navy", and every product of the reference's kind in it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.drawn.scene import Scene, main_part, pick
from qdrant_cir.drawn.wording import PATTERN_ADJECTIVES, PATTERN_NOUNS, article, color_word, family_noun

__all__ = ["UNTRAINED_COLORS", "OrdinaryQuery", "ordinary_queries"]

UNTRAINED_COLORS = frozenset({"red"})
"""Colours that no ordinary query of training asks for, so that measurements can show what is learnt for all."""

_COLOR_TEXTS: tuple[str, ...] = (
    "in {look}",
    "in {look}",
    "{look}",
    "in {look} color",
    "the same in {look}",
    "but {look}",
    "make it {look}",
)
_PATTERN_TEXTS: tuple[str, ...] = ("{look}", "in {look}", "but {look}", "make it {look}")
_NAMED_TEXTS: tuple[str, ...] = ("{a}{look} {family}", "the same {family} in {look}", "{a}{family} in {look}")
_NAMED_SHARE, _PATTERN_SHARE, _NOUN_SHARE = 0.25, 0.3, 0.3
_WORDINGS = 3


@dataclass(frozen=True, slots=True)
class OrdinaryQuery:
    """One query.

    Attributes:
        reference: place of the reference among the products.
        look: a colour, or a pattern.
        targets: places of all products of the reference's kind whose main part has the look; the reference has not.
        texts: paraphrases.
    """

    reference: int
    look: str
    targets: tuple[int, ...]
    texts: tuple[str, ...]


def ordinary_queries(
    scenes: Sequence[Scene], rng: np.random.Generator, *, without: frozenset[str] = UNTRAINED_COLORS
) -> list[OrdinaryQuery]:
    """Return at most one query for every product, about a look that others of its kind have.

    Args:
        scenes: the products.
        rng: source of randomness for looks and words.
        without: colours that are not asked for.
    """
    places: dict[str, dict[str, dict[str, list[int]]]] = {"color": {}, "pattern": {}}
    for place, scene in enumerate(scenes):
        for kind, look in (("color", main_part(scene).color), ("pattern", main_part(scene).pattern)):
            if look not in without:
                places[kind].setdefault(scene.family, {}).setdefault(look, []).append(place)
    found = {
        (kind, family, look): tuple(of)
        for kind, families in places.items()
        for family, looks in families.items()
        for look, of in looks.items()
    }
    queries = []
    for place, scene in enumerate(scenes):
        kind = "pattern" if rng.random() < _PATTERN_SHARE else "color"
        own = getattr(main_part(scene), kind)
        looks = [look for look in places[kind].get(scene.family, ()) if look != own]
        if looks:
            look = pick(rng, looks)
            texts = tuple(dict.fromkeys(_text(scene, kind, look, rng) for _ in range(_WORDINGS)))
            queries.append(OrdinaryQuery(place, look, found[kind, scene.family, look], texts))
    return queries


def _text(scene: Scene, kind: str, look: str, rng: np.random.Generator) -> str:
    if kind == "color":
        word, texts = color_word(look, rng), _COLOR_TEXTS
    else:
        nouns = [f"with {noun}" for noun in PATTERN_NOUNS.get(look, ())]
        if nouns and rng.random() < _NOUN_SHARE:
            return pick(rng, nouns)
        word, texts = pick(rng, PATTERN_ADJECTIVES[look]), _PATTERN_TEXTS
    if rng.random() < _NAMED_SHARE:
        texts = _NAMED_TEXTS if kind == "color" else _NAMED_TEXTS[:1]
    a = "" if scene.spec.is_plural else "a "
    return article(pick(rng, texts).format(look=word, a=a, family=family_noun(scene.spec, rng)))
