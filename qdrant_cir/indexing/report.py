"""Progress and results of an indexing run."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qdrant_cir.errors import printable, shortened

__all__ = ["MOST_SHOWN", "FailedImage", "IndexProgress", "IndexReport", "Outcome", "Tally"]

logger = logging.getLogger(__name__)

MOST_SHOWN = 100
"""Failed images of a run that are logged and printed one by one."""

_RATE_WINDOW = 15.0
"""The last seconds, which the rate and the estimate are computed from."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that was not indexed: its id, or the place of a row that has none, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Progress of a run; everything counted is in the store.

    Attributes:
        done: images processed, with any outcome.
        total: images of the run, None where it is not known.
        indexed: encoded and written.
        updated: pictures already there whose metadata was rewritten.
        unchanged: already there as they are.
        failed: images that were not indexed.
        images_per_second: of the last seconds, with any outcome.
        eta_seconds: seconds left at that rate, None where it is not known.
    """

    done: int
    total: int | None
    indexed: int
    updated: int
    unchanged: int
    failed: int
    images_per_second: float
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Results of a run; counts as in :class:`IndexProgress`.

    ``replaced`` counts those of the indexed images that took the place of another picture of the same id, ``elsewhere``
    those of them whose former picture came from another place. ``without_picture`` counts points of an attached
    collection that name no picture, ``swept`` records of tokens whose point was gone, ``skipped`` the files of a folder
    whose names are not those of pictures, by suffix. ``seconds`` is wall time; ``images_per_second`` counts encoded and
    written images over it.
    """

    indexed: int
    updated: int
    unchanged: int
    failed: tuple[FailedImage, ...]
    seconds: float
    images_per_second: float
    without_picture: int = 0
    swept: int = 0
    replaced: int = 0
    elsewhere: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of some images."""

    indexed: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: tuple[FailedImage, ...] = ()
    without_picture: int = 0
    swept: int = 0
    replaced: int = 0
    elsewhere: int = 0


class Tally:
    """Counts of a run in the calling thread, reported to a progress callback."""

    def __init__(
        self,
        total: int | None,
        progress: Callable[[IndexProgress], None] | None,
        *,
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        """Start the clock of a run of ``total`` images, from a folder in which other files were ``skipped``."""
        self._skipped = skipped or {}
        self.indexed = self.updated = self.unchanged = self.without_picture = self.swept = 0
        self.replaced = self.elsewhere = 0
        self.failed: list[FailedImage] = []
        self.total = total
        self._progress = progress
        self._start = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._start, 0)])

    @property
    def done(self) -> int:
        """Images processed, with any outcome."""
        return self.indexed + self.updated + self.unchanged + len(self.failed)

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of some images, and log those that failed."""
        self.indexed += outcome.indexed
        self.updated += outcome.updated
        self.unchanged += outcome.unchanged
        self.failed += outcome.failed
        self.without_picture += outcome.without_picture
        self.swept += outcome.swept
        self.replaced += outcome.replaced
        self.elsewhere += outcome.elsewhere
        before = len(self.failed) - len(outcome.failed)
        for place, failed in enumerate(outcome.failed, start=before):
            if place < MOST_SHOWN:
                name, reason = printable(shortened(failed.image_id)), printable(shortened(failed.reason))
                logger.warning("%s was not indexed: %s", name, reason)
            elif place == MOST_SHOWN:
                logger.warning("More images were not indexed; the report has all of them.")

    def show(self) -> None:
        """Call the progress callback with the counts so far."""
        if self._progress is None:
            return
        now, done = time.monotonic(), self.done
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[1][0] > _RATE_WINDOW:
            self._recent.popleft()
        then, before = self._recent[0]
        rate = (done - before) / max(now - then, 1e-9)
        eta = max(self.total - done, 0) / rate if self.total is not None and rate > 0 else None
        self._progress(
            IndexProgress(
                done=done,
                total=self.total,
                indexed=self.indexed,
                updated=self.updated,
                unchanged=self.unchanged,
                failed=len(self.failed),
                images_per_second=rate,
                eta_seconds=eta,
            )
        )

    def report(self) -> IndexReport:
        """Sum up the run, which ends now."""
        seconds = time.monotonic() - self._start
        return IndexReport(
            indexed=self.indexed,
            updated=self.updated,
            unchanged=self.unchanged,
            failed=tuple(self.failed),
            seconds=seconds,
            images_per_second=self.indexed / max(seconds, 1e-9),
            without_picture=self.without_picture,
            swept=self.swept,
            replaced=self.replaced,
            elsewhere=self.elsewhere,
            skipped=self._skipped,
        )
