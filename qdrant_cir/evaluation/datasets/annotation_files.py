"""Annotation files of data sets, read strictly: anything not as published is refused, with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qdrant_cir.errors import InputError

__all__ = ["Annotation", "find_file", "read_json", "read_json_lines", "read_records"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object of an annotation file, and its place for messages."""

    place: str
    fields: Mapping[str, object]

    def text(self, key: str) -> str:
        """Return a string field. Raises InputError where there is none."""
        value = self.fields.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def integer(self, key: str) -> int:
        """Return an integer field. Raises InputError where there is none."""
        value = self.fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "an integer", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings. Raises InputError where there is none."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings", value)
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of integers. Raises InputError where there is none."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self._wrong(key, "a list of integers", value)
        return tuple(value)

    def inner(self, key: str) -> Annotation:
        """Return an object field. Raises InputError where there is none."""
        value = self.fields.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Annotation(f"{self.place}, {key}", value)

    def _wrong(self, key: str, expected: str, value: object) -> InputError:
        found = f"found {value!r:.80}" if key in self.fields else f"its keys are {', '.join(self.fields)}"
        return InputError(f"{self.place}: expected {expected} under {key!r}; {found}")


def read_json(path: Path) -> object:
    """Read a JSON file. Raises InputError where it is missing or no JSON."""
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}. Give the folder that holds the published files.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    return value


def read_records(path: Path) -> list[Annotation]:
    """Read a JSON list of objects. Raises InputError for anything else, and for an empty list."""
    value = read_json(path)
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: expected a list of annotations that is not empty")
    return [_annotation(f"{path.name}, entry {number}", item) for number, item in enumerate(value)]


def read_json_lines(path: Path) -> list[Annotation]:
    """Read one JSON object per line; blank lines are skipped. Raises InputError for anything else."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}; it holds the queries, one JSON object per line.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    annotations = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            value: object = json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place} is not JSON: {error}") from error
        annotations.append(_annotation(place, value))
    if not annotations:
        raise InputError(f"{path} holds no queries")
    return annotations


def find_file(folders: Sequence[Path], name: str) -> Path:
    """Return the picture ``name`` with one of the usual suffixes; where there is none, the first path it could have."""
    for folder in folders:
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return folders[0] / f"{name}{_SUFFIXES[0]}"


def _annotation(place: str, value: object) -> Annotation:
    if not isinstance(value, dict):
        raise InputError(f"{place}: expected an object, found {value!r:.80}")
    return Annotation(place, value)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse an object with a repeated key, of which JSON readers silently keep the last."""
    keyed = dict(pairs)
    if len(keyed) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return keyed
