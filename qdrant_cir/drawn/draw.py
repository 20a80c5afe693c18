"""Drawing of a scene.

The product is painted at twice the size and reduced, which smooths every edge; light and noise are added at the final
size. Pose, light, background and noise come from the random generator and never from the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from qdrant_cir.drawn import accessories, garments
from qdrant_cir.drawn.families import COLORS
from qdrant_cir.drawn.outlines import Curve, Shape
from qdrant_cir.drawn.scene import Part, Scene, main_part
from qdrant_cir.drawn.surfaces import draw_background, pattern_mask

__all__ = ["DRAWING_VERSION", "Box", "DrawnScene", "draw_scene"]

DRAWING_VERSION = 1
"""Raised when the same scene and seed lead to other pictures."""

RGB = tuple[int, int, int]

_OVERSAMPLING = 2
_LARGE_PITCH, _SMALL_PITCH = 0.125, 0.078
_LARGE_PARTS = frozenset({"body", "legs", "shade", "crown", "sleeves"})
_LACES: RGB = (232, 232, 228)
_ORNAMENTS = frozenset({"buttons", "badges", "stars", "hearts"})
"""Small parts that may lie on a pattern; their outline is broader and around them."""

_SILHOUETTES: dict[str, Callable[[Scene], list[Shape]]] = {
    "t-shirt": garments.draw_t_shirt,
    "shirt": garments.draw_shirt,
    "dress": garments.draw_dress,
    "skirt": garments.draw_skirt,
    "trousers": garments.draw_trousers,
    "hoodie": garments.draw_hoodie,
    "handbag": accessories.draw_handbag,
    "backpack": accessories.draw_backpack,
    "sneaker": accessories.draw_sneaker,
    "mug": accessories.draw_mug,
    "lamp": accessories.draw_lamp,
    "hat": accessories.draw_hat,
}


@dataclass(frozen=True, slots=True)
class Box:
    """Where a part lies, in fractions 0 to 1 of the canvas."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class DrawnScene:
    """A picture, and where its parts are.

    Attributes:
        image: RGB, square.
        boxes: one box for every part that is present, by name; around all of them where there are several.
    """

    image: Image.Image
    boxes: dict[str, Box]


@dataclass(frozen=True, slots=True)
class _Pose:
    """From the product's coordinates to fractions of the canvas: ``points @ matrix + offset``."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    angle: int
    scale: float


@lru_cache(maxsize=4096)
def _outline(form: tuple[str, tuple[tuple[str, str, int], ...]]) -> tuple[tuple[Shape, ...], Curve, Curve]:
    """Return the shapes of a form, all their points in one array, and the form's extent [2, 2]."""
    family, parts = form
    bare = Scene(family, tuple(Part(name, "white", "solid", None, size, count) for name, size, count in parts))
    shapes = tuple(_SILHOUETTES[family](bare))
    points = np.concatenate([shape.points for shape in shapes])
    return shapes, points, np.stack([points.min(axis=0), points.max(axis=0)])


def _sample_pose(extent: Curve, rng: np.random.Generator) -> _Pose:
    """Draw rotation, scale, stretch, mirror image and place, so that the product stays on the canvas."""
    angle = (rng.random() * 2 - 1) * 8
    turn, scale = np.deg2rad(angle), 0.40 + 0.07 * rng.random()
    stretch = np.array([scale * (0.94 + 0.12 * rng.random()), scale * (0.95 + 0.08 * rng.random())])
    if rng.random() < 0.5:
        stretch[0] *= -1
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = stretch[:, None] * rotation
    corners = np.array([(x, y) for x in extent[:, 0] for y in extent[:, 1]]) @ matrix
    low, high = corners.min(axis=0), corners.max(axis=0)
    slack = np.maximum(1.0 - (high - low), 0.0)
    centre = (1.0 - high - low) / 2 + (rng.random(2) - 0.5) * slack * 0.7
    return _Pose(matrix, centre, int(4 * round(angle / 4)), scale / 0.45)


def _ink(color: RGB) -> RGB:
    """Return an outline colour that is visible on this one."""
    light = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]
    if light < 70:
        return (color[0] + 78, color[1] + 78, color[2] + 78)
    return (int(color[0] * 0.5), int(color[1] * 0.5), int(color[2] * 0.5))


def _tinted(color: str, rng: np.random.Generator) -> RGB:
    red, green, blue = COLORS[color]
    shift = rng.integers(-9, 10, 3)
    return (
        min(255, max(0, red + int(shift[0]))),
        min(255, max(0, green + int(shift[1]))),
        min(255, max(0, blue + int(shift[2]))),
    )


class _Painter:
    """Paints the shapes of one scene onto one canvas."""

    __slots__ = ("_angle", "_canvas", "_colors", "_draw", "_parts", "_pitches", "_rng", "_side", "_width")

    def __init__(self, canvas: Image.Image, scene: Scene, pose: _Pose, rng: np.random.Generator) -> None:
        self._canvas = canvas
        self._draw = ImageDraw.Draw(canvas, "RGBA")
        self._side = canvas.width
        self._width = max(2, round(self._side / 100))
        self._rng = rng
        self._angle = pose.angle
        self._parts = {part.name: part for part in scene.parts}
        self._colors: dict[str, tuple[RGB, RGB]] = {"laces": (_LACES, _LACES)}
        self._pitches: dict[str, int] = {}
        stretch = round((pose.scale * (0.9 + 0.2 * rng.random())) * 5) / 5  # few values, so that masks can be cached
        for part in scene.parts:
            base = _tinted(part.color, rng)
            second = base if part.pattern_color is None else _tinted(part.pattern_color, rng)
            self._colors[part.name] = (base, second)
            pitch = _LARGE_PITCH if part.name in _LARGE_PARTS else _SMALL_PITCH
            self._pitches[part.name] = max(4, round(pitch * stretch * self._side))

    def paint(self, shape: Shape, points: Curve) -> None:
        """Paint one shape; ``points`` are in pixels of the canvas."""
        flat = points.ravel().tolist()
        base, second = self._colors[shape.part]
        if shape.role == "shade":
            self._draw.polygon(flat, fill=(0, 0, 0, 48))
            return
        if shape.role == "line":
            self._draw.line(flat, fill=(*_ink(base), 170), width=self._width)
            return
        outline = [*flat, *flat[:4]]
        if shape.part in _ORNAMENTS:
            self._draw.line(outline, fill=_ink(base), width=self._width * 2 + 1, joint="curve")
            self._draw.polygon(flat, fill=base)
            return
        self._draw.polygon(flat, fill=base)
        part = self._parts.get(shape.part)
        if part is not None and part.pattern != "solid":
            self._lay_pattern(part, points, second)
        self._draw.line(outline, fill=_ink(base), width=self._width, joint="curve")

    def _lay_pattern(self, part: Part, points: Curve, color: RGB) -> None:
        low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0)) + 1, self._side).astype(int)
        width, height = int(high[0] - low[0]), int(high[1] - low[1])
        if width <= 0 or height <= 0:
            return
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon((points - low).ravel().tolist(), fill=255)
        pattern = pattern_mask(part.pattern, self._pitches[part.name], self._angle, self._side)
        left, top = (self._rng.random(2) * self._side * 0.25).astype(int).tolist()
        cut = pattern.crop((left, top, left + width, top + height))
        self._canvas.paste(color, (int(low[0]), int(low[1])), ImageChops.multiply(mask, cut))


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add light, tint and grain to the reduced picture."""
    pixels = np.asarray(image, dtype=np.float32)
    side = pixels.shape[0]
    ramp = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    slope = rng.random(2).astype(np.float32) * 0.24 - 0.12
    gain = (0.88 + 0.20 * rng.random()) + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    tint = 1 + (rng.random(3).astype(np.float32) - 0.5) * 0.07
    grain = np.frombuffer(rng.bytes(side * side * 3), dtype=np.int8).reshape(side, side, 3)
    lit = pixels * gain[..., None].astype(np.float32)
    lit *= tint
    lit += grain * np.float32(0.03 + 0.04 * rng.random())
    np.clip(lit, 0, 255, out=lit)
    return Image.fromarray(lit.astype(np.uint8))


def _boxes(shapes: tuple[Shape, ...], placed: Curve, scene: Scene) -> dict[str, Box]:
    found: dict[str, NDArray[np.float64]] = {}
    present = {part.name for part in scene.parts}
    start = 0
    for shape in shapes:
        points = placed[start : start + len(shape.points)]
        start += len(shape.points)
        if shape.role != "fill" or shape.part not in present:
            continue
        edges = np.concatenate([points.min(axis=0), -points.max(axis=0)])
        known = found.get(shape.part)
        found[shape.part] = edges if known is None else np.minimum(known, edges)
    return {
        name: Box(*np.clip([left, top, -right, -bottom], 0.0, 1.0).tolist())
        for name, (left, top, right, bottom) in found.items()
    }


def draw_scene(scene: Scene, rng: np.random.Generator, *, size: int = 256) -> DrawnScene:
    """Draw a picture of the scene.

    Args:
        scene: what is drawn.
        rng: source of pose, light, background and noise; the same state and size give the same pixels.
        size: side of the picture in pixels.
    """
    form = (scene.family, tuple((part.name, part.size, part.count) for part in scene.parts))
    shapes, points, extent = _outline(form)
    pose = _sample_pose(extent, rng)
    placed = points @ pose.matrix + pose.offset
    side = size * _OVERSAMPLING
    low, high = placed.min(axis=0), placed.max(axis=0)
    shadow = (low[0] + 0.02, high[1] - 0.08, high[0] + 0.04, high[1] + 0.05)
    canvas = draw_background(COLORS[main_part(scene).color], shadow, side, rng)
    painter = _Painter(canvas, scene, pose, rng)
    start, pixels = 0, placed * side
    for shape in shapes:
        painter.paint(shape, pixels[start : start + len(shape.points)])
        start += len(shape.points)
    image = _light(canvas.reduce(_OVERSAMPLING), rng)
    return DrawnScene(image, _boxes(shapes, placed, scene))
