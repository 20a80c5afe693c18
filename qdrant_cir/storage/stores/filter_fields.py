"""What a Qdrant filter asks about: walked and checked once, for every store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qdrant_client import models

from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores.checks import check_path

__all__ = ["check_filter_form", "conditions_of", "filter_fields"]

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
"""What one FieldCondition may test; Qdrant documents one per condition."""


def filter_fields(filter: models.Filter) -> list[str]:
    """List the payload paths that a filter names, sorted, each once.

    Those inside a ``nested`` condition have its path before them.

    Raises:
        InputError: as :func:`check_filter_form`.
    """
    return sorted(set(_paths(filter)))


def check_filter_form(filter: models.Filter | None) -> None:
    """Refuse a filter that Qdrant cannot read.

    Raises:
        InputError: a path is malformed, or a condition tests nothing or several things at once.
    """
    if filter is not None:
        filter_fields(filter)


def conditions_of(given: Sequence[models.Condition] | models.Condition | None) -> list[models.Condition]:
    """Give a clause of a filter as a list: Qdrant also takes one bare condition, or none."""
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) else [given]


def _paths(filter: models.Filter, prefix: str = "") -> Iterator[str]:
    clauses = [*map(conditions_of, (filter.must, filter.should, filter.must_not))]
    if filter.min_should is not None:
        clauses.append(conditions_of(filter.min_should.conditions))
    for condition in (condition for clause in clauses for condition in clause):
        if isinstance(condition, models.Filter):
            yield from _paths(condition, prefix)
        elif isinstance(condition, models.NestedCondition):
            array = _checked(condition.nested.key)
            yield prefix + array
            yield from _paths(condition.nested.filter, prefix + array.removesuffix("[]") + "[].")
        elif isinstance(condition, models.FieldCondition):
            _check_one_test(condition)
            yield prefix + _checked(condition.key)
        elif isinstance(condition, models.IsEmptyCondition):
            yield prefix + _checked(condition.is_empty.key)
        elif isinstance(condition, models.IsNullCondition):
            yield prefix + _checked(condition.is_null.key)


def _checked(path: str) -> str:
    check_path(path, where="The filter names")
    return path


def _check_one_test(condition: models.FieldCondition) -> None:
    tests = [name for name in FIELD_TESTS if getattr(condition, name) is not None]
    if len(tests) != 1:
        raise InputError(
            f"The filter's condition on {condition.key!r} tests {' and '.join(tests) or 'nothing'}; give "
            "every "
            "condition exactly one test, and several conditions where several must hold."
        )
