"""``python -m onnx_export labels``: Top-K files of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

labels = typer.Typer(no_args_is_help=True, help="Top-K files of the paper's own code: score them, or write one.")


@labels.command("score")
def score_labels(
    file: Annotated[Path, typer.Argument(help="A Top-K file, or one with labels alone.")],
    ks: Annotated[list[int] | None, typer.Option("--k", help="k of recall@k; 10 and 50 by default.")] = None,
) -> None:
    """Print the recall of a label file, in percent."""
    from onnx_export.checkpoints.label_files import read_label_file, recall_of

    content = read_label_file(file)
    queries, depth = content.labels.shape
    typer.echo(f"{queries} queries, {depth} places each")
    for name, recall in recall_of(content, ks or (10, 50)).items():
        typer.echo(f"{name:5} {100 * recall:6.2f}")


@labels.command("from-run")
def labels_from_run(
    run: Annotated[Path, typer.Argument(help="A run file of `qdrant-cir evaluate`, below its OUT/runs.")],
    benchmark: Annotated[str, typer.Option(help="The data set that was evaluated: fashioniq or cirr.")],
    root: Annotated[Path, typer.Option(help="Its folder.")],
    out: Annotated[Path, typer.Option(help="File to write, such as fiq_top_200_val_dress.pt.")],
    depth: Annotated[int | None, typer.Option(min=1, help="K; as many places as the run has by default.")] = None,
    stage: Annotated[str, typer.Option(help="Order of which stage: one, as in the original's files, or two.")] = "one",
) -> None:
    """Write a run as a Top-K file, which the original's stage two reads."""
    from onnx_export.checkpoints.label_files import write_label_file
    from onnx_export.checkpoints.label_runs import Stage, label_run
    from qdrant_cir.evaluation.datasets.cirr import read_cirr
    from qdrant_cir.evaluation.datasets.fashioniq import read_fashioniq

    if stage not in get_args(Stage):
        raise typer.BadParameter(f"{stage!r} is none of {', '.join(get_args(Stage))}", param_hint="--stage")
    if benchmark not in ("fashioniq", "cirr"):
        raise typer.BadParameter(f"{benchmark!r} is none of fashioniq, cirr", param_hint="--benchmark")
    data = read_fashioniq(root) if benchmark == "fashioniq" else read_cirr(root)
    content = label_run(run, data, depth=depth, stage=cast("Stage", stage))
    write_label_file(out, content)
    typer.echo(f"{content.labels.shape[0]} queries, {content.labels.shape[1]} places each\nwrote {out}")
