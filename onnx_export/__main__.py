"""``python -m onnx_export``: convert, train, export, verify."""

from __future__ import annotations

import logging
import os

import typer

from onnx_export.commands.bundles import bundles
from onnx_export.commands.convert import convert
from onnx_export.commands.labels import labels
from onnx_export.commands.train import train
from onnx_export.errors import ExportError
from qdrant_cir.errors import CirError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="From checkpoints or training to a bundle.")
app.add_typer(bundles)
app.add_typer(convert, name="convert")
app.add_typer(train, name="train")
app.add_typer(labels, name="labels")


def main() -> None:
    """Run the command line. Known errors become one sentence and exit code 1."""
    is_main_process = os.environ.get("RANK", "0") == "0"  # set by `accelerate launch`
    logging.basicConfig(level=logging.INFO if is_main_process else logging.ERROR, format="%(message)s")
    for noisy in ("onnxscript", "onnx_ir", "torch.onnx", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app()
    except (ExportError, CirError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
