"""Filters of the command line: ``color=red``, ``price<50``, ``folder!=hat``, ``added>=2025-01-31``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING

from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["parse_filters"]

_FIELD = re.compile(r'(?:"[^"]*"|[^"=!<>])*')
_OPERATOR = re.compile(r"<=|>=|!=|=|<|>")
_NAME = re.compile(r"[\w-]+")
_PATH = re.compile(r"[\w-]+(?:\[\d*\])*(?:\.[\w-]+(?:\[\d*\])*)*")
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def parse_filters(expressions: Sequence[str], *, fields: Callable[[], Collection[str]] = tuple) -> models.Filter | None:
    """Turn expressions into one filter that demands all of them; None for no expressions.

    ``=`` and ``!=`` compare strings, numbers and booleans; a value that looks like a number or a boolean also
    equals the same word stored as a string, and a value in quotes is a string alone. ``<``, ``<=``, ``>`` and
    ``>=`` take a number or an ISO date. Where a field holds a list, one element that meets the condition is
    enough. ``!=`` also keeps pictures that lack the field.

    ``shop.price`` and ``sizes[0]`` are paths into nested fields, but where a field is called so as it stands. A name in
    double quotes is never a path.

    Args:
        expressions: as on the command line.
        fields: lists the top-level fields of the collection; called only where a name could be a path.

    Raises:
        InputError: an expression has no field, operator or value, or bounds a field by a word.
    """
    if not expressions:
        return None
    from qdrant_client import models

    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for expression in expressions:
        begin = _FIELD.match(expression)
        name = begin[0].strip() if begin else ""
        sign = _OPERATOR.match(expression, begin.end() if begin else 0)
        value = expression[sign.end() :].strip() if sign else ""
        if not name or sign is None or not value:
            raise InputError(
                f"The filter {expression!r:.200} cannot be read. Expected FIELD OPERATOR VALUE with one of "
                "= != < <= > >=, for instance 'color=red' or 'price<50'."
            )
        field, operator = _path(name, fields), sign[0]
        if operator in _BOUNDS:
            must.append(_bound(expression, field, _BOUNDS[operator], value))
        else:
            (must if operator == "=" else must_not).append(_equality(field, value))
    return models.Filter(must=must or None, must_not=must_not or None)


def _path(name: str, fields: Callable[[], Collection[str]]) -> str:
    """Quote a name that holds a space or a sign, as Qdrant wants it; leave plain names, paths and quotes alone."""
    if _NAME.fullmatch(name) or '"' in name:
        return name
    return name if _PATH.fullmatch(name) and name not in fields() else f'"{name}"'


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
