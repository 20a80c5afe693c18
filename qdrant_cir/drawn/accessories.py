"""Silhouettes of bags, shoes and things of the house, in painting order: what lies behind comes first."""

from __future__ import annotations

import numpy as np

from qdrant_cir.drawn.outlines import (
    Shape,
    box,
    disc,
    fill,
    heart,
    leaf,
    line,
    ribbon,
    rounded,
    shade,
    smooth,
    star,
)
from qdrant_cir.drawn.scene import Scene

__all__ = ["draw_backpack", "draw_handbag", "draw_hat", "draw_lamp", "draw_mug", "draw_sneaker"]


def _count(scene: Scene, name: str) -> int:
    part = scene.part(name)
    return 0 if part is None else part.count


def _size(scene: Scene, name: str) -> str:
    part = scene.part(name)
    return "" if part is None else part.size


def _row(count: int, pitch: float) -> list[float]:
    return [pitch * (i - (count - 1) / 2) for i in range(count)]


def draw_handbag(scene: Scene) -> list[Shape]:
    """Draw a handbag with a flap, buttons on it and a short or long strap."""
    top = -0.98 if _size(scene, "strap") == "long" else -0.52
    reach = 0.52 if top < -0.9 else 0.40
    strap = [
        (-0.52, 0.0),
        (-reach, (top + 0.1) * 0.8),
        (0.0, top + 0.07),
        (reach, (top + 0.1) * 0.8),
        (0.52, 0.0),
    ]
    shapes = [fill("strap", ribbon(strap, 0.14))]
    shapes.append(fill("body", rounded([(-0.66, -0.12), (0.66, -0.12), (0.86, 0.88), (-0.86, 0.88)], 0.14)))
    flap = [(-0.70, -0.16), (0.70, -0.16), (0.74, 0.22), (0.34, 0.46), (-0.34, 0.46), (-0.74, 0.22)]
    shapes.append(shade("body", rounded([(x, y + 0.05) for x, y in flap], 0.12)))
    shapes.append(fill("flap", rounded(flap, 0.12)))
    shapes += [fill("buttons", disc(x, 0.24, 0.085)) for x in _row(_count(scene, "buttons"), 0.32)]
    return shapes


def draw_backpack(scene: Scene) -> list[Shape]:
    """Draw a backpack with a flap on top, straps at both sides, perhaps badges and a front pocket."""
    right = [(0.34, -0.62), (0.78, -0.40), (0.84, 0.20), (0.52, 0.68)]
    left = [(-x, y) for x, y in right]
    handle = [(-0.20, -0.66), (-0.16, -0.90), (0.16, -0.90), (0.20, -0.66)]
    shapes = [fill("straps", ribbon(points, 0.15)) for points in (right, left)]
    shapes.append(fill("straps", ribbon(handle, 0.10)))
    shapes.append(
        fill(
            "body",
            rounded([(-0.52, -0.7), (0.52, -0.7), (0.62, 0.92), (-0.62, 0.92)], [0.3, 0.3, 0.16, 0.16]),
        )
    )
    if scene.part("pocket"):
        shapes.append(fill("pocket", box(-0.43, 0.32, 0.43, 0.82, 0.1)))
        shapes.append(line("pocket", [(-0.40, 0.44), (0.40, 0.44)]))
    flap = [(-0.52, -0.76), (0.52, -0.76), (0.60, -0.3), (0.46, -0.06), (-0.46, -0.06), (-0.60, -0.3)]
    shapes.append(shade("body", rounded([(x, y + 0.04) for x, y in flap], 0.18)))
    shapes.append(fill("flap", rounded(flap, [0.28, 0.28, 0.1, 0.18, 0.18, 0.1])))
    shapes += [fill("badges", disc(x, 0.13, 0.125)) for x in _row(_count(scene, "badges"), 0.36)]
    return shapes


def draw_sneaker(scene: Scene) -> list[Shape]:
    """Draw a sneaker from the side, toe to the right."""
    thick = _size(scene, "sole") == "thick"
    ground, floor = (0.34, 0.80) if thick else (0.34, 0.54)
    upper = np.concatenate(
        [
            smooth([(-0.90, 0.38), (-0.92, -0.1), (-0.86, -0.52)]),
            smooth([(-0.40, -0.46), (-0.28, -0.46), (-0.06, -0.52)]),
            smooth([(0.06, -0.50), (0.28, -0.18), (0.62, -0.04), (0.88, 0.12), (0.93, 0.38)]),
        ]
    )
    shapes = [fill("body", upper)]
    opening = smooth([(-0.80, -0.50), (-0.62, -0.34), (-0.40, -0.32), (-0.16, -0.38), (-0.02, -0.50)])
    shapes += [shade("body", opening), shade("body", opening)]
    heel = np.concatenate(
        [
            smooth([(-0.91, 0.38), (-0.93, -0.1), (-0.87, -0.54)]),
            smooth([(-0.66, -0.44), (-0.58, 0.0), (-0.62, 0.38)]),
        ]
    )
    shapes.append(fill("heel", heel))
    toe = np.concatenate(
        [
            smooth([(0.52, 0.38), (0.50, 0.12), (0.60, -0.05)]),
            smooth([(0.64, -0.03), (0.88, 0.12), (0.94, 0.38)]),
        ]
    )
    shapes.append(fill("toe", toe))
    shapes += [fill("stars", star(x - 0.08, 0.10, 0.17)) for x in _row(_count(scene, "stars"), 0.36)]
    for i in range(3):
        x, y = 0.10 + 0.12 * i, -0.40 + 0.12 * i
        shapes.append(fill("laces", ribbon([(x - 0.13, y + 0.10), (x + 0.07, y - 0.02)], 0.05)))
    shapes.append(fill("sole", rounded([(-0.97, ground), (0.98, ground), (0.97, floor), (-0.94, floor)], 0.12)))
    return shapes


def draw_mug(scene: Scene) -> list[Shape]:
    """Draw a mug, its handle to the right, perhaps with hearts on it."""
    tall, large = _size(scene, "body") == "tall", _size(scene, "handle") == "large"
    top, bottom = (-0.80, 0.92) if tall else (-0.30, 0.80)
    middle, reach, rise = (top + bottom) / 2 + 0.04, (0.94 if large else 0.70), (0.44 if large else 0.25)
    handle = [
        (0.40, middle - rise),
        (reach - 0.14, middle - rise),
        (reach - 0.04, middle),
        (reach - 0.14, middle + rise),
        (0.38, middle + rise),
    ]
    shapes = [fill("handle", ribbon([(x - 0.02, y) for x, y in handle], 0.15))]
    body = [(-0.62, top), (0.48, top), (0.46, bottom), (-0.60, bottom)]
    shapes.append(fill("body", rounded(body, [0.02, 0.02, 0.16, 0.16])))
    shapes.append(
        shade(
            "body",
            rounded([(0.30, top), (0.48, top), (0.46, bottom), (0.28, bottom)], [0.02, 0.02, 0.16, 0.1]),
        )
    )
    rim = disc(-0.07, top, 0.57, height=0.19, steps=32)
    inside = disc(-0.07, top + 0.01, 0.43, height=0.105, steps=32)
    shapes += [fill("rim", rim), shade("rim", inside), shade("rim", inside), shade("rim", inside)]
    shapes += [fill("hearts", heart(x - 0.07, middle + 0.04, 0.155)) for x in _row(_count(scene, "hearts"), 0.36)]
    return shapes


def draw_lamp(scene: Scene) -> list[Shape]:
    """Draw a table lamp, perhaps with tassels under its shade."""
    large, thick = _size(scene, "shade") == "large", _size(scene, "stem") == "thick"
    top, upper, lower = (-0.95, 0.44, 0.90) if large else (-0.66, 0.28, 0.56)
    half = 0.17 if thick else 0.065
    shapes = [
        fill(
            "base",
            rounded([(-0.36, 0.62), (0.36, 0.62), (0.56, 0.95), (-0.56, 0.95)], [0.1, 0.1, 0.08, 0.08]),
        )
    ]
    shapes.append(fill("stem", rounded([(-half, -0.2), (half, -0.2), (half * 1.15, 0.66), (-half * 1.15, 0.66)], 0.02)))
    outer = 0.72 if large else 0.44
    inner = 0.42 if large else 0.27
    for x in (-outer, outer, -inner, inner)[: _count(scene, "tassels")]:
        tassel = [(x - 0.03, -0.05), (x + 0.03, -0.05), (x + 0.075, 0.28), (x - 0.075, 0.28)]
        shapes.append(fill("tassels", rounded(tassel, 0.02)))
    shapes.append(fill("shade", rounded([(-upper, top), (upper, top), (lower, 0.0), (-lower, 0.0)], 0.04)))
    fold = [(upper * 0.5, top), (upper, top), (lower, 0.0), (lower * 0.5, 0.0)]
    shapes.append(shade("shade", rounded(fold, 0.04)))
    return shapes


def draw_hat(scene: Scene) -> list[Shape]:
    """Draw a hat with a brim, perhaps with a band and feathers in it."""
    top = -0.80 if _size(scene, "crown") == "tall" else -0.22
    half = 0.96 if _size(scene, "brim") == "wide" else 0.64
    shapes = []
    for i in range(_count(scene, "feathers")):
        shapes.append(fill("feathers", leaf(0.36, 0.34, (0.62, 0.84, 0.97)[i], (-0.62, -0.38, -0.06)[i], 0.22)))
    shapes.append(fill("brim", disc(0.0, 0.46, half, height=0.24, steps=40)))
    crown = [
        (-0.40, top),
        (-0.12, top + 0.08),
        (0.12, top + 0.08),
        (0.40, top),
        (0.50, 0.44),
        (0.3, 0.53),
        (-0.3, 0.53),
        (-0.50, 0.44),
    ]
    shapes.append(fill("crown", rounded(crown, [0.14, 0.1, 0.1, 0.14, 0.08, 0.1, 0.1, 0.08])))
    if scene.part("band"):
        band = [(-0.485, 0.20), (0.0, 0.27), (0.485, 0.20), (0.505, 0.43), (0.0, 0.53), (-0.505, 0.43)]
        shapes.append(fill("band", rounded(band, [0.02, 0.3, 0.02, 0.02, 0.3, 0.02])))
    return shapes
