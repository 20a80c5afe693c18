"""Galleries hold every right answer and enough wrong ones; pictures depend on seed and index alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdrant_cir.catalog.dataset import (
    Catalog,
    draw_item,
    is_held_out,
    sample_catalog,
    sample_training_edit,
    sample_training_scene,
)
from qdrant_cir.catalog.files import GALLERY_COLUMNS, write_catalog
from qdrant_cir.catalog.scene import attributes, distance, sample_scene
from qdrant_cir.errors import InputError


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return sample_catalog(3, products=400, queries=24)


def test_a_catalog_has_exactly_the_products_and_queries_asked_for(catalog: Catalog) -> None:
    assert len(catalog.items) == 400
    assert len({item.image_id for item in catalog.items}) == 400
    assert len(catalog.queries) == 24
    assert len({query.query_id for query in catalog.queries}) == 24


def test_targets_are_all_items_that_equal_one_another_in_every_attribute(catalog: Catalog) -> None:
    flat = {item.image_id: attributes(item.scene) for item in catalog.items}
    for query in catalog.queries:
        assert query.target_ids
        assert query.reference_id not in query.target_ids
        wanted = flat[query.target_ids[0]]
        assert {image_id for image_id, found in flat.items() if found == wanted} == set(query.target_ids)


@pytest.mark.parametrize(("products", "queries"), [(400, 24), (60, 3), (1000, 200), (250, 41)])
def test_every_query_has_ten_hard_negatives_in_the_gallery(products: int, queries: int) -> None:
    drawn = sample_catalog(5, products=products, queries=queries)
    scenes = {item.image_id: item.scene for item in drawn.items}
    for query in drawn.queries:
        target = scenes[query.target_ids[0]]
        reach = max(3, distance(scenes[query.reference_id], target) + 1)
        near = [
            scene
            for scene in scenes.values()
            if scene != target and scene.family == target.family and distance(scene, target) <= reach
        ]
        assert len(near) >= 10


def test_some_queries_have_several_targets() -> None:
    drawn = sample_catalog(0, products=2000, queries=120)
    assert sum(len(query.target_ids) > 1 for query in drawn.queries) >= 5


def test_the_same_seed_gives_the_same_catalog_and_another_seed_another(catalog: Catalog) -> None:
    assert sample_catalog(3, products=400, queries=24) == catalog
    assert sample_catalog(4, products=400, queries=24).items != catalog.items


def test_too_few_products_are_refused_with_what_would_fit() -> None:
    with pytest.raises(InputError, match="at most 1 queries, or for more products"):
        sample_catalog(0, products=14, queries=30)
    with pytest.raises(InputError, match="at least one product"):
        sample_catalog(0, products=10, queries=0)


def test_an_item_is_drawn_the_same_whatever_was_drawn_before(catalog: Catalog) -> None:
    alone = draw_item(catalog, 7, size=64).image.tobytes()
    draw_item(catalog, 1, size=64)
    assert draw_item(catalog, 7, size=64).image.tobytes() == alone


def test_two_renderings_of_one_scene_differ_in_pixels() -> None:
    drawn = sample_catalog(0, products=2000, queries=120)
    query = next(query for query in drawn.queries if len(query.target_ids) > 1)
    index_of = {item.image_id: index for index, item in enumerate(drawn.items)}
    first, second = (draw_item(drawn, index_of[image_id], size=64) for image_id in query.target_ids[:2])
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
    drawn = sample_catalog(1, products=40, queries=2)
    seen: list[tuple[int, int]] = []
    write_catalog(drawn, tmp_path, size=64, progress=lambda done, total: seen.append((done, total)))
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
    assert set(queries[0]) == {"query_id", "reference", "modification_text", "targets", "kind"}


def test_an_interrupted_run_is_completed_without_drawing_again(tmp_path: Path) -> None:
    drawn = sample_catalog(1, products=40, queries=2)
    write_catalog(drawn, tmp_path, size=32)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    lost = tmp_path / "images" / "p000005.jpg"
    content = lost.read_bytes()
    lost.unlink()
    write_catalog(drawn, tmp_path, size=32)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    assert lost.read_bytes() == content
    assert {name for name in after if after[name] != before[name]} == {"p000005.jpg"}


def test_two_processes_draw_what_one_would(tmp_path: Path) -> None:
    drawn = sample_catalog(2, products=200, queries=3)
    write_catalog(drawn, tmp_path, size=32)
    drawn_here = tmp_path / "here.jpg"
    draw_item(drawn, 150, size=32).image.save(drawn_here, format="JPEG", quality=95, subsampling=0)
    assert (tmp_path / "images" / "p000150.jpg").read_bytes() == drawn_here.read_bytes()


def test_a_folder_that_holds_another_catalog_is_refused(tmp_path: Path) -> None:
    write_catalog(sample_catalog(1, products=20, queries=1), tmp_path, size=32)
    with pytest.raises(InputError, match="already holds another catalogue"):
        write_catalog(sample_catalog(2, products=20, queries=1), tmp_path, size=32)
