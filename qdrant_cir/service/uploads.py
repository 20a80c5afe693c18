"""Pictures that clients sent, in memory, by the sha256 of their bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from qdrant_cir.service.statuses import NotHereError

__all__ = ["Uploads"]

HOUR = 3600.0
MOST_BYTES = 256_000_000
"""Bytes of all uploads together; the oldest go first."""


class Uploads:
    """Pictures that are kept for an hour after they were last sent."""

    def __init__(
        self, *, seconds: float = HOUR, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = monotonic
    ) -> None:
        """Keep nothing yet."""
        self._seconds, self._most_bytes, self._clock = seconds, most_bytes, clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def keep(self, data: bytes) -> str:
        """Keep a picture and return its sha256 in hexadecimal digits."""
        name = hashlib.sha256(data).hexdigest()
        self._forget(name)
        self._kept[name] = (self._clock(), data)
        self._bytes += len(data)
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._kept)))
        return name

    def read(self, name: str) -> bytes:
        """Return a picture. Raises NotHereError where it was never sent or has expired."""
        now = self._clock()
        for each in [each for each, (since, _) in self._kept.items() if now - since > self._seconds]:
            self._forget(each)
        if name not in self._kept:
            raise NotHereError(f"There is no upload {name[:12]}. Uploads are kept for an hour; send the picture again.")
        return self._kept[name][1]

    def _forget(self, name: str) -> None:
        if name in self._kept:
            self._bytes -= len(self._kept.pop(name)[1])
