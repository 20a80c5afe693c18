"""Bars for the held-out catalogue itself: is it fair and hard enough to measure re-ranking by?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """What stage one must reach, or must not exceed, for a data set to be fair and hard; in percent."""

    metric_name: str
    least: float = 0.0
    most: float = 100.0

    def admits(self, value: float) -> bool:
        """Whether a value is within the bar."""
        return self.least <= value <= self.most

    def __str__(self) -> str:
        least = f" at least {self.least:g} %" if self.least > 0 else ""
        most = f" at most {self.most:g} %" if self.most < 100 else ""
        return f"{self.metric_name}{least}{most}"


STAGE_ONE_BARS = (Bar("R@100", least=97.0), Bar("R@1", most=70.0))
"""What stage one must reach, as the ceiling of stage two, and must not exceed, so that there is something to gain."""

CONTROL_BAR = Bar("R@1", most=20.0)
"""What queries with one half taken away may reach. By the picture alone the target is one of about six that are one
attribute away from the reference, so chance is one in six."""
