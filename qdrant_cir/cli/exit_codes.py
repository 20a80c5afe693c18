"""Exit codes: one per kind of error, for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qdrant_cir import errors

__all__ = ["EXIT_CODES", "INTERRUPTED", "NO_READER", "TERMINATED", "UNWRITABLE", "describe_exit_codes", "exit_code_of"]

INTERRUPTED = 130
"""Ended by Ctrl-C, as shells count it: 128 and the signal's number."""

NO_READER = 141
"""Ended because nobody reads stdout any more, as by SIGPIPE."""

TERMINATED = 143
"""Ended by SIGTERM."""

UNWRITABLE = 1
"""Stdout cannot be written: the disk is full, for instance."""

EXIT_CODES: Mapping[type[errors.CirError], int] = MappingProxyType(
    {
        errors.CirError: 1,
        errors.InputError: 3,
        errors.ImageError: 3,
        errors.BundleError: 4,
        errors.ProviderError: 5,
        errors.CollectionError: 6,
        errors.CollectionNotFoundError: 6,
        errors.CollectionMismatchError: 6,
        errors.StoreError: 7,
        errors.StoreLockedError: 7,
        errors.StoreUnavailableError: 7,
        errors.TooLargeError: 7,
        errors.TokensError: 8,
        errors.BusyError: 1,
        errors.IndexingError: 9,
        errors.EvaluationError: 10,
        errors.MissingExtraError: 11,
    }
)
"""Every error class has an entry of its own; a test demands it."""

_MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        0: "done; a search that found nothing and an index run that skipped bad images count as done",
        1: "an error of no other kind, or stdout cannot be written",
        2: "the command line cannot be read",
        3: "an argument, a query, a manifest or an image is wrong",
        4: "the model bundle is missing or damaged",
        5: "the execution provider asked for cannot be had",
        6: "there is no such collection, or it was made with another bundle",
        7: "Qdrant cannot be reached or refused a call, or another process holds the store directory",
        8: "stored candidate tokens are missing, damaged or stale",
        9: "an indexing run could not go on, or not one image could be indexed",
        10: "an evaluation cannot give an honest number",
        11: "an optional library is not installed",
        INTERRUPTED: "interrupted with Ctrl-C; `index`, `evaluate`, `demo` and `catalog build` continue when run again",
        NO_READER: "the program that read the output has ended",
        TERMINATED: "ended by SIGTERM; what continues after Ctrl-C continues after this too",
    }
)


def exit_code_of(error: errors.CirError) -> int:
    """Return the code of an error: that of its class, or of the nearest class above it."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def describe_exit_codes() -> str:
    """Write the table for the help text, one line per code."""
    return "\n".join(f"* `{code}`: {meaning}" for code, meaning in _MEANINGS.items())
