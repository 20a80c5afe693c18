"""Recall against what it costs, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from qdrant_cir.evaluation.report.bootstrap import Interval

_SIZE = (960, 600)
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 90, 920, 510
_SCALE = 2
"""Drawn at twice the size and reduced, for smooth edges."""

_PAPER, _INK, _MUTED, _LINE = (255, 255, 255), (28, 30, 36), (118, 122, 132), (225, 227, 232)
_FIRST, _TENTH = (22, 110, 190), (210, 120, 20)

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class RecallPoint:
    """One way to answer: what it is called, recall@1, recall@10, and its cost."""

    name: str
    first: Interval
    tenth: Interval
    cost: float


def draw_recalls(points: Sequence[RecallPoint], *, title: str, cost: str) -> Image.Image:
    """Draw both recalls, with their intervals, against the cost.

    Args:
        points: at least one, by rising cost.
        title: drawn on top.
        cost: what it is counted in.

    Returns:
        An RGB picture of 960 x 600 pixels.
    """
    picture = Image.new("RGB", (_SIZE[0] * _SCALE, _SIZE[1] * _SCALE), _PAPER)
    draw = ImageDraw.Draw(picture)
    most = max(point.cost for point in points) * 1.05
    lowest = 10 * int(min(min(point.first.low, point.tenth.low) for point in points) // 10)
    plane = _Plane(draw, most=most, lowest=lowest)
    plane.draw_frame()
    plane.draw_curve(points, lambda point: point.first, _FIRST)
    plane.draw_curve(points, lambda point: point.tenth, _TENTH)
    for point in points:
        plane.name(point)
    plane.write(_LEFT, 14, title, size=20, color=_INK)
    plane.write(_LEFT, 46, "recall@10", size=16, color=_TENTH)
    plane.write(_LEFT + 110, 46, "recall@1", size=16, color=_FIRST)
    plane.write(_LEFT + 210, 46, "in %, bars are 95% intervals", size=15, color=_MUTED)
    plane.write(_LEFT, _BOTTOM + 46, cost, size=15, color=_INK)
    return picture.resize(_SIZE, Image.Resampling.LANCZOS)


class _Plane:
    """Costs from 0 to ``most`` to the right, per cent from ``lowest`` to 100 upwards."""

    def __init__(self, draw: ImageDraw.ImageDraw, *, most: float, lowest: int) -> None:
        self._draw, self._most, self._lowest = draw, most, lowest

    def draw_frame(self) -> None:
        for per_cent in range(self._lowest, 101, 10):
            _, top = self._pixel(0, per_cent)
            self._line((_LEFT, top, _RIGHT, top), _LINE)
            self.write(_LEFT - 40, top - 9, f"{per_cent}", size=14, color=_MUTED)
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if self._most / s <= 10)
        for cost in range(0, int(self._most) + 1, step):
            left, _ = self._pixel(cost, 0)
            self._line((left, _TOP, left, _BOTTOM), _LINE)
            self.write(left - 10, _BOTTOM + 12, f"{cost}", size=14, color=_MUTED)

    def draw_curve(
        self, points: Sequence[RecallPoint], figure: Callable[[RecallPoint], Interval], color: Color
    ) -> None:
        places = [self._pixel(point.cost, figure(point).value) for point in points]
        for start, end in pairwise(places):
            self._line((*start, *end), color)
        for point, (left, top) in zip(points, places, strict=True):
            interval = figure(point)
            ends = [self._pixel(point.cost, bound)[1] for bound in (interval.low, interval.high)]
            self._line((left, ends[0], left, ends[1]), color)
            box = tuple(_SCALE * side for side in (left - 5, top - 5, left + 5, top + 5))
            self._draw.ellipse(box, fill=color)

    def name(self, point: RecallPoint) -> None:
        """Write a point's name beside recall@1."""
        left, top = self._pixel(point.cost, point.first.value)
        self.write(left + 9, top + 5, point.name, size=14, color=_INK)

    def write(self, left: float, top: float, text: str, *, size: int, color: Color) -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((left * _SCALE, top * _SCALE), text, fill=color, font=font)

    def _line(self, ends: tuple[float, float, float, float], color: Color) -> None:
        self._draw.line(tuple(_SCALE * end for end in ends), fill=color, width=_SCALE)

    def _pixel(self, cost: float, per_cent: float) -> tuple[float, float]:
        left = _LEFT + cost / self._most * (_RIGHT - _LEFT)
        return left, _BOTTOM - (per_cent - self._lowest) / (100 - self._lowest) * (_BOTTOM - _TOP)
