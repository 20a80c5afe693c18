"""Tables with their command and date, kept as JSON and joined to a document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from qdrant_cir.types import JsonObject

DOCUMENT, DATA = "quality.md", "quality.json"


@dataclass(frozen=True, slots=True)
class Section:
    """One table.

    Attributes:
        name: of its file; sections are joined in the order of ``ORDER``.
        title: heads it.
        command: makes it.
        columns: heads of the columns.
        rows: cells in words.
        notes: sentences under the table.
        picture: file name of a picture under the table; empty for none.
        data: the same numbers as JSON.
        measured: the day, as YYYY-MM-DD.
    """

    name: str
    title: str
    command: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    picture: str = ""
    data: JsonObject = field(default_factory=dict)
    measured: str = field(default_factory=lambda: date.today().isoformat())

    def to_markdown(self) -> str:
        """Write heading, command, table, notes and picture."""
        lines = [f"## {self.title}", "", "```", self.command, "```", "", f"Measured on {self.measured}.", ""]
        if self.rows:
            lines += [_line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
            lines += [*map(_line, self.rows), ""]
        lines += [line for note in self.notes for line in (note, "")]
        if self.picture:
            lines += [f"![{self.title}](images/{self.picture})", ""]
        return "\n".join(lines)


ORDER = (
    "main",
    "parts",
    "bars",
    "k",
    "slices",
    "ablations",
    "precision",
    "encoding",
    "compression",
    "controls",
)


def keep_section(folder: Path, section: Section) -> None:
    """Keep a section for the document, in the place of one of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{section.name}.json").write_text(json.dumps(asdict(section), indent=2) + "\n", encoding="utf-8")


def write_documents(folder: Path, out: Path, introduction: Sequence[str], docs: Path | None) -> None:
    """Join the sections that are kept, this run's and earlier ones', into ``quality.md`` and ``quality.json``.

    Args:
        folder: where sections are kept.
        out: where the documents are written.
        introduction: sentences that head the Markdown.
        docs: a documentation folder that gets the Markdown and, under ``images``, the plots; None for none.
    """
    read = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in _kept(folder)]
    sections = [_parse(value) for value in read]
    text = "\n".join(["# Measured quality", "", *introduction, "", *(section.to_markdown() for section in sections)])
    (out / DOCUMENT).write_text(text.rstrip() + "\n", encoding="utf-8")
    (out / DATA).write_text(json.dumps({value["name"]: value for value in read}, indent=2) + "\n", encoding="utf-8")
    if docs is not None:
        (docs / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(out / DOCUMENT, docs / DOCUMENT)
        for picture in {section.picture for section in sections} - {""}:
            shutil.copy(out / "images" / picture, docs / "images" / picture)


def _kept(folder: Path) -> list[str]:
    return [name for name in ORDER if (folder / f"{name}.json").exists()]


def _parse(value: dict[str, object]) -> Section:
    rows = value.pop("rows")
    columns, notes = value.pop("columns"), value.pop("notes")
    section = Section(**value, columns=tuple(columns), notes=tuple(notes), rows=tuple(map(tuple, rows)))  # type: ignore[arg-type, call-overload]
    value |= {"rows": rows, "columns": columns, "notes": notes}
    return section


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
