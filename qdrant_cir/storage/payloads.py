"""What a payload may hold: the one check, where a payload enters the library or a store."""

from __future__ import annotations

from math import isfinite

from qdrant_cir.errors import InputError
from qdrant_cir.types import JsonObject, JsonValue

__all__ = ["MAX_DEPTH", "plain_json", "plain_object", "plain_text"]

MAX_DEPTH = 64
"""Objects and lists inside each other: less than every parser on the way takes."""

_INT64 = 2**63


def plain_json(value: object, *, place: str, depth: int = 0) -> JsonValue:
    """Return a value as JSON holds it: text and numbers of subclasses, such as enumerations, as what they stand for.

    Args:
        value: None, bool, str, int, float, or lists and dicts of them.
        place: where it stands, for the message.
        depth: of the objects and lists around it.

    Raises:
        InputError: JSON has no such value, or Qdrant does not keep it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(value, place=place)
    if isinstance(value, int):
        # comparing is safe and fast; `in range(...)` walks the range for subclasses of int
        number = int.__int__(value)
        if not -_INT64 <= number < _INT64:
            raise InputError(f"{place} is a whole number that does not fit 64 bits.")
        return number
    if isinstance(value, float):
        if not isfinite(value):
            raise InputError(f"{place} is {value}; numbers must be finite.")
        return float.__float__(value)
    if isinstance(value, dict):
        return plain_object(value, place=place, depth=depth)
    if isinstance(value, list):
        _check_depth(depth, place)
        return [plain_json(item, place=f"{place}[{n}]", depth=depth + 1) for n, item in enumerate(value)]
    raise InputError(f"{place} is of type {type(value).__name__}; expected what JSON may hold.")


def plain_object(value: object, *, place: str, depth: int = 0) -> JsonObject:
    """Return a mapping as a JSON object; the rest as :func:`plain_json`."""
    if not isinstance(value, dict):
        raise InputError(f"{place} is of type {type(value).__name__}; expected a dict of fields.")
    _check_depth(depth, place)
    found: JsonObject = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InputError(f"{place} has the key {key!r}; keys must be strings.")
        name = plain_text(key, place=f"a key of {place}")
        found[name] = plain_json(item, place=f"{place}.{name}", depth=depth + 1)
    return found


def plain_text(value: object, *, place: str) -> str:
    """Return text as a plain string. Raises InputError for what is no text, or no valid Unicode."""
    if not isinstance(value, str):
        raise InputError(f"{place} is of type {type(value).__name__}; expected text.")
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{place} is {text!r:.80}, which is not valid Unicode text.") from error
    return text


def _check_depth(depth: int, place: str) -> None:
    if depth >= MAX_DEPTH:
        raise InputError(f"{place:.80} lies deeper than {MAX_DEPTH} objects and lists inside each other.")
