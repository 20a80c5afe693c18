"""Draw a data set that no packaged model knows: shapes on a grid, in families of near-duplicates, for ``train own``.

A scene has three to five different shapes in different colours on a grid of three by three. Its family are eight scenes
that differ from it by one change each, so that the answer to a query stands among seven near-duplicates and the
reference. Nearly a third of the words of the texts is unknown to the bundle `drawn`.

Writes PNG files into ``OUT/images`` and ``OUT/queries.jsonl``, as ``train own --data own`` and ``evaluate own`` read
them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "scarlet": (200, 30, 40),
    "amber": (240, 170, 20),
    "lime": (140, 210, 40),
    "emerald": (20, 130, 80),
    "cyan": (60, 200, 220),
    "indigo": (60, 50, 160),
    "magenta": (210, 50, 170),
    "graphite": (70, 70, 75),
}
SHAPES = ("disc", "square", "triangle", "pentagon", "hexagon", "rhombus", "cross", "crescent")
CELLS = tuple(
    f"{row} {column}".replace("middle middle", "middle")
    for row in ("top", "middle", "bottom")
    for column in ("left", "middle", "right")
)
FAMILY = 8
_SIDE, _SCALE = 160, 3
_SIDES = {"triangle": 3, "rhombus": 4, "pentagon": 5, "hexagon": 6}


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape in one colour."""

    shape: str
    colour: str


Scene = tuple[Thing | None, ...]
"""What is in each of the nine cells."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene whose shapes and colours all differ."""
    count = int(rng.integers(3, 6))
    cells = rng.choice(len(CELLS), count, replace=False).tolist()
    shapes, colours = rng.permutation(SHAPES)[:count].tolist(), rng.permutation(list(COLOURS))[:count].tolist()
    things = dict(zip(cells, map(Thing, shapes, colours), strict=True))
    return tuple(things.get(cell) for cell in range(len(CELLS)))


def change_scene(scene: Scene, rng: np.random.Generator) -> tuple[Scene, str]:
    """Change one thing; returns the scene and the text that asks for it."""
    filled = [cell for cell, thing in enumerate(scene) if thing is not None]
    empty = [cell for cell, thing in enumerate(scene) if thing is None]
    present = [thing for thing in scene if thing is not None]
    cell = int(rng.choice(filled))
    thing = scene[cell]
    assert thing is not None
    colour = str(rng.choice([name for name in COLOURS if name not in {other.colour for other in present}]))
    shape = str(rng.choice([name for name in SHAPES if name not in {other.shape for other in present}]))
    place = int(rng.choice(empty))
    after = list(scene)

    def worded(*texts: str) -> str:
        return texts[int(rng.integers(len(texts)))]

    kind = str(rng.choice(("colour", "shape", "place", "added", "removed"), p=(0.3, 0.25, 0.25, 0.12, 0.08)))
    if kind == "colour":
        after[cell] = Thing(thing.shape, colour)
        text = worded(f"the {thing.shape} in {colour}", f"make the {thing.shape} {colour}", f"{colour} {thing.shape}")
    elif kind == "shape":
        after[cell] = Thing(shape, thing.colour)
        text = worded(f"a {shape} instead of the {thing.shape}", f"replace the {thing.shape} with a {shape}")
    elif kind == "place":
        after[cell], after[place] = None, thing
        text = worded(f"the {thing.shape} at the {CELLS[place]}", f"move the {thing.shape} to the {CELLS[place]}")
    elif kind == "added":
        after[place] = Thing(shape, colour)
        text = worded(f"with a {colour} {shape} at the {CELLS[place]}", f"add a {colour} {shape}, {CELLS[place]}")
    else:
        after[cell] = None
        text = worded(f"without the {thing.shape}", f"no {thing.shape}")
    return tuple(after), text


def picture(scene: Scene) -> Image.Image:
    """Draw a scene."""
    side = _SIDE * _SCALE
    image = Image.new("RGB", (side, side), (244, 242, 238))
    pen = ImageDraw.Draw(image)
    step = side / 3
    for line in range(4):
        at = min(round(line * step), side - 1)
        pen.line((at, 0, at, side), (205, 203, 200), 2 * _SCALE)
        pen.line((0, at, side, at), (205, 203, 200), 2 * _SCALE)
    for cell, thing in enumerate(scene):
        if thing is not None:
            _draw(pen, thing, (cell % 3 + 0.5) * step, (cell // 3 + 0.5) * step, 0.36 * step)
    return image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, x: float, y: float, radius: float) -> None:
    fill = COLOURS[thing.colour]
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape in _SIDES:
        sides = _SIDES[thing.shape]
        angles = [2 * math.pi * corner / sides - math.pi / 2 for corner in range(sides)]
        pen.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], fill)
    elif thing.shape == "square":
        pen.rectangle((x - 0.8 * radius, y - 0.8 * radius, x + 0.8 * radius, y + 0.8 * radius), fill)
    elif thing.shape == "cross":
        pen.rectangle((x - radius, y - 0.3 * radius, x + radius, y + 0.3 * radius), fill)
        pen.rectangle((x - 0.3 * radius, y - radius, x + 0.3 * radius, y + radius), fill)
    else:
        pen.ellipse(box, fill)
        if thing.shape == "crescent":
            pen.ellipse((box[0] + 0.7 * radius, box[1], box[2] + 0.7 * radius, box[3]), (244, 242, 238))


def families(count: int, seed: int) -> Iterator[tuple[Scene, dict[Scene, str]]]:
    """Draw families: a scene, and each changed scene with the text that leads to it."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scene = draw_scene(rng)
        changed: dict[Scene, str] = {}
        while len(changed) < FAMILY:
            after, text = change_scene(scene, rng)
            changed.setdefault(after, text)
        yield scene, changed


def main() -> None:
    """Write a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", type=int, default=500, help="each gives eight triplets")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    images = given.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (scene, changed) in enumerate(families(given.families, given.seed)):
        reference = f"g{number:05}_0.png"
        picture(scene).save(images / reference)
        for place, (after, text) in enumerate(changed.items(), start=1):
            name = f"g{number:05}_{place}.png"
            picture(after).save(images / name)
            lines.append({"reference": f"images/{reference}", "modification_text": text, "targets": [f"images/{name}"]})
    (given.out / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{given.families * (FAMILY + 1)} pictures, {len(lines)} triplets in {given.out}")


if __name__ == "__main__":
    main()
