"""Curves that make up the silhouettes.

Coordinates are the product's: x to the right, y down, the product inside [-1, 1] in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Curve",
    "Points",
    "Role",
    "Shape",
    "box",
    "disc",
    "fill",
    "heart",
    "leaf",
    "line",
    "mirrored",
    "ribbon",
    "rounded",
    "shade",
    "smooth",
    "star",
]

Points: TypeAlias = Sequence[tuple[float, float]]
Curve: TypeAlias = NDArray[np.float64]
Role: TypeAlias = Literal["fill", "shade", "line"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape to paint.

    Attributes:
        part: the part whose colour it takes.
        role: ``fill`` is painted with the part's colour, pattern and outline; ``shade`` darkens what is below;
            ``line`` is a thin seam.
        points: float64 [n, 2], x and y.
    """

    part: str
    role: Role
    points: Curve


def fill(part: str, points: Curve) -> Shape:
    """Return a painted area of a part."""
    return Shape(part, "fill", points)


def shade(part: str, points: Curve) -> Shape:
    """Return a darkened area on a part."""
    return Shape(part, "shade", points)


def line(part: str, points: Points | Curve) -> Shape:
    """Return a seam on a part."""
    return Shape(part, "line", np.asarray(points, dtype=np.float64))


def mirrored(points: Curve) -> Curve:
    """Return the curve mirrored left to right."""
    flipped: Curve = points * np.array([-1.0, 1.0])
    return flipped


def rounded(points: Points, radius: float | Sequence[float] = 0.06, *, steps: int = 5) -> Curve:
    """Return a closed polygon with rounded corners.

    Args:
        points: the corners.
        radius: how far from each corner the rounding begins, one for all or one for each.
        steps: points per corner.
    """
    corners = np.asarray(points, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(corners),))
    t = np.linspace(0.0, 1.0, steps)[:, None]
    pieces = []
    for corner, before, after, reach in zip(
        corners, np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0), radii, strict=True
    ):
        ends = []
        for neighbour in (before, after):
            length = float(np.hypot(*(neighbour - corner)))
            ends.append(corner + (neighbour - corner) * min(0.5, float(reach) / max(length, 1e-9)))
        pieces.append((1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * corner + t**2 * ends[1])
    return np.concatenate(pieces)


def smooth(points: Points, *, steps: int = 8) -> Curve:
    """Return an open curve through all the points (Catmull-Rom)."""
    knots = np.asarray(points, dtype=np.float64)
    knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    pieces = []
    for i in range(1, len(knots) - 2):
        a, b, c, d = knots[i - 1 : i + 3]
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*pieces, knots[-2:-1]])


def ribbon(points: Points, width: float, *, steps: int = 8) -> Curve:
    """Return the closed outline of a band of this width along the smooth curve through the points."""
    centre = smooth(points, steps=steps)
    along = np.gradient(centre, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
    return np.concatenate([centre + normal * width / 2, (centre - normal * width / 2)[::-1]])


def disc(x: float, y: float, radius: float, *, height: float | None = None, steps: int = 20) -> Curve:
    """Return an ellipse; ``height`` is its vertical radius, by default ``radius``."""
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    tall = radius if height is None else height
    return np.stack([x + radius * np.cos(angle), y + tall * np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.05) -> Curve:
    """Return a rectangle with rounded corners."""
    return rounded([(left, top), (right, top), (right, bottom), (left, bottom)], radius)


def heart(x: float, y: float, size: float) -> Curve:
    """Return a heart of about twice ``size`` in width."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    across = np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return np.stack([x + size * across, y + size * down], axis=1)


def star(x: float, y: float, size: float) -> Curve:
    """Return a five-pointed star of this outer radius."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, size, size * 0.5)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def leaf(x: float, y: float, end_x: float, end_y: float, width: float) -> Curve:
    """Return a feather-like leaf from one point to another."""
    t = np.linspace(0.0, 1.0, 12)
    half = width / 2 * np.sin(np.pi * t**0.75) + 0.02 * (1 - t)
    along = np.array([end_x - x, end_y - y])
    normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9)
    centre = np.array([x, y]) + t[:, None] * along
    return np.concatenate([centre + half[:, None] * normal, (centre - half[:, None] * normal)[::-1]])
