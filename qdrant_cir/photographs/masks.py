"""Where the garment is in a photograph of one garment on a floor, a wall or a hanger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.photographs.colours import lab_of_rgb
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GarmentMask", "find_mask"]

_GRID = 64
_CLUSTERS = 8
_ROUNDS = 12
_SMALLEST, _LARGEST = 0.07, 0.72
"""Shares of the picture that a garment may cover."""


@dataclass(frozen=True, slots=True)
class GarmentMask:
    """A garment's place and colour.

    Attributes:
        alpha: float32 [H, W], 1 on the garment and 0 elsewhere, soft at the edge; of the picture it was found in.
        lab: float32 [3], the median colour of the garment.
        share: of the picture that the garment covers.
        spread: mean distance in Lab of the garment's pixels from the median colour: small where it is plain.
    """

    alpha: Float32
    lab: Float32
    share: float
    spread: float


def find_mask(picture: Image, lab: Float32) -> GarmentMask | None:
    """Find the garment by its colours: what fills the centre and leaves the border.

    k-means of eight colours on a grid of 64 x 64, each judged by its mass in the centre against that on the border.

    Args:
        picture: mode RGB.
        lab: float32 [H, W, 3] of the same picture.

    Returns:
        The mask, or None where none can be used: too small, too large, cut by the border, or not in the centre.
    """
    from PIL import Image as PillowImage

    small = np.asarray(picture.resize((_GRID, _GRID), PillowImage.Resampling.BOX))
    pixels = lab_of_rgb(small).reshape(-1, 3)
    centroids, owner = _cluster(pixels)
    centre, border = _centre(), _border()
    is_garment = np.zeros(_CLUSTERS, np.bool_)
    for cluster in range(_CLUSTERS):
        own = (owner == cluster).reshape(_GRID, _GRID)
        is_garment[cluster] = own[centre].mean() > 1.6 * own[border].mean() + 0.004
    if not is_garment.any() or is_garment.all():
        return None
    coarse = _cleaned(is_garment[owner].reshape(_GRID, _GRID))
    share = float(coarse.mean())
    if not _SMALLEST <= share <= _LARGEST or coarse[centre].mean() < 0.45 or coarse[border].mean() > 0.12:
        return None
    alpha = _refined(coarse, lab, centroids[is_garment], centroids[~is_garment])
    inside = lab[alpha > 0.9]
    if len(inside) < 200:
        return None
    median = np.median(inside, axis=0).astype(np.float32)
    return GarmentMask(alpha, median, share, float(np.linalg.norm(inside - median, axis=1).mean()))


def _cluster(pixels: Float32) -> tuple[Float32, NDArray[np.int64]]:
    """Run k-means from the most distant colours, without chance; returns centroids [8, 3] and owners [P]."""
    centroids = [pixels.mean(0)]
    nearest = np.full(len(pixels), np.inf, np.float32)
    while len(centroids) <= _CLUSTERS:
        nearest = np.minimum(nearest, ((pixels - centroids[-1]) ** 2).sum(1))
        # the 98th percentile, not the most distant pixel, which is often a speck
        place = int(np.argsort(nearest)[int(0.98 * len(nearest))])
        centroids.append(pixels[place])
    found = np.stack(centroids[1:]).astype(np.float32)
    owner = np.zeros(len(pixels), np.int64)
    for _ in range(_ROUNDS):
        owner = ((pixels[:, None] - found[None]) ** 2).sum(2).argmin(1)
        for cluster in range(_CLUSTERS):
            if (owner == cluster).any():
                found[cluster] = pixels[owner == cluster].mean(0)
    return found, owner


def _centre() -> NDArray[np.bool_]:
    rows, columns = np.mgrid[0:_GRID, 0:_GRID] / (_GRID - 1) - 0.5
    inside: NDArray[np.bool_] = (rows / 0.30) ** 2 + (columns / 0.24) ** 2 < 1
    return inside


def _border() -> NDArray[np.bool_]:
    ring = np.ones((_GRID, _GRID), np.bool_)
    ring[4:-4, 4:-4] = False
    return ring


def _cleaned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Smooth a mask, keep what hangs together with its centre, fill its holes."""
    smooth = _neighbours(mask.astype(np.float32)) > 0.5
    seeds = smooth & _centre()
    kept = _grown(seeds, smooth)
    outside = np.zeros_like(kept)
    outside[0], outside[-1], outside[:, 0], outside[:, -1] = True, True, True, True
    return ~_grown(outside & ~kept, ~kept)


def _neighbours(values: Float32) -> Float32:
    """Mean over 3 x 3 places."""
    padded = np.pad(values, 1, mode="edge")
    rows, columns = values.shape
    total = sum(padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3))
    return np.asarray(total / 9, np.float32)


def _grown(seeds: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grow seeds over all places that are allowed and hang together with them."""
    grown = seeds & allowed
    while True:
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        wider &= allowed
        if (wider == grown).all():
            return grown
        grown = wider


def _refined(coarse: NDArray[np.bool_], lab: Float32, garment: Float32, rest: Float32) -> Float32:
    """Enlarge a coarse mask; at its edge a pixel belongs to whichever side has its colour."""
    from PIL import Image as PillowImage

    height, width = lab.shape[:2]
    large = PillowImage.fromarray(coarse.astype(np.float32)).resize((width, height), PillowImage.Resampling.BICUBIC)
    alpha = np.clip(np.asarray(large), 0, 1)
    band = (alpha > 0.02) & (alpha < 0.98)
    pixels = lab[band]
    to_garment = ((pixels[:, None] - garment[None]) ** 2).sum(2).min(1)
    to_rest = ((pixels[:, None] - rest[None]) ** 2).sum(2).min(1)
    leaning = np.tanh((np.sqrt(to_rest) - np.sqrt(to_garment)) / 8)
    refined = alpha.copy()
    refined[band] = np.clip(alpha[band] + 0.45 * leaning, 0, 1)
    softened = PillowImage.fromarray(refined)
    from PIL import ImageFilter

    return np.asarray(
        PillowImage.fromarray((np.asarray(softened) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8)),
        np.float32,
    ) / np.float32(255)
