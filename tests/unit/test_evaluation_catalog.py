"""What the catalogue's report adds: numbers by name for both stages, slices and controls.

Colours and order are those of ``test_evaluation_end_to_end.py``: "red, make it blue" has blue, pale, navy, black, red,
green in stage one, and blue, navy, black, pale, red, green in stage two. Of red alone the nearest other colours are
black (cosine 1/3), then navy (0). "make it blue" alone is blue itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qdrant_cir.cli.evaluate import evaluation_app

COLORS = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
TARGETS = ("navy", "blue")


@pytest.fixture
def shop(tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]) -> Path:
    folder = tmp_path / "shop"
    write_solid_images(folder / "images", COLORS)
    rows = ["image_id,file", *(f"{name},images/{name}.png" for name in COLORS)]
    (folder / "gallery.csv").write_text("\n".join(rows) + "\n")
    lines = [
        json.dumps(
            {
                "query_id": f"to {target}",
                "reference": "red",
                "modification_text": "make it blue",
                "targets": [target],
                "kind": "recolour",
                "combination": "unseen" if target == "blue" else "seen",
            }
        )
        for target in TARGETS
    ]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def report_of(shop: Path, bundle: Path, out: Path, *options: str) -> dict[str, Any]:
    arguments = ["catalog", "--root", str(shop), "--bundle", str(bundle), "--out", str(out), "--provider", "cpu"]
    result = CliRunner().invoke(evaluation_app, [*arguments, *options, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def values(stage: dict[str, dict[str, float]]) -> dict[str, float]:
    """Give a stage's numbers without their intervals, after looking at the intervals."""
    for number in stage.values():
        assert number["low"] <= number["value"] <= number["high"]
    return {name: number["value"] for name, number in stage.items()}


def test_both_stages_have_their_numbers_by_name(shop: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report = report_of(shop, tiny_bundle, tmp_path / "out")
    rest = {"recall@5": 100.0, "recall@10": 100.0, "recall@50": 100.0, "recall@100": 100.0}
    # navy goes from 3 to 2, blue stays first: (1/3 + 1) / 2 and (1/2 + 1) / 2
    assert values(report["stage_one"]) == pytest.approx({"recall@1": 50.0, **rest, "map@10": 100 * 2 / 3})
    assert values(report["stage_two"]) == pytest.approx({"recall@1": 50.0, **rest, "map@10": 75.0})
    assert report["ceiling"]["value"] == 100.0


def test_slices_are_per_kind_of_edit_and_by_what_training_has_seen(
    shop: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    report = report_of(shop, tiny_bundle, tmp_path / "out", "--no-controls")
    found = {entry["label"]: (entry["queries"], values(entry["stage_one"])["recall@1"]) for entry in report["slices"]}
    assert found == {"recolour": (2, 50.0), "seen combination": (1, 0.0), "unseen combination": (1, 100.0)}


def test_stage_one_is_read_to_100_however_few_are_re_ranked(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    folder = tmp_path / "shop"
    # 69 blues before navy at 70, which one candidate never brings into view
    names = ["red", *(f"blue{number:02d}" for number in range(69)), "navy"]
    write_solid_images(folder / "images", {name: COLORS[name.rstrip("0123456789")] for name in names})
    (folder / "gallery.csv").write_text("\n".join(["image_id,file", *(f"{n},images/{n}.png" for n in names)]) + "\n")
    query = {"reference": "red", "modification_text": "make it blue", "targets": ["navy"], "kind": "recolour"}
    (folder / "queries.jsonl").write_text(json.dumps(query) + "\n")
    report = report_of(folder, tiny_bundle, tmp_path / "out", "--rerank-depth", "1")
    for stage in ("stage_one", "stage_two"):
        found = values(report[stage])
        assert (found["recall@50"], found["recall@100"]) == (0.0, 100.0)
    assert report["ceiling"]["value"] == 0.0


def test_stage_one_alone_has_no_stage_two(shop: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report = report_of(shop, tiny_bundle, tmp_path / "out", "--rerank-depth", "0")
    assert report["stage_two"] is None
    assert report["ceiling"] is None


def controls_of(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        control["name"]: {figure["name"]: figure["interval"]["value"] for figure in control["figures"]}
        for control in report["controls"]
    }


def test_controls_ask_the_same_queries_with_one_half_taken_away(shop: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    found = controls_of(report_of(shop, tiny_bundle, tmp_path / "out"))
    assert list(found) == ["image-only", "text-only"]
    # by the picture black comes first and navy second; blue and green tie at a cosine of -1/3
    assert (found["image-only"]["R@1"], found["image-only"]["R@5"]) == (0.0, 100.0)
    # by the text blue comes first: one of these two queries can be answered without its picture
    assert (found["text-only"]["R@1"], found["text-only"]["R@10"]) == (50.0, 100.0)


def test_the_image_only_control_does_not_count_the_reference_as_a_result(
    shop: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    # black is the nearest other picture; were red in its own answer, black would come second
    query = {"reference": "red", "modification_text": "make it blue", "targets": ["black"], "kind": "recolour"}
    (shop / "queries.jsonl").write_text(json.dumps(query) + "\n")
    report = report_of(shop, tiny_bundle, tmp_path / "out")
    assert controls_of(report)["image-only"]["R@1"] == 100.0
    # the queries themselves keep the reference, as they were asked to
    answered = json.loads((tmp_path / "out" / "runs" / "queries_catalog_50.jsonl").read_text().splitlines()[1])
    assert "red" in [image_id for image_id, _ in answered["gallery"]["retrieved"]]


def test_a_query_with_nothing_left_in_a_control_counts_as_a_miss(shop: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    queries = [
        {"reference": "red", "modification_text": text, "targets": ["blue"], "kind": "recolour"}
        for text in ("make it blue", "")
    ]
    (shop / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    assert controls_of(report_of(shop, tiny_bundle, tmp_path / "out"))["text-only"]["R@1"] == 50.0


def test_the_printed_report_has_a_row_for_each_control(shop: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ["catalog", "--root", str(shop), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(evaluation_app, arguments)
    assert "## Controls" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("| text-only")]
    assert line.startswith("| text-only | 50.00 [")


def test_controls_can_be_left_out_and_are_run_when_they_are_asked_for_later(
    shop: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    first = report_of(shop, tiny_bundle, tmp_path / "out", "--no-controls")
    runs = sorted(path.name for path in (tmp_path / "out" / "runs").iterdir())
    assert runs == ["queries_catalog_50.jsonl"]
    second = report_of(shop, tiny_bundle, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == [
        "queries_catalog_50.jsonl",
        "queries_catalog_image-only.jsonl",
        "queries_catalog_text-only.jsonl",
    ]
    assert first["stage_one"] == second["stage_one"]
    assert (len(first["controls"]), len(second["controls"])) == (0, 2)
