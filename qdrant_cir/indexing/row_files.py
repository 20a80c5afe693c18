"""CSV, JSONL and Parquet files as numbered rows of cells; what the cells mean is said elsewhere."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qdrant_cir.errors import InputError, MissingExtraError, printable

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Scalar

__all__ = ["ROW_FILE_SUFFIXES", "Row", "RowFile", "open_row_file"]

ROW_FILE_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

# 18 digits fit int64; a leading zero makes an article number, not a count
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_LINES_OF_ROW = 10_000
_UNCLOSED = (
    "a quotation mark opens a cell and is never closed, or not before other text; close it, or write it twice inside "
    "quotation marks"
)
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
    _, columns = next(rows, (1, list[str]()))
    if isinstance(columns, str):
        raise InputError(f"{path.name}: its first line, which names the columns, is wrong: {columns}")
    if "" in columns or len(set(columns)) < len(columns):
        raise InputError(f"{path.name}: every column needs a name of its own; its first line is {columns}")
    converters: list[_Converter | None] = [None] * len(columns)
    for _, cells in rows:
        if not isinstance(cells, str) and len(cells) == len(columns):
            known = zip(converters, cells, strict=True)
            converters = [_wider(converter, cell) if cell else converter for converter, cell in known]
    typed = {
        name: str if converter is None or name in untyped else converter
        for name, converter in zip(columns, converters, strict=True)
    }

    def stream() -> Iterator[Row]:
        for number, cells in islice(_csv_rows(path), 1, None):
            if isinstance(cells, str):
                yield Row(number, cells)
            elif len(cells) == len(columns):
                named = zip(columns, cells, strict=True)
                yield Row(number, {name: typed[name](cell) for name, cell in named if cell})
            else:
                yield Row(number, f"{len(cells)} values for {len(columns)} columns")

    return RowFile(columns, stream, "line")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each row that is not blank, or what is wrong with it, with the number of its first line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _Lines(file)
        try:
            while (number := lines.begin_row()) is not None:
                cells = _csv_cells(lines)
                if cells:
                    yield number, cells
        except UnicodeDecodeError as error:
            raise InputError(f"{path.name} is not UTF-8 text ({error}); save it as UTF-8") from error


class _Lines:
    """Lines of a text file, of which those that a row took by mistake can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self._first = 1

    def begin_row(self) -> int | None:
        """Count the lines of the last row; return the number of the next one, None at the end."""
        self._first += len(self._taken)
        self._taken = []
        if not self._again and (line := next(self._lines, None)) is not None:
            self._again.append(line)
        return self._first if self._again else None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._taken) >= _LINES_OF_ROW:
            raise StopIteration
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        return line

    def keep_first(self) -> str:
        """Give back all but the first line of the row, and return that one."""
        self._again.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]
        return self._taken[0]

    def begin_again(self) -> None:
        """Give back all lines of the row."""
        self._again.extendleft(reversed(self._taken))
        self._taken = []


def _csv_cells(lines: _Lines) -> list[str] | str:
    """Read the cells of one row, or say what is wrong with its first line, behind which reading goes on.

    A quotation mark that is never closed would swallow the rows behind it, up to the next mark or the end. A row of
    several lines must therefore be written strictly; a row of one line need not be.
    """
    try:
        return next(csv.reader(lines, strict=True), [])
    except csv.Error as error:
        if "field larger" in str(error):
            # the limit of the csv module is one for the whole process
            lines.begin_again()
            return _long_cells(lines)
    line = lines.keep_first()
    following = iter([line, ""])
    reader = csv.reader(following)
    try:
        cells = next(reader, [])
    except csv.Error as error:
        return f"not CSV: {error}"
    return cells if reader.line_num == 1 else _UNCLOSED


def _long_cells(lines: _Lines) -> list[str] | str:
    """Read a row with cells of more than 131,072 characters, which the csv module refuses; the same rules."""
    cursor = _Cursor(next(lines))
    cells: list[str] = []
    while True:
        start = ""
        if cursor.text[cursor.place : cursor.place + 1] == '"':
            quoted = _quoted(cursor, lines)
            if quoted is None:
                lines.keep_first()
                return _UNCLOSED
            start = quoted
        end = cursor.text.find(",", cursor.place)
        if end < 0:
            cells.append(start + cursor.text[cursor.place :].rstrip("\r\n"))
            return cells
        cells.append(start + cursor.text[cursor.place : end])
        cursor.place = end + 1


@dataclass(slots=True)
class _Cursor:
    """A place in the line that is being read."""

    text: str
    place: int = 0


def _quoted(cursor: _Cursor, lines: _Lines) -> str | None:
    """Read what stands between quotation marks, maybe over several lines; None where they are not closed properly."""
    parts: list[str] = []
    start, is_one_line = cursor.place + 1, True
    while True:
        end = cursor.text.find('"', start)
        if end < 0:
            parts.append(cursor.text[start:])
            line = next(lines, None)
            if line is None:
                return None
            cursor.text, start, is_one_line = line, 0, False
            continue
        parts.append(cursor.text[start:end])
        following = cursor.text[end + 1 : end + 2]
        if following == '"':
            parts.append('"')
            start = end + 2
            continue
        cursor.place = end + 1
        return "".join(parts) if is_one_line or following in ("", ",", "\r", "\n") else None


def _boolean(cell: str) -> bool:
    return _BOOLEANS[cell.lower()]


def _wider(kind: _Converter | None, cell: str) -> _Converter:
    """Return the converter that fits both the column so far and one more cell."""
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
    # ValueError also for numbers of more digits than Python converts, RecursionError for deep nesting
    except (ValueError, RecursionError) as error:
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
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path.name} is not a Parquet file: {_first_line(error)}") from error
    if len(set(columns)) < len(columns):
        raise InputError(f"{path.name}: every column needs a name of its own; it has {columns}")

    def stream() -> Iterator[Row]:
        number = 0
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(batch_size=256, row_groups=[group]):
                        for cells in _parquet_rows(batch):
                            number += 1
                            yield Row(number, cells)
                # Arrow raises errors of many kinds for damaged pages, plain OSError among them.
                except (pyarrow.ArrowException, OSError, ValueError, EOFError) as error:
                    lost = f"rows {number + 1} to {end} cannot be read, for the file is damaged: {_first_line(error)}"
                    yield Row(number + 1, lost)
                    number = max(end, number + 1)

    def checked() -> Iterator[Row]:
        try:
            yield from stream()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path.name} cannot be read: {_first_line(error)}") from error

    return RowFile(columns, checked, "row")


def _parquet_rows(batch: RecordBatch) -> Iterator[Mapping[str, object] | str]:
    """Yield the cells of each row of a batch, or what is wrong with them."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except Exception:
        # Values that Python cannot hold raise errors of many kinds; which row has them is found cell by cell.
        for place in range(batch.num_rows):
            yield _parquet_cells(batch, place)
        return
    for row in rows:
        yield {name: value for name, value in row.items() if not _is_null(value)}


def _parquet_cells(batch: RecordBatch, place: int) -> Mapping[str, object] | str:
    cells: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value = _python_value(column[place])
        except Exception as error:
            return f"the value of {name!r} cannot be read: {_first_line(error)}"
        if not _is_null(value):
            cells[str(name)] = value
    return cells


def _python_value(scalar: Scalar) -> object:
    import pyarrow

    try:
        return scalar.as_py()
    except ValueError:
        if not pyarrow.types.is_timestamp(scalar.type):
            raise
        # nanoseconds, which Python's datetime does not hold; as ISO text, with a T as isoformat() writes it
        return str(scalar.cast(pyarrow.string()).as_py()).replace(" ", "T", 1)


def _first_line(error: Exception) -> str:
    return printable(str(error).split("\n", 1)[0].rstrip(".")) or type(error).__name__


def _is_null(value: object) -> bool:
    """Parquet files written from data frames hold NaN where there is nothing."""
    return value is None or (isinstance(value, float) and value != value)
