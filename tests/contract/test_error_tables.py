"""Every error class has an exit code, and every exit code is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qdrant_cir import errors
from qdrant_cir.cli.exit_codes import (
    EXIT_CODES,
    INTERRUPTED,
    NO_READER,
    TERMINATED,
    describe_exit_codes,
    exit_code_of,
)
from qdrant_cir.service.statuses import STATUSES, status_of

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.CirError)]
SIGNS = {0, 2, INTERRUPTED, NO_READER, TERMINATED}
DOCUMENTED = {int(code) for code in re.findall(r"^\* `(\d+)`: \w", describe_exit_codes(), re.M)}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_has_an_entry_of_its_own(kind: type[errors.CirError]) -> None:
    assert kind in EXIT_CODES
    assert exit_code_of(kind("x")) == EXIT_CODES[kind]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_is_in_all_and_in_the_drawing_of_the_tree(kind: type[errors.CirError]) -> None:
    assert kind.__name__ in errors.__all__
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_has_a_status_of_its_own(kind: type[errors.CirError]) -> None:
    assert kind in STATUSES
    assert status_of(kind("x")) == STATUSES[kind]


def test_codes_leave_success_and_usage_errors_alone() -> None:
    assert not set(EXIT_CODES.values()) & SIGNS


def test_a_class_of_a_caller_gets_the_code_of_the_nearest_class_above_it() -> None:
    class PrivateError(errors.ImageError):
        pass

    assert exit_code_of(PrivateError("x")) == 3


def test_every_code_is_documented_and_every_documented_code_is_used() -> None:
    assert set(EXIT_CODES.values()) | SIGNS == DOCUMENTED


def test_the_generated_page_holds_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert describe_exit_codes() in page
