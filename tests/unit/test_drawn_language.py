"""Texts keep to a closed vocabulary, name what changes, and statements are as true as they say."""

from __future__ import annotations

import re

import numpy as np

from qdrant_cir.drawn.edit import sample_edit
from qdrant_cir.drawn.language import describe_edit, describe_scene, statement, vocabulary
from qdrant_cir.drawn.scene import Scene, sample_scene
from qdrant_cir.drawn.templates import LEAD_INS, TAILS, TRAIN
from qdrant_cir.drawn.unseen_templates import TEST_ONLY
from qdrant_cir.drawn.wording import COLOR_WORDS, COUNT_WORDS, SIZE_WORDS


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+|[^\sa-z\d]", text)


def holds(text: str, phrases: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{phrase}\b", text) for phrase in phrases)


def scenes(seed: int, count: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(count)]


def test_all_texts_are_lower_case_and_use_listed_words_only() -> None:
    listed, rng = set(vocabulary()), np.random.default_rng(0)
    assert len(listed) <= 350
    for scene in scenes(0, 4000):
        edit = sample_edit(scene, rng, split="test")
        texts = [
            describe_edit(edit, rng, split="train"),
            describe_edit(edit, rng, split="test"),
            describe_scene(scene, rng),
            statement(scene, rng).text,
        ]
        for text in texts:
            assert text == text.lower().strip()
            assert "  " not in text
            assert "{" not in text
            assert set(words_of(text)) <= listed, text


def test_no_template_is_both_seen_and_unseen_and_unseen_ones_use_seen_words() -> None:
    def bare(template: str) -> set[str]:
        return set(words_of(re.sub(r"\{\w*\}", " ", template)))

    seen = [t for forms in TRAIN.values() for group in forms.values() for t in group]
    seen_words = set().union(*(bare(t) for t in [*seen, *TAILS, *(t for g in LEAD_INS.values() for t in g)]))
    assert TEST_ONLY.keys() == TRAIN.keys()
    for key, forms in TEST_ONLY.items():
        for form, group in forms.items():
            assert not set(group) & set(TRAIN[key][form])
            assert set().union(*(bare(t) for t in group)) <= seen_words


def test_one_edit_can_be_said_in_many_ways() -> None:
    rng = np.random.default_rng(1)
    edit = sample_edit(sample_scene(rng), rng, split="train")
    assert len({describe_edit(edit, rng, split="train") for _ in range(200)}) >= 60


def test_a_recoloring_names_the_new_color() -> None:
    rng = np.random.default_rng(2)
    for scene in scenes(2, 3000):
        edit = sample_edit(scene, rng, split="test")
        if edit.kind not in ("recolour", "recolour_all"):
            continue
        after = edit.steps[0].after
        assert after is not None
        assert holds(describe_edit(edit, rng, split="test"), COLOR_WORDS[after.color])


def test_an_added_part_is_described_in_full() -> None:
    rng = np.random.default_rng(3)
    for scene in scenes(3, 3000):
        edit = sample_edit(scene, rng, split="test")
        after = edit.steps[0].after
        if edit.kind != "add" or after is None:
            continue
        text = describe_edit(edit, rng, split="test")
        assert holds(text, COLOR_WORDS[after.color])
        assert after.pattern_color is None or holds(text, COLOR_WORDS[after.pattern_color])
        assert len(scene.spec.slot(after.name).counts) == 1 or holds(text, COUNT_WORDS[after.count])


def test_half_of_the_statements_are_true() -> None:
    rng = np.random.default_rng(4)
    truths = [statement(scene, rng).is_true for scene in scenes(4, 4000)]
    assert 0.46 < sum(truths) / len(truths) < 0.54


def test_statements_are_true_exactly_when_they_say_what_the_scene_has() -> None:
    rng = np.random.default_rng(5)
    checked = 0
    for scene in scenes(5, 6000):
        said = statement(scene, rng)
        part = scene.part(said.part)
        if said.attribute == "present":
            assert (" no " in f" {said.text} ") == (said.is_true == (part is None))
            continue
        assert part is not None
        if said.attribute == "count":
            assert holds(said.text, COUNT_WORDS[part.count]) == said.is_true
        elif said.attribute == "size":
            assert holds(said.text, SIZE_WORDS[part.size]) == said.is_true
        elif said.attribute == "color" and part.pattern_color is None and said.is_true:
            assert holds(said.text, COLOR_WORDS[part.color])
        checked += 1
    assert checked > 3000


def test_false_color_statements_mostly_borrow_from_the_same_picture() -> None:
    rng = np.random.default_rng(6)
    borrowed = total = 0
    for scene in scenes(6, 4000):
        said = statement(scene, rng)
        if said.is_true or said.attribute != "color":
            continue
        total += 1
        borrowed += any(holds(said.text, COLOR_WORDS[part.color]) for part in scene.parts if part.name != said.part)
    assert borrowed / total > 0.6
