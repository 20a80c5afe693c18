"""Calls of a server that are made again after growing pauses, while a failure is likely to pass."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from qdrant_cir.errors import InputError

__all__ = [
    "RETRY_SECONDS",
    "Retries",
    "check_retry_seconds",
    "retrying_within",
]

_logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""Seconds that a call may be tried again."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
_FIRST_CONTACT = 2.0
"""Seconds for a server that has never answered: its address is more likely to be wrong than the server to start."""

_Value = TypeVar("_Value")
_limit: ContextVar[float | None] = ContextVar("qdrant_cir_retry_limit", default=None)


def check_retry_seconds(seconds: float) -> None:
    """Refuse a value that is not a number of seconds. Raises InputError."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InputError(f"retry_seconds is {seconds!r}; it must be a number of seconds, 0 for no second attempt.")


@contextmanager
def retrying_within(seconds: float) -> Iterator[None]:
    """Try calls within the block again for at most so many seconds, for reads that have a fallback.

    A smaller limit that is already set stays. It holds for threads and tasks that take the context with them,
    such as ``asyncio.to_thread``.
    """
    held = _limit.get()
    token = _limit.set(seconds if held is None else min(held, seconds))
    try:
        yield
    finally:
        _limit.reset(token)


@dataclass(slots=True)
class Retries:
    """The retries of one store's calls, and whether its server has answered any call yet.

    Attributes:
        place: the server, for the log.
        seconds: from the first attempt at a call to the last.
        sleep: waits so many seconds.
        clock: seconds that pass.
        has_answered: whether the server is known to be there.
        worded: makes the server's own words plain.
    """

    place: str
    seconds: float = RETRY_SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    has_answered: bool = False
    worded: Callable[[str], str] = str

    def call(self, call: Callable[[], _Value]) -> _Value:
        """Make a call that may be repeated, again after growing pauses while the failure is likely to pass.

        Waits at least as long as a server's ``Retry-After`` asks; fails at once if that is more than the time left.

        Raises:
            Exception: the client's last error, or its first where waiting does not help.
        """
        budget = _Budget(self)
        while True:
            try:
                value = call()
            except Exception as error:
                pause = budget.pause_after(error)
            else:
                self.has_answered = True
                return value
            self.sleep(pause)


class _Budget:
    """The time that is left for one call."""

    def __init__(self, retries: Retries) -> None:
        limit = _limit.get()
        self._retries = retries
        self._seconds = retries.seconds if limit is None else min(limit, retries.seconds)
        self._started = retries.clock()
        self._waited = 0.0
        self._pause = _FIRST_PAUSE

    def pause_after(self, error: Exception) -> float:
        """Return how long to wait before the next attempt, or raise the error where none is left."""
        # loads qdrant-client, which is loaded already if one of its calls has failed
        from qdrant_cir.storage.stores.errors import detail_of, has_answer, is_transient, retry_after

        retries = self._retries
        retries.has_answered |= has_answer(error)
        seconds = self._seconds if retries.has_answered else min(self._seconds, _FIRST_CONTACT)
        # a test's own ``sleep`` may take no time
        left = seconds - max(retries.clock() - self._started, self._waited)
        asked = retry_after(error)
        if not is_transient(error) or left <= 0 or asked > left:
            raise error
        pause = max(min(self._pause, left), asked)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._waited += pause
        _logger.warning(
            "%s failed (%s); trying again in %.1f s, for %d s at most",
            retries.place,
            retries.worded(detail_of(error)),
            pause,
            math.ceil(left),
        )
        return pause
