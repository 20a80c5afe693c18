"""``qdrant-cir evaluate photos``: photographs of clothes, by senders that training never saw."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import BundleOption, JsonOption, ProviderOption, open_bundle, provider_named

__all__ = ["photos"]

_SECONDS_BETWEEN_LINES = 5.0
_SHOWN = 24
"""Queries on the contact sheet, spread over all."""


def photos(
    *,
    root: Annotated[Path, typer.Option("--root", help="Folder with labels.csv.", show_default=False)],
    label_column: Annotated[
        str, typer.Option("--label-column", help="Column of labels.csv that names what a photograph shows.")
    ] = "label",
    eye_labels: Annotated[
        Path | None,
        typer.Option(
            "--eye-labels",
            help="CSV of file, colour, sleeves, pattern: labels made by eye. By default those of this package.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Queries of a group, at most.")] = 300,
    rerank_depth: Annotated[int, typer.Option("--rerank-depth", "-k", min=1, help="Candidates to re-rank.")] = 50,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report and the sheet.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure on labelled photographs of clothes, by senders that training never saw.

    Beside both stages there are three controls: the text alone, the picture alone, and the sum of both.
    """
    from qdrant_cir.evaluation.datasets.photos import EYE_LABELS, photo_benchmark, read_eye_labels
    from qdrant_cir.evaluation.runs.photos import (
        answer_photo_queries,
        photo_markdown,
        photo_report_json,
        save_photo_sheet,
    )
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.photographs.labels import read_photographs

    seen = read_eye_labels(eye_labels or EYE_LABELS)
    photographs = read_photographs(root, label_column=label_column)
    model = open_bundle(bundle or Path("photos"))
    benchmark = photo_benchmark(photographs, eye_labels=seen, queries_per_group=queries)
    report = answer_photo_queries(
        benchmark,
        model,
        Compute(provider=provider_named(provider)),
        rerank_depth=rerank_depth,
        on_progress=_progress(),
    )
    folder = out or Path("qdrant_cir_evaluation") / f"photos-test-{model.fingerprint[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(photo_markdown(report), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(photo_report_json(report), indent=2) + "\n", encoding="utf-8")
    shown = range(0, len(benchmark.queries), len(benchmark.queries) // _SHOWN or 1)
    save_photo_sheet(benchmark, report, shown, folder / "sheet.png")
    if as_json:
        printing.print_json(photo_report_json(report))
    else:
        typer.echo(photo_markdown(report))
    printing.print_note(f"Written: {folder / 'report.md'}, {folder / 'report.json'}, {folder / 'sheet.png'}")


def _progress() -> Callable[[int, int], None]:
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            printing.print_note(f"{done} of {total} pictures and queries")

    return show
