"""Queries that bind looks to parts: the right answer is one of 27 near misses, and the table says who finds it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
from benchmarks.binding.__main__ import main
from benchmarks.binding.measuring import Hits, table
from benchmarks.binding.scenes import ASSIGNMENTS, KINDS, BoundFamily, BoundQuery, sample_family, sample_query
from onnx_export.training.drawn.tokenizer import build_tokenizer


def drawn(count: int) -> list[tuple[BoundFamily, BoundQuery]]:
    rng = np.random.default_rng(3)
    families = [sample_family(rng) for _ in range(count)]
    return [(family, sample_query(family, rng)) for family in families]


def test_a_family_holds_every_assignment_of_its_looks_to_its_parts() -> None:
    for family, _ in drawn(20):
        scenes = {family.scene(assignment) for assignment in ASSIGNMENTS}
        assert len(scenes) == 27
        looks = {tuple((scene.part(name).color, scene.part(name).pattern) for name in family.parts) for scene in scenes}  # type: ignore[union-attr]
        assert len(looks) == 27


def test_a_query_changes_two_parts_or_one_and_leaves_the_third() -> None:
    found = drawn(200)
    assert {query.kind for _, query in found} == set(KINDS)
    for _, query in found:
        reference = ASSIGNMENTS[query.reference]
        for target in (ASSIGNMENTS[place] for place in query.targets):
            changed = sum(a != b for a, b in zip(reference, target, strict=True))
            assert changed == (1 if query.kind == "not this part" else 2)
        assert len(query.targets) == (2 if query.kind == "not this look" else 1)


def test_every_word_of_a_query_is_one_that_the_bundle_drawn_knows() -> None:
    words = build_tokenizer()
    for _, query in drawn(200):
        assert "[UNK]" not in words.encode(query.text).tokens, query.text


def test_the_gain_is_paired_and_over_catalogues() -> None:
    families, kinds = np.arange(4), ["bind"] * 4
    hits = {"both stages": np.array([100.0, 100, 100, 0]), "MaxSim over tokens": np.array([100.0, 0, 0, 0])}
    catalog = {name: Hits(values, families, kinds) for name, values in hits.items()}
    printed = table([catalog, catalog])
    assert "| both stages | 75.0 [" in printed
    assert "| 25.0, 25.0 | +50.0 [" in printed


def test_contestants_are_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--families", "8", "--catalog-families", "2", "--queries", "1"]
    main(["train", "--out", str(tmp_path), "--steps", "1", *sizes])
    main(["measure", "--out", str(tmp_path), *sizes])
    printed = capsys.readouterr().out
    for title in ("both stages", "stage one", "one vector of 1,024", "MaxSim over tokens", "text only", "image only"):
        assert f"\n| {title} | " in f"\n{printed}"
