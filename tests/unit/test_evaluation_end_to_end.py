"""Tiny data sets in the published layouts, through the real retriever and store, to numbers made by hand.

The model is that of ``conftest.py``. The query "red, make it blue" is (-2, -4, 2) / sqrt(24) in colours from
-1 to 1.

============  ==================  ================  =====================
colour        RGB                 cosine (stage 1)  dot product (stage 2)
============  ==================  ================  =====================
blue          (0, 0, 255)         0.943             1.633
pale          (96, 96, 160)       0.940             0.407
navy          (0, 0, 128)         0.868             1.228
black         (0, 0, 0)           0.471             0.816
red           (255, 0, 0)         0                 0
green         (0, 255, 0)         -0.471            -0.816
============  ==================  ================  =====================

So stage one has blue, pale, navy, black, red, green, and stage two blue, navy, black, pale, red, green.
Pictures of one colour tie in both stages and stand by their ids.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import QdrantClient

from qdrant_cir.errors import CollectionNotFoundError, EvaluationError, InputError
from qdrant_cir.evaluation.datasets.benchmark import Benchmark
from qdrant_cir.evaluation.datasets.circo import read_circo
from qdrant_cir.evaluation.datasets.cirr import read_cirr
from qdrant_cir.evaluation.datasets.custom import read_custom
from qdrant_cir.evaluation.datasets.fashioniq import read_fashioniq
from qdrant_cir.evaluation.evaluate import EvaluationSettings, evaluate
from qdrant_cir.evaluation.report.contents import EvaluationReport, MetricRow
from qdrant_cir.evaluation.report.markdown import write_markdown
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.storage.stores import ServerStore

Color = tuple[int, int, int]
EXCERPTS = Path(__file__).parents[1] / "data"
BLUE, PALE, NAVY = (0, 0, 255), (96, 96, 160), (0, 0, 128)
BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)


def paint(folder: Path, colors: Mapping[str, Color]) -> None:
    """Write one-colour pictures. The content decides the format, so a .jpg may hold exact colours too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, color in colors.items():
        Image.new("RGB", (20, 20), color).save(folder / name, format="PNG")


@pytest.fixture
def store() -> Iterator[ServerStore]:
    """The client's own store: numbers are the same in every store, and an embedded one takes a while to make."""
    client = QdrantClient(":memory:")
    yield ServerStore(client)
    client.close()


@pytest.fixture
def fashioniq(tmp_path: Path) -> Path:
    root = tmp_path / "fashioniq"
    shutil.copytree(EXCERPTS / "fashioniq", root)
    pales = {f"PALE{number:02d}.png": PALE for number in range(10)}
    paint(root / "images", {"RED.png": RED, "BLUE.png": BLUE, "NAVY.png": NAVY, **pales})
    return root


@pytest.fixture
def cirr(tmp_path: Path) -> Path:
    root = tmp_path / "cirr"
    shutil.copytree(EXCERPTS / "cirr", root)
    members = zip(
        ("0-img0", "0-img1", "1-img0", "1-img1", "2-img0", "2-img1"),
        (RED, BLUE, PALE, NAVY, BLACK, GREEN),
        strict=True,
    )
    others = {f"dev-1-{number}-img0.png": PALE for number in range(4)}
    paint(root / "dev", {**{f"dev-0-{name}.png": color for name, color in members}, **others})
    return root


@pytest.fixture
def circo(tmp_path: Path) -> Path:
    root = tmp_path / "circo"
    shutil.copytree(EXCERPTS / "circo", root)
    colors = enumerate((RED, BLUE, PALE, NAVY, BLACK, GREEN), start=1)
    folder = root / "COCO2017_unlabeled" / "unlabeled2017"
    paint(folder, {f"{number:012d}.jpg": color for number, color in colors})
    return root


def report_of(benchmark: Benchmark, store: ServerStore, bundle: Path, out: Path, *, depth: int) -> EvaluationReport:
    settings = EvaluationSettings(rerank_depth=depth, provider="cpu", runs_controls=False)
    return evaluate(benchmark, store=store, bundle=load_bundle(bundle), out=out, settings=settings).report


def both(rows: tuple[MetricRow, ...], name: str) -> tuple[float, float | None]:
    """Give a metric before and after re-ranking, rounded as papers print it."""
    row = next(row for row in rows if row.name == name)
    return round(row.retrieved.value, 2), None if row.reranked is None else round(row.reranked.value, 2)


def test_fashioniq_is_averaged_over_categories_without_weights(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_fashioniq(fashioniq), store, tiny_bundle, tmp_path / "out", depth=100)
    # stage one: blue, PALE00-09, NAVY at 12, red. Stage two: blue, NAVY at 2, PALE00-09 at 3-12, red.
    recall_at_10 = {part.name: both(part.rows, "R@10") for part in report.parts}
    assert recall_at_10 == {
        "dress": (50.0, 100.0),  # NAVY: 12 -> 2, BLUE: 1 -> 1
        "shirt": (0.0, 0.0),  # PALE09: 11 -> 12
        "toptee": (50.0, 75.0),  # NAVY, BLUE, PALE09, and PALE00: 2 -> 3
    }
    # (50 + 0 + 50) / 3 and (100 + 0 + 75) / 3; over all seven queries it would be 3/7 and 5/7
    assert both(report.rows, "R@10") == (33.33, 58.33)
    assert both(report.rows, "R@50") == (100.0, 100.0)
    assert both(report.rows, "(R@10 + R@50) / 2") == (66.67, 79.17)
    assert {(part.scored, part.queries, part.missing) for part in report.parts} == {
        (2, 2, ()),
        (1, 1, ()),
        (4, 4, ()),
    }


def test_losses_name_the_stage_that_lost_the_query(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_fashioniq(fashioniq), store, tiny_bundle, tmp_path / "out", depth=11)
    toptee = report.parts[2]
    # with 11 candidates stage two never sees NAVY at 12, and PALE09 stays at 11 of 11
    at_10 = toptee.losses[0]
    assert (at_10.k, at_10.found, at_10.candidate_misses, at_10.ordering_losses) == (10, 2, 1, 1)
    assert toptee.ceiling is not None
    assert toptee.ceiling.value == 75.0
    assert both(toptee.rows, "R@10") == (50.0, 50.0)
    # an exact store loses nothing to its index
    assert [part.index_recall for part in report.parts] == [1.0, 1.0, 1.0]
    assert "The index finds 100.0% of the exactly nearest 11 images." in write_markdown(report)


def test_stage_one_alone_has_no_second_column(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_fashioniq(fashioniq), store, tiny_bundle, tmp_path / "out", depth=0)
    assert both(report.rows, "R@10") == (33.33, None)
    assert report.ceiling is None
    assert report.parts[0].losses == ()
    assert report.parts[0].index_recall is None
    assert not list((tmp_path / "out").glob("*.png"))


def test_the_val_split_searches_the_queries_own_images(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    benchmark = read_fashioniq(fashioniq, split="val")
    report = report_of(benchmark, store, tiny_bundle, tmp_path / "out", depth=100)
    assert [(part.queries, part.gallery) for part in report.parts] == [(3, 3), (1, 2), (8, 5)]
    assert both(report.rows, "R@10") == (100.0, 100.0)


def test_cirr_leaves_out_the_reference_and_scores_the_subset_directly(
    cirr: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_cirr(cirr), store, tiny_bundle, tmp_path / "out", depth=50)
    # 101 wants pale: 2 -> 4. 102 wants navy, behind five pales: 7 -> 2. 103, from blue to red: 1 -> 1.
    assert both(report.rows, "R@1") == (33.33, 33.33)
    assert both(report.rows, "R@5") == (66.67, 100.0)
    # in the subset pale goes from 2 to 4 and navy from 3 to 2
    assert both(report.rows, "Rsubset@1") == (33.33, 33.33)
    assert both(report.rows, "Rsubset@2") == (66.67, 66.67)
    assert both(report.rows, "Rsubset@3") == (100.0, 66.67)
    assert both(report.rows, "(R@5 + Rsubset@1) / 2") == (50.0, 66.67)


def test_the_subset_is_re_ranked_whole_however_few_candidates_there_are(
    cirr: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_cirr(cirr), store, tiny_bundle, tmp_path / "out", depth=1)
    assert both(report.rows, "R@5") == (66.67, 66.67)
    assert both(report.rows, "Rsubset@3") == (100.0, 66.67)


def test_cirrs_submission_files_are_as_its_server_takes_them(
    cirr: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_cirr(cirr, split="test1"), store, tiny_bundle, tmp_path / "out", depth=50)
    assert report.rows == ()
    assert report.parts[0].scored == 0
    folder = tmp_path / "out" / "submission"
    recall = json.loads((folder / "recall.json").read_text())
    subset = json.loads((folder / "recall_subset.json").read_text())
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
    assert set(recall) == set(subset) == {"101", "102", "103"}
    # nine of ten images: the reference is left out
    assert len(recall["101"]) == 9
    assert "dev-0-0-img0" not in recall["101"]
    assert recall["101"][:3] == ["dev-0-0-img1", "dev-0-1-img1", "dev-0-2-img0"]
    assert subset["101"] == ["dev-0-0-img1", "dev-0-1-img1", "dev-0-2-img0"]


def test_circo_counts_all_right_answers_in_map_and_one_in_recall(
    circo: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(read_circo(circo), store, tiny_bundle, tmp_path / "out", depth=50)
    # query 0 wants blue and navy: places 1 and 3, (1/1 + 2/3) / 2 = 5/6; re-ranked 1 and 2. Query 1: place 1
    assert both(report.rows, "mAP@5") == (91.67, 100.0)
    assert both(report.rows, "R@5") == (100.0, 100.0)
    slices = {entry.label: entry for entry in report.parts[0].slices}
    assert {label: entry.queries for label, entry in slices.items()} == {"cardinality": 2, "negation": 1}
    assert both(slices["cardinality"].rows, "mAP@10") == (91.67, 100.0)
    assert both(slices["negation"].rows, "mAP@10") == (100.0, 100.0)
    submission = json.loads((tmp_path / "out" / "submission" / "submission_val.json").read_text())
    # blue, navy, black, pale, red (the reference stays), green
    assert submission["0"] == [2, 4, 5, 3, 1, 6]
    sizes = load_bundle(tiny_bundle).manifest.sizes
    assert json.loads((tmp_path / "out" / "report.json").read_text())["run"]["model_sizes"]["token_rows"] == 5
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"pictures of {sizes.image_size} pixels, vectors of {sizes.vector_size}, 5 stored tokens of" in text
    assert "The gallery lacks 123,397 of the 123,403 published pictures" in text


def test_missing_images_are_named_and_their_queries_listed_and_the_rest_is_scored(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    (fashioniq / "images" / "NAVY.png").unlink()
    (fashioniq / "images" / "PALE03.png").write_bytes(b"rotten")
    report = report_of(read_fashioniq(fashioniq), store, tiny_bundle, tmp_path / "out", depth=100)
    dress, _, toptee = report.parts
    assert {image.image_id for image in dress.missing} == {"NAVY", "PALE03"}
    assert (dress.gallery, dress.gallery_wanted) == (11, 13)
    assert (dress.scored, dress.queries) == (1, 2)
    assert [(query.query_id, query.reason) for query in dress.affected] == [("0", "1 of 1 targets missing: NAVY")]
    assert (toptee.scored, toptee.queries) == (3, 4)
    row = next(row for row in dress.rows if row.name == "R@10")
    # the one query that is left is found; with the other counted as a miss it is one of two
    assert (row.retrieved.value, row.retrieved_at_least, row.reranked_at_least) == (100.0, 50.0, 50.0)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1 of 2 queries are scored, over 11 of 13 images." in text
    assert "* NAVY: There is no image file" in text
    assert "* 0: 1 of 1 targets missing: NAVY" in text
    lines = [json.loads(line) for line in (tmp_path / "out" / "queries.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    assert lines[0]["not_scored_because"] == "1 of 1 targets missing: NAVY"
    assert "final" not in lines[0]


def test_a_query_without_its_reference_is_not_run_and_says_so(
    cirr: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    (cirr / "dev" / "dev-0-0-img1.png").unlink()  # blue: 103's reference, in everybody's subset
    with pytest.raises(EvaluationError, match="no queries to score"):
        report_of(read_cirr(cirr), store, tiny_bundle, tmp_path / "out", depth=50)
    report = report_of(read_cirr(cirr, split="test1"), store, tiny_bundle, tmp_path / "test1", depth=50)
    reasons = {query.query_id: query.reason for query in report.parts[0].affected}
    assert reasons["101"] == "1 of 5 subset members missing: dev-0-0-img1"
    assert reasons["103"] == "the reference dev-0-0-img1 is missing or unreadable"
    # the server demands every pair, so nothing is written that it would refuse or misread
    assert not (tmp_path / "test1" / "submission").exists()


def test_a_picture_that_vanished_since_the_last_run_leaves_the_gallery(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    benchmark = read_fashioniq(fashioniq)
    report_of(benchmark, store, tiny_bundle, tmp_path / "first", depth=100)
    (fashioniq / "images" / "PALE00.png").unlink()
    report = report_of(benchmark, store, tiny_bundle, tmp_path / "second", depth=100)
    assert [part.gallery for part in report.parts] == [12, 12, 12]
    # one pale fewer lets PALE09 into stage one's first ten
    assert both(report.parts[1].rows, "R@10") == (100.0, 0.0)


def test_a_run_over_another_gallery_is_refused_not_joined(
    fashioniq: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    benchmark = read_fashioniq(fashioniq)
    report_of(benchmark, store, tiny_bundle, tmp_path / "out", depth=100)
    (fashioniq / "images" / "PALE00.png").unlink()
    with pytest.raises(EvaluationError, match=r"holds another run: gallery 13 instead of 12"):
        report_of(benchmark, store, tiny_bundle, tmp_path / "out", depth=100)


def test_a_collection_with_other_images_in_it_is_refused(
    circo: Path, store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    report_of(read_circo(circo), store, tiny_bundle, tmp_path / "out", depth=50)
    (circo / "COCO2017_unlabeled" / "unlabeled2017" / f"{6:012d}.jpg").unlink()
    with pytest.raises(EvaluationError, match="holds 6 images, of which 5 are of the gallery"):
        report_of(read_circo(circo), store, tiny_bundle, tmp_path / "out", depth=50)


def test_own_queries_run_over_a_folder_and_over_the_collection_it_became(
    store: ServerStore, tiny_bundle: Path, tmp_path: Path
) -> None:
    colors = {"blue": BLUE, "pale": PALE, "navy": NAVY, "black": BLACK, "green": GREEN}
    paint(tmp_path / "shop", {f"{name}.png": color for name, color in colors.items()})
    paint(tmp_path, {"photo.png": RED})
    asked = [
        {"reference": "photo.png", "modification_text": "make it blue", "targets": ["navy.png"]},
        {"reference": "photo.png", "modification_text": "make it blue", "targets": ["pale.png", "blue.png"]},
        {"reference": "gone.png", "modification_text": "make it blue", "targets": ["navy.png"]},
    ]
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps(line) + "\n" for line in asked))
    first = report_of(read_custom(queries, gallery=tmp_path / "shop"), store, tiny_bundle, tmp_path / "first", depth=50)
    # navy: 3 -> 2. blue and pale: 1 and 2, AP 1; re-ranked 1 and 4, AP (1/1 + 2/4) / 2 = 0.75.
    assert both(first.rows, "R@1") == (50.0, 50.0)
    assert both(first.rows, "mAP@10") == (66.67, 62.5)
    assert [query.query_id for query in first.parts[0].affected] == ["3"]
    settings = EvaluationSettings(rerank_depth=50, provider="cpu", runs_controls=False, collection="own_queries_own")
    second = evaluate(
        read_custom(queries, gallery=None),
        store=store,
        bundle=load_bundle(tiny_bundle),
        out=tmp_path / "second",
        settings=settings,
    ).report
    assert second.rows == first.rows
    assert second.parts[0].affected == first.parts[0].affected


def test_a_collection_must_be_named_and_exist(store: ServerStore, tiny_bundle: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"reference": "a", "modification_text": "in red", "targets": ["b"]}\n')
    benchmark = read_custom(queries, gallery=None)
    bundle = load_bundle(tiny_bundle)
    for collection, error in ((None, InputError), ("nowhere", CollectionNotFoundError)):
        settings = EvaluationSettings(rerank_depth=5, provider="cpu", collection=collection)
        with pytest.raises(error):
            evaluate(benchmark, store=store, bundle=bundle, out=tmp_path / "out", settings=settings)
