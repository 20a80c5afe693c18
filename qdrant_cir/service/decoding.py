"""The door for all pictures that a service decodes, whoever sent them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qdrant_cir.errors import BusyError
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.types import ImageSource

__all__ = ["Decoder", "check_picture"]

T = TypeVar("T")

_AT_ONCE = 2
"""Pictures that are decoded at the same time; the largest takes 512 MB."""

_WAITING = 256


class Decoder:
    """Decode few pictures at a time. One whose caller has gone is not begun. Of one event loop."""

    def __init__(self, *, at_once: int = _AT_ONCE, waiting: int = _WAITING) -> None:
        """Decode ``at_once`` at a time, and let ``waiting`` more wait."""
        self._at_once, self._most = at_once, at_once + waiting
        self._begin()

    def _begin(self) -> None:
        self._threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="cir-picture")
        self._process, self._asked = os.getpid(), 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do what decodes a picture, when it is its turn. Raises BusyError where too many wait, and what it raises."""
        if self._process != os.getpid():
            # a forked worker has none of its parent's threads
            self._begin()
        if self._asked >= self._most:
            raise BusyError(f"{self._asked} pictures wait to be read. Ask again later.")
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._asked -= 1

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check_picture(source: ImageSource) -> None:
    """Decode a picture and keep nothing of it. Raises ImageError."""
    load_image(source)
