"""``train photos`` and ``train photos-sheet``: a model for photographs of clothes, and a look at its edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Root = Annotated[Path, typer.Option(help="Folder with labels.csv: file, label, and sender where it is known.")]
LabelColumn = Annotated[str, typer.Option(help="Column of labels.csv that says what a photograph shows.")]


def train_photos(
    *,
    root: Root,
    run: Annotated[Path, typer.Option(help="Run folder: pools, checkpoints, logs, model.")],
    trunk: Annotated[Path, typer.Option(help="efficientnet-lite0-57934424.pth; its checksum is checked.")],
    label_column: LabelColumn = "label",
    recipe: Annotated[Path | None, typer.Option(help="Recipe as JSON.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that edit pictures; all cores without it.")
    ] = None,
) -> None:
    """Train on edited photographs; the same command goes on where it was stopped."""
    from onnx_export.training.photos.run import PhotoRecipe, PhotoRun
    from onnx_export.training.photos.trunk import load_trunk
    from onnx_export.training.recipes import read_recipe
    from qdrant_cir.photographs.labels import read_photographs

    photographs = read_photographs(root, label_column=label_column)
    settings = read_recipe(recipe, PhotoRecipe())
    out = PhotoRun(run, settings, photographs=photographs, trunk=load_trunk(trunk), workers=workers).train()
    typer.echo(f"wrote {out}; next: python -m onnx_export export {out} --out BUNDLE")


def photos_sheet(
    *,
    root: Root,
    out: Annotated[Path, typer.Option(help="The sheet, a PNG or JPEG file.")],
    label_column: LabelColumn = "label",
    examples: Annotated[int, typer.Option(min=1, help="Photographs for each kind of edit.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed shows other photographs.")] = 1,
) -> None:
    """Draw a sheet of every kind of edit that `train photos` makes, to look at before training."""
    from onnx_export.models import PHOTO_SMALL
    from onnx_export.training.photos.sheet import draw_edit_sheet, write_edit_sheet
    from qdrant_cir.photographs.labels import read_photographs, split_of

    photographs = read_photographs(root, label_column=label_column)
    training = [photograph for photograph in photographs if split_of(photograph.sender) == "training"]
    sheet = draw_edit_sheet(training, examples=examples, size=PHOTO_SMALL.image_size, seed=seed)
    write_edit_sheet(out, sheet)
    for edit, tried in sheet.tried.items():
        refused = sheet.refused.get(edit, 0)
        typer.echo(f"{edit}: {tried - refused} of {tried} made")
    for edit, count in sheet.drawn.items():
        if count < examples:
            typer.echo(f"{edit}: only {count} examples found")
    typer.echo(f"{sheet.without_mask} photographs without a usable mask were passed over")
    typer.echo(f"wrote {out}")
