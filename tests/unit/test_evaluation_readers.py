"""Data sets as they are published: what is asked, what is right, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets import circo
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart, EvaluationQuery
from qdrant_cir.evaluation.datasets.circo import CircoSplit, read_circo
from qdrant_cir.evaluation.datasets.cirr import CirrSplit, read_cirr
from qdrant_cir.evaluation.datasets.custom import read_custom
from qdrant_cir.evaluation.datasets.drawn import read_drawn
from qdrant_cir.evaluation.datasets.fashioniq import join_captions, read_fashioniq
from qdrant_cir.types import GalleryImage

EXCERPTS = Path(__file__).parents[1] / "data"


def part_named(benchmark: Benchmark, name: str) -> EvaluationPart:
    return next(part for part in benchmark.parts if part.name == name)


def gallery_ids(part: EvaluationPart) -> list[str]:
    return [record.image_id for record in part.gallery or ()]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """CIRCO's excerpt with six empty picture files, which a reader only lists."""
    shutil.copytree(EXCERPTS / "circo", tmp_path / "circo")
    folder = tmp_path / "circo" / "COCO2017_unlabeled" / "unlabeled2017"
    folder.mkdir(parents=True)
    for number in range(1, 7):
        (folder / f"{number:012d}.jpg").touch()
    return tmp_path / "circo"


def test_a_query_has_no_field_that_could_hold_an_answer() -> None:
    names = {field.name for field in dataclasses.fields(EvaluationQuery)}
    assert names == {"query_id", "reference", "modification_text", "labels", "subset"}
    assert {field.name for field in dataclasses.fields(EvaluationPart)} == {
        "name",
        "queries",
        "gallery",
        "excludes_reference",
    }


@pytest.mark.parametrize(
    ("captions", "joined"),
    [
        (("is shiny and silver", "fit and flare"), "Is shiny and silver and fit and flare"),
        (("is a tan Shirt. ", " Blue?"), "Is a tan shirt and Blue"),
        (("", "is an off the shoulder top"), "Is an off the shoulder top"),
        (("fades from red to orange", " ., "), "Fades from red to orange"),
        (("", ""), ""),
    ],
)
def test_captions_are_joined_as_the_paper_does_without_a_dangling_and(captions: tuple[str, str], joined: str) -> None:
    assert join_captions(captions) == joined


def test_fashioniqs_key_named_candidate_is_the_reference() -> None:
    benchmark = read_fashioniq(EXCERPTS / "fashioniq")
    assert [part.name for part in benchmark.parts] == ["dress", "shirt", "toptee"]
    dress = part_named(benchmark, "dress")
    assert dress.queries == (
        EvaluationQuery("0", GalleryImage("RED"), "Make it blue and Same"),
        EvaluationQuery("1", GalleryImage("RED"), "Make it blue"),
    )
    assert benchmark.truth["dress"]["0"].targets == {"NAVY"}
    assert not dress.excludes_reference
    assert len(gallery_ids(dress)) == 13


def test_the_val_split_has_its_own_galleries_and_a_query_per_caption_that_is_not_empty() -> None:
    benchmark = read_fashioniq(EXCERPTS / "fashioniq", split="val")
    dress = part_named(benchmark, "dress")
    assert gallery_ids(dress) == ["BLUE", "NAVY", "RED"]
    asked = [(query.query_id, query.modification_text) for query in dress.queries]
    assert asked == [("0-0", "make it blue."), ("0-1", "Same,"), ("1-0", "make it Blue?")]
    assert benchmark.truth["dress"]["0-1"].targets == {"NAVY"}
    assert any("2 empty captions give no query" in note for note in benchmark.notes)


def test_real_fashioniq_has_the_published_counts(shared_data: Path) -> None:
    original = read_fashioniq(shared_data / "fashioniq")
    counts = {part.name: (len(part.queries), len(gallery_ids(part))) for part in original.parts}
    assert counts == {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
    texts = [query.modification_text for part in original.parts for query in part.queries]
    assert all(texts)
    # the three queries with an empty caption; where others begin with "And", their annotators wrote it
    for text in (
        "Is grey with a design on the back",
        "Is an off the shoulder top",
        "Fades from red to orange",
    ):
        assert text in texts
    val = read_fashioniq(shared_data / "fashioniq", split="val")
    sizes = {part.name: (len(part.queries), len(gallery_ids(part))) for part in val.parts}
    # two captions per query, of which one of shirt's and two of toptee's are empty
    assert sizes == {
        "dress": (2 * 2017, 2628),
        "shirt": (2 * 2038 - 1, 3089),
        "toptee": (2 * 1961 - 2, 2902),
    }


def test_cirr_leaves_the_reference_out_and_ranks_the_other_five() -> None:
    benchmark = read_cirr(EXCERPTS / "cirr")
    (part,) = benchmark.parts
    assert part.excludes_reference
    first = part.queries[0]
    assert (first.query_id, first.reference) == ("101", GalleryImage("dev-0-0-img0"))
    assert first.subset == ("dev-0-0-img1", "dev-0-1-img0", "dev-0-1-img1", "dev-0-2-img0", "dev-0-2-img1")
    assert benchmark.truth["val"]["101"].targets == {"dev-0-1-img0"}
    assert len(gallery_ids(part)) == 10


def test_cirrs_test_split_has_no_truth() -> None:
    benchmark = read_cirr(EXCERPTS / "cirr", split="test1")
    assert benchmark.truth == {}
    assert len(benchmark.parts[0].queries) == 3


def test_real_cirr_has_the_published_counts(shared_data: Path) -> None:
    splits: tuple[tuple[CirrSplit, int, int], ...] = (("val", 4181, 2297), ("test1", 4148, 2315))
    for split, queries, images in splits:
        (part,) = read_cirr(shared_data / "cirr", split=split).parts
        assert (len(part.queries), len(gallery_ids(part))) == (queries, images)
        assert {len(query.subset) for query in part.queries} == {5}


def test_cirr_refuses_an_image_set_without_the_reference(tmp_path: Path) -> None:
    root = tmp_path / "cirr"
    shutil.copytree(EXCERPTS / "cirr", root)
    path = root / "captions" / "cap.rc2.val.json"
    entries = json.loads(path.read_text())
    entries[1]["reference"] = "dev-1-0-img0"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"cap.rc2.val.json, entry 1: expected an image set of 6 with"):
        read_cirr(root)


def test_circo_has_all_right_answers_the_single_one_and_the_aspects(coco: Path) -> None:
    benchmark = read_circo(coco)
    (part,) = benchmark.parts
    assert not part.excludes_reference
    assert gallery_ids(part) == ["1", "2", "3", "4", "5", "6"]
    assert part.queries[1].labels == ("cardinality", "negation")
    answer = benchmark.truth["val"]["0"]
    assert answer.targets == {"2", "4"}
    assert answer.single_target == "2"
    assert read_circo(coco, split="test").truth == {}


def test_circos_gallery_is_what_cocos_list_says_even_where_pictures_are_missing(coco: Path) -> None:
    info = coco / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    info.parent.mkdir()
    listed = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(1, 9)]
    info.write_text(json.dumps({"images": listed}))
    (part,) = read_circo(coco).parts
    assert gallery_ids(part) == [str(number) for number in range(1, 9)]


def test_a_gallery_of_circo_says_how_many_published_pictures_it_lacks(
    coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = read_circo(coco)
    (part,) = benchmark.parts
    here = len(part.gallery or ())
    assert f"The gallery lacks {123_403 - here:,} of the 123,403 published pictures" in benchmark.notes[-1]
    monkeypatch.setattr(circo, "GALLERY_SIZE", here)
    assert not [note for note in read_circo(coco).notes if "lacks" in note]


def test_real_circo_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "circo" / "annotations", tmp_path / "annotations")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "000000355099.jpg").touch()
    splits: tuple[tuple[CircoSplit, int], ...] = (("val", 220), ("test", 800))
    for split, queries in splits:
        benchmark = read_circo(tmp_path, split=split, images=folder)
        assert len(benchmark.parts[0].queries) == queries
        assert len(benchmark.truth.get("val", {})) == (220 if split == "val" else 0)


def test_own_queries_name_images_of_the_gallery_or_files_beside_them(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "shop" / name).touch()
    (tmp_path / "photo.png").touch()
    queries = tmp_path / "queries.jsonl"
    queries.write_text(
        '{"reference": "a.png", "modification_text": "in red", "targets": ["b.png"]}\n\n'
        '{"query_id": "mine", "reference": "photo.png", "modification_text": "in red", "targets": ["a.png", '
        '"b.png"], "labels": ["color"]}\n'
    )
    benchmark = read_custom(queries, gallery=tmp_path / "shop")
    first, second = benchmark.parts[0].queries
    assert (first.query_id, first.reference) == ("1", GalleryImage("a.png"))
    assert (second.query_id, second.reference) == ("mine", tmp_path / "photo.png")
    assert second.labels == ("color",)
    assert benchmark.truth["own"]["mine"].targets == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no json", "line 2 is not JSON"),
        ('{"reference": "a.png", "modification_text": "in red"}', "a list of strings under 'targets'"),
        ('{"reference": "a.png", "modification_text": "in red", "targets": []}', "targets is empty"),
        (
            '{"reference": 7, "modification_text": "in red", "targets": ["a.png"]}',
            "a string under 'reference'",
        ),
        (
            '{"query_id": "1", "reference": "a.png", "modification_text": "", "targets": ["a.png"]}',
            "'1' was given before",
        ),
    ],
)
def test_a_line_that_is_no_query_is_refused_with_its_place(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "a.png").touch()
    queries = tmp_path / "queries.jsonl"
    good = '{"reference": "a.png", "modification_text": "in red", "targets": ["a.png"]}'
    queries.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=complaint) as caught:
        read_custom(queries, gallery=tmp_path)
    assert "queries.jsonl line 2" in str(caught.value)


def test_the_drawn_catalogue_is_read_with_its_kinds_as_labels(tmp_path: Path) -> None:
    from qdrant_cir.drawn.dataset import sample_drawn
    from qdrant_cir.drawn.files import write_drawn

    drawn = sample_drawn(5, products=40, queries=3)
    write_drawn(drawn, tmp_path / "shop", size=32)
    benchmark = read_drawn(tmp_path / "shop")
    (part,) = benchmark.parts
    assert gallery_ids(part) == [item.image_id for item in drawn.items]
    assert [(query.query_id, query.labels) for query in part.queries] == [
        (query.query_id, (query.kind, f"{'unseen' if query.is_unseen else 'seen'} combination"))
        for query in drawn.queries
    ]
    for query in drawn.queries:
        assert benchmark.truth["catalog"][query.query_id].targets == set(query.target_ids)


def test_a_missing_file_and_a_repeated_key_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*cap.dress.val.json"):
        read_fashioniq(tmp_path)
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "cap.dress.val.json").write_text(
        '[{"candidate": "a", "candidate": "b", "target": "c", "captions": ["x", "y"]}]'
    )
    with pytest.raises(InputError, match="'candidate' is given twice"):
        read_fashioniq(tmp_path, categories=("dress",))


def test_a_part_of_fashioniq_is_refused_unless_its_categories_are_named(tmp_path: Path) -> None:
    root = tmp_path / "fashioniq"
    shutil.copytree(EXCERPTS / "fashioniq", root)
    (root / "captions" / "cap.shirt.val.json").unlink()
    with pytest.raises(InputError, match="expected dress, shirt, toptee, found dress, toptee"):
        read_fashioniq(root)
    assert [part.name for part in read_fashioniq(root, categories=("toptee",)).parts] == ["toptee"]


def test_other_categories_than_fashioniqs_are_found_by_their_files(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(EXCERPTS / "fashioniq", root)
    for folder, name in (("captions", "cap.{}.val.json"), ("image_splits", "split.{}.val.json")):
        (root / folder / name.format("toptee")).rename(root / folder / name.format("hat"))
    assert [part.name for part in read_fashioniq(root).parts] == ["dress", "hat", "shirt"]
