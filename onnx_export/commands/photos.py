"""``python -m onnx_export train photos``: a model for photographs of clothes, from a labelled folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_photos(
    *,
    root: Annotated[Path, typer.Option(help="Folder with labels.csv: file, label, and sender where it is known.")],
    run: Annotated[Path, typer.Option(help="Run folder: pools, checkpoints, logs, model.")],
    trunk: Annotated[Path, typer.Option(help="efficientnet-lite0-57934424.pth; its checksum is checked.")],
    label_column: Annotated[
        str, typer.Option(help="Column of labels.csv that says what a photograph shows.")
    ] = "label",
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
