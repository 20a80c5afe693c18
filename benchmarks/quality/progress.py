"""A line on stderr every few seconds: the task, how far it is, and the seconds left."""

from __future__ import annotations

import sys
import time

_SECONDS_BETWEEN = 10.0


class Progress:
    """Counts towards a total."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._began = self._said = time.perf_counter()
        self._first: int | None = None

    def reaches(self, done: int) -> None:
        """Print the progress, at most once every few seconds."""
        now = time.perf_counter()
        if self._first is None:
            self._first = done
        if now - self._said < _SECONDS_BETWEEN and done < self._total:
            return
        self._said = now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        print(f"{self._what}: {done} of {self._total}{left}", file=sys.stderr, flush=True)
