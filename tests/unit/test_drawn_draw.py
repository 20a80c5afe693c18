"""A picture shows its scene, is the same for the same state, and never comes twice otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qdrant_cir.drawn.draw import draw_scene
from qdrant_cir.drawn.families import COLORS, FAMILIES
from qdrant_cir.drawn.scene import Part, Scene, sample_scene, with_part


def solid_mug(color: str, *, rim: str = "white") -> Scene:
    parts = (
        Part("body", color, "solid", None, "tall", 1),
        Part("handle", "grey", "solid", None, "small", 1),
        Part("rim", rim, "solid", None, "medium", 1),
    )
    return Scene("mug", parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_present_part_has_a_box_on_the_canvas(family: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        scene = sample_scene(rng, allow=lambda scene: scene.family == family)
        drawn = draw_scene(scene, rng, size=64)
        assert drawn.boxes.keys() == {part.name for part in scene.parts}
        for box in drawn.boxes.values():
            assert 0 <= box.left < box.right <= 1
            assert 0 <= box.top < box.bottom <= 1
            assert (box.right - box.left) * (box.bottom - box.top) > 0.002


@pytest.mark.parametrize("size", [64, 128, 256])
def test_pictures_are_square_rgb_of_the_size_asked(size: int) -> None:
    drawn = draw_scene(solid_mug("red"), np.random.default_rng(0), size=size)
    assert drawn.image.size == (size, size)
    assert drawn.image.mode == "RGB"


def test_the_same_state_gives_the_same_pixels_and_another_state_gives_others() -> None:
    scene = solid_mug("blue")
    first, again = (draw_scene(scene, np.random.default_rng(1), size=64) for _ in range(2))
    other = draw_scene(scene, np.random.default_rng(2), size=64)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.boxes == again.boxes
    assert first.image.tobytes() != other.image.tobytes()


def test_the_place_of_a_part_does_not_depend_on_the_picture_size() -> None:
    small = draw_scene(solid_mug("blue"), np.random.default_rng(3), size=64)
    large = draw_scene(solid_mug("blue"), np.random.default_rng(3), size=256)
    assert small.boxes == large.boxes


def test_recoloring_a_part_changes_pixels_in_its_box_only() -> None:
    scene = solid_mug("blue")
    rim = scene.part("rim")
    assert rim is not None
    drawn = draw_scene(scene, np.random.default_rng(4), size=128)
    recolored = draw_scene(with_part(scene, replace(rim, color="red")), np.random.default_rng(4), size=128)
    changed = np.abs(np.asarray(drawn.image, dtype=int) - np.asarray(recolored.image, dtype=int)).max(axis=2) > 3
    rows, columns = np.nonzero(changed)
    box = drawn.boxes["rim"]
    assert len(rows) > 100
    assert rows.min() >= box.top * 128 - 3
    assert rows.max() <= box.bottom * 128 + 3
    assert columns.min() >= box.left * 128 - 3
    assert columns.max() <= box.right * 128 + 3


@pytest.mark.parametrize("color", COLORS)
def test_a_solid_part_shows_its_color_in_every_light(color: str) -> None:
    names, values = list(COLORS), np.array(list(COLORS.values()), dtype=float)
    for seed in range(25):
        drawn = draw_scene(solid_mug(color), np.random.default_rng(seed), size=128)
        box = drawn.boxes["body"]
        pixels = np.asarray(drawn.image, dtype=float)
        row, column = int((box.top * 0.4 + box.bottom * 0.6) * 128), int((box.left + box.right) / 2 * 128)
        seen = pixels[row - 4 : row + 5, column - 4 : column + 5].reshape(-1, 3).mean(axis=0)
        far = np.linalg.norm(values[:, None] * np.linspace(0.76, 1.14, 9)[None, :, None] - seen, axis=2)
        nearest = int(far.min(axis=1).argmin())
        assert names[nearest] == color
