"""Edits, products and true or false statements in words, in the manner of people's modification texts.

All lower case, from a closed vocabulary. A text constrains everything its edit changes, so that the target scene is
the only right answer; what it does not mention stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qdrant_cir.catalog.edit import Edit, Split
from qdrant_cir.catalog.families import COLORS, FAMILIES, PartSpec
from qdrant_cir.catalog.scene import Part, Scene, main_part, pick
from qdrant_cir.catalog.steps import Step
from qdrant_cir.catalog.templates import LEAD_INS, TAILS, TEST_ONLY, TRAIN, Form
from qdrant_cir.catalog.wording import (
    COLOR_WORDS,
    COMPARATIVES,
    COUNT_WORDS,
    PATTERN_ADJECTIVES,
    PATTERN_NOUNS,
    SIZE_WORDS,
    article,
    bare_phrase,
    color_word,
    family_noun,
    look_phrase,
    part_noun,
    part_phrase,
    verb,
)

__all__ = ["Statement", "describe_edit", "describe_scene", "statement", "vocabulary"]

_TEST_ONLY_SHARE = 0.5
_WHOLE_KEYS = {"recolour_main": "recolour_whole", "repattern": "repattern_whole", "resize": "resize_whole"}
"""A change of the main part may be said of the whole product: ``is striped``, ``a longer dress``."""
_FORMS: tuple[Form, ...] = ("noun", "order", "claim")


@dataclass(frozen=True, slots=True)
class Statement:
    """A claim about one part of a picture.

    Attributes:
        text: the claim.
        part: name of the part it is about.
        attribute: ``color``, ``pattern``, ``size``, ``count`` or ``present``.
        is_true: whether the scene bears it out.
    """

    text: str
    part: str
    attribute: str
    is_true: bool


def _part_fields(slot: PartSpec, count: int, rng: np.random.Generator) -> dict[str, str]:
    plural = slot.is_plural and not (len(slot.counts) > 1 and count == 1)
    return {
        "part": part_noun(slot, rng, count=count),
        "parts": slot.plural,
        "is": verb(slot, count=count),
        "are": verb(slot, count=count),
        "has": "have" if plural else "has",
        "a": "" if plural else "a ",
        "any": "any " if plural else "a ",
    }


def _step_fields(step: Step, scene: Scene, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """Give the template key of a step and its fields."""
    slot = scene.spec.slot(step.part)
    shown = step.after or step.before
    count = 1 if shown is None else shown.count
    fields = _part_fields(slot, count, rng)
    before, after = step.before, step.after
    if step.kind == "add" and after is not None:
        return "add", {**fields, "phrase": part_phrase(after, slot, rng)}
    if before is None or after is None:
        old = "" if before is None else color_word(before.color, rng)
        return "remove", {**fields, "old": old}
    if step.kind in ("recolour", "recolour_all"):
        fields |= {"new": color_word(after.color, rng), "old": color_word(before.color, rng)}
        is_main = step.part == scene.parts[0].name
        return ("recolour_main" if is_main and step.kind == "recolour" else step.kind), fields
    if step.kind == "recolour_pattern":
        things = pick(rng, PATTERN_NOUNS[after.pattern])
        new, old = color_word(after.pattern_color or "", rng), color_word(before.pattern_color or "", rng)
        return step.kind, {**fields, "things": things, "new": new, "old": old}
    if step.kind == "repattern":
        return _repattern_fields(before, after, fields, rng)
    if step.kind == "recount":
        return _recount_fields(before, after, slot, fields, rng)
    if step.kind == "resize":
        fields |= {"new": pick(rng, SIZE_WORDS[after.size]), "old": pick(rng, SIZE_WORDS[before.size])}
        return step.kind, {**fields, "more": pick(rng, COMPARATIVES[after.size])}
    other = scene.part(step.other or "")
    if other is None:
        return step.kind, fields
    other_slot = scene.spec.slot(other.name)
    return step.kind, {
        **fields,
        "other": part_noun(other_slot, rng, count=other.count),
        "other_is": verb(other_slot, count=other.count),
        "first": color_word(after.color, rng),
        "second": color_word(before.color, rng),
    }


def _repattern_fields(
    before: Part, after: Part, fields: dict[str, str], rng: np.random.Generator
) -> tuple[str, dict[str, str]]:
    fields |= {
        "new": pick(rng, PATTERN_ADJECTIVES[after.pattern]),
        "old": pick(rng, PATTERN_ADJECTIVES[before.pattern]),
    }
    if before.pattern == "solid" and after.pattern_color is not None:
        things = pick(rng, PATTERN_NOUNS[after.pattern])
        return "repattern_add", {**fields, "things": things, "color": color_word(after.pattern_color, rng)}
    if after.pattern == "solid":
        return "repattern_remove", {**fields, "were": pick(rng, PATTERN_NOUNS[before.pattern])}
    return "repattern", fields


def _recount_fields(
    before: Part, after: Part, slot: PartSpec, fields: dict[str, str], rng: np.random.Generator
) -> tuple[str, dict[str, str]]:
    if rng.random() < 0.25:
        change = after.count - before.count
        number = COUNT_WORDS[abs(change)][0]
        unit = slot.singular if abs(change) == 1 else slot.plural
        delta = f"{number} more" if change > 0 else f"{number} fewer"
        return "recount_step", {
            **fields,
            "delta": delta,
            "unit": unit,
            "are_delta": "is" if abs(change) == 1 else "are",
        }
    new, old = pick(rng, COUNT_WORDS[after.count]), pick(rng, COUNT_WORDS[before.count])
    return "recount", {**fields, "new": new, "old": old}


def _clause(
    step: Step, scene: Scene, form: Form, rng: np.random.Generator, *, split: Split, whole: bool
) -> str:
    key, fields = _step_fields(step, scene, rng)
    spec = scene.spec
    if whole and step.part in ("body", "legs") and key in _WHOLE_KEYS:
        key = _WHOLE_KEYS[key]
        family_is, fa = ("are", "") if spec.is_plural else ("is", "a ")
        fields |= {"family": family_noun(spec, rng), "family_is": family_is, "fa": fa}
        if spec.is_plural and form == "claim":
            form = "order"
    held_back = split == "test" and rng.random() < _TEST_ONLY_SHARE
    template = pick(rng, (TEST_ONLY if held_back else TRAIN)[key][form])
    return template.format_map(fields)


def _tail(edit: Edit, rng: np.random.Generator) -> str:
    """Say, now and then, that something stays as it is."""
    template = pick(rng, TAILS)
    if "{kept}" not in template:
        return template
    kept = [part for part in edit.target.parts if part in edit.reference.parts]
    touched = {step.part for step in edit.steps} | {step.other for step in edit.steps}
    kept = [part for part in kept if part.name not in touched]
    if not kept:
        return ""
    part = pick(rng, kept)
    slot = edit.reference.spec.slot(part.name)
    stays = "stay" if verb(slot, count=part.count) == "are" else "stays"
    return template.format(
        kept=part_noun(slot, rng, count=part.count), stays=stays, look=color_word(part.color, rng)
    )


def describe_edit(edit: Edit, rng: np.random.Generator, *, split: Split) -> str:
    """Give a modification text for the edit.

    Args:
        edit: what is asked for.
        rng: source of randomness; many texts are possible for every edit.
        split: ``test`` takes half of its templates from those that training never sees.

    Returns:
        Lower-case text such as ``same shirt but with three buttons instead of two``.
    """
    form = pick(rng, _FORMS)
    scene, clauses = edit.reference, []
    whole = len(edit.steps) == 1 and rng.random() < 0.35
    for step in edit.steps:
        clauses.append(_clause(step, scene, form, rng, split=split, whole=whole))
    text = pick(rng, (" and ", " and ", ", and ", ", ")).join(clauses)
    lead = pick(rng, LEAD_INS[form])
    if text.startswith(("is ", "should ")):
        lead = pick(rng, ("{text}", "{text}", "this {family} but {text}"))
    if text.startswith("i want "):
        lead = "{text}"
    if edit.reference.spec.is_plural:
        lead = lead.replace("this {family}", "these {family}").replace(
            "a similar {family}", "similar {family}"
        )
    said = lead.format(text=text, family=family_noun(edit.reference.spec, rng))
    return article(said + _tail(edit, rng))


def describe_scene(scene: Scene, rng: np.random.Generator) -> str:
    """Give a caption that names the family, the main part and some or all of the others.

    Args:
        scene: the product.
        rng: source of randomness: how many parts are named, in which order, in which words.
    """
    main, spec = main_part(scene), scene.spec
    slot, noun = spec.slots[0], family_noun(spec, rng)
    words = [] if spec.is_plural else ["a"]
    if len(slot.sizes) > 1 and rng.random() < 0.8:
        words.append(pick(rng, SIZE_WORDS[main.size]))
    words.append(color_word(main.color, rng))
    if main.pattern_color is not None:
        words += ["and", color_word(main.pattern_color, rng), pick(rng, PATTERN_ADJECTIVES[main.pattern])]
    words.append(noun)
    others = spec.slots[1:]
    order = [others[int(i)] for i in rng.permutation(len(others))]
    named = order[: 1 + int(rng.random() * len(order))]
    phrases = []
    for slot in named:
        part = scene.part(slot.name)
        if part is None:
            phrases.append(f"no {part_noun(slot, rng)}")
        elif rng.random() < 0.75:
            phrases.append(part_phrase(part, slot, rng))
        else:
            phrases.append(
                bare_phrase(part, slot, rng) if slot.is_plural else f"a {bare_phrase(part, slot, rng)}"
            )
    listed = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    lead = pick(rng, ("", "", "", "this is ", "a picture of "))
    return article(f"{lead}{' '.join(words)} with {listed}")


def _claim(part: Part, slot: PartSpec, attribute: str, rng: np.random.Generator) -> str:
    """State one attribute of a part."""
    noun, is_ = part_noun(slot, rng, count=part.count), verb(slot, count=part.count)
    has = "have" if is_ == "are" else "has"
    if attribute == "color":
        word = color_word(part.color, rng)
        return pick(
            rng,
            (f"the {noun} {is_} {word}", f"it has {word} {noun}", f"{word} {noun}", f"the {noun} in {word}"),
        )
    if attribute == "pattern":
        if part.pattern_color is None:
            return pick(
                rng, (f"the {noun} {is_} plain", f"the {noun} {is_} solid", f"no pattern on the {noun}")
            )
        second = color_word(part.pattern_color, rng)
        adjective, things = (
            pick(rng, PATTERN_ADJECTIVES[part.pattern]),
            pick(rng, PATTERN_NOUNS[part.pattern]),
        )
        return pick(
            rng,
            (
                f"the {noun} {is_} {adjective}",
                f"the {noun} {has} {second} {things}",
                f"{second} {things} on the {noun}",
            ),
        )
    if attribute == "look":
        return f"the {noun} {is_} {look_phrase(part, rng)}"
    if attribute == "size":
        return pick(rng, (f"the {noun} {is_} {{}}", f"{{}} {noun}")).format(pick(rng, SIZE_WORDS[part.size]))
    number = pick(rng, COUNT_WORDS[part.count])
    return pick(rng, (f"there {is_} {number} {noun}", f"it has {number} {noun}", f"{number} {noun}"))


def _falsified(part: Part, slot: PartSpec, scene: Scene, attribute: str, rng: np.random.Generator) -> Part:
    """Give the part with one attribute wrong, if possible one that another part of the scene has."""
    borrowed = [other for other in scene.parts if other.name != part.name and rng.random() < 0.75]
    if attribute in ("color", "look"):
        taken = (part.color, part.pattern_color)
        near = [other.color for other in borrowed if other.color not in taken]
        free = [color for color in COLORS if color not in taken]
        if attribute == "color" and part.pattern_color is not None and rng.random() < 0.3:
            near = [part.pattern_color]
        return replace(part, color=pick(rng, near or free))
    if attribute == "pattern":
        near_looks = [
            (other.pattern, other.pattern_color)
            for other in borrowed
            if other.pattern != part.pattern and other.pattern in slot.patterns
        ]
        if near_looks:
            pattern, color = pick(rng, near_looks)
            return replace(part, pattern=pattern, pattern_color=color)
        pattern = pick(rng, [other for other in slot.patterns if other != part.pattern])
        color = (
            None
            if pattern == "solid"
            else part.pattern_color or pick(rng, [c for c in COLORS if c != part.color])
        )
        return replace(part, pattern=pattern, pattern_color=color)
    if attribute == "size":
        return replace(part, size=next(size for size in slot.sizes if size != part.size))
    counts = [other for other in slot.counts if other != part.count]
    return replace(part, count=pick(rng, counts))


def statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Draw a claim about one part, true or false with equal chance.

    A false claim differs from the truth in one attribute, most often by one that another part of the scene has.
    """
    is_true = bool(rng.random() < 0.5)
    slot = pick(rng, scene.spec.slots)
    part = scene.part(slot.name)
    if part is None or (slot.is_optional and rng.random() < 0.2):
        noun = part_noun(slot, rng, count=0 if part is None else part.count)
        says_present = (part is not None) == is_true
        there = "are" if verb(slot, count=0 if part is None else part.count) == "are" else "is"
        here = (
            f"there {there} {'' if there == 'are' else 'a '}{noun}",
            f"it has {'' if there == 'are' else 'a '}{noun}",
        )
        text = pick(
            rng, here if says_present else (f"there {there} no {noun}", f"no {noun}", f"it has no {noun}")
        )
        return Statement(article(text), slot.name, "present", is_true)
    choices = ["color", "look"]
    if len(slot.patterns) > 1:
        choices += ["pattern"] * 2
    if len(slot.sizes) > 1:
        choices.append("size")
    if len(slot.counts) > 1:
        choices += ["count"] * 2
    attribute = pick(rng, choices)
    claimed = part if is_true else _falsified(part, slot, scene, attribute, rng)
    text = article(_claim(claimed, slot, attribute, rng))
    return Statement(text, slot.name, "color" if attribute == "look" else attribute, is_true)


_FIXED = (
    "a an the this that it is are has have no not and with in of on there its , - . ' any all plain solid pattern "
    "picture one more fewer less these stay stays than other both only new same but color colour colors colours"
)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+|[^\sa-z\d]", re.sub(r"\{\w*\}", " ", text.lower()))


def vocabulary() -> list[str]:
    """Give every word and mark that any text can hold, sorted; ``t-shirt`` counts as ``t``, ``-`` and ``shirt``."""
    texts: list[str] = [_FIXED, *TAILS]
    for table in (TRAIN, TEST_ONLY):
        texts += [template for forms in table.values() for group in forms.values() for template in group]
    texts += [lead for group in LEAD_INS.values() for lead in group]
    tables: tuple[Mapping[str, tuple[str, ...]] | Mapping[int, tuple[str, ...]], ...] = (
        COLOR_WORDS, PATTERN_ADJECTIVES, PATTERN_NOUNS, COUNT_WORDS, SIZE_WORDS, COMPARATIVES,
    )  # fmt: skip
    texts += [word for table_ in tables for group in table_.values() for word in group]
    for spec in FAMILIES.values():
        texts += [spec.name, *spec.nouns]
        for slot in spec.slots:
            texts += [slot.name, slot.singular, slot.plural, *slot.synonyms]
    return sorted({word for text in texts for word in _words(text)})
