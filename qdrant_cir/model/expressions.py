"""Regular expressions of tokenizers: whether some text could keep one busy for ever.

Only their structure is looked at, in Oniguruma's syntax. What expressions of known tokenizers do not use is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["why_endless"]

_LONGEST = 10_000
_MOST_WAYS = 100
"""Ways in which optional parts, bounded repeats and alternatives may share a text; thirty optional parts have 2 ** 30.
A repeat with more of them counts as endless."""
_MOST_ENDLESS = 2
"""Endless repeats one after the other. Where what follows n of them is missing, a text of L characters may take
L ** (n + 1) steps; so nothing that must be there may follow the last."""

_QUANTIFIER = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")
_OPENING = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|<[A-Za-z_]\w*>|[im-]+[:)]))?")
_ESCAPE = re.compile(r"\\(?:[pP]\{\^?\w+\}|x\{[0-9A-Fa-f ]+\}|.)", re.DOTALL)
_REFERENCES = "gk123456789"


@dataclass(slots=True)
class _Group:
    """What a group holds so far.

    Attributes:
        varies: one text may be matched in several ways, by a repeat or an alternative.
        endless: endless repeats of the current alternative.
        most: of any alternative.
        has_tail: something that must be there follows an endless repeat.
        ways: of the current alternative to share a text among its parts.
        ways_before: of the alternatives before it.
    """

    varies: bool = False
    endless: int = 0
    most: int = 0
    has_tail: bool = False
    ways: int = 1
    ways_before: int = 0


def why_endless(expression: str) -> str | None:
    """Return why some text could keep an expression busy for ever, None where none could."""
    if len(expression) > _LONGEST:
        return f"it is longer than {_LONGEST} characters"
    groups = [_Group()]
    place = 0
    while place < len(expression):
        sign = expression[place]
        atom = _Group()
        if sign == "\\":
            if expression[place + 1 : place + 2] in tuple(_REFERENCES):
                return "it refers to one of its groups"
            found = _ESCAPE.match(expression, place)
            place = len(expression) if found is None else found.end()
        elif sign == "[":
            place = _end_of_class(expression, place)
        elif sign == "(":
            opening = _OPENING.match(expression, place)
            if opening is None or expression[opening.end() : opening.end() + 1] == "?":
                return f"it has a group that begins with {expression[place : place + 4]!r}"
            place = opening.end()
            if not opening[0].endswith(")"):  # options alone have no group
                groups.append(_Group())
            continue
        elif sign == "|":
            group = groups[-1]
            group.varies, group.endless, group.ways, group.ways_before = True, 0, 1, group.ways_before + group.ways
            place += 1
            continue
        elif sign == ")" and len(groups) > 1:
            atom = groups.pop()
            place += 1
        else:
            place += 1
        repeat, least = _QUANTIFIER.match(expression, place), 1
        group, ways = groups[-1], atom.ways_before + atom.ways
        group.varies |= atom.varies
        if repeat is not None:
            place = repeat.end()
            least, most = _bounds(repeat)
            if atom.varies and (most is None or most > 1):
                return "it repeats a group that holds a repeat or an alternative"
            if most is None or most - least > _MOST_WAYS:
                atom.most += 1
            else:
                ways += most - least
            group.varies |= least != most
            if expression[place : place + 1] in ("?", "+"):
                place += 1  # lazy or possessive
            if _QUANTIFIER.match(expression, place):
                return "it repeats a repeat"
        group.ways *= ways
        if group.ways > _MOST_WAYS:
            return f"its parts can share a text in more than {_MOST_WAYS} ways"
        is_tail = least > 0 and atom.most == 0 and group.endless > 0
        if (is_tail and group.endless == _MOST_ENDLESS) or (atom.has_tail and group.endless > 0):
            return f"it has {_MOST_ENDLESS} endless repeats, and then something that may be missing"
        group.has_tail |= is_tail or atom.has_tail
        group.endless += atom.most
        group.most = max(group.most, group.endless)
        if group.most > _MOST_ENDLESS:
            return f"it has more than {_MOST_ENDLESS} endless repeats one after the other"
    return None


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    """Return how often something is matched at least and at most; None where there is no end."""
    if repeat[0] == "?":
        return 0, 1
    if repeat[0] in ("*", "+"):
        return int(repeat[0] == "+"), None
    least = int(repeat[1][:9] or 0)
    return least, (int(repeat[3][:9]) if repeat[3] else None) if repeat[2] else least


def _end_of_class(expression: str, place: int) -> int:
    """Return the place behind a class of characters, which may hold further ones."""
    depth = 0
    while place < len(expression):
        sign = expression[place]
        if sign == "\\":
            place += 1
        elif sign == "[":
            depth += 1
            place += expression[place + 1 : place + 2] == "^"
            place += expression[place + 1 : place + 2] == "]"
        elif sign == "]":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return place
