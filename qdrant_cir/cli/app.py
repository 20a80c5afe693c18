"""The commands of ``qdrant-cir``. What takes time to load is imported by the command that needs it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.attach import attach, detach
from qdrant_cir.cli.calibrate import calibrate
from qdrant_cir.cli.calibrate_match import calibrate_match
from qdrant_cir.cli.catalog import catalog_app
from qdrant_cir.cli.check import check
from qdrant_cir.cli.evaluate import evaluation_app
from qdrant_cir.cli.exit_codes import describe_exit_codes
from qdrant_cir.cli.explain import explain
from qdrant_cir.cli.fit_codec import fit_codec
from qdrant_cir.cli.index import index, index_field
from qdrant_cir.cli.interrupts import end_on_sigterm
from qdrant_cir.cli.options import BundleOption, JsonOption, ProviderOption, open_bundle, provider_named
from qdrant_cir.cli.reporting import ReportingGroup, show_debugging
from qdrant_cir.cli.search import search
from qdrant_cir.cli.serve import serve
from qdrant_cir.cli.upkeep import delete, info

__all__ = ["app", "main"]

app = typer.Typer(
    cls=ReportingGroup,
    help=(
        "Composed image retrieval on Qdrant: search with a reference image and a text that describes what should "
        f"be different, in a collection of its own or in one that exists.\n\nExit codes:\n\n{describe_exit_codes()}"
    ),
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(catalog_app, name="catalog")
app.add_typer(evaluation_app, name="evaluate")


def main() -> None:
    """Run the command line; the entry point of ``qdrant-cir``."""
    end_on_sigterm()
    try:
        app(prog_name="qdrant-cir")
    except OSError as error:
        # of the help's text, which typer writes itself
        if error.errno != errno.ENOSPC:
            raise
        raise SystemExit(printing.end_output(error)) from error


@app.callback()
def settings(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the log, and where an error comes from.")] = False,
) -> None:
    """Read the options that stand before the command."""
    show_debugging(context, debug=debug)


app.command()(attach)
app.command()(index)
app.command("index-field")(index_field)
app.command()(search)
app.command()(explain)
app.command()(serve)
app.command()(info)
app.command()(check)
app.command()(delete)
app.command()(detach)
app.command()(calibrate)
app.command("calibrate-match")(calibrate_match)
app.command("fit-codec")(fit_codec)


@app.command()
def demo(
    *,
    folder: Annotated[Path, typer.Option("--out", help="Where everything is written.")] = Path("demo"),
    products: Annotated[int, typer.Option("--products", help="Products to draw and index.")] = 2000,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw a catalogue, index it into the embedded store, answer its queries and show six of them.

    Run again, it keeps what is there. The contact sheet shows what re-ranking changed.
    """
    from qdrant_cir.cli.demo import run_demo, serve_command

    shown = run_demo(
        folder,
        open_bundle(bundle or Path("drawn")),
        products=products,
        provider=provider_named(provider),
        prints_tables=not as_json,
    )
    if as_json:
        printing.print_json(shown)
    else:
        printing.print_text(f"The contact sheet: {shown['sheet']}")
        printing.print_text(f"As a page: run `{serve_command(folder)}` and open http://127.0.0.1:8000")
