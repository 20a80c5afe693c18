"""``qdrant-cir fit-codec``: fewer bytes per image, fitted on one's own gallery, and whether they still fit."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import JsonOption
from qdrant_cir.errors import InputError, MissingExtraError

__all__ = ["fit_codec"]


def fit_codec(
    bundle: Annotated[Path, typer.Argument(help="A bundle that stores all tokens; with --check, one that was fitted.")],
    *,
    gallery: Annotated[Path, typer.Option(help="Pictures like the gallery's: a folder, or a manifest as for index.")],
    out: Annotated[Path | None, typer.Option(help="Bundle to write.", show_default=False)] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: measure what a fitted bundle loses of these pictures.")
    ] = False,
    rows: Annotated[int | None, typer.Option(help="Rows to store of every image.", show_default=False)] = None,
    dims: Annotated[int | None, typer.Option(help="Dimensions to store.", show_default=False)] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures to look at, spread over the gallery.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle that stores candidate tokens in few rows, dimensions and bits, fitted on a gallery's pictures.

    Fitting traces the re-ranker again and needs `pip install "qdrant-cir[export]"`. With --check a fitted bundle is
    measured on pictures, for instance on what came lately, and nothing but the runtime is needed.
    """
    if check == (out is not None):
        raise InputError("Give --out BUNDLE to fit, or --check to measure a bundle that was fitted.")
    if check:
        _check(bundle, gallery, pictures, as_json=as_json)
        return
    if find_spec("torch") is None or find_spec("onnxscript") is None:
        raise MissingExtraError('Fitting needs torch and the exporter: pip install "qdrant-cir[export]".')
    chosen = {"--rows": rows, "--dims": dims, "--pictures": pictures, "--gallery": gallery, "--out": out}
    options = [text for name, value in chosen.items() if value is not None for text in (name, str(value))]
    command = [sys.executable, "-m", "onnx_export", "fit-codec", str(bundle), *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL if as_json else None, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    if as_json:
        printing.print_json({"bundle": str(out)})


def _check(bundle: Path, gallery: Path, pictures: int, *, as_json: bool) -> None:
    from qdrant_cir.evaluation.token_loss import DRIFTED, measure_loss
    from qdrant_cir.indexing.sources import sample_images
    from qdrant_cir.model.bundle import load_bundle

    chosen = sample_images(gallery, pictures)
    with printing.show_counts("encoding pictures") as show_count:
        seen = 0

        def show(count: int) -> None:
            nonlocal seen
            seen += count
            show_count(seen, len(chosen))

        loss = measure_loss(load_bundle(bundle), chosen, encoded=show)
    if as_json:
        printing.print_json(
            {
                "pictures": loss.pictures,
                "skipped": dict(loss.skipped),
                "lost": loss.lost,
                "lost_when_fitted": loss.lost_when_fitted,
                "has_drifted": loss.has_drifted,
            }
        )
        return
    for name, reason in loss.skipped.items():
        printing.print_note(f"skipped {name}: {reason}")
    printing.print_text(f"lost of the tokens' variance on {loss.pictures} pictures: {loss.lost:.1%}")
    if loss.lost_when_fitted is None:
        printing.print_text("What was lost when it was fitted is not recorded in this bundle; fit it again to compare.")
        return
    verdict = "it has drifted: fit it again on these pictures" if loss.has_drifted else "it still fits"
    printing.print_text(
        f"when it was fitted: {loss.lost_when_fitted:.1%}; from {DRIFTED:g} times that on, fit again: {verdict}"
    )
