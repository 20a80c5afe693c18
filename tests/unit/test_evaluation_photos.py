"""Evaluation on photographs: held-out senders alone, what is skipped, and the report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from qdrant_cir.cli.app import app
from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.photos import (
    EYE_LABELS,
    EyeLabel,
    PhotoBenchmark,
    photo_benchmark,
    read_eye_labels,
)
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.photographs.labels import KINDS, Photograph, read_photographs, split_of

COLOURS = {"red": (180, 30, 40), "blue": (30, 60, 160), "green": (40, 130, 60)}
TEST_SENDERS = [str(number) for number in range(60) if split_of(str(number)) == "test"][:6]
OTHER_SENDERS = [str(number) for number in range(60) if split_of(str(number)) != "test"][:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Garments of three colours and two kinds by held-out senders, and pictures by others that must not be opened."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    rows = [("file", "label", "sender")]
    for number, sender in enumerate(9 * TEST_SENDERS):
        colour = list(COLOURS.values())[number % 3]
        pixels = np.full((120, 100, 3), (205, 200, 190), np.float64)
        pixels[28:92, 26:74] = colour
        noisy = np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        rows.append((f"{number}.png", ("T-Shirt", "Skirt")[number // 3 % 2], sender))
    Image.fromarray(np.full((120, 100, 3), 200, np.uint8)).save(folder / "empty.png")
    (folder / "broken.png").write_bytes(b"no picture")
    rows += [("empty.png", "T-Shirt", TEST_SENDERS[0]), ("broken.png", "T-Shirt", TEST_SENDERS[0])]
    for sender in OTHER_SENDERS:
        (folder / f"other{sender}.png").write_bytes(b"must not be opened")
        rows.append((f"other{sender}.png", "T-Shirt", sender))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def benchmark(folder: Path) -> PhotoBenchmark:
    return photo_benchmark(read_photographs(folder), eye_labels={"0.png": EyeLabel("red", "short", "plain")})


def test_only_held_out_senders_are_looked_at(benchmark: PhotoBenchmark) -> None:
    assert {picture.sender for picture in benchmark.pictures} <= set(TEST_SENDERS)
    assert set(benchmark.unreadable) == {"broken.png"}


def test_a_photograph_without_a_mask_is_skipped_and_counted(benchmark: PhotoBenchmark) -> None:
    assert benchmark.without_mask == 1
    assert "empty.png" not in {picture.image_id for picture in benchmark.pictures}


def test_the_right_answers_of_a_colour_are_of_the_kind_in_that_colour(benchmark: PhotoBenchmark) -> None:
    queries = [query for query in benchmark.queries if query.group == "colour"]
    assert queries
    for query in queries:
        reference = benchmark.pictures[query.reference]
        for place in query.right.tolist():
            found = benchmark.pictures[place]
            assert found.kind == reference.kind
            assert query.text == f"in {found.colour}" != f"in {reference.colour}"
        assert query.reference not in query.gallery


def test_a_negation_names_the_reference_s_colour_and_another_one_is_right(benchmark: PhotoBenchmark) -> None:
    queries = [query for query in benchmark.queries if query.group == "negation"]
    assert queries
    for query in queries:
        reference = benchmark.pictures[query.reference]
        found = [benchmark.pictures[place] for place in query.right.tolist()]
        assert {picture.kind for picture in found} == {reference.kind}
        (asked,) = {picture.colour for picture in found}
        assert asked != reference.colour
        assert {asked, reference.colour} <= set(query.text.replace(",", "").split())


def test_brighter_is_of_the_same_hue_with_more_colour(tmp_path: Path) -> None:
    shades = {"dull": (150, 90, 90), "bright": (200, 20, 30), "green": (30, 160, 40), "grey": (120, 120, 120)}
    photographs, rng = [], np.random.default_rng(0)
    for name, colour in shades.items():
        pixels = np.full((120, 100, 3), (205, 200, 190), np.float64)
        pixels[28:92, 26:74] = colour
        noisy = np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{name}.png")
        photographs.append(Photograph(f"{name}.png", tmp_path / f"{name}.png", KINDS["skirt"], TEST_SENDERS[0]))
    benchmark = photo_benchmark(photographs, eye_labels={})
    told = [
        (
            benchmark.pictures[query.reference].image_id,
            query.text,
            [benchmark.pictures[place].image_id for place in query.right.tolist()],
        )
        for query in benchmark.queries
        if query.group == "brighter, duller"
    ]
    assert sorted(told) == [("bright.png", "duller", ["dull.png"]), ("dull.png", "brighter", ["bright.png"])]


def test_what_has_a_print_is_asked_for_without_it(folder: Path) -> None:
    seen = {"0.png": EyeLabel("red", "short", "print"), "1.png": EyeLabel("blue", "short", "plain")}
    benchmark = photo_benchmark(read_photographs(folder), eye_labels=seen)
    (query,) = [query for query in benchmark.queries if query.group == "negation of a pattern, by eye"]
    assert benchmark.pictures[query.reference].image_id == "0.png"
    assert [benchmark.pictures[place].image_id for place in query.right.tolist()] == ["1.png"]
    assert query.text in ("without print", "no print", "without the print")


def test_an_edited_garment_has_one_right_answer_among_all_pictures(benchmark: PhotoBenchmark) -> None:
    queries = [query for query in benchmark.queries if query.group == "same garment, colour"]
    assert queries
    for query in queries:
        (target,) = query.right.tolist()
        assert benchmark.pictures[target].garment == benchmark.pictures[query.reference].garment
        assert len(query.gallery) == len(benchmark.pictures) - 1


def test_equal_seeds_make_equal_queries(folder: Path, benchmark: PhotoBenchmark) -> None:
    again = photo_benchmark(read_photographs(folder), eye_labels={"0.png": EyeLabel("red", "short", "plain")})
    assert [(q.group, q.reference, q.text) for q in again.queries] == [
        (q.group, q.reference, q.text) for q in benchmark.queries
    ]


def test_the_command_writes_a_table_a_report_and_a_sheet(folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = ["evaluate", "photos", "--root", str(folder), "--bundle", str(tiny_bundle), "--queries", "3"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    bundle = load_bundle(tiny_bundle)
    assert report["run"]["fingerprint"] == bundle.fingerprint
    assert report["run"]["model_sizes"]["token_rows"] == bundle.manifest.token_rows
    assert report["without_mask"] == 1
    assert report["unreadable"] == 1
    assert {group["group"] for group in report["groups"]} >= {"colour", "class", "same garment, colour"}
    for group in report["groups"]:
        for system in group["systems"].values():
            assert 0 <= system["low"] <= system["value"] <= system["high"] <= 1
    assert (tmp_path / "sheet.png").exists()
    text = (tmp_path / "report.md").read_text()
    assert "| colour |" in text
    assert f"Model with pictures of {bundle.manifest.preprocessing.size} pixels, vectors of" in text


def test_labels_made_by_eye_come_with_the_package() -> None:
    labels = read_eye_labels(EYE_LABELS)
    assert len(labels) == 300
    assert {label.sleeves for label in labels.values()} == {"long", "short", "none", ""}


def test_a_file_of_labels_with_an_unknown_colour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,colour,sleeves,pattern\n1.jpg,mauve,long,plain\n")
    with pytest.raises(InputError, match="names mauve; colours are black"):
        read_eye_labels(tmp_path / "labels.csv")
