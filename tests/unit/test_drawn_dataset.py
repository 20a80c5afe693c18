"""Galleries hold every right answer and enough wrong ones; pictures depend on seed and index alone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from qdrant_cir.cli.catalog import catalog_app
from qdrant_cir.drawn import files
from qdrant_cir.drawn.dataset import (
    DrawnCatalog,
    draw_item,
    is_held_out,
    sample_drawn,
    sample_training_edit,
    sample_training_scene,
)
from qdrant_cir.drawn.edit import sample_edit
from qdrant_cir.drawn.files import GALLERY_COLUMNS, write_drawn
from qdrant_cir.drawn.near_misses import NEAR_MISS_KINDS, NearMissKind, near_miss_kind
from qdrant_cir.drawn.scene import Scene, attributes, distance, sample_scene
from qdrant_cir.errors import InputError


@pytest.fixture(scope="module")
def catalog() -> DrawnCatalog:
    return sample_drawn(3, products=400, queries=24)


@pytest.fixture(scope="module")
def large_catalog() -> DrawnCatalog:
    return sample_drawn(0, products=2000, queries=120)


def test_a_catalog_has_exactly_the_products_and_queries_asked_for(catalog: DrawnCatalog) -> None:
    assert len(catalog.items) == 400
    assert len({item.image_id for item in catalog.items}) == 400
    assert len(catalog.queries) == 24
    assert len({query.query_id for query in catalog.queries}) == 24


def test_targets_are_all_items_that_equal_one_another_in_every_attribute(catalog: DrawnCatalog) -> None:
    flat = {item.image_id: attributes(item.scene) for item in catalog.items}
    for query in catalog.queries:
        assert query.target_ids
        assert query.reference_id not in query.target_ids
        wanted = flat[query.target_ids[0]]
        assert {image_id for image_id, found in flat.items() if found == wanted} == set(query.target_ids)


@pytest.mark.parametrize(("products", "queries"), [(400, 24), (60, 3), (500, 100), (250, 41)])
def test_every_query_has_ten_near_misses_in_the_gallery_and_its_reference_is_one(products: int, queries: int) -> None:
    drawn = sample_drawn(5, products=products, queries=queries)
    counts = drawn.count_near_misses()
    assert min(count.total() for count in counts) >= 10
    for query, count in zip(drawn.queries, counts, strict=True):
        assert count["reference"] >= 1
        assert count["edit right, rest wrong"] >= 1
        # of two sizes the wrong one is the reference's, and so with what is there or is not
        if query.kind not in ("resize", "recount", "remove", "two"):
            assert count["one attribute off"] >= 1


def changes(before: Scene, after: Scene) -> dict[str, str]:
    """Give the attributes in which two scenes of one family differ, with their values in the second."""
    old = attributes(before)
    return {key: value for key, value in attributes(after).items() if value != old[key]}


def test_near_misses_are_what_their_kinds_say(catalog: DrawnCatalog) -> None:
    scenes = {item.image_id: item.scene for item in catalog.items}
    seen = dict.fromkeys(NEAR_MISS_KINDS, 0)
    for query, counts in zip(catalog.queries, catalog.count_near_misses(), strict=True):
        reference, target = scenes[query.reference_id], scenes[query.drawn_target_id]
        asked = changes(reference, target)
        counted: Counter[NearMissKind] = Counter()
        for scene in scenes.values():
            kind = near_miss_kind(scene, reference=reference, target=target)
            if kind is None:
                continue
            counted[kind] += 1
            done = changes(reference, scene)
            if kind == "reference":
                assert not done
            elif kind == "edit right, rest wrong":
                assert asked.items() < done.items()
            else:
                assert not asked.items() <= done.items()
            if kind == "binding swapped":
                parts = {key.split(".")[0] for key in asked}
                assert not parts & {key.split(".")[0] for key in done}
                assert {key.split(".")[1] for key in done} & {key.split(".")[1] for key in asked}
            if kind == "one attribute off":
                assert distance(scene, target) == 1
        for kind in counted:
            seen[kind] += counted[kind]
        assert counted == counts
    assert all(seen.values())


def test_a_binding_is_swapped_in_the_gallery_wherever_the_product_has_a_part_that_takes_it(
    catalog: DrawnCatalog,
) -> None:
    scenes = {item.image_id: item.scene for item in catalog.items}
    for query, count in zip(catalog.queries, catalog.count_near_misses(), strict=True):
        if count["binding swapped"] or query.kind in ("two", "swap"):
            continue
        reference, target = scenes[query.reference_id], scenes[query.drawn_target_id]
        for seed in range(300):
            other = sample_edit(reference, np.random.default_rng(seed), split="test").target
            assert near_miss_kind(other, reference=reference, target=target) != "binding swapped"


def test_some_queries_have_several_targets(large_catalog: DrawnCatalog) -> None:
    assert sum(len(query.target_ids) > 1 for query in large_catalog.queries) >= 5


def test_the_same_seed_gives_the_same_catalog_and_another_seed_another(catalog: DrawnCatalog) -> None:
    assert sample_drawn(3, products=400, queries=24) == catalog
    assert sample_drawn(4, products=400, queries=24).items != catalog.items


def test_too_few_products_are_refused_with_what_would_fit() -> None:
    with pytest.raises(InputError, match=r"14 products are too few for 30 queries .*; 135 are enough"):
        sample_drawn(0, products=14, queries=30)
    assert len(sample_drawn(0, products=135, queries=30).queries) == 30
    with pytest.raises(InputError, match="at least one product"):
        sample_drawn(0, products=10, queries=0)


def test_an_item_is_drawn_the_same_whatever_was_drawn_before(catalog: DrawnCatalog) -> None:
    alone = draw_item(catalog, 7, size=64).image.tobytes()
    draw_item(catalog, 1, size=64)
    assert draw_item(catalog, 7, size=64).image.tobytes() == alone


def test_two_renderings_of_one_scene_differ_in_pixels(large_catalog: DrawnCatalog) -> None:
    query = next(query for query in large_catalog.queries if len(query.target_ids) > 1)
    index_of = {item.image_id: index for index, item in enumerate(large_catalog.items)}
    first, second = (draw_item(large_catalog, index_of[image_id], size=64) for image_id in query.target_ids[:2])
    assert first.image.tobytes() != second.image.tobytes()


def test_training_never_shows_what_is_held_out_and_the_test_split_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        triplet = sample_training_edit(rng, negatives=4)
        shown = [triplet.reference, triplet.edit.target, *triplet.negatives]
        assert not any(is_held_out(scene) for scene in shown)
        assert triplet.edit.target not in triplet.negatives
        assert len(triplet.negatives) == 4
        assert triplet.text
    assert not any(is_held_out(sample_training_scene(rng)) for _ in range(200))
    share = sum(is_held_out(sample_scene(rng)) for _ in range(4000)) / 4000
    assert 0.05 < share < 0.17


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    drawn = sample_drawn(1, products=40, queries=2)
    seen: list[tuple[int, int]] = []
    write_drawn(drawn, tmp_path, size=64, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
    with (tmp_path / "gallery.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == GALLERY_COLUMNS
    assert [row["image_id"] for row in rows] == [item.image_id for item in drawn.items]
    for row, item in zip(rows, drawn.items, strict=True):
        assert (row["family"], row["color"]) == (item.scene.family, item.scene.parts[0].color)
        low, high = item.scene.spec.prices
        assert low <= float(row["price"]) <= high
        with Image.open(tmp_path / row["file"]) as image:
            assert image.size == (64, 64)
    lines = (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines]
    assert [tuple(query["targets"]) for query in queries] == [query.target_ids for query in drawn.queries]
    assert set(queries[0]) == {"query_id", "reference", "modification_text", "targets", "kind", "combination"}


def test_the_same_queries_are_written_in_fashioniqs_layout_with_two_captions_over_the_same_pictures(
    tmp_path: Path,
) -> None:
    drawn = sample_drawn(1, products=120, queries=16)
    write_drawn(drawn, tmp_path, size=16)
    family_of = {item.image_id: item.scene.family for item in drawn.items}
    families = sorted({family_of[query.reference_id] for query in drawn.queries})
    assert sorted(path.name for path in (tmp_path / "captions").iterdir()) == [f"cap.{f}.val.json" for f in families]
    written = []
    for family in families:
        entries = json.loads((tmp_path / "captions" / f"cap.{family}.val.json").read_text())
        gallery = json.loads((tmp_path / "image_splits" / f"split.{family}.val.json").read_text())
        assert gallery == [image_id for image_id, found in family_of.items() if found == family]
        for entry in entries:
            assert set(entry) == {"candidate", "target", "captions"}
            assert {entry["candidate"], entry["target"]} <= set(gallery)
        written += entries
    by_text = {query.modification_text: query for query in drawn.queries}
    assert len(written) == len(by_text) == 16
    for entry in written:
        query = by_text[entry["captions"][0]]
        assert (entry["candidate"], entry["target"]) == (query.reference_id, query.drawn_target_id)
        assert entry["target"] in query.target_ids
        assert entry["captions"][1] == query.paraphrase != query.modification_text
        # "one more button" twice would ask for two
        assert sum(" more " in f" {text} " or " fewer " in f" {text} " for text in entry["captions"]) <= 1
    assert not list(tmp_path.glob("**/*.partial"))


def test_the_command_says_how_many_near_misses_a_query_has(tmp_path: Path) -> None:
    arguments = ["build", "--out", str(tmp_path), "--products", "40", "--queries", "2", "--size", "16"]
    shown = CliRunner().invoke(catalog_app, arguments)
    assert shown.exit_code == 0, shown.output
    told = json.loads(CliRunner().invoke(catalog_app, [*arguments, "--json"]).stdout)["near_misses_per_query"]
    assert f"at least {told['least']} per query" in shown.stdout
    assert told["least"] >= 10
    assert told["mean"] == pytest.approx(sum(told["mean_by_kind"].values()))
    assert told["mean_by_kind"]["reference"] == 1.0


def test_a_query_is_unseen_when_training_never_shows_its_reference_or_its_target(large_catalog: DrawnCatalog) -> None:
    scenes = {item.image_id: item.scene for item in large_catalog.items}
    for query in large_catalog.queries:
        either = is_held_out(scenes[query.reference_id]) or is_held_out(scenes[query.drawn_target_id])
        assert query.is_unseen == either
    assert 0.05 < sum(query.is_unseen for query in large_catalog.queries) / 120 < 0.4
    assert not any(query.is_unseen for query in sample_drawn(0, products=400, queries=20, split="train").queries)


def test_an_interrupted_run_is_completed_without_drawing_again(tmp_path: Path) -> None:
    drawn = sample_drawn(1, products=40, queries=2)
    write_drawn(drawn, tmp_path, size=32)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    lost = tmp_path / "images" / "p000005.jpg"
    content = lost.read_bytes()
    lost.unlink()
    write_drawn(drawn, tmp_path, size=32)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    assert lost.read_bytes() == content
    assert {name for name in after if after[name] != before[name]} == {"p000005.jpg"}


def test_two_processes_draw_what_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", 8)
    drawn = sample_drawn(2, products=40, queries=1)
    write_drawn(drawn, tmp_path, size=32)
    for index in (0, 10, 20, 39):
        drawn_here = tmp_path / "here.jpg"
        draw_item(drawn, index, size=32).image.save(drawn_here, format="JPEG", quality=95, subsampling=0)
        assert (tmp_path / "images" / f"p{index:06d}.jpg").read_bytes() == drawn_here.read_bytes()


@pytest.mark.parametrize("content", ["", "[" * 5000])
def test_a_folder_whose_catalogue_is_damaged_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "catalog.json").write_text(content)
    with pytest.raises(InputError, match="is damaged or cannot be read"):
        write_drawn(sample_drawn(1, products=20, queries=1), tmp_path, size=32)


def test_a_folder_that_holds_another_catalog_is_refused(tmp_path: Path) -> None:
    write_drawn(sample_drawn(1, products=20, queries=1), tmp_path, size=32)
    with pytest.raises(InputError, match="already holds another catalogue"):
        write_drawn(sample_drawn(2, products=20, queries=1), tmp_path, size=32)
