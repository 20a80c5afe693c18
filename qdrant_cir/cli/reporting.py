"""Errors as one sentence and an exit code."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from qdrant_cir.cli.exit_codes import exit_code_of
from qdrant_cir.cli.interrupts import exit_code_of_interrupt, interrupt_text
from qdrant_cir.cli.printing import print_note
from qdrant_cir.errors import CirError

if TYPE_CHECKING:
    from qdrant_cir.types import JsonValue

__all__ = ["ReportingGroup", "show_debugging"]


class ReportingGroup(TyperGroup):
    """A group of commands whose errors are a sentence on stderr and an exit code, without a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401 - as in the base class
        """Run the command. Raises typer.Exit in place of a CirError, Ctrl-C or SIGTERM."""
        try:
            return super().invoke(ctx)
        except CirError as error:
            if _is_debugging(ctx):
                traceback.print_exc()
            print_note(f"Error: {error}")
            raise typer.Exit(exit_code_of(error)) from error
        except KeyboardInterrupt as interrupt:
            if _is_debugging(ctx):
                traceback.print_exc()
            print_note(interrupt_text(interrupt, ctx.invoked_subcommand))
            raise typer.Exit(exit_code_of_interrupt(interrupt)) from interrupt


def show_debugging(context: typer.Context, *, debug: bool) -> None:
    """Show the library's log with ``--debug``, and else its warnings of the store alone: commands print reports."""
    context.obj = {"debug": debug}
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("qdrant_cir").setLevel(logging.DEBUG)
    else:
        logging.getLogger("qdrant_cir").addHandler(logging.NullHandler())
        stores = logging.getLogger("qdrant_cir.storage")
        if not any(isinstance(handler, _Notes) for handler in stores.handlers):
            stores.addHandler(_Notes(logging.WARNING))


class _Notes(logging.Handler):
    """Print as a note what a command's report does not say of its store: that it waits, or is searched in a copy."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


def _is_debugging(context: typer.Context) -> bool:
    settings: JsonValue = context.obj
    return isinstance(settings, dict) and bool(settings.get("debug"))
