"""What the commands show: JSON and tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from qdrant_cir.cli.exit_codes import NO_READER, UNWRITABLE
from qdrant_cir.cli.interrupts import Progress, counted
from qdrant_cir.errors import printable, shortened
from qdrant_cir.indexing.report import MOST_SHOWN

if TYPE_CHECKING:
    from rich.console import Console

    from qdrant_cir.indexing.report import IndexProgress, IndexReport
    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.search.explanation import Explanation
    from qdrant_cir.types import Candidate, JsonObject, JsonValue, Query, SearchResult

__all__ = [
    "count_text",
    "bundle_json",
    "bundle_text",
    "end_output",
    "bundle_training_data",
    "escaped",
    "index_report_json",
    "index_report_text",
    "print_explanation",
    "print_json",
    "print_note",
    "print_result",
    "print_table",
    "print_text",
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
_BEST_CELLS = 5


def print_text(text: str) -> None:
    """Write a text to stdout; characters that stdout cannot show are escaped.

    Raises:
        typer.Exit: nobody reads stdout any more, or it cannot be written, which a sentence on stderr reports.
    """
    try:
        typer.echo(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        _print_encoded(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        raise typer.Exit(end_output(error)) from error


def print_json(value: JsonValue) -> None:
    """Write one JSON document to stdout, and nothing else. Raises typer.Exit as :func:`print_text`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        # half of a surrogate pair, as in a file name that is not UTF-8, can be written in JSON and in no encoding
        typer.echo(re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text))
    except UnicodeEncodeError:
        _print_encoded(json.dumps(value, indent=2))
    except OSError as error:
        raise typer.Exit(end_output(error)) from error


def escaped(text: str) -> str:
    """Write characters that no terminal shows, or that command it, as escape sequences; line breaks stay."""
    return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)


def print_note(sentence: str) -> None:
    """Write a sentence to stderr."""
    typer.echo(escaped(sentence), err=True)


def stderr_console() -> Console:
    """Return a console that writes to stderr."""
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
    print_text("\n".join(line.rstrip() for line in printed.get().splitlines()))


def bundle_text(bundle: Bundle) -> str:
    """Write in one line which bundle is used, what it is for if it is packaged, and what it was trained on."""
    from qdrant_cir.model.bundle import PACKAGED_BUNDLES, packaged_bundle_path

    purposes = {packaged_bundle_path(name): purpose for name, purpose in PACKAGED_BUNDLES.items()}
    purpose, data = purposes.get(bundle.folder), bundle_training_data(bundle)
    return f"Bundle {bundle.manifest.name}" + "".join(
        (f", for {purpose}" if purpose else "", f", trained on: {data}" if data else "")
    )


def bundle_json(bundle: Bundle) -> JsonObject:
    """Return a bundle's name, fingerprint and training data, None where it does not say."""
    return {
        "name": bundle.manifest.name,
        "fingerprint": bundle.fingerprint,
        "training_data": bundle_training_data(bundle),
    }


def bundle_training_data(bundle: Bundle) -> str | None:
    """Return what a bundle's manifest says of its training data; converted bundles keep it with what they came from."""
    made: JsonValue = bundle.manifest.provenance
    while isinstance(made, dict):
        data = made.get("training_data")
        if isinstance(data, str) and data.strip():
            return " ".join(data.split())
        made = made.get("made_of")
    return None


def search_result_json(query: Query, result: SearchResult, *, references: Sequence[str]) -> JsonObject:
    """Return an answer as JSON: the query, the candidates in order, seconds per step, and notes."""
    from qdrant_cir.search.answer_json import candidate_object, result_object

    return {
        "query": {
            "reference": references[0] if references else None,
            "references": [*references],
            "weights": None if query.weights is None else [*query.weights],
            "modification_text": query.modification_text,
            "must_not": query.must_not or None,
        },
        "candidates": [
            candidate_object(each, rank, with_point=True) for rank, each in enumerate(result.candidates, start=1)
        ],
        **result_object(result),
    }


def print_result(result: SearchResult, *, grouped: bool = False) -> None:
    """Write an answer as a table to stdout, and its notes and timings to stderr.

    Args:
        result: the answer.
        grouped: whether to show the group of every result.
    """
    for note in result.notes:
        print_note(note)
    has_views = any(candidate.view is not None for candidate in result.candidates)
    columns: list[tuple[str, list[str]]] = [
        ("#", [str(rank) for rank, _ in enumerate(result.candidates, start=1)]),
        ("image", [candidate.image_id for candidate in result.candidates]),
    ]
    if grouped:
        columns.append(("group", [_plain(candidate.group) for candidate in result.candidates]))
    if has_views:
        columns.append(("view", [candidate.view or "-" for candidate in result.candidates]))
    columns += [
        (
            "re-rank score",
            ["-" if c.rerank_score is None else f"{c.rerank_score:.3f}" for c in result.candidates],
        ),
        ("cosine", [f"{candidate.retrieval_score:.3f}" for candidate in result.candidates]),
        ("retrieved #", [str(candidate.retrieval_rank) for candidate in result.candidates]),
        ("payload", [_fields(candidate) for candidate in result.candidates]),
    ]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    if rows:
        print_table([heading for heading, _ in columns], rows)
    else:
        print_text("Nothing was found.")
    steps = {name: seconds for name, seconds in asdict(result.timings).items() if seconds > 0}
    if result.match_probability is not None:
        print_note(f"a match with a probability of {result.match_probability:.0%}")
    print_note(f"re-ranking: {result.rerank_mode}, {result.scored} candidates scored in {result.precision}")
    print_note(", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in steps.items()))


def print_explanation(why: Explanation) -> None:
    """Write an explanation to stdout: the ranks, the words and the best cells; its notes go to stderr."""
    for note in why.notes:
        print_note(note)
    candidate, first = why.candidate, why.first_retrieved
    print_text(
        f"{printable(candidate.image_id)}: retrieved as number {candidate.retrieval_rank} (cosine "
        f"{candidate.retrieval_score:.3f}), now number {candidate.rerank_rank} of {why.count} (re-rank score "
        f"{candidate.rerank_score:.3f}). First without re-ranking: {printable(first.image_id)}."
    )
    rows = [
        (
            each.word,
            f"{each.places:+d}" if each.places else "0",
            str(each.rank),
            f"{each.drop:.3f}",
            "" if each.is_known else "not known to the model",
        )
        for each in why.words
    ]
    print_table(("word", "places gained, about", "# without it", "score falls by", ""), rows)
    if why.cells is not None:
        best = [
            f"row {row + 1} column {column + 1} ({why.cells.text_drops[row][column]:.3f})"
            for row, column in why.cells.best(_BEST_CELLS)
            if why.cells.text_drops[row][column] > 0
        ]
        print_text(
            f"Cells of the picture ({why.cells.rows} x {why.cells.columns}) that carried what the text added: "
            f"{', '.join(best) or 'none'}."
        )
    print_note(f"scored in {why.precision}, {why.seconds * 1000:.0f} ms")


def count_text(count: int, *, is_approximate: bool) -> str:
    """Write a count, with ``~`` before one that is only about right."""
    return f"~{count}" if is_approximate else str(count)


def index_report_json(collection: str, report: IndexReport, *, images: int, is_approximate: bool = False) -> JsonObject:
    """Return an indexing report as JSON; ``images`` is what the collection holds now."""
    return {
        "collection": collection,
        "images": images,
        "is_approximate": is_approximate,
        "indexed": report.indexed,
        "replaced": report.replaced,
        "replaced_from_elsewhere": report.elsewhere,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "failed": [{"image_id": failed.image_id, "reason": failed.reason} for failed in report.failed],
        "without_picture": report.without_picture,
        "swept": report.swept,
        "skipped": {**report.skipped},
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 2),
    }


def index_report_text(collection: str, report: IndexReport, *, images: int, is_approximate: bool = False) -> str:
    """Write an indexing report as sentences, with every image that failed and why."""
    replaced = f" ({report.replaced} replaced)" if report.replaced else ""
    held = count_text(images, is_approximate=is_approximate)
    lines = [
        f"{collection} holds {held} images. Indexed {report.indexed}{replaced}, updated {report.updated}, "
        f"unchanged {report.unchanged}, failed {len(report.failed)} in {report.seconds:.1f} s "
        f"({report.images_per_second:.1f} images/s)."
    ]
    if report.elsewhere:
        lines.append(
            f"{report.elsewhere} of the replaced pictures came from another place. If it has the same names but other "
            "pictures, index each with a --prefix of its own to keep both."
        )
    if report.without_picture:
        lines.append(f"Points that name no picture: {report.without_picture}.")
    if report.swept:
        lines.append(f"Tokens of points that are gone, removed: {report.swept}.")
    lines += [
        f"  failed: {printable(shortened(failed.image_id))}: {escaped(shortened(failed.reason))}"
        for failed in report.failed[:MOST_SHOWN]
    ]
    if len(report.failed) > MOST_SHOWN:
        lines.append(f"  and {len(report.failed) - MOST_SHOWN} more; --json lists all.")
    if report.skipped:
        kinds = [f"{count} {printable(suffix) or 'without one'}" for suffix, count in report.skipped.items()]
        lines.append(f"  skipped files whose suffix is not one of a picture: {', '.join(kinds)}")
    return "\n".join(lines)


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[IndexProgress], None]]:
    """Show an indexing run on stderr: done, rate, time left and failures; Ctrl-C inside it carries the counts."""
    counts = Progress("in")
    with counted(counts), _display(what) as show:

        def show_run(progress: IndexProgress) -> None:
            counts.done, counts.total = progress.done - progress.failed, progress.total
            speed = _speed(progress.images_per_second, progress.eta_seconds)
            failed = f", {progress.failed} failed" if progress.failed else ""
            show(progress.done, progress.total, speed + failed)

        yield show_run


@contextmanager
def show_counts(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many of how many are done, with rate and time left; Ctrl-C inside it carries the counts."""
    counts = Progress("done")
    started = time.monotonic()
    first: int | None = None
    with counted(counts), _display(what) as show:

        def show_count(done: int, total: int) -> None:
            nonlocal first
            counts.done, counts.total = done, total
            first = done if first is None else first
            rate = (done - first) / max(time.monotonic() - started, 1e-9)
            show(done, total, _speed(rate, (total - done) / rate if rate else None))

        yield show_count


@contextmanager
def _display(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Yield what shows done, total and speed: a bar on a terminal, else a line at times and one at the end."""
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


def _fields(candidate: Candidate) -> str:
    return ", ".join(f"{name}={value}" for name, value in candidate.payload.items() if value != candidate.image_id)


def _plain(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_encoded(text: str) -> None:
    try:
        typer.echo(text)
    except OSError as error:
        raise typer.Exit(end_output(error)) from error


def end_output(error: OSError) -> int:
    """Abandon stdout after a failed write, so that it is not flushed once more at exit.

    Returns:
        The exit code; a reader that has ended needs no words, and for the rest a sentence stands on stderr.
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return NO_READER
    print_note(f"Error: The output cannot be written: {error.strerror or error}.")
    return UNWRITABLE
