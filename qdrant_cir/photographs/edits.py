"""Exact edits of a photographed garment: another colour, a pattern, something printed on the chest.

All of them keep the folds: ``L' = L2 + (L - median) * gain``, with the chroma of the new colour and a third of the old
variation. An edit is refused where the colour that is measured afterwards is not the wanted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qdrant_cir.photographs.masks import GarmentMask
from qdrant_cir.types import Float32

__all__ = ["GRAPHICS", "PATTERNS", "Graphic", "Look", "Pattern", "dressed"]

Pattern = Literal["unknown", "plain", "stripes", "checks", "dots", "flowers"]
Graphic = Literal["unknown", "none", "picture", "letters"]
PATTERNS: tuple[Pattern, ...] = ("stripes", "checks", "dots", "flowers")
GRAPHICS: tuple[Graphic, ...] = ("picture", "letters")

_KEPT_VARIATION = 1 / 3
_MOST_DIFFERENCE = 12.0
"""Lab units between the wanted and the measured colour; the next name is seldom farther."""
_WORDS = ("HELLO", "SUMMER", "CLUB", "1984", "NORTH", "DREAM", "RIVER", "TEAM 7", "OCEAN", "MOON", "WILD", "SMILE")


@dataclass(frozen=True, slots=True)
class Look:
    """What a garment is to look like.

    Attributes:
        lab: the colour wanted, float32 [3]; None to leave the garment's own.
        pattern: drawn in ``second``; ``plain`` and ``unknown`` draw nothing.
        graphic: put on the chest in ``second``; ``none`` and ``unknown`` draw nothing.
        second: Lab float32 [3] of the pattern or of the graphic; None where there is neither.
    """

    lab: Float32 | None
    pattern: Pattern
    graphic: Graphic
    second: Float32 | None


def dressed(lab: Float32, mask: GarmentMask, look: Look, rng: np.random.Generator) -> Float32 | None:
    """Return a photographed garment with another look.

    Args:
        lab: float32 [H, W, 3] of the photograph.
        mask: where the garment is in it.
        look: what is wanted.
        rng: of the pattern's size, place and angle.

    Returns:
        Lab float32 [H, W, 3], changed everywhere: only what the mask covers is of use. None where the garment would not
        have the colour wanted.
    """
    base = lab if look.lab is None else _recoloured(lab, mask, look.lab)
    if look.lab is not None and not _has_colour(base, mask, look.lab):
        return None
    if look.second is None:
        return base
    where = _pattern(mask, look.pattern, rng) if look.pattern in PATTERNS else _graphic(mask, look.graphic, rng)
    if where is None:
        return None
    drawn = _recoloured(lab, mask, look.second)
    return np.asarray(base + where[..., None] * (drawn - base), np.float32)


def _recoloured(lab: Float32, mask: GarmentMask, wanted: Float32) -> Float32:
    median = mask.lab
    # light cloth shows its folds more than dark cloth does
    gain = float(np.clip(np.sqrt(max(wanted[0], 8.0) / max(float(median[0]), 8.0)), 0.6, 1.6))
    changed = lab - median
    changed *= np.array([gain, _KEPT_VARIATION, _KEPT_VARIATION], np.float32)
    changed += wanted
    np.clip(changed[..., 0], 1, 98, out=changed[..., 0])
    return changed


def _has_colour(lab: Float32, mask: GarmentMask, wanted: Float32) -> bool:
    from qdrant_cir.photographs.colours import lab_of_rgb, rgb_of_lab

    inside = lab[mask.alpha > 0.9][::7]
    measured = np.median(lab_of_rgb(rgb_of_lab(inside)), axis=0)
    return float(np.linalg.norm(measured - wanted)) < _MOST_DIFFERENCE


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where a garment lies, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> float:
        return float(max(self.bottom - self.top, self.right - self.left))


def _extent(mask: GarmentMask) -> _Extent:
    rows, columns = np.flatnonzero((mask.alpha > 0.5).any(1)), np.flatnonzero((mask.alpha > 0.5).any(0))
    return _Extent(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _pattern(mask: GarmentMask, pattern: Pattern, rng: np.random.Generator) -> Float32:
    """Draw where a pattern's second colour goes: float32 [H, W] in 0..1."""
    height, width = mask.alpha.shape
    extent = _extent(mask)
    period = extent.size * rng.uniform(0.06, 0.14)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    # cloth does not lie straight: the pattern bends a little
    bend = 0.25 * period * np.sin(2 * np.pi * columns / (extent.size * rng.uniform(0.6, 1.2)) + rng.uniform(0, 6))
    angle = rng.normal(0, 0.08) + (np.pi / 2 if pattern == "stripes" and rng.random() < 0.35 else 0.0)
    across = (rows + bend) * np.cos(angle) + columns * np.sin(angle)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    if pattern == "stripes":
        return _bands(across, period, float(rng.uniform(0.3, 0.6)))
    if pattern == "checks":
        wide = float(rng.uniform(0.35, 0.5))
        both = 0.5 * (_bands(across, period, wide) + _bands(along, period, wide))
        return np.asarray(both, np.float32)
    # dots and flowers: every other row is shifted by half a period
    row = np.round(across / period)
    from_row = across - row * period
    shifted = along + (row % 2) * period / 2
    from_column = shifted - np.round(shifted / period) * period
    if pattern == "dots":
        radius = period * rng.uniform(0.2, 0.32)
        return _soft(radius - np.hypot(from_row, from_column))
    petals = int(rng.integers(4, 7))
    direction = np.arctan2(from_row, from_column) + row * 1.3
    radius = period * rng.uniform(0.34, 0.44) * (0.62 + 0.38 * np.cos(petals * direction))
    distance = np.hypot(from_row, from_column)
    return np.asarray(_soft(radius - distance) * (1 - 0.8 * _soft(period * 0.07 - distance)), np.float32)


def _bands(position: Float32, period: float, share: float) -> Float32:
    phase = np.abs((position / period) % 1 - 0.5)
    return _soft((share / 2 - phase) * period)


def _soft(depth: Float32) -> Float32:
    """Turn a depth in pixels inside a shape into coverage, with an edge one pixel wide."""
    return np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)


def _graphic(mask: GarmentMask, graphic: Graphic, rng: np.random.Generator) -> Float32 | None:
    """Draw where something printed on the chest goes: float32 [H, W] in 0..1; None where the garment has no room."""
    from PIL import Image, ImageDraw, ImageFont

    extent = _extent(mask)
    height, width = mask.alpha.shape
    high, wide = extent.bottom - extent.top, extent.right - extent.left
    middle_row = extent.top + high * rng.uniform(0.36, 0.5)
    middle_column = extent.left + wide * rng.uniform(0.46, 0.54)
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    if graphic == "letters":
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        font = ImageFont.load_default(size=max(10.0, 1.5 * wide * float(rng.uniform(0.3, 0.45)) / len(word)))
        for line in range(int(rng.integers(1, 3))):
            row = middle_row + line * 1.1 * float(getattr(font, "size", 10.0))
            draw.text((middle_column, row), word, fill=255, font=font, anchor="mm")
    else:
        _draw_picture(draw, float(middle_column), float(middle_row), wide * float(rng.uniform(0.13, 0.22)), rng)
    where = np.asarray(canvas, np.float32) / np.float32(255)
    drawn = where > 0.5
    # all of it must lie on the garment
    if drawn.sum() < 40 or mask.alpha[drawn].mean() < 0.95:
        return None
    return where


def _draw_picture(draw: object, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    """Draw a star, a heart, a ring, a triangle or a face around a point."""
    from PIL import ImageDraw

    if not isinstance(draw, ImageDraw.ImageDraw):
        return
    kind = int(rng.integers(5))
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == 0:
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, radius, radius * 0.42)
        draw.polygon([(x + r * np.cos(t), y + r * np.sin(t)) for r, t in zip(reach, turn, strict=True)], fill=255)
    elif kind == 1:
        t = np.linspace(0, 2 * np.pi, 40)
        across, down = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        draw.polygon([(x + radius * a / 16, y - radius * d / 16) for a, d in zip(across, down, strict=True)], fill=255)
    elif kind == 2:
        draw.ellipse(box, fill=255)
        draw.ellipse((x - radius * 0.6, y - radius * 0.6, x + radius * 0.6, y + radius * 0.6), fill=0)
        draw.rectangle((x - radius * 0.2, y - radius * 0.5, x + radius * 0.2, y + radius * 0.5), fill=255)
    elif kind == 3:
        draw.polygon([(x, y - radius), (x + radius, y + radius * 0.8), (x - radius, y + radius * 0.8)], fill=255)
        draw.ellipse((x - radius * 0.3, y, x + radius * 0.3, y + radius * 0.6), fill=0)
    else:
        draw.ellipse(box, fill=255)
        for side in (-0.4, 0.4):
            eye = x + side * radius
            draw.ellipse((eye - radius * 0.15, y - radius * 0.45, eye + radius * 0.15, y - radius * 0.1), fill=0)
        draw.arc((x - radius * 0.6, y - radius * 0.4, x + radius * 0.6, y + radius * 0.6), 20, 160, fill=0, width=3)
