"""An edit changes what it names and nothing else; near-misses are near and never right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from qdrant_cir.drawn.edit import EDIT_KINDS, edit_between, hard_negatives, sample_edit
from qdrant_cir.drawn.scene import Part, Scene, distance, sample_scene
from qdrant_cir.drawn.steps import Step, apply_step, apply_steps

BODY = Part("body", "red", "dotted", "white", "medium", 1)
FLAP = Part("flap", "navy", "solid", None, "medium", 1)
STRAP = Part("strap", "brown", "solid", None, "short", 1)
BUTTONS = Part("buttons", "yellow", "solid", None, "medium", 2)
HANDBAG = Scene("handbag", (BODY, FLAP, STRAP, BUTTONS))


def test_a_swap_exchanges_two_base_colors_and_keeps_patterns() -> None:
    step = Step("swap", "body", BODY, Part("body", "navy", "dotted", "white", "medium", 1), "flap")
    swapped = apply_step(HANDBAG, step)
    assert swapped.part("body") == Part("body", "navy", "dotted", "white", "medium", 1)
    assert swapped.part("flap") == Part("flap", "red", "solid", None, "medium", 1)
    assert (swapped.part("strap"), swapped.part("buttons")) == (STRAP, BUTTONS)
    assert apply_step(swapped, step) == HANDBAG


def test_an_edit_changes_the_parts_it_names_and_no_other() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        scene = sample_scene(rng)
        edit = sample_edit(scene, rng, split="test")
        assert edit.reference == scene
        assert edit.target != scene
        assert edit.target == apply_steps(scene, edit.steps)
        if edit.kind == "recolour_all":
            continue
        named = {name for step in edit.steps for name in (step.part, step.other)}
        for slot in scene.spec.slots:
            assert slot.name in named or scene.part(slot.name) == edit.target.part(slot.name)


def test_recolouring_all_gives_every_part_one_base_color() -> None:
    rng = np.random.default_rng(1)
    edits = [sample_edit(sample_scene(rng), rng, split="test") for _ in range(1500)]
    of_all = [edit for edit in edits if edit.kind == "recolour_all"]
    assert len(of_all) > 10
    for edit in of_all:
        assert len({part.color for part in edit.target.parts}) == 1


def test_every_kind_occurs_and_two_edits_touch_different_parts() -> None:
    rng = np.random.default_rng(2)
    edits = [sample_edit(sample_scene(rng), rng, split="test") for _ in range(3000)]
    counts = Counter(edit.kind for edit in edits)
    assert set(counts) == set(EDIT_KINDS)
    assert min(counts.values()) >= 45
    for edit in edits:
        assert len(edit.steps) == (2 if edit.kind == "two" else 1)
        assert len({step.part for step in edit.steps}) == len(edit.steps)


def test_training_never_joins_a_swap_with_a_second_change_and_the_test_split_does() -> None:
    def joins_a_swap(split: str, seed: int) -> int:
        rng = np.random.default_rng(seed)
        drawn = [
            sample_edit(sample_scene(rng), rng, split="train" if split == "train" else "test") for _ in range(1500)
        ]
        return sum(edit.kind == "two" and any(step.kind == "swap" for step in edit.steps) for edit in drawn)

    assert joins_a_swap("train", 3) == 0
    assert joins_a_swap("test", 3) > 10


def test_hard_negatives_are_distinct_near_and_never_the_target() -> None:
    rng = np.random.default_rng(4)
    for _ in range(500):
        scene = sample_scene(rng)
        edit = sample_edit(scene, rng, split="test")
        negatives = hard_negatives(scene, edit, rng, n=12)
        assert len(set(negatives)) == 12
        assert negatives[0] == scene
        assert edit.target not in negatives
        reach = max(3, distance(scene, edit.target) + 1)
        assert all(distance(negative, edit.target) <= reach for negative in negatives)


def test_hard_negatives_hold_wrong_bindings_and_half_done_edits() -> None:
    after = Part("flap", "green", "solid", None, "medium", 1)
    edit = next(
        edit
        for edit in (sample_edit(HANDBAG, np.random.default_rng(seed), split="test") for seed in range(5000))
        if edit.steps == (Step("recolour", "flap", FLAP, after),)
    )
    negatives = hard_negatives(HANDBAG, edit, np.random.default_rng(0), n=25)
    strap_instead = Scene("handbag", (BODY, FLAP, Part("strap", "green", "solid", None, "short", 1), BUTTONS))
    assert strap_instead in negatives


def test_negatives_that_are_not_allowed_are_left_out() -> None:
    rng = np.random.default_rng(5)
    edit = sample_edit(HANDBAG, rng, split="train")
    negatives = hard_negatives(
        HANDBAG, edit, rng, n=8, allow=lambda scene: scene.parts[0].color == HANDBAG.parts[0].color
    )
    assert all(negative.parts[0].color == "red" for negative in negatives)


def test_the_edit_between_two_products_is_the_one_that_made_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        scene = sample_scene(rng)
        edit = sample_edit(scene, rng, split="train")
        found = edit_between(scene, edit.target)
        assert found is not None
        assert found.kind == edit.kind
        assert apply_steps(scene, found.steps) == edit.target


def test_there_is_no_edit_between_products_that_two_steps_do_not_make_of_each_other() -> None:
    green = replace(BODY, color="green")
    assert edit_between(HANDBAG, HANDBAG) is None
    assert edit_between(HANDBAG, Scene("mug", (BODY,))) is None
    assert edit_between(HANDBAG, Scene("handbag", (replace(green, pattern="striped"), FLAP, STRAP, BUTTONS))) is None
    long, many = replace(STRAP, size="long"), replace(BUTTONS, count=3)
    assert edit_between(HANDBAG, Scene("handbag", (green, FLAP, long, many))) is None
    two = edit_between(HANDBAG, Scene("handbag", (BODY, FLAP, long, many)))
    assert two is not None
    assert [step.kind for step in two.steps] == ["resize", "recount"]
