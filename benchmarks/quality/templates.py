"""Which modification texts training's templates can produce.

A text is parsed by training's grammar (lead-in, one or two clauses, tail) after its nouns and values were replaced by
signs for them. What does not parse was made with a template that training never sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from qdrant_cir.drawn.families import FAMILIES
from qdrant_cir.drawn.templates import LEAD_INS, TAILS, TRAIN
from qdrant_cir.drawn.wording import (
    COLOR_WORDS,
    COMPARATIVES,
    COUNT_WORDS,
    PATTERN_ADJECTIVES,
    PATTERN_NOUNS,
    SIZE_WORDS,
)

_VALUE, _NOUN = "V", "N"
"""What stands for a word that says how something is, and for one that names a part or a product."""

_JOINTS = "(?:, and | and |, )"
_ALSO_LEADS = ("this {family} but {text}", "these {family} but {text}", "similar {family} with {text}")
_NOUN_FIELDS = ("part", "parts", "other", "kept", "unit", "family")


def uses_unseen_template(text: str) -> bool:
    """Whether a modification text has a clause that no training template produces."""
    shape = _shape(text)
    said = _training_clauses()
    return not any(
        said.fullmatch(shape, found.end()) for lead in _training_leads() if (found := lead.match(shape)) is not None
    )


@cache
def _training_leads() -> tuple[re.Pattern[str], ...]:
    leads = {lead for group in LEAD_INS.values() for lead in group} | set(_ALSO_LEADS)
    leads |= {lead.replace("this {family}", "these {family}") for lead in leads}
    leads |= {lead.replace("a similar {family}", "similar {family}") for lead in leads}
    return tuple(re.compile(_pattern(lead.partition("{text}")[0])) for lead in sorted(leads))


@cache
def _training_clauses() -> re.Pattern[str]:
    templates = {template for forms in TRAIN.values() for group in forms.values() for template in group}
    clause = _any(sorted({_pattern(template) for template in templates}))
    ends = _any(sorted({_pattern(lead.partition("{text}")[2]) for group in LEAD_INS.values() for lead in group}))
    return re.compile(f"{clause}(?:{_JOINTS}{clause})?{ends}{_any(sorted({_pattern(tail) for tail in TAILS}))}")


def _shape(text: str) -> str:
    """Put a sign in place of every noun and value."""
    words, nouns = _words()
    return words.sub(lambda found: _NOUN if found.group() in nouns else _VALUE, text)


@cache
def _words() -> tuple[re.Pattern[str], frozenset[str]]:
    """Find a noun or a value, the longest first; and the nouns."""
    slots = [slot for spec in FAMILIES.values() for slot in spec.slots]
    nouns = {word for slot in slots for word in (slot.singular, slot.plural, *slot.synonyms)}
    nouns |= {word for spec in FAMILIES.values() for word in (spec.name, *spec.nouns)}
    tables = (COLOR_WORDS, PATTERN_ADJECTIVES, PATTERN_NOUNS, COUNT_WORDS, SIZE_WORDS, COMPARATIVES)
    values = {word for table in tables for group in table.values() for word in group}
    found = _any(re.escape(word) for word in sorted(nouns | values, key=lambda word: (-len(word), word)))
    return re.compile(rf"\b{found}\b"), frozenset(nouns)


def _field(name: str) -> str:
    if name in _NOUN_FIELDS:
        return _NOUN
    fixed = {
        **dict.fromkeys(("is", "are", "are_delta", "family_is", "other_is"), "(?:is|are)"),
        **dict.fromkeys(("a", "fa"), "(?:an? )?"),
        "any": "(?:any |an? )",
        "has": "(?:has|have)",
        "stays": "stays?",
        "delta": "V (?:more|fewer|V)",
        "phrase": "(?:an? )?(?:V )?(?:V )?V(?: and V V)? N(?: with V V)?",
    }
    return fixed.get(name, _VALUE)


def _pattern(template: str) -> str:
    parts = re.split(r"\{(\w+)\}", _shape(template))
    texts = [re.sub(r"\ba\b", "an?", re.escape(part)) for part in parts[::2]]
    return "".join(text + (_field(name) if name else "") for text, name in zip(texts, [*parts[1::2], ""], strict=True))


def _any(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"
