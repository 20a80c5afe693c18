"""A limit on the memory of all pictures that are decoded at the same time, over all threads of a process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["decoding"]


@contextmanager
def decoding(needed: int, *, capacity: int) -> Iterator[None]:
    """Wait until ``needed`` bytes fit beside what is being decoded, and hold them; first come, first served.

    If nothing else is being decoded, a picture of any size may start.
    """
    # a process that was forked while another thread held the lock would wait for ever, so each process has its own gate
    gate = _gate_of(os.getpid())
    gate.enter(needed, capacity)
    try:
        yield
    finally:
        gate.leave(needed)


class _Gate:
    """The bytes that are held now, and the callers that wait, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0
        self._waiting: deque[object] = deque()

    def enter(self, needed: int, capacity: int) -> None:
        ticket = object()

        def may_enter() -> bool:
            return self._waiting[0] is ticket and (not self._held or self._held + needed <= capacity)

        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(may_enter)
                self._held += needed
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def leave(self, needed: int) -> None:
        with self._changed:
            self._held -= needed
            self._changed.notify_all()


@cache
def _gate_of(process: int) -> _Gate:
    """Return the gate of a process, by its id."""
    return _Gate()
