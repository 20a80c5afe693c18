"""Silhouettes of clothes, in painting order: what lies behind comes first."""

from __future__ import annotations

from qdrant_cir.drawn.outlines import (
    Shape,
    box,
    disc,
    fill,
    line,
    mirrored,
    ribbon,
    rounded,
    shade,
    smooth,
)
from qdrant_cir.drawn.scene import Scene

__all__ = ["draw_dress", "draw_hoodie", "draw_shirt", "draw_skirt", "draw_t_shirt", "draw_trousers"]

_BUTTON = 0.068


def _count(scene: Scene, name: str) -> int:
    part = scene.part(name)
    return 0 if part is None else part.count


def _is_long(scene: Scene, name: str) -> bool:
    part = scene.part(name)
    return part is not None and part.size == "long"


def _both(part: str, points: list[tuple[float, float]], radius: float = 0.06) -> list[Shape]:
    curve = rounded(points, radius)
    return [fill(part, curve), fill(part, mirrored(curve))]


def _sleeves(scene: Scene) -> list[Shape]:
    if _is_long(scene, "sleeves"):
        points = [(0.38, -0.80), (0.58, -0.68), (0.80, -0.20), (0.97, 0.66), (0.70, 0.72), (0.52, -0.02)]
        return _both("sleeves", [*points, (0.40, -0.3)], 0.07)
    return _both("sleeves", [(0.38, -0.80), (0.62, -0.70), (0.98, -0.20), (0.70, 0.02), (0.44, -0.30)], 0.07)


def _torso() -> list[Shape]:
    torso = rounded(
        [(-0.25, -0.84), (0.25, -0.84), (0.54, -0.72), (0.52, -0.2), (0.55, 0.88), (-0.55, 0.88),
         (-0.52, -0.2), (-0.54, -0.72)],
        [0.02, 0.02, 0.08, 0.1, 0.06, 0.06, 0.1, 0.08],
    )  # fmt: skip
    fold = rounded([(0.36, 0.1), (0.53, -0.1), (0.55, 0.87), (0.42, 0.87)], 0.05)
    return [fill("body", torso), shade("body", fold)]


def draw_t_shirt(scene: Scene) -> list[Shape]:
    """Draw a T-shirt with a round neckline and perhaps a breast pocket."""
    neck = smooth([(-0.24, -0.85), (-0.14, -0.66), (0.0, -0.60), (0.14, -0.66), (0.24, -0.85)])
    shapes = [*_sleeves(scene), *_torso(), shade("collar", neck), shade("collar", neck)]
    shapes.append(
        fill(
            "collar",
            ribbon([(-0.28, -0.86), (-0.17, -0.64), (0.0, -0.56), (0.17, -0.64), (0.28, -0.86)], 0.15),
        )
    )
    if scene.part("pocket"):
        pocket = [(0.06, -0.26), (0.44, -0.26), (0.44, 0.08), (0.25, 0.18), (0.06, 0.08)]
        shapes.append(fill("pocket", rounded(pocket, 0.04)))
    return shapes


def draw_shirt(scene: Scene) -> list[Shape]:
    """Draw a shirt with a pointed collar, a row of buttons and up to two breast pockets."""
    shapes = [*_sleeves(scene), *_torso(), line("body", [(0.0, -0.6), (0.0, 0.88)])]
    for i in range(_count(scene, "pockets")):
        x = (0.31, -0.31)[i]
        pocket = [(x - 0.16, -0.24), (x + 0.16, -0.24), (x + 0.16, 0.04), (x, 0.13), (x - 0.16, 0.04)]
        shapes.append(fill("pockets", rounded(pocket, 0.03)))
    shapes.append(shade("collar", rounded([(-0.2, -0.88), (0.2, -0.88), (0.0, -0.56)], 0.03)))
    shapes += _both("collar", [(0.18, -0.96), (0.33, -0.82), (0.27, -0.46), (0.0, -0.60)], 0.03)
    shapes += [fill("buttons", disc(0.0, -0.40 + 0.27 * i, _BUTTON)) for i in range(_count(scene, "buttons"))]
    return shapes


def _dress_sleeves(scene: Scene) -> list[Shape]:
    if _is_long(scene, "sleeves"):
        points = [(0.26, -0.93), (0.46, -0.84), (0.66, -0.36), (0.86, 0.32), (0.64, 0.40), (0.42, -0.26)]
        return _both("sleeves", [*points, (0.28, -0.5)])
    return _both("sleeves", [(0.26, -0.93), (0.48, -0.86), (0.76, -0.48), (0.50, -0.26), (0.30, -0.48)])


def draw_dress(scene: Scene) -> list[Shape]:
    """Draw a dress with a flared skirt; the hem is above the knee or at the ankle."""
    bottom, half = (0.97, 0.78) if _is_long(scene, "body") else (0.50, 0.62)
    right = [(0.2, -0.96), (0.38, -0.88), (0.36, -0.5), (0.28, -0.02), (half, bottom)]
    left = [(-x, y) for x, y in reversed(right)]
    shapes = _dress_sleeves(scene)
    radii = [0.02, 0.06, 0.08, 0.14, 0.06, 0.06, 0.14, 0.08, 0.06, 0.02]
    shapes.append(fill("body", rounded([*right, *left], radii)))
    for x in (-0.55, 0.5):
        fold = [(x * 0.35, 0.1), (x * half + 0.05, bottom - 0.02), (x * half - 0.1, bottom - 0.02)]
        shapes.append(shade("body", rounded(fold, 0.01)))
    neck = smooth([(-0.2, -0.97), (-0.12, -0.84), (0.0, -0.8), (0.12, -0.84), (0.2, -0.97)])
    shapes += [shade("collar", neck), shade("collar", neck)]
    collar = [(-0.24, -0.97), (-0.15, -0.80), (0.0, -0.74), (0.15, -0.80), (0.24, -0.97)]
    shapes.append(fill("collar", ribbon(collar, 0.14)))
    shapes += [fill("buttons", disc(0.0, -0.58 + 0.175 * i, _BUTTON)) for i in range(_count(scene, "buttons"))]
    if scene.part("belt"):
        shapes.append(fill("belt", rounded([(-0.31, 0.02), (0.31, 0.02), (0.35, 0.20), (-0.35, 0.20)], 0.03)))
    return shapes


def draw_skirt(scene: Scene) -> list[Shape]:
    """Draw a skirt with a waistband, perhaps pockets and a trimmed hem."""
    bottom = 0.92 if _is_long(scene, "body") else 0.34
    half = 0.42 + 0.30 * (bottom + 0.6)
    shapes = [
        fill(
            "body",
            rounded([(-0.40, -0.62), (0.40, -0.62), (half, bottom), (-half, bottom)], [0.02, 0.02, 0.06, 0.06]),
        )
    ]
    for x in (-0.6, 0.0, 0.6):
        shapes.append(line("body", [(x * 0.62, -0.3), (x * half, bottom)]))
    if scene.part("hem"):
        inner = 0.42 + 0.30 * (bottom - 0.2 + 0.6)
        hem = [
            (-inner - 0.02, bottom - 0.2),
            (inner + 0.02, bottom - 0.2),
            (half + 0.03, bottom),
            (-half - 0.03, bottom),
        ]
        shapes.append(fill("hem", rounded(hem, 0.04)))
    for i in range(_count(scene, "pockets")):
        x = (0.27, -0.27)[i]
        pocket = [(x - 0.17, -0.34), (x + 0.17, -0.34), (x + 0.17, -0.06), (x, 0.03), (x - 0.17, -0.06)]
        shapes.append(fill("pockets", rounded(pocket, 0.05)))
    shapes.append(fill("waistband", rounded([(-0.40, -0.84), (0.40, -0.84), (0.44, -0.58), (-0.44, -0.58)], 0.04)))
    return shapes


def draw_trousers(scene: Scene) -> list[Shape]:
    """Draw trousers, or shorts where the legs are short."""
    bottom = 0.95 if _is_long(scene, "legs") else 0.38
    spread = 0.62 if _is_long(scene, "legs") else 0.66
    inner = spread - 0.40
    outline = [(-0.46, -0.8), (0.46, -0.8), (spread, bottom), (inner, bottom), (0.0, -0.22), (-inner, bottom),
               (-spread, bottom)]  # fmt: skip
    shapes = [fill("legs", rounded(outline, [0.02, 0.02, 0.05, 0.05, 0.06, 0.05, 0.05]))]
    shapes.append(line("legs", [(0.0, -0.62), (0.0, -0.24)]))
    for i in range(_count(scene, "patches")):
        x = (0.36, -0.36)[i]
        shapes.append(fill("patches", box(x - 0.15, -0.12, x + 0.15, 0.18, 0.05)))
    if scene.part("cuffs"):
        cuff = [
            (inner - 0.04, bottom - 0.16),
            (spread + 0.01, bottom - 0.16),
            (spread + 0.04, bottom),
            (inner - 0.02, bottom),
        ]
        shapes += _both("cuffs", cuff, 0.03)
    shapes.append(fill("waistband", rounded([(-0.46, -0.94), (0.46, -0.94), (0.49, -0.68), (-0.49, -0.68)], 0.04)))
    return shapes


def draw_hoodie(scene: Scene) -> list[Shape]:
    """Draw a hoodie: a hood behind an open neck, long sleeves, perhaps cuffs and a front pocket."""
    sleeve = [
        (0.36, -0.56),
        (0.60, -0.46),
        (0.80, -0.05),
        (0.97, 0.70),
        (0.68, 0.76),
        (0.54, 0.1),
        (0.42, -0.1),
    ]
    shapes = _both("sleeves", sleeve, 0.08)
    if scene.part("cuffs"):
        shapes += _both("cuffs", [(0.66, 0.60), (0.96, 0.54), (0.99, 0.74), (0.70, 0.80)], 0.04)
    torso = [
        (-0.3, -0.6),
        (0.3, -0.6),
        (0.56, -0.5),
        (0.54, 0.0),
        (0.56, 0.92),
        (-0.56, 0.92),
        (-0.54, 0.0),
        (-0.56, -0.5),
    ]
    shapes.append(fill("body", rounded(torso, 0.08)))
    shapes.append(line("body", [(-0.55, 0.80), (0.55, 0.80)]))
    hood = [
        (0.0, -0.98),
        (0.36, -0.90),
        (0.46, -0.60),
        (0.30, -0.36),
        (0.0, -0.22),
        (-0.30, -0.36),
        (-0.46, -0.60),
        (-0.36, -0.90),
    ]
    shapes.append(fill("hood", rounded(hood, 0.2)))
    opening = disc(0.0, -0.64, 0.21, height=0.25)
    shapes += [shade("hood", opening), shade("hood", opening), shade("hood", opening)]
    shapes.append(line("hood", [*opening.tolist(), opening[0].tolist()]))
    if scene.part("pocket"):
        pocket = [(-0.24, 0.18), (0.24, 0.18), (0.38, 0.44), (0.38, 0.70), (-0.38, 0.70), (-0.38, 0.44)]
        shapes.append(fill("pocket", rounded(pocket, 0.04)))
    return shapes
