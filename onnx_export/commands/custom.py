"""``python -m onnx_export train own``: fine-tune a model on one's own triplets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Steps = Annotated[int | None, typer.Option(min=0, help="Optimiser steps; the recipe's without it.")]
Rate = Annotated[float | None, typer.Option(min=0, help="Peak learning rate; the recipe's without it.")]


def train_own(
    *,
    data: Annotated[Literal["fashioniq", "cirr", "own"], typer.Option(help="Layout of the triplets.")],
    root: Annotated[Path, typer.Option(help="The data set; for own, a folder of pictures or a manifest.")],
    run: Annotated[Path, typer.Option(help="Run folder: features, checkpoints, logs, model.")],
    start: Annotated[
        Path | None, typer.Option(help="Model folder or bundle to start from; the bundled model without it.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="JSONL of own; ROOT/queries.jsonl without it.")] = None,
    split: Annotated[str, typer.Option(help="Split of fashioniq and cirr.")] = "train",
    stages: Annotated[Literal["both", "one", "two"], typer.Option(help="Composer, re-ranker or both.")] = "both",
    recipe: Annotated[Path | None, typer.Option(help="Recipe as JSON; options beside it win.")] = None,
    steps_one: Steps = None,
    steps_two: Steps = None,
    rate_one: Rate = None,
    rate_two: Rate = None,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between two validations.")] = None,
    patience: Annotated[int | None, typer.Option(min=1, help="Validations without a new best, then stop.")] = None,
    held_out: Annotated[float | None, typer.Option(min=0, max=0.9, help="Share of references to validate on.")] = None,
) -> None:
    """Fine-tune composer and re-ranker on triplets of one's own; the same command goes on where it was stopped."""
    from dataclasses import asdict

    from onnx_export.training.custom.data import read_own_data
    from onnx_export.training.custom.training import OwnRecipe, OwnRun, read_own_recipe
    from onnx_export.training.processes import processes

    given = {
        "steps_one": steps_one,
        "steps_two": steps_two,
        "rate_one": rate_one,
        "rate_two": rate_two,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "held_out": held_out,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = OwnRecipe(**{**asdict(read_own_recipe(recipe)), **chosen})
    triplets = read_own_data(data, root, queries=queries, split=split)
    out = OwnRun(run, settings, start=start, data=triplets).train(stages)
    if processes().is_main_process:
        typer.echo(f"wrote {out}; next: python -m onnx_export export {out} --out BUNDLE")
