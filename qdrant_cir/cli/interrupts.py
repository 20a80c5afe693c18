"""Ctrl-C and SIGTERM: one sentence, with how far the command has come where that is known."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from qdrant_cir.cli.exit_codes import INTERRUPTED, TERMINATED

__all__ = ["Progress", "Terminated", "counted", "end_on_sigterm", "exit_code_of_interrupt", "interrupt_text"]

_CONTINUING = frozenset({"index", "evaluate", "demo", "catalog"})
"""Commands that keep what is done and go on from there."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread: it ends a command as Ctrl-C does."""


@dataclass(slots=True)
class Progress:
    """How far a command has come.

    Attributes:
        word: what has become of those that are done: ``in``, or ``done``.
        done: how many; None before the first is.
        total: of how many, None where it is not known.
    """

    word: str
    done: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        if self.done is None:
            return ""
        return f"{self.done}{'' if self.total is None else f' of {self.total}'} are {self.word}"


@contextmanager
def counted(progress: Progress) -> Iterator[None]:
    """Let an interrupt inside the block carry the progress to :func:`interrupt_text`."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:
            interrupt.args = (progress,)
        raise


def end_on_sigterm() -> None:
    """Raise :class:`Terminated` at SIGTERM, for a process that is this command alone."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


def interrupt_text(interrupt: KeyboardInterrupt, command: str | None) -> str:
    """Write the sentence for an interrupted command."""
    (progress,) = [each for each in interrupt.args if isinstance(each, Progress)] or [Progress("done")]
    counts = str(progress)
    advice = " Run the same command to continue." if command in _CONTINUING else ""
    return f"Interrupted{f': {counts}' if counts else ''}.{advice}"


def exit_code_of_interrupt(interrupt: KeyboardInterrupt) -> int:
    """Return 143 for SIGTERM and 130 for Ctrl-C."""
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
