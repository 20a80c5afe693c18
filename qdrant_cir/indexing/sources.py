"""Pictures from a folder or from a CSV / JSONL / Parquet manifest, read into records for the indexer.

A manifest names one picture per row in a column ``file`` (or ``image``), relative to the manifest's own
folder or absolute; an optional column ``image_id`` names it in the collection (else the file does); every
other column becomes payload. A manifest is checked as a whole before anything is encoded, and then streamed.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import NoReturn, overload

from qdrant_cir.arguments import checked_path, checked_text, shown
from qdrant_cir.errors import InputError
from qdrant_cir.indexing.row_files import ROW_FILE_SUFFIXES, Row, RowFile, open_row_file
from qdrant_cir.types import ImageSource, JsonObject, JsonValue, PointId

__all__ = [
    "IMAGE_SUFFIXES",
    "WHOLE",
    "ImageFolder",
    "ImageManifest",
    "ImageRecord",
    "RejectedRow",
    "check_part",
    "in_part",
    "read_folder",
    "read_images",
    "read_manifest",
    "sample_images",
]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
    | {".ppm", ".pgm", ".jp2", ".j2k", ".tga", ".heic", ".heif"}
)
"""File names that :func:`read_folder` takes for pictures, compared without regard to case. HEIC takes a decoder of its
own; where it is not installed, the failure of each picture says so."""

WHOLE = (1, 1)
"""The part that is everything."""

_FILE_COLUMNS = ("file", "image")
_ID_COLUMN = "image_id"
_NESTED = 64
"""Levels of lists and objects in one value; an embedded store cannot open what is nested much deeper."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture to index.

    Attributes:
        image_id: what names it in the collection, unique there.
        image: a path, the bytes of an encoded file, or a Pillow image.
        payload: the user's fields, filterable in a search.
        source: where the picture can be found again, None where there is no such place.
        point_id: of the point that it belongs to in an attached collection; None for a gallery of our own.
        views: how many pictures the point has.
        known_sha256: the digest under which it is indexed, where only its content is in question.
        open: opens the picture when it is needed, instead of ``image``.
    """

    image_id: str
    image: ImageSource
    payload: JsonObject
    source: str | None
    point_id: PointId | None = None
    views: int = 1
    known_sha256: str | None = None
    open: Callable[[], ImageSource] | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A manifest row that names no picture: where it stands, and what is wrong with it."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImageFolder(Sequence[ImageRecord]):
    """The pictures of a folder, sorted by relative path.

    Attributes:
        records: one for each picture.
        skipped: how many other files there are, by suffix in small letters; the empty suffix stands for none.
    """

    records: tuple[ImageRecord, ...]
    skipped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, place: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[ImageRecord, ...]: ...

    def __getitem__(self, place: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        return self.records[place]


def read_images(path: str | os.PathLike[str], *, prefix: str = "") -> ImageFolder | ImageManifest:
    """Read a folder with :func:`read_folder`, a file with :func:`read_manifest`; both have a length."""
    return read_folder(path, prefix=prefix) if _existing(path).is_dir() else read_manifest(path, prefix=prefix)


def in_part(name: str, part: tuple[int, int]) -> bool:
    """Return whether an id belongs to a part, such as (1, 3) for the first of three: the same in every process."""
    number, count = part
    return zlib.crc32(name.encode(errors="surrogatepass")) % count == number - 1


def check_part(part: tuple[int, int]) -> None:
    """Refuse what is no part of a whole. Raises InputError."""
    is_pair = isinstance(part, tuple) and len(part) == 2 and all(type(each) is int for each in part)
    if not is_pair or not 1 <= part[0] <= part[1]:
        raise InputError(f"{part!r} is not a part. Give its number, counted from 1, and how many there are: (1, 3).")


def _existing(path: str | os.PathLike[str]) -> Path:
    """Return a path that can be looked for. Raises InputError for one that no file system has."""
    found = checked_path(path, name="path")
    try:
        found.exists()
    except OSError as error:
        raise InputError(
            f"{shown(str(found))} cannot be read: {error.strerror}. Give a folder or a manifest."
        ) from error
    return found


def sample_images(path: str | os.PathLike[str], count: int) -> list[ImageRecord | RejectedRow]:
    """Read at most ``count`` pictures of a folder or manifest, spread evenly over it; errors as :func:`read_images`."""
    found = [*read_images(path)]
    return found[:: max(1, len(found) // count)][:count]


def read_folder(path: str | os.PathLike[str], *, prefix: str = "") -> ImageFolder:
    """List the pictures in a folder and the folders below it, sorted by relative path.

    The relative path with ``/`` between its parts is the image id and the payload field ``file``. The
    payload field ``folder`` holds the names of the folders on the way there: one name, a list where there
    are several, absent where there is none; Qdrant matches a keyword against each element, so
    ``folder = "dress"`` finds ``dress/1.jpg`` and ``summer/dress/2.jpg`` alike. Hidden files and folders are
    skipped; linked folders are not entered. Files with other suffixes than :data:`IMAGE_SUFFIXES` are counted.

    Args:
        path: of the folder.
        prefix: stands before every image id, to tell folders apart that have the same names in them.

    Raises:
        InputError: the folder does not exist, cannot be read or holds no picture.
    """
    checked_text(prefix, name="prefix")
    root = _existing(path).absolute()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected a folder of images")
    found: list[Path] = []
    skipped: Counter[str] = Counter()
    for folder, folders, files in os.walk(root, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(folder, name) for name in files if not name.startswith(".")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                found.append(file)
            else:
                skipped[file.suffix.lower()] += 1
    if not found:
        raise InputError(f"no image in {root}; looked for files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    records = sorted((_folder_record(root, file, prefix) for file in found), key=lambda record: record.image_id)
    return ImageFolder(tuple(records), dict(sorted(skipped.items())))


def read_manifest(path: str | os.PathLike[str], *, prefix: str = "") -> ImageManifest:
    """Open a manifest and check it as a whole: format, columns, ids.

    CSV values are typed by column: integers, floats, ``true``/``false``, else strings; a number with a
    leading zero is a string, an empty cell is an absent field. JSONL keeps its JSON. Parquet keeps its types,
    with dates as ISO strings; nulls are absent fields. A Parquet ``image`` column may hold the encoded files
    themselves. ``prefix`` stands before every image id.

    Raises:
        InputError: the manifest is missing, of an unknown format, without rows, without a file column, or
            gives an image id twice.
        MissingExtraError: a Parquet file without pyarrow.
    """
    checked_text(prefix, name="prefix")
    file = _existing(path).absolute()
    if not file.is_file():
        formats = ", ".join(ROW_FILE_SUFFIXES)
        raise InputError(f"{file} does not exist; expected a folder of images or a manifest ({formats})")
    rows = open_row_file(file, untyped=(*_FILE_COLUMNS, _ID_COLUMN))
    column = next((name for name in _FILE_COLUMNS if name in rows.columns), None)
    if column is None:
        raise InputError(
            f"{file.name} has no column 'file' or 'image' that names each picture; "
            f"its columns are: {', '.join(rows.columns) or 'none'}"
        )
    return ImageManifest(file, rows=rows, file_column=column, prefix=prefix)


class ImageManifest:
    """The rows of a checked manifest: sized, and iterable any number of times.

    Rows that name no picture come as :class:`RejectedRow` in their place.
    """

    def __init__(self, path: Path, *, rows: RowFile, file_column: str, prefix: str = "") -> None:
        self.path = path
        self._prefix = prefix
        self._rows = rows
        self._file_column = file_column
        self._length = self._check()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ImageRecord | RejectedRow]:
        return (self._record(row) for row in self._rows.rows())

    def _check(self) -> int:
        """Count the rows; refuse none at all and an id that is given twice."""
        first_rows: dict[str, int] = {}
        count = 0
        for count, row in enumerate(self._rows.rows(), start=1):  # noqa: B007 - the count is the result
            record = self._record(row)
            if isinstance(record, RejectedRow):
                continue
            first = first_rows.setdefault(record.image_id, row.number)
            if first != row.number:
                raise InputError(
                    f"{self.path.name}: {self._rows.unit}s {first} and {row.number} both give the image id "
                    f"{record.image_id!r}; ids must be unique"
                )
        if count == 0:
            raise InputError(f"{self.path.name} holds no rows")
        return count

    def _record(self, row: Row) -> ImageRecord | RejectedRow:
        place = f"{self.path.name} {self._rows.unit} {row.number}"
        if isinstance(row.cells, str):
            return RejectedRow(place, row.cells)
        try:
            return self._from_cells(row.cells)
        except InputError as error:
            return RejectedRow(place, str(error))
        except (ValueError, OverflowError) as error:
            return RejectedRow(place, f"a value cannot be payload: {error}")

    def _from_cells(self, row: Mapping[str, object]) -> ImageRecord:
        """Make a record of the cells of a row. Raises InputError for what none can be made of."""
        cells = dict(row)
        picture = cells.pop(self._file_column, None)
        # the layout of image columns in published Parquet data sets: {"bytes": ..., "path": ...}
        content, name = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (picture, picture)
        if not isinstance(content, bytes) and not (isinstance(name, str) and name):
            raise InputError(f"expected a file name in {self._file_column!r}, got {picture!r:.200}")
        given = cells.pop(_ID_COLUMN, None)
        image_id = name if given is None or given == "" else given
        if isinstance(image_id, int) and not isinstance(image_id, bool):
            image_id = str(image_id)
        if not isinstance(image_id, str) or not image_id:
            raise InputError(f"expected a string or an integer in {_ID_COLUMN!r}, got {given!r:.200}")
        image_id = self._prefix + image_id
        _check_text(image_id)
        payload = {key: _json_value(value) for key, value in cells.items()}
        if isinstance(content, bytes):
            return ImageRecord(image_id=image_id, image=content, payload=payload, source=None)
        _check_text(str(name))
        source = str(self.path.parent / str(name))
        return ImageRecord(image_id=image_id, image=source, payload=payload, source=source)


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _folder_record(root: Path, file: Path, prefix: str) -> ImageRecord:
    relative = file.relative_to(root)
    payload: JsonObject = {"file": relative.as_posix()}
    names: list[JsonValue] = [*relative.parent.parts]
    if names:
        payload["folder"] = names[0] if len(names) == 1 else names
    return ImageRecord(image_id=prefix + relative.as_posix(), image=str(file), payload=payload, source=str(file))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{text!r:.200} is not valid Unicode text") from error


def _json_value(value: object, *, depth: int = 0) -> JsonValue:
    """Return what JSON can hold for a cell of any format. Raises InputError for what has no such form."""
    if depth > _NESTED:
        raise InputError(f"a value is nested more than {_NESTED} levels deep")
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal) and isfinite(value):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_json_value(item, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item, depth=depth + 1) for key, item in value.items()}
    raise InputError(f"a value of type {type(value).__name__} ({str(value)[:40]}) cannot be payload")
