"""Filters of the command line: ``color=red``, ``price<50``, ``folder!=hat``, ``added>=2025-01-31``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING

from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["parse_filters"]

_EXPRESSION = re.compile(r"\s*(?P<field>[^\s=!<>][^=!<>]*?)\s*(?P<operator><=|>=|!=|=|<|>)\s*(?P<value>.*?)\s*\Z", re.S)
_PLAIN = re.compile(r"[\w.\[\]-]+")
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def parse_filters(expressions: Sequence[str]) -> models.Filter | None:
    """Turn expressions into one filter that demands all of them; None for no expressions.

    ``=`` and ``!=`` compare strings, numbers and booleans; a value that looks like a number or a boolean also
    equals the same word stored as a string, and a value in quotes is a string alone. ``<``, ``<=``, ``>`` and
    ``>=`` take a number or an ISO date. Where a field holds a list, one element that meets the condition is
    enough. ``!=`` also keeps pictures that lack the field.

    Raises:
        InputError: an expression has no field, operator or value, or bounds a field by a word.
    """
    if not expressions:
        return None
    from qdrant_client import models

    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for expression in expressions:
        parts = _EXPRESSION.match(expression)
        if parts is None or not parts["value"]:
            raise InputError(
                f"The filter {expression!r} cannot be read. Expected FIELD OPERATOR VALUE with one of "
                "= != < <= > >=, for instance 'color=red' or 'price<50'."
            )
        field, operator, value = _path(parts["field"]), parts["operator"], parts["value"]
        if operator in _BOUNDS:
            must.append(_bound(expression, field, _BOUNDS[operator], value))
        else:
            (must if operator == "=" else must_not).append(_equality(field, value))
    return models.Filter(must=must or None, must_not=must_not or None)


def _path(field: str) -> str:
    """Quote a field whose name holds a space or a sign, as Qdrant wants it; leave the others alone."""
    return field if _PLAIN.fullmatch(field) or '"' in field else f'"{field}"'


def _equality(field: str, value: str) -> models.Condition:
    from qdrant_client import models

    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return models.FieldCondition(key=field, match=models.MatchValue(value=value[1:-1]))
    word = models.FieldCondition(key=field, match=models.MatchValue(value=value))
    if value.lower() in ("true", "false"):
        flag = models.FieldCondition(key=field, match=models.MatchValue(value=value.lower() == "true"))
        return models.Filter(should=[flag, word])
    number = _number(value)
    if number is None:
        return word
    # a range of one number meets integers and floats alike; Qdrant's match knows integers only
    equal = models.FieldCondition(key=field, range=models.Range(gte=number, lte=number))
    return models.Filter(should=[equal, word])


def _bound(expression: str, field: str, side: str, value: str) -> models.Condition:
    from qdrant_client import models

    number = _number(value)
    if number is not None:
        return models.FieldCondition(key=field, range=models.Range.model_validate({side: number}))
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise InputError(
            f"The filter {expression!r} compares with {value!r}; <, <=, > and >= need a number "
            "or a date such as 2025-01-31."
        ) from error
    return models.FieldCondition(key=field, range=models.DatetimeRange.model_validate({side: moment}))


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None
