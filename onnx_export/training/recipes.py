"""Reading of recipes: dataclasses of settings, kept as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnx_export.errors import TrainingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_round", "read_recipe"]

_AT_LEAST_ONE = ("accumulation", "batch", "evaluate_every", "patience")

_Recipe = TypeVar("_Recipe", bound="DataclassInstance")


def read_recipe(path: Path | None, default: _Recipe, *, made: Callable[[Any], _Recipe] | None = None) -> _Recipe:
    """Read a recipe from JSON; fields that are not given keep the defaults of its class.

    Args:
        path: the file; None for ``default``.
        default: the recipe without a file; its class says which fields there are.
        made: makes a recipe of what the file holds; None hands the fields to the class.

    Raises:
        TrainingError: the file cannot be read or has a field that this recipe has not, or a value
            of another kind.
    """
    if path is None:
        return default
    kind = type(default)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        recipe = kind(**found) if made is None else made(found)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read as a recipe: {error}") from error
    except (TypeError, AttributeError, LookupError) as error:
        names = ", ".join(field.name for field in fields(kind))
        raise TrainingError(f"{path} is no {kind.__name__} ({error}); its fields are {names}.") from error
    _check_numbers(recipe, default, path)
    return recipe


def _check_numbers(recipe: _Recipe, default: _Recipe, path: Path) -> None:
    """Refuse a value that is not of its field's kind, before anything is encoded. Raises TrainingError."""
    for field in fields(recipe):
        usual, value = getattr(default, field.name), getattr(recipe, field.name)
        least = field.name.startswith(_AT_LEAST_ONE)
        if isinstance(usual, bool):
            fits, expected = isinstance(value, bool), "true or false"
        elif isinstance(usual, int):
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
            expected = f"a whole number of at least {least:d}"
        elif isinstance(usual, float):
            fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
            expected = "a number of at least 0"
        else:
            continue
        if not fits:
            raise TrainingError(f"{path}: {field.name} is {value!r:.60}; expected {expected}.")


def check_round(round_: DataclassInstance, *, from_zero: tuple[str, ...]) -> None:
    """Refuse a number that a round cannot use.

    Args:
        round_: settings that are whole numbers or, where their names say rate or share, any number of at least 0.
        from_zero: whole numbers that may be 0; all others are at least 1.

    Raises:
        TrainingError: a value is of another kind, or out of range.
    """
    for field in fields(round_):
        value, is_whole = getattr(round_, field.name), field.type in (int, "int")
        least = 0 if not is_whole or field.name in from_zero else 1
        kinds = int if is_whole else int | float
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value < math.inf:
            expected = "a whole number" if is_whole else "a number"
            raise TrainingError(f"{field.name} is {value!r:.60}; expected {expected} of at least {least}.")
