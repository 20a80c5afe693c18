"""Patterns and backgrounds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from qdrant_cir.drawn.scene import pick

__all__ = ["draw_background", "pattern_mask"]

_MARGIN = 1.3

_BACKDROPS = (
    (236, 236, 232), (226, 220, 208), (210, 222, 230), (222, 232, 218), (240, 226, 222), (200, 200, 196),
    (186, 196, 204), (206, 190, 172), (178, 188, 172), (214, 206, 224), (168, 164, 160), (246, 240, 224),
    (128, 132, 138), (112, 122, 128), (150, 132, 116), (104, 112, 104),
)  # fmt: skip


@lru_cache(maxsize=192)
def pattern_mask(pattern: str, pitch: int, angle: int, extent: int) -> Image.Image:
    """Return a pattern as a mask larger than the canvas, 255 where its second colour goes.

    The second colour covers 34 to 42 % of every pattern, so that the base colour can be recognised.

    Args:
        pattern: any but ``solid``.
        pitch: pixels from one stripe or dot to the next.
        angle: degrees by which it is turned.
        extent: side of the canvas in pixels; the mask is 1.3 times as large.
    """
    side = int(extent * _MARGIN)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn = np.deg2rad(angle)
    u = (np.cos(turn) * x - np.sin(turn) * y) / pitch
    v = (np.sin(turn) * x + np.cos(turn) * y) / pitch
    if pattern == "striped":
        inside = v % 1 < 0.36
    elif pattern == "dotted":
        staggered = (u + 0.5 * (np.floor(v) % 2)) % 1
        inside = np.hypot(staggered - 0.5, v % 1 - 0.5) < 0.33
    elif pattern == "checked":
        inside = (u % 1 < 0.24) | (v % 1 < 0.24)
    else:
        inside = (v + 0.6 * np.abs(u % 1 - 0.5) * 2) % 1 < 0.36
    return Image.fromarray((inside * np.uint8(255)).astype(np.uint8), mode="L")


def _far_from(color: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a background colour that the product's main colour stands out from."""
    best = pick(rng, _BACKDROPS)
    for _ in range(3):
        if sum(abs(a - b) for a, b in zip(best, color, strict=True)) >= 110:
            break
        best = pick(rng, _BACKDROPS)
    return np.array(best, dtype=np.float32) + rng.integers(-8, 9, 3)


def draw_background(
    color: tuple[int, int, int],
    shadow: tuple[float, float, float, float],
    side: int,
    rng: np.random.Generator,
) -> Image.Image:
    """Draw the background.

    Args:
        color: the product's main colour.
        shadow: left, top, right, bottom of a soft shadow, in fractions of the canvas.
        side: pixels of the canvas.
        rng: source of randomness.
    """
    grid = 48
    y, x = np.mgrid[0:grid, 0:grid].astype(np.float32) / (grid - 1)
    field = np.empty((grid, grid, 3), dtype=np.float32)
    field[:] = _far_from(color, rng)
    kind = rng.random()
    if kind < 0.3:
        slope = np.cos(rng.random() * 6.3) * (x - 0.5) + np.sin(rng.random() * 6.3) * (y - 0.5)
        field += slope[..., None] * (rng.random() * 60 - 30)
    elif kind < 0.5:
        field -= (np.hypot(x - 0.5, y - 0.45) * (20 + rng.random() * 40))[..., None]
    elif kind < 0.8:
        horizon = 0.6 + 0.25 * rng.random()
        field[y[:, 0] > horizon] += rng.integers(-44, 30) + rng.integers(-8, 9, 3)
        field += ((y - horizon) * 16)[..., None]
    if rng.random() < 0.4:
        field += (rng.standard_normal((grid, grid, 1), dtype=np.float32)) * (2 + 4 * rng.random())
    small = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    ImageDraw.Draw(small, "RGBA").ellipse([edge * grid for edge in shadow], fill=(0, 0, 0, 46))
    return small.resize((side, side), Image.Resampling.BICUBIC)
