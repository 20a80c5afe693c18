"""``python -m onnx_export train``: the packaged bundles, or any model on the user's own triplets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnx_export.commands.photos import photos_sheet, train_photos

if TYPE_CHECKING:
    from onnx_export.training.drawn.recipe import Stage

train = typer.Typer(
    no_args_is_help=True, help="Train on drawn products, on photographs, or any model on your triplets."
)

Run = Annotated[Path, typer.Option("--run", help="Run folder: pool, checkpoints, logs, model.")]
RecipeOption = Annotated[Path | None, typer.Option(help="Recipe as JSON; by default that of the bundle `drawn`.")]
RoundStart = Annotated[
    Path | None,
    typer.Option("--start", help="Model folder, bundle or name of a packaged one: train only this round, from it."),
]
Steps = Annotated[int | None, typer.Option(min=0, help="Optimiser steps; by default the recipe's.")]
Rate = Annotated[float | None, typer.Option(min=0, help="Peak learning rate; by default the recipe's.")]

train.command("photos")(train_photos)
train.command("photos-sheet")(photos_sheet)


@train.command("pretrain")
def train_pretrain(run: Run, recipe: RecipeOption = None) -> None:
    """Draw the pool, then train the image encoder and a grounded text encoder."""
    _train(run, recipe, "pretrain")


@train.command("stage-one")
def train_stage_one(run: Run, recipe: RecipeOption = None) -> None:
    """Pretrain, then train the composer."""
    _train(run, recipe, "stage-one")


@train.command("stage-two")
def train_stage_two(run: Run, recipe: RecipeOption = None) -> None:
    """Pretrain, then train composer and re-ranker."""
    _train(run, recipe, "stage-two")


@train.command("round")
def train_round(run: Run, recipe: RecipeOption = None, start: RoundStart = None) -> None:
    """Train everything up to the round of families. Needs a GPU to be fast."""
    _train_round(run, recipe, "round", start)


@train.command("ordinary")
def train_ordinary(run: Run, recipe: RecipeOption = None, start: RoundStart = None) -> None:
    """Train everything, up to the round of ordinary queries: the bundle `drawn`. Needs a GPU to be fast."""
    _train_round(run, recipe, "ordinary", start)


@train.command("own")
def train_custom(
    *,
    data: Annotated[Literal["fashioniq", "cirr", "own"], typer.Option(help="Layout of the triplets.")],
    root: Annotated[Path, typer.Option(help="The data set; for own, a folder of pictures or a manifest.")],
    run: Annotated[Path, typer.Option(help="Run folder: features, checkpoints, logs, model.")],
    start: Annotated[
        Path | None,
        typer.Option(help="Model folder, bundle or name of a packaged one; the packaged default without it."),
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="JSONL of own; by default ROOT/queries.jsonl.")] = None,
    split: Annotated[str, typer.Option(help="Split of fashioniq and cirr.")] = "train",
    stages: Annotated[Literal["both", "one", "two"], typer.Option(help="Composer, re-ranker or both.")] = "both",
    recipe: Annotated[Path | None, typer.Option(help="Recipe as JSON; options override it.")] = None,
    steps_one: Steps = None,
    steps_two: Steps = None,
    rate_one: Rate = None,
    rate_two: Rate = None,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between two validations.")] = None,
    patience: Annotated[int | None, typer.Option(min=1, help="Validations without a new best until it stops.")] = None,
    held_out: Annotated[float | None, typer.Option(min=0, max=0.9, help="Share of references to validate on.")] = None,
    extend_vocabulary: Annotated[
        bool | None, typer.Option("--extend-vocabulary", help="Learn words of the texts that the model does not know.")
    ] = None,
    train_encoder: Annotated[
        bool | None, typer.Option("--train-encoder", help="Train the image encoder too, together with the composer.")
    ] = None,
    steps_encoder: Steps = None,
) -> None:
    """Fine-tune composer and re-ranker on your own triplets. Run the same command to continue after a stop."""
    from dataclasses import asdict

    from onnx_export.training.custom.data import read_custom_data
    from onnx_export.training.custom.training import CustomRecipe, CustomRun
    from onnx_export.training.processes import processes
    from onnx_export.training.recipes import read_recipe

    given = {
        "steps_one": steps_one,
        "steps_two": steps_two,
        "rate_one": rate_one,
        "rate_two": rate_two,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "held_out": held_out,
        "extend_vocabulary": extend_vocabulary,
        "train_encoder": train_encoder,
        "steps_encoder": steps_encoder,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = CustomRecipe(**{**asdict(read_recipe(recipe, CustomRecipe())), **chosen})
    triplets = read_custom_data(data, root, queries=queries, split=split)
    out = CustomRun(run, settings, start=start, data=triplets).train(stages)
    if processes().is_main_process:
        typer.echo(f"wrote {out}; next: python -m onnx_export export {out} --out BUNDLE")


def _train_round(run: Path, recipe: Path | None, last: Literal["round", "ordinary"], start: Path | None) -> None:
    if start is None:
        _train(run, recipe, last)
        return
    from onnx_export.bundle.weights import load_start
    from onnx_export.training.drawn.further import train_round_from
    from onnx_export.training.drawn.recipe import family_round, ordinary_round, read_recipe
    from onnx_export.training.processes import processes

    settings = read_recipe(recipe)
    round_ = family_round(settings) if last == "round" else ordinary_round(settings)
    out = train_round_from(run, load_start(start), round_)
    if processes().is_main_process:
        typer.echo(f"wrote {out}; next: python -m onnx_export export {out} --out BUNDLE")


def _train(run: Path, recipe: Path | None, last: Stage) -> None:
    from onnx_export.training.drawn.recipe import Run, family_round, ordinary_round, read_recipe
    from onnx_export.training.processes import processes

    settings = read_recipe(recipe)
    if last in ("round", "ordinary"):
        family_round(settings)  # refused before the folder holds the recipe
    if last == "ordinary":
        ordinary_round(settings)
    Run(run, settings).train(last)
    if processes().is_main_process:
        typer.echo(f"wrote {run / 'model'}")
