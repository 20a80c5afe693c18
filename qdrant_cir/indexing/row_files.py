"""CSV, JSONL and Parquet files as numbered rows of cells; what the cells mean is said elsewhere."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from qdrant_cir.errors import InputError, MissingExtraError

__all__ = ["ROW_FILE_SUFFIXES", "Row", "RowFile", "open_row_file"]

ROW_FILE_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

# 18 digits fit int64; a leading zero makes an article number, not a count
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_Converter: TypeAlias = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Row:
    """A numbered row: its cells by column, or the reason why it has none."""

    number: int
    cells: Mapping[str, object] | str


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows.

    Attributes:
        columns: the names of its columns, in order.
        rows: reads the file from the start, each time it is called.
        unit: what its rows are counted in: ``line``, or ``row`` where there are no lines.
    """

    columns: Sequence[str]
    rows: Callable[[], Iterator[Row]]
    unit: str


def open_row_file(path: Path, *, untyped: Sequence[str]) -> RowFile:
    """Open a row file by its suffix and read what is needed to know its columns and their types.

    CSV values are typed by column: all integers, floats or ``true``/``false``, else strings; a number with a
    leading zero is a string; an empty cell is absent. Columns named in ``untyped`` stay strings. JSONL keeps
    its JSON, Parquet its types; nulls of Parquet, and the NaN that data frames write for them, are absent.

    Raises:
        InputError: another suffix, not text, not Parquet, or CSV columns without names of their own.
        MissingExtraError: a Parquet file without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _open_csv(path, untyped=untyped)
    if suffix in {".jsonl", ".ndjson"}:
        return _open_jsonl(path)
    if suffix == ".parquet":
        return _open_parquet(path)
    raise InputError(f"{path.name}: expected a manifest ending in {', '.join(ROW_FILE_SUFFIXES)}")


def _open_csv(path: Path, *, untyped: Sequence[str]) -> RowFile:
    rows = _csv_rows(path)
    _, columns = next(rows, (1, []))
    if "" in columns or len(set(columns)) < len(columns):
        raise InputError(f"{path.name}: every column needs a name of its own; its first line is {columns}")
    converters: list[_Converter | None] = [None] * len(columns)
    for _, cells in rows:
        if len(cells) == len(columns):
            known = zip(converters, cells, strict=True)
            converters = [_wider(converter, cell) if cell else converter for converter, cell in known]
    typed = {
        name: str if converter is None or name in untyped else converter
        for name, converter in zip(columns, converters, strict=True)
    }

    def stream() -> Iterator[Row]:
        for number, cells in islice(_csv_rows(path), 1, None):
            if len(cells) == len(columns):
                named = zip(columns, cells, strict=True)
                yield Row(number, {name: typed[name](cell) for name, cell in named if cell})
            else:
                yield Row(number, f"{len(cells)} values for {len(columns)} columns")

    return RowFile(columns, stream, "line")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give each row that is not blank with the number of its first line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        number = 1
        try:
            for cells in reader:
                if cells:
                    yield number, cells
                number = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise InputError(f"{path.name} is not UTF-8 text ({error}); save it as UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{path.name} line {number} is not CSV: {error}") from error


def _boolean(cell: str) -> bool:
    return _BOOLEANS[cell.lower()]


def _wider(kind: _Converter | None, cell: str) -> _Converter:
    """Give the converter that fits both the column so far and one more cell."""
    if kind is str:
        return str
    own: _Converter = str
    if cell.lower() in _BOOLEANS:
        own = _boolean
    elif _INTEGER.fullmatch(cell):
        own = int
    elif _FLOAT.fullmatch(cell) and isfinite(float(cell)):
        own = float
    if kind is None or kind is own:
        return own
    return float if {kind, own} == {int, float} else str


def _open_jsonl(path: Path) -> RowFile:
    def stream() -> Iterator[Row]:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(number, _json_cells(line.removeprefix(b"\xef\xbb\xbf")))

    columns: dict[str, None] = {}  # an ordered set
    for row in stream():
        if not isinstance(row.cells, str):
            columns.update(dict.fromkeys(row.cells))
    return RowFile(list(columns), stream, "line")


def _json_cells(line: bytes) -> Mapping[str, object] | str:
    try:
        cells: object = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        return f"not JSON: {error}"
    return cells if isinstance(cells, dict) else f"expected a JSON object, got {type(cells).__name__}"


def _open_parquet(path: Path) -> RowFile:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f'reading {path.name} needs pyarrow: pip install "qdrant-cir[parquet]"') from error
    try:
        columns = [str(name) for name in parquet.read_schema(path).names]
    except pyarrow.ArrowException as error:
        raise InputError(f"{path.name} is not a Parquet file: {error}") from error

    def stream() -> Iterator[Row]:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(number, {key: value for key, value in cells.items() if not _is_null(value)})

    return RowFile(columns, stream, "row")


def _is_null(value: object) -> bool:
    """Parquet files written from data frames hold NaN where there is nothing."""
    return value is None or (isinstance(value, float) and value != value)
