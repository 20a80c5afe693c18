"""A garment photographed anew: another crop, flip, angle, light, JPEG quality, and mostly another background.

Edited pictures share their pixels with the picture they were made from. Without this a model learns to look for the
same floor instead of the same garment.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.photographs.masks import GarmentMask
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Background", "floor_of", "photographed"]

Background = Literal["own", "floor", "studio"]


def floor_of(rgb: NDArray[np.uint8], mask: GarmentMask) -> NDArray[np.uint8] | None:
    """Cut what lies around a garment: the largest strip along a border that the garment does not reach.

    Returns:
        uint8 [h, w, 3], or None where no strip is at least 24 pixels wide.
    """
    covered = mask.alpha > 0.05
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    strips = (rgb[:top], rgb[bottom:], rgb[:, :left], rgb[:, right:])
    best = max(strips, key=lambda strip: strip.shape[0] * strip.shape[1])
    return None if min(best.shape[:2]) < 24 else best


def photographed(
    rgb: NDArray[np.uint8],
    mask: GarmentMask,
    background: Background,
    floor: NDArray[np.uint8] | None,
    *,
    size: int,
    rng: np.random.Generator,
) -> Image:
    """Photograph a garment anew.

    Args:
        rgb: uint8 [H, W, 3], the garment as it is to look; outside the mask the photograph's own surroundings.
        mask: where the garment is in it.
        background: what lies around it: what was there, another floor, or a studio's wall.
        floor: what ``floor_of`` cut from another photograph; needed for ``floor`` alone.
        size: side of the square picture in pixels.
        rng: of all that differs.

    Returns:
        A Pillow image of mode RGB, ``size`` x ``size``.
    """
    from PIL import Image as PillowImage

    corners = _corners(mask, rng, is_whole=background != "own")
    flipped = rng.random() < 0.5
    if flipped:
        corners = corners[[3, 2, 1, 0]]
    quad = tuple(float(value) for value in corners.ravel())

    def seen(picture: Image) -> Image:
        return picture.transform((size, size), PillowImage.Transform.QUAD, quad, PillowImage.Resampling.BICUBIC)

    picture = np.asarray(seen(PillowImage.fromarray(rgb)), np.float32)
    if background != "own":
        alpha = np.asarray(seen(PillowImage.fromarray((mask.alpha * 255).astype(np.uint8))), np.float32) / 255
        behind = _studio(size, rng) if background == "studio" or floor is None else _tiled(floor, size, rng)
        picture = behind + alpha[..., None] * (picture - behind)
    return _developed(picture, rng)


def _corners(mask: GarmentMask, rng: np.random.Generator, *, is_whole: bool) -> Float32:
    """Choose what the camera sees: x and y of its corners, [4, 2], from upper left against the clock."""
    height, width = mask.alpha.shape
    rows, columns = np.flatnonzero((mask.alpha > 0.5).any(1)), np.flatnonzero((mask.alpha > 0.5).any(0))
    middle = np.array([(columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2])
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0])
    if is_whole:
        side = longer * rng.uniform(1.02, 1.4)
        middle = middle + rng.normal(0, 0.04, 2) * side
    else:
        side = min(height, width) * rng.uniform(0.84, 1.06)
        middle = middle * 0.5 + np.array([width, height]) * 0.25 + rng.normal(0, 0.04, 2) * side
        half = side / 2
        for axis, length in enumerate((width, height)):
            middle[axis] = length / 2 if side > length else np.clip(middle[axis], half, length - half)
    square = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) * side / 2
    angle = rng.normal(0, 0.06)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = square @ turn + middle + rng.normal(0, 0.02, (4, 2)) * side
    return np.asarray(found, np.float32)


def _tiled(floor: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Float32:
    """Fill a square with a strip of floor, mirrored at its edges so that no seam shows."""
    if rng.random() < 0.5:
        floor = floor.transpose(1, 0, 2)
    height, width = floor.shape[:2]
    rows = _mirrored(np.arange(size) + int(rng.integers(2 * height)), height)
    columns = _mirrored(np.arange(size) + int(rng.integers(2 * width)), width)
    return floor[rows[:, None], columns[None]].astype(np.float32)


def _mirrored(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    places = places % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places)


def _studio(size: int, rng: np.random.Generator) -> Float32:
    """Paint a wall: mostly white or grey, with a soft fall of light."""
    grey = rng.uniform(225, 255) if rng.random() < 0.6 else rng.uniform(120, 235)
    colour = np.clip(grey + rng.normal(0, 6, 3), 0, 255)
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    slope = rng.normal(0, 14, 2)
    fall = rows * slope[0] + columns * slope[1]
    wall = colour + fall[..., None] + rng.normal(0, 1.5, (size, size, 1))
    return np.asarray(np.clip(wall, 0, 255), np.float32)


def _developed(picture: Float32, rng: np.random.Generator) -> Image:
    """Change light and its colour a little, and store as a JPEG of some quality."""
    from PIL import Image as PillowImage

    size = picture.shape[0]
    gain = rng.uniform(0.84, 1.14) * (1 + rng.normal(0, 0.02, 3))
    places = np.linspace(-0.5, 0.5, size)
    fall = 1 + rng.normal(0, 0.08) * places[:, None] + rng.normal(0, 0.08) * places[None]
    gamma = rng.uniform(0.92, 1.1)
    values = np.clip(picture * (gain * fall[..., None]) / 255, 0, 1) ** gamma
    lit = PillowImage.fromarray((values * 255).astype(np.uint8))
    buffer = io.BytesIO()
    lit.save(buffer, "JPEG", quality=int(rng.integers(45, 93)))
    buffer.seek(0)
    with PillowImage.open(buffer) as stored:
        return stored.convert("RGB")
