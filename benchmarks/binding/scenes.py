"""Families of products that differ in which part has which look, and queries of two tasks between them.

``named``: the text, or the reference, names the look that each part gets. ``alike``: the text says which parts are
alike, in looks that neither it nor the reference names, so that only the picture that is found shows whether they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

import numpy as np

from qdrant_cir.drawn.families import PATTERNS
from qdrant_cir.drawn.scene import Part, Scene, contrasting_colors, pick, sample_scene, with_part
from qdrant_cir.drawn.wording import look_phrase, part_noun

BOUND = 3
"""Number of parts of a family whose looks vary, and of looks that they share."""

ASSIGNMENTS = tuple(product(range(BOUND), repeat=BOUND))
"""Which look each of the parts has: a picture of a family for every one."""

Assignment = tuple[int, ...]


def scheme_of(assignment: Assignment) -> Assignment:
    """Return which parts have one look: looks are numbered anew, in the order of the parts."""
    numbers = list(dict.fromkeys(assignment))
    return tuple(numbers.index(look) for look in assignment)


SCHEMES = tuple(dict.fromkeys(map(scheme_of, ASSIGNMENTS)))
"""What can be alike: a reference of a family for each, in looks that no other picture of the family has."""

_PATTERNED = 0.5


@dataclass(frozen=True, slots=True)
class BoundFamily:
    """One product in every assignment of some looks to some of its parts.

    Attributes:
        base: the product; the looks of the bound parts do not count.
        parts: names of the bound parts.
        looks: colour, pattern and pattern colour, as a part that has nothing else.
        reference_looks: likewise, of the references.
    """

    base: Scene
    parts: tuple[str, ...]
    looks: tuple[Part, ...]
    reference_looks: tuple[Part, ...]

    def scene(self, assignment: Assignment) -> Scene:
        """Return the product whose i-th bound part has the look of this number."""
        return self._dressed(assignment, self.looks)

    def reference(self, scheme: Assignment) -> Scene:
        """Return the reference whose i-th bound part has the reference look of this number."""
        return self._dressed(scheme, self.reference_looks)

    def _dressed(self, assignment: Assignment, looks: tuple[Part, ...]) -> Scene:
        scene = self.base
        for name, number in zip(self.parts, assignment, strict=True):
            part, look = scene.part(name), looks[number]
            if part is not None:
                given = replace(part, color=look.color, pattern=look.pattern, pattern_color=look.pattern_color)
                scene = with_part(scene, given)
        return scene


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A reference and a text, and which pictures of the family answer them.

    Attributes:
        kind: a key of ``TASKS[task]``.
        reference: a place in ``ASSIGNMENTS``; in the task ``alike`` a place in ``SCHEMES``.
        targets: places in ``ASSIGNMENTS``.
        text: the modification text.
    """

    kind: str
    reference: int
    targets: tuple[int, ...]
    text: str


def sample_family(rng: np.random.Generator) -> BoundFamily:
    """Draw a product with at least three parts, three of these and three looks that all of them may have."""
    while True:
        base = sample_scene(rng)
        if len(base.parts) < BOUND:
            continue
        chosen = [base.parts[place] for place in rng.permutation(len(base.parts))[:BOUND]]
        slots = [base.spec.slot(part.name) for part in chosen]
        colors = [color for color in slots[0].colors if all(color in slot.colors for slot in slots)]
        drawn = [
            Part("look", colors[place], "solid", None, "medium", 1)
            for place in rng.permutation(len(colors))[: 2 * BOUND]
        ]
        looks, others = drawn[:BOUND], drawn[BOUND:]
        patterns = [p for p in PATTERNS if p != "solid" and all(p in slot.patterns for slot in slots)]
        if patterns and rng.random() < _PATTERNED:
            second = pick(rng, contrasting_colors(looks[0].color))
            looks[0] = replace(looks[0], pattern=pick(rng, patterns), pattern_color=second)
        return BoundFamily(base, tuple(part.name for part in chosen), tuple(looks), tuple(others))


@dataclass(frozen=True, slots=True)
class _Draft:
    """The parts and looks of a query: ``first``, ``second`` and ``third`` are the bound parts in random order."""

    family: BoundFamily
    rng: np.random.Generator
    reference: Assignment
    first: int
    second: int
    third: int
    look: int
    other: int

    def noun(self, place: int) -> str:
        name = self.family.parts[place]
        part = self.family.base.part(name)
        slot = self.family.base.spec.slot(name)
        return f"the {part_noun(slot, self.rng, count=0 if part is None else part.count)}"

    def nouns(self) -> tuple[str, str, str]:
        return self.noun(self.first), self.noun(self.second), self.noun(self.third)

    def words(self, look: int) -> str:
        return look_phrase(self.family.looks[look], self.rng)

    def changed(self, changes: Mapping[int, int]) -> Assignment:
        return tuple(changes.get(place, number) for place, number in enumerate(self.reference))


_Drafted = tuple[list[Assignment], tuple[str, ...]]
"""Right answers, and wordings to choose from."""


def _bind(draft: _Draft) -> _Drafted:
    first, second = draft.noun(draft.first), draft.noun(draft.second)
    look, other = draft.words(draft.look), draft.words(draft.other)
    return [draft.changed({draft.first: draft.look, draft.second: draft.other})], (
        f"make {first} {look} and {second} {other}",
        f"{first} {look}, {second} {other}",
        f"{first} should be {look} and {second} {other}",
    )


def _exchange(draft: _Draft) -> _Drafted:
    first, second = draft.noun(draft.first), draft.noun(draft.second)
    swapped = {draft.first: draft.reference[draft.second], draft.second: draft.reference[draft.first]}
    return [draft.changed(swapped)], (
        f"swap the colours of {first} and {second}",
        f"{first} and {second} with colours swapped",
        f"{first} like {second} now, and {second} like {first} now",
    )


def _chain(draft: _Draft) -> _Drafted:
    first, second, other = draft.noun(draft.first), draft.noun(draft.second), draft.words(draft.other)
    return [draft.changed({draft.first: draft.reference[draft.second], draft.second: draft.other})], (
        f"{first} like {second} now, and {second} {other}",
        f"make {second} {other}, and {first} as {second} is now",
        f"give {first} the colour that {second} has now, and make {second} {other}",
    )


def _compare(draft: _Draft) -> _Drafted:
    first, second, third = (draft.noun(place) for place in (draft.first, draft.second, draft.third))
    other = draft.words(draft.other)
    return [draft.changed({draft.first: draft.reference[draft.third], draft.second: draft.other})], (
        f"{first} in the same colour as {third}, and {second} {other}",
        f"make {second} {other}, and {first} like {third}",
        f"{second} {other} and {first} the same as {third}",
    )


def _not_this_part(draft: _Draft) -> _Drafted:
    first, second, other = draft.noun(draft.first), draft.noun(draft.second), draft.words(draft.other)
    return [draft.changed({draft.second: draft.other})], (
        f"make {second} {other}, not {first}",
        f"not {first} but {second} {other}",
        f"{second} {other}, but keep {first}",
    )


def _not_this_look(draft: _Draft) -> _Drafted:
    first, second = draft.noun(draft.first), draft.noun(draft.second)
    now, other = draft.words(draft.reference[draft.first]), draft.words(draft.other)
    others = [look for look in range(BOUND) if look != draft.reference[draft.first]]
    return [draft.changed({draft.first: look, draft.second: draft.other}) for look in others], (
        f"{first} not {now}, and {second} {other}",
        f"make {second} {other}, and {first} any colour but {now}",
        f"{first} in other colours than {now}, {second} {other}",
    )


def _where(holds: Callable[[Assignment], bool]) -> list[Assignment]:
    return [assignment for assignment in ASSIGNMENTS if holds(assignment)]


def _match(draft: _Draft) -> _Drafted:
    first, second, third = draft.nouns()
    return _where(lambda a: a[draft.first] == a[draft.second] != a[draft.third]), (
        f"{first} in the same colour as {second}, but not {third}",
        f"{first} and {second} in one colour, {third} not",
        f"{first} like {second}, {third} not",
    )


def _differ(draft: _Draft) -> _Drafted:
    first, second, third = draft.nouns()
    return _where(lambda a: len(set(a)) == BOUND), (
        f"{first}, {second} and {third} in three colours",
        f"no two of {first}, {second} and {third} in the same colour",
    )


def _as_here(draft: _Draft) -> _Drafted:
    first, second, third = draft.nouns()
    return _where(lambda a: scheme_of(a) == draft.reference), (
        f"{first}, {second} and {third} like this, but in other colours",
        f"new colours, but {first}, {second} and {third} as in this picture",
    )


def _bind_as_here(draft: _Draft) -> _Drafted:
    (first, second, third), look = draft.nouns(), draft.words(draft.look)
    return _where(lambda a: a[draft.first] == draft.look and scheme_of(a) == draft.reference), (
        f"{first}, {second} and {third} like this, but in other colours, with {first} in {look}",
        f"make {first} {look}, with {second} and {third} as in this picture, but in new colours",
    )


def _bind_and_match(draft: _Draft) -> _Drafted:
    (first, second, third), look = draft.nouns(), draft.words(draft.look)
    return _where(lambda a: a[draft.first] == draft.look != a[draft.second] == a[draft.third]), (
        f"make {first} {look}, and {second} like {third}, but not like {first}",
        f"{first} {look}, {second} and {third} in one other colour",
    )


def _bind_and_differ(draft: _Draft) -> _Drafted:
    (first, second, third), look = draft.nouns(), draft.words(draft.look)
    return _where(lambda a: a[draft.first] == draft.look and len(set(a)) == BOUND), (
        f"make {first} {look}, and {second} and {third} in two other colours",
        f"{first} {look}, and {second} not like {third} and not like {first}",
    )


TASKS: Mapping[str, Mapping[str, Callable[[_Draft], _Drafted]]] = MappingProxyType(
    {
        "named": {
            "bind": _bind,
            "exchange": _exchange,
            "chain": _chain,
            "compare": _compare,
            "not this part": _not_this_part,
            "not this look": _not_this_look,
        },
        "alike": {
            "match": _match,
            "all differ": _differ,
            "as here": _as_here,
            "bind, as here": _bind_as_here,
            "bind and match": _bind_and_match,
            "bind and differ": _bind_and_differ,
        },
    }
)
"""What the queries of each task ask for."""


def sample_query(family: BoundFamily, task: str, rng: np.random.Generator) -> BoundQuery:
    """Draw a query. Its right answers differ from the reference in every part that the text changes."""
    kind = pick(rng, tuple(TASKS[task]))
    own = ASSIGNMENTS if task == "named" else SCHEMES
    while True:
        first, second, third = (int(place) for place in rng.permutation(BOUND))
        look, other = (int(number) for number in rng.permutation(BOUND)[:2])
        reference = int(rng.integers(len(own)))
        draft = _Draft(family, rng, own[reference], first, second, third, look, other)
        targets, wordings = TASKS[task][kind](draft)
        # references of the task "alike" share no look with any answer
        changed = {first, second} - ({first} if kind == "not this part" else set()) if task == "named" else set()
        if all(target[place] != draft.reference[place] for target in targets for place in changed):
            places = tuple(ASSIGNMENTS.index(target) for target in targets)
            return BoundQuery(kind, reference, places, pick(rng, wordings))
