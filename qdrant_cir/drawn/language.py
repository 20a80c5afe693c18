"""Texts for edits and products, in the style of people's modification texts.

All lower case, from a closed vocabulary. A text says everything that its edit changes, and what it does not mention
stays, so that the target scene is the only right answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from qdrant_cir.drawn.edit import Edit, Split
from qdrant_cir.drawn.families import FAMILIES, PartSpec
from qdrant_cir.drawn.scene import Part, Scene, main_part, pick
from qdrant_cir.drawn.statements import Statement, statement
from qdrant_cir.drawn.steps import Step
from qdrant_cir.drawn.templates import LEAD_INS, TAILS, TRAIN, Form
from qdrant_cir.drawn.unseen_templates import TEST_ONLY
from qdrant_cir.drawn.wording import (
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
    part_noun,
    part_phrase,
    verb,
)

__all__ = ["Statement", "describe_edit", "describe_scene", "statement", "vocabulary"]

_TEST_ONLY_SHARE = 0.5
_WHOLE_KEYS = {"recolour_main": "recolour_whole", "repattern": "repattern_whole", "resize": "resize_whole"}
"""Changes of the main part that a text may attribute to the whole product: ``is striped``, ``a longer dress``."""
_FORMS: tuple[Form, ...] = ("noun", "order", "claim")


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
    """Return the template key of a step and its fields."""
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


def _clause(step: Step, scene: Scene, form: Form, rng: np.random.Generator, *, split: Split, whole: bool) -> str:
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
    """Return a phrase that something stays as it is; empty where there is nothing to name."""
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
    return template.format(kept=part_noun(slot, rng, count=part.count), stays=stays, look=color_word(part.color, rng))


def describe_edit(edit: Edit, rng: np.random.Generator, *, split: Split) -> str:
    """Return a modification text for the edit.

    Args:
        edit: what is asked for.
        rng: source of randomness; every edit has many possible texts.
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
        lead = lead.replace("this {family}", "these {family}").replace("a similar {family}", "similar {family}")
    said = lead.format(text=text, family=family_noun(edit.reference.spec, rng))
    return article(said + _tail(edit, rng))


def describe_scene(scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption that names the family, the main part and some or all of the others.

    Args:
        scene: the product.
        rng: source of randomness for the number of parts, their order and the words.
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
            start = "" if verb(slot, count=part.count) == "are" else "a "
            phrases.append(start + bare_phrase(part, slot, rng))
    listed = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    lead = pick(rng, ("", "", "", "this is ", "a picture of "))
    return article(f"{lead}{' '.join(words)} with {listed}")


_FIXED = (
    "a an the this that it is are has have no not and with in of on there its , - . ' any all plain "
    "solid pattern picture one more fewer less these stay stays than other both only new same but color "
    "colour colors colours"
)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+|[^\sa-z\d]", re.sub(r"\{\w*\}", " ", text.lower()))


def vocabulary() -> list[str]:
    """Return every word and mark that any text can hold, sorted; ``t-shirt`` is ``t``, ``-`` and ``shirt``."""
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
