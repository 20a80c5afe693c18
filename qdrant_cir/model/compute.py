"""How graphs are computed: one value that goes from the public edge to every session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from qdrant_cir.arguments import shown
from qdrant_cir.errors import InputError
from qdrant_cir.types import Precision

__all__ = ["Compute", "ExecutionProvider"]

_MOST_THREADS = 4096

ExecutionProvider: TypeAlias = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Compute:
    """Where graphs run, on how many threads, and in which arithmetic.

    Attributes:
        provider: ``auto`` uses CUDA where it works and the CPU elsewhere, and logs which one.
        threads: for one run; None for as many as this process may use.
        precision: which variant of a bundle's graph runs.

    Raises:
        InputError: an unknown provider or precision, or fewer than one thread.
    """

    provider: ExecutionProvider = "auto"
    threads: int | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, known in (
            ("provider", self.provider, get_args(ExecutionProvider)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if not isinstance(value, str) or value not in known:
                raise InputError(f"{name} is {shown(value)}; give one of {', '.join(known)}.")
        if self.threads is not None and (not isinstance(self.threads, int) or not 1 <= self.threads <= _MOST_THREADS):
            raise InputError(
                f"threads is {shown(self.threads)}; it must be at least 1 and at most {_MOST_THREADS}, or None for all "
                "that may be used."
            )
