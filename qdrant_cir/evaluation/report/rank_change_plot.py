"""Where stage one had the target, against how far stage two moved it (the paper's figure 8), as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdrant_cir.evaluation.report.losses import TargetPlaces

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["draw_rank_changes"]

_SIZE = (960, 720)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 100, 930, 640
_SCALE = 2
"""Drawn at twice the size and reduced, for smooth edges."""

_PAPER, _INK, _MUTED, _LINE = (255, 255, 255), (28, 30, 36), (118, 122, 132), (225, 227, 232)
_UP, _DOWN, _SAME = (22, 150, 72), (196, 64, 56), (118, 122, 132)


def draw_rank_changes(places: Sequence[TargetPlaces], *, rerank_depth: int, title: str) -> Image:
    """Draw a point per query whose target stage two saw; larger points stand for several queries.

    To the right, the target's place after stage one, from 1 to ``rerank_depth``; upwards, places gained. The
    slanted lines are the bounds: to the first place, and to the last candidate's.

    Args:
        places: of the queries; those whose target was no candidate are counted in the heading, not drawn.
        rerank_depth: candidates that stage two scored, at least 1.
        title: drawn on top.

    Returns:
        An RGB picture of 960 x 720 pixels.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    moves = [
        (place.retrieved, place.retrieved - place.final)
        for place in places
        if place.retrieved is not None and place.final is not None and place.retrieved <= rerank_depth
    ]
    picture = PillowImage.new("RGB", (_SIZE[0] * _SCALE, _SIZE[1] * _SCALE), _PAPER)
    axes = _Axes(ImageDraw.Draw(picture), rerank_depth)
    axes.draw_frame()
    for (rank, gain), count in sorted(Counter(moves).items(), key=lambda item: -item[1]):
        axes.draw_point(rank, gain, count)
    up, down = sum(gain > 0 for _, gain in moves), sum(gain < 0 for _, gain in moves)
    axes.write(_LEFT, 14, title, size=20, color=_INK)
    axes.write(
        _LEFT,
        42,
        f"{len(moves)} of {len(places)} targets were candidates: {up} moved up, {down} down, "
        f"{len(moves) - up - down} stayed",
        size=15,
        color=_MUTED,
    )
    axes.write(_LEFT, _BOTTOM + 42, "place after stage one", size=15, color=_INK)
    axes.write(_LEFT - 62, _TOP - 28, "places gained", size=15, color=_INK)
    return picture.resize(_SIZE, PillowImage.Resampling.LANCZOS)


class _Axes:
    """The plane: places 1 to ``depth`` to the right, gains of less than ``depth`` either way upwards."""

    def __init__(self, draw: ImageDraw, depth: int) -> None:
        self._draw = draw
        self._depth = depth

    def draw_frame(self) -> None:
        depth = self._depth
        steps = _steps(depth)
        for rank in (1, *steps):
            left, _ = self._pixel(rank, 0)
            self._line((left, _TOP, left, _BOTTOM), _LINE)
            self.write(left - 8, _BOTTOM + 14, f"{rank}", size=14, color=_MUTED)
        for gain in (0, *(sign * step for step in steps if step < depth for sign in (1, -1))):
            _, top = self._pixel(1, gain)
            self._line((_LEFT, top, _RIGHT, top), _LINE)
            self.write(_LEFT - 42, top - 9, f"{gain:+d}" if gain else "0", size=14, color=_MUTED)
        self._line((*self._pixel(1, 0), *self._pixel(depth, 0)), _MUTED)
        self._line((*self._pixel(1, 0), *self._pixel(depth, depth - 1)), _MUTED)
        self._line((*self._pixel(1, 1 - depth), *self._pixel(depth, 0)), _MUTED)

    def draw_point(self, rank: int, gain: int, count: int) -> None:
        left, top = self._pixel(rank, gain)
        radius = min(3 + count**0.5, 14)
        color = _UP if gain > 0 else _DOWN if gain < 0 else _SAME
        box = (left - radius, top - radius, left + radius, top + radius)
        self._draw.ellipse(tuple(_SCALE * side for side in box), fill=color, outline=_PAPER, width=_SCALE // 2)

    def write(self, left: float, top: float, text: str, *, size: int, color: tuple[int, int, int]) -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((left * _SCALE, top * _SCALE), text, fill=color, font=font)

    def _line(self, ends: tuple[float, float, float, float], color: tuple[int, int, int]) -> None:
        self._draw.line(tuple(_SCALE * end for end in ends), fill=color, width=_SCALE)

    def _pixel(self, rank: int, gain: int) -> tuple[float, float]:
        span = max(self._depth - 1, 1)
        left = _LEFT + (rank - 1) / span * (_RIGHT - _LEFT)
        top = (_TOP + _BOTTOM) / 2 - gain / span * (_BOTTOM - _TOP) / 2
        return left, top


def _steps(depth: int) -> list[int]:
    """Return about ten round places from 2 to the last."""
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if depth / step <= 10), max(depth // 10, 1))
    return list(range(max(step, 2), depth + 1, step))
