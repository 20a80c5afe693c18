"""Queries that bind looks to parts: the right answers are among 27 near misses, and the table says who finds them."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
from benchmarks.binding.__main__ import main
from benchmarks.binding.measuring import Hits, table
from benchmarks.binding.pictures import SMALLEST, draw_anywhere
from benchmarks.binding.scenes import (
    ASSIGNMENTS,
    SCHEMES,
    TASKS,
    BoundFamily,
    BoundQuery,
    sample_family,
    sample_query,
    scheme_of,
)
from onnx_export.training.drawn.tokenizer import build_tokenizer


def drawn(count: int, task: str = "named") -> list[tuple[BoundFamily, BoundQuery]]:
    rng = np.random.default_rng(3)
    families = [sample_family(rng) for _ in range(count)]
    return [(family, sample_query(family, task, rng)) for family in families]


def test_a_family_holds_every_assignment_of_its_looks_to_its_parts() -> None:
    for family, _ in drawn(20):
        scenes = {family.scene(assignment) for assignment in ASSIGNMENTS}
        assert len(scenes) == 27
        looks = {tuple((scene.part(name).color, scene.part(name).pattern) for name in family.parts) for scene in scenes}  # type: ignore[union-attr]
        assert len(looks) == 27


def test_a_named_query_changes_two_parts_or_one_and_leaves_the_third() -> None:
    found = drawn(200)
    assert {query.kind for _, query in found} == set(TASKS["named"])
    for _, query in found:
        reference = ASSIGNMENTS[query.reference]
        for target in (ASSIGNMENTS[place] for place in query.targets):
            changed = sum(a != b for a, b in zip(reference, target, strict=True))
            assert changed == (1 if query.kind == "not this part" else 2)
        assert len(query.targets) == (2 if query.kind == "not this look" else 1)


def test_answers_of_a_query_for_parts_that_are_alike_are_all_pictures_with_that_scheme() -> None:
    found = drawn(300, "alike")
    assert {query.kind for _, query in found} == set(TASKS["alike"])
    for _, query in found:
        schemes = {scheme_of(ASSIGNMENTS[place]) for place in query.targets}
        assert len(schemes) == 1
        fitting = [place for place, assignment in enumerate(ASSIGNMENTS) if scheme_of(assignment) in schemes]
        assert len(fitting) == (3 if schemes == {(0, 0, 0)} else 6)
        assert set(query.targets) <= set(fitting)
        if query.kind.startswith("bind"):
            assert len(query.targets) == len(fitting) / 3
        else:
            assert list(query.targets) == fitting
        if "as here" in query.kind:
            assert schemes == {SCHEMES[query.reference]}


def test_a_reference_of_the_task_alike_has_no_look_of_its_family() -> None:
    for family, _ in drawn(50, "alike"):
        named = {look.color for look in family.looks}
        for scheme in SCHEMES:
            scene = family.reference(scheme)
            assert not named & {part.color for part in scene.parts if part.name in family.parts}


@pytest.mark.parametrize("task", TASKS)
def test_every_word_of_a_query_is_one_that_the_bundle_drawn_knows(task: str) -> None:
    words = build_tokenizer()
    for _, query in drawn(200, task):
        assert "[UNK]" not in words.encode(query.text).tokens, query.text


@pytest.mark.parametrize("task", TASKS)
def test_families_queries_and_pictures_follow_from_the_seed(task: str) -> None:
    assert drawn(20, task) == drawn(20, task)
    scene = drawn(1)[0][0].scene((0, 1, 2))
    pictures = [draw_anywhere(scene, np.random.default_rng(seed), size=64).tobytes() for seed in (1, 1, 2)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_product_stands_anywhere() -> None:
    scene, size = drawn(1)[0][0].scene((0, 1, 2)), 64
    corners = set()
    for seed in range(40):
        # the board is one colour; what differs from it is the product's own picture
        picture = np.asarray(draw_anywhere(scene, np.random.default_rng(seed), size=size)).astype(int)
        rows, columns = (
            np.flatnonzero((picture != np.median(picture[[0, -1]], axis=(0, 1))).any(axis=(axis, 2))) for axis in (1, 0)
        )
        corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 10
    assert max(max(corner) for corner in corners) <= round(size * (1 - SMALLEST))


def test_the_gain_is_paired_and_over_catalogues() -> None:
    families, kinds = np.arange(4), ("bind",) * 4
    hits = {"both stages": np.array([100.0, 100, 100, 0]), "MaxSim over tokens": np.array([100.0, 0, 0, 0])}
    catalog = {name: Hits(values, values[::-1], families, kinds) for name, values in hits.items()}
    printed = table([catalog, catalog])
    assert "| both stages | 75.0 [" in printed
    assert "| 25.0, 25.0 | +50.0 [" in printed


def test_contestants_are_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--out", str(tmp_path), "--families", "8", "--catalog-families", "2", "--queries", "1"]
    main(["train", "--task", "named", "--run", "first", "--steps", "1", *where])
    main(["train", "--task", "alike", "--run", "second", "--after", "first", "--steps", "1", *where])
    main(["measure", "--task", "alike", "--run", "second", "--seeds", "5", *where])
    printed = capsys.readouterr().out
    for title in ("both stages", "stage one", "one vector of 1,024", "MaxSim over tokens", "text only", "image only"):
        assert f"\n| {title} | " in f"\n{printed}"
