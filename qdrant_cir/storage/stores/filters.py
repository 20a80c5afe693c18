"""Filters of qdrant-client: their fields, their checks for every store, and their form for Qdrant Edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores.checks import DEEPEST, check_path

__all__ = ["check_filter_form", "convert_filter", "filter_fields", "text_fields"]

FIELD_TESTS = (
    "match",
    "range",
    "geo_bounding_box",
    "geo_radius",
    "geo_polygon",
    "values_count",
    "is_empty",
    "is_null",
)
"""The tests of a FieldCondition; Qdrant documents one per condition."""

_WORDS = frozenset({"MatchText", "MatchTextAny", "MatchPhrase"})
"""Matches of words, which a text index splits; without one, servers and the embedded store split differently."""

_LATER_MATCHES: Mapping[str, tuple[str, Callable[[str], edge.MatchType]]] = {
    "MatchTextAny": ("text_any", edge.MatchTextAny),
    "MatchPhrase": ("phrase", edge.MatchPhrase),
    "MatchPrefix": ("prefix", edge.MatchPrefix),
    "MatchSubstring": ("substring", edge.MatchSubstring),
}
"""Matches that not every supported client has, by the name of their class: attribute and twin."""


def filter_fields(filter: models.Filter) -> list[str]:
    """List the payload paths that a filter names, sorted, each once.

    Those inside a ``nested`` condition have its path before them.

    Raises:
        InputError: as :func:`check_filter_form`.
    """
    _check_type(filter)
    return sorted({path for path, _ in _named(filter)})


def text_fields(filter: models.Filter) -> list[str]:
    """List the payload paths on which a filter looks for words, sorted, each once. Errors as :func:`filter_fields`."""
    _check_type(filter)
    return sorted({path for path, looks_for_words in _named(filter) if looks_for_words})


def check_filter_form(filter: models.Filter | None) -> None:
    """Refuse a filter that Qdrant cannot read.

    Raises:
        InputError: it is not a filter, it is nested deeper than 64 levels, a path is malformed, or a condition tests
            nothing or several things at once.
    """
    if filter is not None:
        filter_fields(filter)


def convert_filter(filter: models.Filter) -> edge.Filter:
    """Convert a filter.

    Raises:
        InputError: the filter is malformed, or holds a condition that Qdrant Edge cannot evaluate.
    """
    check_filter_form(filter)
    try:
        return _filter(filter)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"The embedded store (Qdrant Edge) cannot evaluate the filter: {error}.") from error


def _check_type(filter: object) -> None:
    if not isinstance(filter, models.Filter):
        raise InputError(f"The filter is a {type(filter).__name__}; expected a qdrant_client.models.Filter.")


def _conditions_of(given: Sequence[models.Condition] | models.Condition | None) -> list[models.Condition]:
    """Return a clause of a filter as a list: Qdrant also takes one bare condition, or none."""
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) else [given]


def _named(filter: models.Filter, prefix: str = "", depth: int = 1) -> Iterator[tuple[str, bool]]:
    """Yield every payload path with whether its condition looks for words."""
    if depth > DEEPEST:
        raise InputError(f"The filter is nested deeper than {DEEPEST} levels.")
    clauses = [*map(_conditions_of, (filter.must, filter.should, filter.must_not))]
    if filter.min_should is not None:
        clauses.append(_conditions_of(filter.min_should.conditions))
    for condition in (condition for clause in clauses for condition in clause):
        if isinstance(condition, models.Filter):
            yield from _named(condition, prefix, depth + 1)
        elif isinstance(condition, models.NestedCondition):
            array = _checked(condition.nested.key)
            yield prefix + array, False
            yield from _named(condition.nested.filter, prefix + array.removesuffix("[]") + "[].", depth + 1)
        elif isinstance(condition, models.FieldCondition):
            _check_one_test(condition)
            yield prefix + _checked(condition.key), type(condition.match).__name__ in _WORDS
        elif isinstance(condition, models.IsEmptyCondition):
            yield prefix + _checked(condition.is_empty.key), False
        elif isinstance(condition, models.IsNullCondition):
            yield prefix + _checked(condition.is_null.key), False


def _checked(path: str) -> str:
    check_path(path, where="The filter names")
    return path


def _check_one_test(condition: models.FieldCondition) -> None:
    tests = [name for name in FIELD_TESTS if getattr(condition, name) is not None]
    if len(tests) != 1:
        raise InputError(
            f"The filter's condition on {condition.key!r} tests {' and '.join(tests) or 'nothing'}; give every "
            "condition exactly one test, and several conditions where several must hold."
        )


def _filter(filter: models.Filter) -> edge.Filter:
    minimum = filter.min_should
    return edge.Filter(
        must=[_condition(condition) for condition in _conditions_of(filter.must)] or None,
        should=[_condition(condition) for condition in _conditions_of(filter.should)] or None,
        must_not=[_condition(condition) for condition in _conditions_of(filter.must_not)] or None,
        min_should=None
        if minimum is None
        else edge.MinShould([_condition(condition) for condition in minimum.conditions], minimum.min_count),
    )


def _condition(condition: models.Condition) -> edge.ConditionType:
    if isinstance(condition, models.FieldCondition):
        return _field_condition(condition)
    if isinstance(condition, models.Filter):
        return _filter(condition)
    if isinstance(condition, models.HasIdCondition):
        return edge.HasIdCondition({_point_id(point_id) for point_id in condition.has_id})
    if isinstance(condition, models.IsEmptyCondition):
        return edge.IsEmptyCondition(condition.is_empty.key)
    if isinstance(condition, models.IsNullCondition):
        return edge.IsNullCondition(condition.is_null.key)
    if isinstance(condition, models.NestedCondition):
        return edge.NestedCondition(condition.nested.key, _filter(condition.nested.filter))
    if isinstance(condition, models.HasVectorCondition):
        return edge.HasVectorCondition(condition.has_vector)
    raise _unsupported(condition)


def _field_condition(condition: models.FieldCondition) -> edge.FieldCondition:
    key = condition.key
    if condition.match is not None:
        return edge.FieldCondition(key, match=_match(condition.match))
    if condition.range is not None:
        return edge.FieldCondition(key, range=_range(condition.range))
    if condition.values_count is not None:
        count = condition.values_count
        return edge.FieldCondition(
            key, values_count=edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte)
        )
    if condition.is_empty is not None:
        return edge.FieldCondition(key, is_empty=condition.is_empty)
    if condition.is_null is not None:
        return edge.FieldCondition(key, is_null=condition.is_null)
    return _geo_condition(condition)


def _geo_condition(condition: models.FieldCondition) -> edge.FieldCondition:
    key = condition.key
    if condition.geo_radius is not None:
        circle = condition.geo_radius
        return edge.FieldCondition(key, geo_radius=edge.GeoRadius(_geo_point(circle.center), circle.radius))
    if condition.geo_bounding_box is not None:
        box = condition.geo_bounding_box
        corners = edge.GeoBoundingBox(_geo_point(box.top_left), _geo_point(box.bottom_right))
        return edge.FieldCondition(key, geo_bounding_box=corners)
    if condition.geo_polygon is not None:
        polygon = condition.geo_polygon
        holes = [[_geo_point(point) for point in hole.points] for hole in polygon.interiors or []]
        exterior = [_geo_point(point) for point in polygon.exterior.points]
        return edge.FieldCondition(key, geo_polygon=edge.GeoPolygon(exterior, holes or None))
    raise _unsupported(condition)


def _match(match: models.Match) -> edge.MatchType:
    if isinstance(match, models.MatchValue):
        # Edge distinguishes numpy's bool from an integer, but not Python's
        value = match.value
        return edge.MatchValue(cast("bool", np.bool_(value)) if isinstance(value, bool) else value)
    if isinstance(match, models.MatchAny):
        return edge.MatchAny(match.any)
    if isinstance(match, models.MatchExcept):
        return edge.MatchExcept(match.except_)
    if isinstance(match, models.MatchText):
        return edge.MatchText(match.text)
    later = _LATER_MATCHES.get(type(match).__name__)
    if later is not None:
        attribute, make = later
        return make(getattr(match, attribute))
    raise _unsupported(match)


def _range(given: models.RangeInterface) -> edge.RangeType:
    if isinstance(given, models.DatetimeRange):
        return edge.RangeDateTime(
            gte=_moment(given.gte), gt=_moment(given.gt), lte=_moment(given.lte), lt=_moment(given.lt)
        )
    return edge.RangeFloat(gte=given.gte, gt=given.gt, lte=given.lte, lt=given.lt)


def _moment(given: datetime | date | None) -> str | None:
    """Write a moment as RFC 3339; one without a zone is UTC, and a day is its midnight, as on the server."""
    if given is None:
        return None
    moment = given if isinstance(given, datetime) else datetime.combine(given, time())
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()


def _geo_point(point: models.GeoPoint) -> edge.GeoPoint:
    try:
        return edge.GeoPoint(lon=point.lon, lat=point.lat)
    except ValueError as error:
        raise InputError(f"The filter holds the place lon={point.lon}, lat={point.lat}: {error}") from error


def _point_id(point_id: int | str | UUID) -> int | UUID:
    if not isinstance(point_id, str):
        return point_id
    try:
        return UUID(point_id)
    except ValueError as error:
        raise InputError(f"The filter names the point id {point_id!r}, which is not a UUID.") from error


def _unsupported(condition: object) -> InputError:
    return InputError(
        f"The embedded store (Qdrant Edge) cannot evaluate the filter condition {type(condition).__name__}: "
        f"{condition!r}. Use another condition, or a Qdrant server."
    )
