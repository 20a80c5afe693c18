"""The scene is the whole truth: equality of scenes and of attributes is the same thing."""

from __future__ import annotations

import numpy as np
import pytest

from qdrant_cir.drawn.families import COLORS, FAMILIES
from qdrant_cir.drawn.scene import (
    Part,
    Scene,
    attributes,
    contrasting_colors,
    distance,
    sample_scene,
    with_part,
    without_part,
)
from qdrant_cir.drawn.steps import STEP_KINDS, apply_step, sample_step
from qdrant_cir.errors import InputError

BODY = Part("body", "red", "solid", None, "medium", 1)
HANDLE = Part("handle", "blue", "solid", None, "small", 1)
RIM = Part("rim", "white", "solid", None, "medium", 1)


def mug(*, body_color: str = "red", hearts: int = 0) -> Scene:
    parts = [Part("body", body_color, "solid", None, "tall", 1), HANDLE, RIM]
    if hearts:
        parts.append(Part("hearts", "black", "solid", None, "medium", hearts))
    return Scene("mug", tuple(parts))


def test_attributes_of_a_mug_are_what_a_person_would_list() -> None:
    assert attributes(mug(hearts=2)) == {
        "family": "mug",
        "body.color": "red",
        "body.pattern": "solid",
        "body.pattern_color": "none",
        "body.size": "tall",
        "handle.color": "blue",
        "handle.size": "small",
        "rim.color": "white",
        "hearts.present": "yes",
        "hearts.color": "black",
        "hearts.count": "2",
    }


def test_an_absent_part_has_the_same_keys() -> None:
    present, absent = attributes(mug(hearts=2)), attributes(mug())
    assert absent.keys() == present.keys()
    assert (absent["hearts.present"], absent["hearts.color"], absent["hearts.count"]) == (
        "no",
        "none",
        "none",
    )


def test_all_scenes_of_a_family_have_the_same_attribute_keys() -> None:
    rng = np.random.default_rng(0)
    keys: dict[str, set[tuple[str, ...]]] = {}
    for _ in range(2000):
        scene = sample_scene(rng)
        keys.setdefault(scene.family, set()).add(tuple(attributes(scene)))
    assert keys.keys() == FAMILIES.keys()
    assert all(len(found) == 1 for found in keys.values())


def test_scenes_are_equal_exactly_when_their_attributes_are() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        scene = sample_scene(rng)
        for kind in STEP_KINDS:
            step = sample_step(scene, rng, kind=kind)
            if step is None:
                continue
            other = apply_step(scene, step)
            assert (other == scene) == (attributes(other) == attributes(scene))
            assert (other == scene) == (distance(other, scene) == 0)


def test_sampled_parts_keep_to_their_slots_and_patterns_stand_out() -> None:
    rng = np.random.default_rng(2)
    for _ in range(2000):
        scene = sample_scene(rng)
        for part in scene.parts:
            slot = scene.spec.slot(part.name)
            assert part.pattern in slot.patterns
            assert part.size in slot.sizes
            assert part.count in slot.counts
            assert (part.pattern == "solid") == (part.pattern_color is None)
            assert part.pattern_color is None or part.pattern_color in contrasting_colors(part.color)
        required = {slot.name for slot in scene.spec.slots if not slot.is_optional}
        assert required <= {part.name for part in scene.parts}


def test_every_color_has_contrasting_ones_and_contrast_is_symmetric() -> None:
    for color in COLORS:
        assert len(contrasting_colors(color)) >= 4
        assert all(color in contrasting_colors(other) for other in contrasting_colors(color))


def test_the_same_seed_gives_the_same_scene() -> None:
    assert sample_scene(np.random.default_rng(5)) == sample_scene(np.random.default_rng(5))


def test_scenes_that_are_not_allowed_are_never_drawn() -> None:
    rng = np.random.default_rng(3)
    drawn = [sample_scene(rng, allow=lambda scene: scene.family != "hat") for _ in range(300)]
    assert all(scene.family != "hat" for scene in drawn)


def test_putting_a_part_back_restores_the_scene() -> None:
    scene = mug(hearts=3)
    hearts = scene.part("hearts")
    assert hearts is not None
    assert without_part(scene, "hearts") == mug()
    assert with_part(without_part(scene, "hearts"), hearts) == scene


def test_distance_counts_attributes_and_an_absent_part_once() -> None:
    assert distance(mug(), mug(body_color="pink")) == 1
    assert distance(mug(), mug(hearts=3)) == 1
    assert distance(mug(hearts=1), mug(body_color="pink", hearts=3)) == 2


def test_distance_between_families_is_refused() -> None:
    hat = sample_scene(np.random.default_rng(0), allow=lambda scene: scene.family == "hat")
    with pytest.raises(InputError, match="one family"):
        distance(mug(), hat)
