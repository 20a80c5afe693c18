"""What the commands show: JSON and tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from qdrant_cir.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from qdrant_cir.indexing.report import IndexProgress, IndexReport
    from qdrant_cir.types import Candidate, JsonObject, JsonValue, Query, SearchResult

__all__ = [
    "escaped",
    "index_report_json",
    "index_report_text",
    "print_json",
    "print_note",
    "print_result",
    "print_table",
    "search_result_json",
    "show_counts",
    "show_progress",
    "stderr_console",
]

_SECONDS_BETWEEN_LINES = 5.0
_MINUTE = 60
_UNBOUNDED = 10_000
_BETWEEN = 3
_LEAST = 8


def print_json(value: JsonValue) -> None:
    """Write one JSON document to stdout, and nothing else."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # half of a surrogate pair, as in a file name that is not UTF-8, can be written in JSON and in no encoding
    typer.echo(re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text))


def escaped(text: str) -> str:
    """Write characters that no terminal shows, or that command it, as escape sequences; line breaks stay."""
    return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)


def print_note(sentence: str) -> None:
    """Write a sentence to stderr."""
    typer.echo(escaped(sentence), err=True)


def stderr_console() -> Console:
    """Give a console that writes to stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Write a table to stdout; its last column is shortened first where the terminal is narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[printable(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        # nothing is cut off where the reader is a file or a program
        console = Console(highlight=False, width=_UNBOUNDED)
    table = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE, pad_edge=False)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    # rich would take from all columns alike, down to nothing
    room = console.width - sum(widths[:-1]) - _BETWEEN * len(widths)
    widths[-1] = min(widths[-1], max(room, _LEAST))
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def search_result_json(query: Query, result: SearchResult, *, reference: str | None) -> JsonObject:
    """Give an answer as JSON: the query, the candidates in order, seconds per step, and notes."""
    timings: JsonObject = dict(asdict(result.timings))
    return {
        "query": {"reference": reference, "modification_text": query.modification_text},
        "candidates": [_candidate_json(rank, c) for rank, c in enumerate(result.candidates, start=1)],
        "rerank_mode": result.rerank_mode,
        "scored": result.scored,
        "precision": result.precision,
        "timings": timings,
        "notes": list(result.notes),
    }


def print_result(result: SearchResult) -> None:
    """Write an answer as a table to stdout, and its notes and timings to stderr."""
    for note in result.notes:
        print_note(note)
    rows = [
        (
            str(rank),
            candidate.image_id,
            "-" if candidate.rerank_score is None else f"{candidate.rerank_score:.3f}",
            f"{candidate.retrieval_score:.3f}",
            str(candidate.retrieval_rank),
            _fields(candidate),
        )
        for rank, candidate in enumerate(result.candidates, start=1)
    ]
    if rows:
        print_table(("#", "image", "re-rank score", "cosine", "retrieved #", "payload"), rows)
    else:
        typer.echo("Nothing was found.")
    steps = {name: seconds for name, seconds in asdict(result.timings).items() if seconds > 0}
    print_note(f"re-ranking: {result.rerank_mode}, {result.scored} candidates scored in {result.precision}")
    print_note(", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in steps.items()))


def index_report_json(collection: str, report: IndexReport, *, images: int) -> JsonObject:
    """Give an indexing report as JSON; ``images`` is what the collection holds now."""
    return {
        "collection": collection,
        "images": images,
        "indexed": report.indexed,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "failed": [{"image_id": failed.image_id, "reason": failed.reason} for failed in report.failed],
        "skipped": {**report.skipped},
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 2),
    }


def index_report_text(collection: str, report: IndexReport, *, images: int) -> str:
    """Give an indexing report as sentences, with every image that failed and why."""
    lines = [
        f"{collection} holds {images} images. Indexed {report.indexed}, updated {report.updated}, "
        f"unchanged {report.unchanged}, failed {len(report.failed)} in {report.seconds:.1f} s "
        f"({report.images_per_second:.1f} images/s)."
    ]
    lines += [f"  failed: {printable(failed.image_id)}: {escaped(failed.reason)}" for failed in report.failed]
    if report.skipped:
        kinds = [f"{count} {printable(suffix) or 'without one'}" for suffix, count in report.skipped.items()]
        lines.append(f"  skipped files whose suffix is not one of a picture: {', '.join(kinds)}")
    return "\n".join(lines)


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[IndexProgress], None]]:
    """Show an indexing run on stderr: done, rate, time left and failures."""
    with _display(what) as show:

        def show_run(progress: IndexProgress) -> None:
            speed = _speed(progress.images_per_second, progress.eta_seconds)
            failed = f", {progress.failed} failed" if progress.failed else ""
            show(progress.done, progress.total, speed + failed)

        yield show_run


@contextmanager
def show_counts(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many of how many are done, with rate and time left."""
    started = time.monotonic()
    first: int | None = None
    with _display(what) as show:

        def show_count(done: int, total: int) -> None:
            nonlocal first
            first = done if first is None else first
            rate = (done - first) / max(time.monotonic() - started, 1e-9)
            show(done, total, _speed(rate, (total - done) / rate if rate else None))

        yield show_count


@contextmanager
def _display(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Give what shows done, total and speed: a bar on a terminal, else a line at times and one at the end."""
    console = stderr_console()
    if not console.is_terminal:
        yield _line_display(what)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.fields[count]}  {task.fields[speed]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, count="?", speed="")

        def show(done: int, total: int | None, speed: str) -> None:
            count = "?" if total is None else str(total)
            bar.update(task, completed=done, total=total, count=count, speed=speed)

        yield show


def _line_display(what: str) -> Callable[[int, int | None, str], None]:
    last = time.monotonic()

    def show(done: int, total: int | None, speed: str) -> None:
        nonlocal last
        if done != total and time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        print_note(f"{what}: {done}{'' if total is None else f' of {total}'}, {speed}")

    return show


def _speed(per_second: float, eta_seconds: float | None) -> str:
    if not eta_seconds:
        return f"{per_second:.1f}/s"
    minutes, seconds = divmod(round(eta_seconds), _MINUTE)
    return f"{per_second:.1f}/s, {f'{minutes} min {seconds} s' if minutes else f'{seconds} s'} left"


def _candidate_json(rank: int, candidate: Candidate) -> JsonObject:
    return {
        "rank": rank,
        "image_id": candidate.image_id,
        "source": candidate.source,
        "retrieval_score": candidate.retrieval_score,
        "retrieval_rank": candidate.retrieval_rank,
        "rerank_score": candidate.rerank_score,
        "rerank_rank": candidate.rerank_rank,
        "payload": dict(candidate.payload),
    }


def _fields(candidate: Candidate) -> str:
    return ", ".join(f"{name}={value}" for name, value in candidate.payload.items() if value != candidate.image_id)
