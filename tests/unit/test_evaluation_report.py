"""What a reader is shown: the report in its forms, the plot, and the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from qdrant_cir.cli.evaluate import evaluation_app
from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.report.latency import summarize_latency
from qdrant_cir.evaluation.report.losses import TargetPlaces
from qdrant_cir.evaluation.report.rank_change_plot import draw_rank_changes
from qdrant_cir.types import Timings

Color = tuple[int, int, int]
EXCERPTS = Path(__file__).parents[1] / "data"
GREEN, RED = (22, 150, 72), (196, 64, 56)


@pytest.fixture
def fashioniq(tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]) -> Path:
    root = tmp_path / "fashioniq"
    shutil.copytree(EXCERPTS / "fashioniq", root)
    pales = {f"PALE{number:02d}": (96, 96, 160) for number in range(10)}
    colors = {"RED": (255, 0, 0), "BLUE": (0, 0, 255), "NAVY": (0, 0, 128), **pales}
    write_solid_images(root / "images", colors)
    return root


def test_the_command_prints_markdown_and_leaves_every_file(fashioniq: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["fashioniq", "--root", str(fashioniq), "--bundle", str(tiny_bundle), "--out", str(out)]
    result = CliRunner().invoke(evaluation_app, [*arguments, "--provider", "cpu"])
    assert result.exit_code == 0, result.output
    assert "# fashioniq (original)" in result.stdout
    assert "## Mean of 3 parts" in result.stdout
    assert "| R@10 | 33.33 [" in result.stdout
    assert "2 of 2 queries are scored, over 13 of 13 images." in result.stdout
    assert "The reference stays in the gallery." in result.stdout
    for name in ("report.md", "report.json", "queries.jsonl", "rank_change_dress.png"):
        assert (out / name).is_file()
    with Image.open(out / "rank_change_toptee.png") as plot:
        assert plot.size == (960, 720)


def test_a_second_call_answers_nothing_again_and_reports_the_same(
    fashioniq: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = ["fashioniq", "--root", str(fashioniq), "--bundle", str(tiny_bundle), "--out", str(tmp_path)]
    first = CliRunner().invoke(evaluation_app, [*arguments, "--json"])
    runs = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    second = CliRunner().invoke(evaluation_app, [*arguments, "--json"])
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert runs == {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    report = json.loads(first.stdout)
    assert report["unit"] == "percent"
    assert report["rows"][0]["name"] == "R@10"
    assert report["rows"][0]["reranked"]["value"] == pytest.approx(100 * (1 + 0 + 0.75) / 3)
    assert report["rows"][0]["gain"]["value"] == pytest.approx(25.0)
    assert report["ceiling"]["value"] == 100.0
    assert (report["resamples"], report["seed"]) == (1000, 0)
    assert [step["step"] for step in report["latency"]][-1] == "total"
    # by the picture alone NAVY, BLUE and the pales come at 1, 2 and 3 to 12, in every part; parts weigh the same
    image_only = report["controls"][0]["figures"][0]
    assert image_only["name"] == "R@10"
    assert image_only["interval"]["value"] == pytest.approx(100 * (1 + 0 + 0.75) / 3)


def test_the_catalogue_is_measured_per_kind_of_edit(tiny_bundle: Path, tmp_path: Path) -> None:
    from qdrant_cir.drawn.dataset import sample_drawn
    from qdrant_cir.drawn.files import write_drawn

    drawn = sample_drawn(5, products=40, queries=3)
    write_drawn(drawn, tmp_path / "shop", size=32)
    arguments = ["catalog", "--root", str(tmp_path / "shop"), "--bundle", str(tiny_bundle)]
    result = CliRunner().invoke(evaluation_app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    (part,) = json.loads(result.stdout)["parts"]
    assert (part["queries"], part["scored"], part["gallery"]) == (3, 3, 40)
    kinds = {query.kind for query in drawn.queries}
    per_kind = [entry for entry in part["slices"] if not entry["label"].endswith(" combination")]
    assert {entry["label"] for entry in per_kind} == kinds
    assert sum(entry["queries"] for entry in per_kind) == 3


def test_own_wants_a_folder_or_a_collection_but_not_both(tmp_path: Path) -> None:
    for arguments in ([], ["--root", str(tmp_path), "--collection", "shop"], ["--collection", "shop"]):
        result = CliRunner().invoke(evaluation_app, ["own", *arguments])
        assert isinstance(result.exception, InputError)


def test_the_plot_has_a_green_point_for_a_gain_and_a_red_one_for_a_loss() -> None:
    places = [
        TargetPlaces("up", retrieved=50, final=1),
        TargetPlaces("down", retrieved=1, final=50),
        TargetPlaces("no candidate", retrieved=None, final=None),
    ]
    plot = draw_rank_changes(places, rerank_depth=50, title="colors")
    assert (plot.mode, plot.size) == ("RGB", (960, 720))
    # the corners of the frame: the last place gained 49, the first lost 49
    assert plot.getpixel((930, 100)) == GREEN
    assert plot.getpixel((90, 640)) == RED


def test_the_plot_can_be_drawn_of_nothing_and_of_one_candidate() -> None:
    draw_rank_changes([], rerank_depth=50, title="none")
    draw_rank_changes([TargetPlaces("q", 1, 1)], rerank_depth=1, title="one")


def test_latency_is_in_milliseconds_and_per_step() -> None:
    timings = [
        Timings(encode=0.0, compose=0.001 * n, retrieve=0, fetch=0, rerank=0, total=0.001 * n) for n in range(1, 6)
    ]
    total = summarize_latency(timings)[-1]
    assert total.step == "total"
    assert total.mean_ms == pytest.approx(3.0)
    assert total.p50_ms == pytest.approx(3.0)
    # between 4 and 5 at 0.95 * 4 = 3.8 steps from the first
    assert total.p95_ms == pytest.approx(4.8)
    assert summarize_latency([]) == ()
