"""The filters of qdrant-client in the terms of Qdrant Edge, with the same meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores.filter_fields import check_filter_form, conditions_of

__all__ = ["convert_filter"]

_LATER_MATCHES: Mapping[str, tuple[str, Callable[[str], edge.MatchType]]] = {
    "MatchTextAny": ("text_any", edge.MatchTextAny),
    "MatchPhrase": ("phrase", edge.MatchPhrase),
    "MatchPrefix": ("prefix", edge.MatchPrefix),
    "MatchSubstring": ("substring", edge.MatchSubstring),
}
"""Matches that not every supported client has, by the name of their class: attribute and twin."""


def convert_filter(filter: models.Filter) -> edge.Filter:
    """Convert a filter.

    Raises:
        InputError: the filter is malformed, or holds a condition that Qdrant Edge cannot evaluate.
    """
    check_filter_form(filter)
    return _filter(filter)


def _filter(filter: models.Filter) -> edge.Filter:
    minimum = filter.min_should
    return edge.Filter(
        must=[_condition(condition) for condition in conditions_of(filter.must)] or None,
        should=[_condition(condition) for condition in conditions_of(filter.should)] or None,
        must_not=[_condition(condition) for condition in conditions_of(filter.must_not)] or None,
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
        # Edge tells numpy's bool from an integer, but not Python's
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
