"""One fault: what is changed in which file, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One edit that makes the library wrong.

    Attributes:
        name: of the fault, in snake case; unique.
        file: the file to change, relative to the repository.
        old: the text to replace; it stands in the file exactly once.
        new: the text that takes its place.
        tests: what pytest runs: files, or tests as ``FILE::NAME``; one of them must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
