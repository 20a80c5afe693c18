"""How many queries compute at the same time, and how many more may wait."""

from __future__ import annotations

import asyncio
from types import TracebackType

from qdrant_cir.errors import BusyError

__all__ = ["Gate"]


class Gate:
    """A door for ``async with``: so many at a time, in the order in which they came. Of one event loop.

    Attributes:
        running: how many are inside.
        waiting: how many wait; a refused one never does.
    """

    def __init__(self, running: int, *, waiting: int | None = None) -> None:
        """Let ``running`` in at a time, and ``waiting`` more wait, any number if it is None."""
        self._free = asyncio.Semaphore(running)
        self._most_waiting = waiting
        self.running = 0
        self.waiting = 0

    async def __aenter__(self) -> None:
        """Wait for a place. Raises BusyError at once where too many wait."""
        if self._most_waiting is not None and self._free.locked() and self.waiting >= self._most_waiting:
            raise BusyError(f"{self.running} queries are being answered and {self.waiting} more wait. Ask again later.")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running -= 1
        self._free.release()
