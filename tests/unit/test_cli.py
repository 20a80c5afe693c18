"""The command line on real stores, pictures and graphs: what it prints, and how it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import models
from typer.testing import CliRunner, Result

from qdrant_cir.cli import app, printing, upkeep
from qdrant_cir.cli.filters import parse_filters
from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import GraphVariant, load_bundle, write_manifest
from qdrant_cir.model.cores import int8_dot_products
from qdrant_cir.storage.stores import EdgeStore

COLORS: Mapping[str, tuple[int, int, int]] = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
# computed by hand in test_retriever.py
STAGE_ONE = ["blue.png", "pale.png", "navy.png", "black.png", "red.png", "green.png"]
STAGE_TWO = ["blue.png", "navy.png", "black.png", "pale.png", "red.png", "green.png"]


@dataclass(frozen=True, slots=True)
class Shop:
    """A folder of one-colour pictures, a store for them and the tiny bundle."""

    pictures: Path
    store: Path
    bundle: Path

    def run(self, *arguments: str, code: int = 0, text: str | None = None) -> Result:
        """Run a command on this store and demand its exit code."""
        result = CliRunner().invoke(
            app, [*arguments, "--path", str(self.store)], input=text, env={"QDRANT_URL": "", "NO_COLOR": "1"}
        )
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    def index(self, *arguments: str, code: int = 0) -> Result:
        return self.run(
            "index", str(self.pictures), "-c", "colors", "--bundle", str(self.bundle), *arguments, code=code
        )

    def search(self, *arguments: str, code: int = 0, collection: str = "colors") -> Result:
        given = () if "--bundle" in arguments else ("--bundle", str(self.bundle))
        return self.run("search", "-c", collection, *given, *arguments, code=code)


@pytest.fixture
def empty_shop(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> Shop:
    write_solid_images(tmp_path / "pictures", COLORS)
    return Shop(tmp_path / "pictures", tmp_path / "store", tiny_bundle)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> Shop:
    """A shop that is indexed, for all tests that change nothing of it."""
    folder = tmp_path_factory.mktemp("shop")
    write_solid_images(folder / "pictures", COLORS)
    shop = Shop(folder / "pictures", folder / "store", tiny_bundle)
    shop.index()
    return shop


@pytest.fixture
def own_shop(empty_shop: Shop) -> Shop:
    """A shop that is indexed, for one test."""
    empty_shop.index()
    return empty_shop


def ids(result: Result) -> list[str]:
    return [candidate["image_id"] for candidate in json.loads(result.stdout)["candidates"]]


def only_sentence(result: Result) -> str:
    """Return the one sentence of a refusal: nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_index_reports_what_it_did_and_a_second_run_encodes_nothing(empty_shop: Shop) -> None:
    first = json.loads(empty_shop.index("--json").stdout)
    assert (first["indexed"], first["unchanged"], first["failed"], first["images"]) == (6, 0, [], 6)
    second = json.loads(empty_shop.index("--json").stdout)
    assert (second["indexed"], second["unchanged"], second["images"]) == (0, 6, 6)


def test_index_builds_the_graph_once_and_not_at_all_where_nothing_was_new(
    empty_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimized: list[str] = []
    optimize = EdgeStore.optimize

    def counting(store: EdgeStore, name: str) -> None:
        optimized.append(name)
        optimize(store, name)

    monkeypatch.setattr(EdgeStore, "optimize", counting)
    empty_shop.index()
    assert optimized == ["colors", "colors__tokens"]
    empty_shop.index()
    assert optimized == ["colors", "colors__tokens"]


def test_index_names_a_bad_image_goes_on_and_ends_well(empty_shop: Shop) -> None:
    (empty_shop.pictures / "broken.png").write_bytes(b"no picture")
    result = empty_shop.index("--json")
    report = json.loads(result.stdout)
    assert report["indexed"] == 6
    assert [failed["image_id"] for failed in report["failed"]] == ["broken.png"]
    assert "broken.png" in empty_shop.index().stdout


def test_index_of_bad_images_alone_is_an_indexing_error(empty_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.png").write_bytes(b"no picture")
    result = empty_shop.run("index", str(tmp_path / "bad"), "-c", "bad", "--bundle", str(empty_shop.bundle), code=9)
    assert "Not one of 1 images could be indexed; the first, broken.png:" in result.stderr


def test_search_gives_the_order_that_a_person_computes(shop: Shop) -> None:
    red = str(shop.pictures / "red.png")
    answer = shop.search("--image", red, "--text", "make it blue", "--json")
    assert ids(answer) == STAGE_TWO
    alone = shop.search("--image", red, "--text", "make it blue", "--json", "--rerank-depth", "0")
    assert ids(alone) == STAGE_ONE
    by_id = shop.search("--image-id", "red.png", "--text", "make it blue", "--json", "--limit", "2")
    assert ids(by_id) == STAGE_TWO[:2]


def test_search_json_is_pure_and_holds_scores_ranks_timings_and_notes(shop: Shop) -> None:
    answer = json.loads(shop.search("--text", "blue", "--json").stdout)
    assert set(answer) == {
        *("query", "candidates", "rerank_mode", "scored", "precision", "timings", "notes"),
        *("match_probability", "is_match"),
    }
    assert set(answer["candidates"][0]) == {
        "rank",
        "id",
        "image_id",
        "score",
        "source",
        "retrieval_score",
        "retrieval_rank",
        "group",
        "view",
        "payload",
    }
    assert "_cir" not in answer["candidates"][0]["payload"]
    assert set(answer["timings"]) == {"encode", "compose", "retrieve", "fetch", "rerank", "total"}


def test_search_prints_a_table_with_places_and_payload(shop: Shop) -> None:
    table = shop.search("--image", str(shop.pictures / "red.png"), "--text", "make it blue").stdout
    lines = [line.split() for line in table.splitlines() if ".png" in line]
    assert [line[1] for line in lines] == STAGE_TWO
    assert lines[1][4] == "3"


def test_a_reference_of_weight_0_is_its_absence(shop: Shop) -> None:
    red, text = str(shop.pictures / "red.png"), ("--text", "make it blue", "--json")
    alone = json.loads(shop.search("--image", red, *text).stdout)
    weighted = json.loads(
        shop.search("--image", red, "--image-id", "green.png", "--weight", "1", "--weight", "0", *text).stdout
    )
    assert weighted["candidates"] == alone["candidates"]
    assert weighted["query"]["references"] == [red, "green.png"]
    assert weighted["query"]["weights"] == [1, 0]
    both = json.loads(shop.search("--image", red, "--image-id", "green.png", *text).stdout)
    assert both["candidates"] != alone["candidates"]


def test_what_must_not_be_lowers_what_it_names(shop: Shop) -> None:
    red = ("--image-id", "red.png", "--text", "make it blue", "--json")
    plain, without = (
        {each["image_id"]: each["score"] for each in json.loads(answer.stdout)["candidates"]}
        for answer in (shop.search(*red), shop.search(*red, "--must-not", "blue", "--must-not-weight", "2"))
    )
    assert without["blue.png"] < plain["blue.png"]


def test_exact_is_the_same_where_there_is_no_index_to_skip(shop: Shop) -> None:
    red = ("--image-id", "red.png", "--text", "make it blue", "--json")
    assert ids(shop.search(*red, "--exact")) == ids(shop.search(*red))


def test_a_candidate_that_was_not_re_ranked_has_no_score(shop: Shop) -> None:
    answer = json.loads(shop.search("--image-id", "red.png", "--text", "make it blue", "-k", "2", "--json").stdout)
    first, *_, last = answer["candidates"]
    assert first["score"] != first["retrieval_score"]
    assert (last["score"], last["retrieval_rank"]) == (None, last["rank"])


def test_groups_have_one_result_each_and_are_shown(empty_shop: Shop) -> None:
    rows = "".join(f"{name}.png,{'cold' if name in ('blue', 'navy', 'pale') else 'other'}\n" for name in COLORS)
    (empty_shop.pictures / "shop.csv").write_text("file,product\n" + rows)
    manifest = str(empty_shop.pictures / "shop.csv")
    empty_shop.run(
        "index", manifest, "-c", "colors", "--bundle", str(empty_shop.bundle), "--filterable", "product:keyword"
    )
    red = ("--image-id", "red.png", "--text", "make it blue", "--group-by", "product", "--group-size", "4")
    answer = json.loads(empty_shop.search(*red, "--json").stdout)
    assert [(each["image_id"], each["group"]) for each in answer["candidates"]] == [
        ("blue.png", "cold"),
        ("black.png", "other"),
    ]
    table = empty_shop.search(*red).stdout
    assert "group" in table
    assert "cold" in table


def test_the_first_line_says_what_a_packaged_bundle_is_for(empty_shop: Shop) -> None:
    fill = ("index", str(empty_shop.pictures), "-c", "clothes")
    first = empty_shop.run(*fill).stdout.splitlines()[0]
    assert first.startswith("Bundle photos, for photographs of clothes, trained on: ")
    assert empty_shop.run("info").stdout.splitlines()[0] == first


@pytest.mark.parametrize(("packaged", "name"), [("photos", "photos"), ("drawn", "catalog-small")])
def test_a_gallery_of_a_former_version_of_a_packaged_bundle_is_told_so(
    empty_shop: Shop, build_tiny_bundle: Callable[..., Path], tmp_path: Path, packaged: str, name: str
) -> None:
    former = build_tiny_bundle(tmp_path / "former", name=name)
    empty_shop.run("index", str(empty_shop.pictures), "-c", "colors", "--bundle", str(former))
    its, ours = load_bundle(former).fingerprint[:12], load_bundle(packaged).fingerprint[:12]
    first = empty_shop.run("info").stdout.splitlines()[0]
    assert first == f"Bundle {name} ({its}), another version than the packaged one"
    refused = empty_shop.run("search", "--image-id", "red.png", "-c", "colors", "--text", "in blue", code=6)
    assert f"'{name}' ({its}); expected another version of it ({ours})" in refused.stderr
    assert "Use that bundle, or index the images into another collection" in refused.stderr


def test_the_first_line_names_the_bundle_and_what_it_was_trained_on(empty_shop: Shop) -> None:
    file = empty_shop.bundle / "cir_config.json"
    empty = empty_shop.index().stdout.splitlines()[0]
    assert empty == "Bundle tiny"
    config = json.loads(file.read_text())
    bundle = empty_shop.store.parent / "bundle"
    shutil.copytree(empty_shop.bundle, bundle)
    config["provenance"] = {"source": "a checkpoint", "made_of": {"training_data": "200 photographs of  hats"}}
    (bundle / "cir_config.json").write_text(json.dumps(config))
    hats = ("index", str(empty_shop.pictures), "-c", "colors", "--bundle", str(bundle))
    assert empty_shop.run(*hats).stdout.splitlines()[0] == "Bundle tiny, trained on: 200 photographs of hats"
    told = empty_shop.run(*hats, "--json")
    assert json.loads(told.stdout)["bundle"]["training_data"] == "200 photographs of hats"
    assert empty_shop.run("info").stdout.splitlines()[0] == "Bundle tiny"


def test_filters_narrow_and_repeating_them_means_and(shop: Shop) -> None:
    red = str(shop.pictures / "red.png")
    answer = shop.search(
        "--image",
        red,
        "--text",
        "make it blue",
        "--json",
        "--filter",
        "file!=blue.png",
        "-f",
        "file != navy.png",
    )
    assert ids(answer) == ["black.png", "pale.png", "red.png", "green.png"]


def test_excluding_the_reference_leaves_it_out(shop: Shop) -> None:
    blue = str(shop.pictures / "blue.png")
    assert "blue.png" not in ids(shop.search("--image", blue, "--text", "same", "--exclude-reference", "--json"))


def test_save_draws_a_sheet_and_does_not_change_the_answer(shop: Shop, tmp_path: Path) -> None:
    arguments = ("--image-id", "red.png", "--text", "make it blue", "--limit", "2", "--json")
    saved = shop.search(*arguments, "--save", str(tmp_path / "new" / "sheet.png"))
    assert ids(saved) == STAGE_TWO[:2]
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 1000
        colors = {color for _, color in sheet.getcolors(maxcolors=1 << 20) or []}
    # the reference, and stage one's second, which re-ranking has moved behind the limit
    assert {COLORS["red"], COLORS["pale"]} <= colors


def test_save_to_a_name_without_a_format_is_refused(shop: Shop, tmp_path: Path) -> None:
    result = shop.search("--text", "blue", "--save", str(tmp_path / "sheet"), code=3)
    assert "ends in .png or .jpg" in only_sentence(result)


def test_info_holds_images_and_names_the_bundle(shop: Shop) -> None:
    told = json.loads(shop.run("info", "--json").stdout)
    assert told["images"] == 6
    (row,) = told["collections"]
    assert (row["collection"], row["images"], row["vector_size"]) == ("colors", 6, 3)
    assert json.loads(shop.run("info", "-c", "colors", "--json").stdout)["images"] == 6
    assert "colors" in shop.run("info").stdout
    assert told["int8_dot_products"] is int8_dot_products()


def test_info_advises_for_or_against_int8_by_what_the_processor_has(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has, advice in ((False, "no 8-bit dot products: precision int8 may gain nothing"), (None, None)):
        monkeypatch.setattr(upkeep, "int8_dot_products", lambda has=has: has)
        text = " ".join(shop.run("info").stdout.split())
        assert ("8-bit" in text) is (advice is not None)
        assert advice is None or advice in text
    monkeypatch.setattr(upkeep, "int8_dot_products", lambda: True)
    assert "has 8-bit dot products: precision int8 is faster here" in " ".join(shop.run("info").stdout.split())


def test_info_expects_more_memory_of_more_threads_and_of_a_greater_depth(shop: Shop) -> None:
    def expected(*arguments: str) -> int:
        told = json.loads(shop.run("info", "--bundle", "drawn", "--json", *arguments).stdout)
        assert [each["expected_memory"] for each in told["bundles"] if each["name"] == "tiny"] == [None]
        (found,) = (each["expected_memory"] for each in told["bundles"] if each["name"] != "tiny")
        return int(found)

    one, two = expected("--threads", "1"), expected("--threads", "2")
    # 8 candidates of 65 x 192 tokens, 12 heads' 32 rows over them, and 64 states, in floats, five times
    assert two - one == 5 * 4 * 8 * (65 * 192 + 12 * 32 * (65 + 192) + 64 * (4 * 192 + 2 * 768))
    # 12,480 values, a scale of 4 bytes for each of 65 rows, and the header
    assert expected("--threads", "1", "-k", "101") - one == 5 * (65 * 192 + 65 * 4 + 20)
    printed = shop.run("info", "--bundle", "drawn", "--threads", "1").stdout
    assert f"at most {one / 1e6:.0f} MB for it, on 1 thread, re-ranking 100" in " ".join(printed.split())


def test_info_measures_int8_on_request_and_says_where_there_is_none(shop: Shop, tmp_path: Path) -> None:
    def measured(bundle: Path) -> tuple[float | None, str]:
        asked = ("info", "--measure-int8", "--bundle", str(bundle))
        (speed,) = (each["int8_speed"] for each in json.loads(shop.run(*asked, "--json").stdout)["bundles"])
        return speed, " ".join(shop.run(*asked).stdout.split())

    speed, text = measured(shop.bundle)
    assert speed is None
    assert "has no int8 re-ranker" in text
    twice = Path(shutil.copytree(shop.bundle, tmp_path / "twice"))
    manifest = load_bundle(twice).manifest
    entry = manifest.graphs["reranker"]
    same = replace(entry, variants={"int8": GraphVariant(entry.file, entry.files)})
    write_manifest(twice, replace(manifest, graphs={**manifest.graphs, "reranker": same}))
    speed, text = measured(twice)
    assert speed is not None
    assert speed > 0
    assert "times as fast as in float32 here" in text


def test_info_about_a_bundle_needs_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["info", "--measure-int8", "--bundle", "drawn"]
    told = CliRunner().invoke(app, asked, env={"QDRANT_URL": "", "NO_COLOR": "1"})
    assert told.exit_code == 0
    assert "re-ranking 100 in float32" in " ".join(told.stdout.split())
    assert "has no int8 re-ranker" in " ".join(told.stdout.split())
    assert list(tmp_path.iterdir()) == []
    refused = CliRunner().invoke(app, [*asked, "--path", "none"], env={"QDRANT_URL": "", "NO_COLOR": "1"})
    assert "There is no store in" in refused.stderr


def test_delete_removes_images_and_says_which_were_unknown(own_shop: Shop) -> None:
    result = own_shop.run("delete", "-c", "colors", "--image-id", "red.png", "--image-id", "who.png", "--yes", "--json")
    told = json.loads(result.stdout)
    assert (told["deleted"], told["unknown"]) == (1, ["who.png"])
    assert json.loads(own_shop.run("info", "--json").stdout)["images"] == 5


def test_delete_asks_first_and_all_removes_the_collection(own_shop: Shop) -> None:
    own_shop.run("delete", "-c", "colors", "--all", text="n\n", code=1)
    assert json.loads(own_shop.run("info", "--json").stdout)["images"] == 6
    own_shop.run("delete", "-c", "colors", "--all", text="y\n")
    assert json.loads(own_shop.run("info", "--json").stdout)["collections"] == []


@pytest.mark.parametrize("half", ["colors", "colors__tokens"])
def test_a_deletion_that_was_killed_half_way_is_finished_by_the_next(own_shop: Shop, half: str) -> None:
    with EdgeStore(own_shop.store) as store:
        store.drop(half)
    own_shop.run("delete", "-c", "colors", "--all", "--yes")
    with EdgeStore(own_shop.store) as store:
        assert store.collection_names() == []
    assert "colors" in only_sentence(own_shop.run("delete", "-c", "colors", "--all", "--yes", code=6))


def test_delete_takes_ids_as_arguments_too(own_shop: Shop) -> None:
    told = json.loads(own_shop.run("delete", "red.png", "blue.png", "-c", "colors", "--yes", "--json").stdout)
    assert told["deleted"] == 2
    assert "or --all" in only_sentence(own_shop.run("delete", "-c", "colors", "--yes", code=3))


def test_fields_are_indexed_by_kind_and_an_unknown_kind_names_them_all(own_shop: Shop) -> None:
    told = json.loads(own_shop.run("index-field", "file:keyword", "size:integer", "-c", "colors", "--json").stdout)
    assert told["fields"] == {"file": "keyword", "size": "integer"}
    assert "keyword, integer, float" in only_sentence(own_shop.run("index-field", "file:word", "-c", "colors", code=3))
    assert "FIELD:KIND" in only_sentence(own_shop.index("--filterable", "file", code=3))


def test_a_text_that_is_too_long_is_cut_and_said_so_on_stderr(shop: Shop) -> None:
    result = shop.search("--text", "make it blue " + "same " * 500, "--json")
    assert ids(result)[0] == "blue.png"
    assert any("too long" in note for note in json.loads(result.stdout)["notes"])
    assert "too long" in shop.search("--text", "make it blue " + "same " * 500).stderr


def test_a_depth_larger_than_the_collection_is_fine(shop: Shop) -> None:
    assert len(ids(shop.search("--text", "blue", "-k", "5000", "-n", "5000", "--json"))) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 3, "neither a reference image nor a modification text"),
        (("--text", "  "), 3, "neither a reference image nor a modification text"),
        (("--text", "blue", "--limit", "0"), 3, "limit is 0; it must be at least 1"),
        (("--text", "blue", "--rerank-depth", "-1"), 3, "0 means stage one alone"),
        (("--text", "blue", "--filter", "colour=red"), 3, "colour"),
        (("--text", "blue", "--filter", "file"), 3, "Expected FIELD OPERATOR VALUE"),
        (("--text", "blue", "--image-id", "who.png"), 3, "'who.png'"),
        (("--text", "blue", "--image", "no/such/file.png"), 3, "no/such/file.png"),
        (
            ("--text", "blue", "--image-id", "red.png", "--weight", "1", "--weight", "2"),
            3,
            "Give one weight per reference",
        ),
        (("--text", "blue", "--must-not-weight", "1"), 3, "without --must-not"),
        (("--text", "blue", "--group-size", "3"), 3, "without --group-by"),
        (("--text", "blue", "--vector", "cir"), 6, "Nothing is attached"),
        (("--text", "blue", "--bundle", "no/such/bundle"), 4, "no/such/bundle"),
        (("--text", "blue", "--provider", "tpu"), 3, "auto, cpu, cuda"),
        (("--text", "blue", "--url", "http://localhost:6333"), 3, "--path"),
    ],
)
def test_bad_arguments_get_one_sentence_and_a_code(
    shop: Shop, arguments: Sequence[str], code: int, sentence: str
) -> None:
    assert sentence in only_sentence(shop.search(*arguments, code=code))


def test_an_unreadable_image_is_named(shop: Shop, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not really")
    assert "broken.jpg" in only_sentence(shop.search("--image", str(broken), "--text", "blue", code=3))


def test_an_unknown_collection_is_refused_and_what_exists_is_named(shop: Shop) -> None:
    sentence = only_sentence(shop.search("--text", "blue", collection="colours", code=6))
    assert "colours" in sentence
    assert "colors" in sentence
    for arguments in (("info", "-c", "colours"), ("delete", "-c", "colours", "--all", "--yes")):
        assert "colors" in only_sentence(shop.run(*arguments, code=6))


def test_a_store_that_does_not_exist_is_refused_and_not_made(empty_shop: Shop) -> None:
    assert "qdrant-cir index" in only_sentence(empty_shop.search("--text", "blue", code=6))
    assert not empty_shop.store.exists()


def test_another_bundles_collection_is_refused(
    own_shop: Shop, tmp_path: Path, build_tiny_bundle: Callable[..., Path]
) -> None:
    other = str(build_tiny_bundle(tmp_path / "other", codec="float32"))
    assert "bundle" in only_sentence(own_shop.search("--text", "blue", "--bundle", other, code=6))
    result = own_shop.run("index", str(own_shop.pictures), "-c", "colors", "--bundle", other, code=6)
    assert "bundle" in only_sentence(result)


def test_a_store_that_another_process_holds_is_refused(shop: Shop) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from qdrant_cir.storage.stores.edge import EdgeStore; s = EdgeStore(sys.argv[1]); "
            "print(s.collection_names(), flush=True); sys.stdin.read()",
            str(shop.store),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert b"colors" in holder.stdout.readline()
        assert str(shop.store) in only_sentence(shop.search("--text", "blue", code=7))
    finally:
        holder.communicate()


def test_a_server_that_cannot_be_reached_is_named(empty_shop: Shop) -> None:
    result = CliRunner().invoke(app, ["info", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 7
    assert "http://127.0.0.1:1" in only_sentence(result)


def test_a_missing_extra_says_what_to_install(shop: Shop) -> None:
    blocked = "import sys; sys.modules['onnxruntime'] = None; from qdrant_cir.cli import main; main()"
    places = ("--path", str(shop.store), "--bundle", str(shop.bundle))
    result = subprocess.run(
        [sys.executable, "-c", blocked, "search", "-c", "colors", "--text", "blue", *places],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 11
    assert 'pip install "qdrant-cir[cpu]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_where_an_error_comes_from(shop: Shop) -> None:
    arguments = ["search", "-c", "colors", "--path", str(shop.store), "--bundle", "no/bundle"]
    result = CliRunner().invoke(app, ["--debug", *arguments])
    assert result.exit_code == 4
    assert "Traceback" in result.stderr


def test_ctrl_c_says_how_much_is_in_and_that_the_same_command_goes_on(
    empty_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qdrant_cir.indexer import Indexer, IndexProgress

    def interrupted(*_: object, progress: Callable[[IndexProgress], None], **__: object) -> None:
        progress(IndexProgress(66, 372, 64, 0, 0, 2, 1.0, None))
        raise KeyboardInterrupt

    monkeypatch.setattr(Indexer, "index", interrupted)
    result = empty_shop.index(code=130)
    assert result.stderr == "Interrupted: 64 of 372 are in. Run the same command to continue.\n"


def test_ctrl_c_promises_nothing_where_nothing_is_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qdrant_cir.gallery.Gallery.search", interrupted)
    assert shop.search("--text", "blue", code=130).stderr == "Interrupted.\n"


def test_how_to_talk_to_a_server_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from qdrant_cir.errors import StoreError
    from qdrant_cir.storage.stores.server import ServerStore

    given: list[object] = []

    def connect(url: str, api_key: str | None, **options: object) -> ServerStore:
        given.extend([url, api_key, options])
        raise StoreError("enough")

    monkeypatch.setattr(ServerStore, "connect", connect)
    options = ["--url", "http://host:6333", "--api-key", "k", "--retry-seconds", "2.5"]
    result = CliRunner().invoke(app, ["info", *options], env={"QDRANT_GRPC_PORT": "7001"})
    assert result.exit_code == 7
    assert given == ["http://host:6333", "k", {"grpc_port": 7001, "retry_seconds": 2.5}]


def condition(key: str, **fields: object) -> models.FieldCondition:
    return models.FieldCondition.model_validate({"key": key, **fields})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("color=red", condition("color", match={"value": "red"})),
        (" name = big red hat ", condition("name", match={"value": "big red hat"})),
        ("size='42'", condition("size", match={"value": "42"})),
        ("shop name=x", condition('"shop name"', match={"value": "x"})),
        ("note=a=b", condition("note", match={"value": "a=b"})),
        ('"a=b"=c', condition('"a=b"', match={"value": "c"})),
        ("size[cm]=x", condition('"size[cm]"', match={"value": "x"})),
        ("sizes[0].cm=x", condition("sizes[0].cm", match={"value": "x"})),
        ("price<50", condition("price", range={"lt": 50})),
        ("price>=19.5", condition("price", range={"gte": 19.5})),
        ("shop.price <= -1e3", condition("shop.price", range={"lte": -1000})),
        ("added>2025-01-31", condition("added", range=models.DatetimeRange(gt=datetime(2025, 1, 31)))),
        (
            "size=42",
            models.Filter(
                should=[
                    condition("size", range={"gte": 42, "lte": 42}),
                    condition("size", match={"value": "42"}),
                ]
            ),
        ),
        (
            "sale=true",
            models.Filter(
                should=[
                    condition("sale", match={"value": True}),
                    condition("sale", match={"value": "true"}),
                ]
            ),
        ),
    ],
)
def test_filter_expressions_become_conditions(expression: str, expected: models.Condition) -> None:
    assert parse_filters([expression]) == models.Filter(must=[expected])


def test_unequal_is_must_not_and_no_expressions_are_no_filter() -> None:
    assert parse_filters([]) is None
    assert parse_filters(["color!=red"]) == models.Filter(must_not=[condition("color", match={"value": "red"})])


def test_a_name_with_dots_is_a_path_but_where_a_field_is_called_so() -> None:
    asked: list[int] = []

    def fields() -> list[str]:
        asked.append(1)
        return ["price.usd", "sizes[0]"]

    wanted = ["price.usd=x", "sizes[0]=x", "shop.price=x", "color=x", '"a.b"=x']
    filter = parse_filters(wanted, fields=fields)
    assert filter is not None
    assert isinstance(filter.must, list)
    keys = [each.key for each in filter.must if isinstance(each, models.FieldCondition)]
    assert keys == ['"price.usd"', '"sizes[0]"', "shop.price", "color", '"a.b"']
    assert len(asked) == 3


@pytest.mark.parametrize("expression", ["a" + " " * 200_000, '"' * 200_001, "a.b" * 70_000, " " * 200_000 + "="])
def test_a_long_expression_is_refused_at_once(expression: str) -> None:
    begin = time.thread_time()
    with pytest.raises(InputError) as refusal:
        parse_filters([expression])
    assert time.thread_time() - begin < 1
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("expression", ["", "color", "=red", "color=", "price<cheap", "price>", "price<nan"])
def test_expressions_that_cannot_be_read_are_refused_as_given(expression: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_filters([expression])
    assert repr(expression) in str(refusal.value)


def test_a_narrow_terminal_shortens_the_last_column_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    printing.print_table(("#", "image", "payload"), [("1", "a" * 12, "x" * 200)])
    row = next(line for line in capsys.readouterr().out.splitlines() if "aaa" in line)
    assert row.split()[:2] == ["1", "a" * 12]
    assert row.rstrip().endswith("\u2026")
    assert len(row) <= 40


def test_search_says_how_much_was_re_ranked_and_a_calibration_ends_it_early(shop: Shop, tmp_path: Path) -> None:
    image = ["--image", str(shop.pictures / "red.png"), "--text", "make it blue", "--limit", "1", "--json"]
    exact = json.loads(shop.search(*image).stdout)
    assert (exact["rerank_mode"], exact["scored"]) == ("exact", 6)
    bound = {"limit": 1, "confidence": 0.9, "lead": -1e9}
    calibration = {"format_version": 1, "bundle": load_bundle(shop.bundle).fingerprint}
    calibration |= {"rerank_depth": 50, "step": 2, "queries": 100, "bounds": [bound]}
    file = tmp_path / "effort.json"
    file.write_text(json.dumps(calibration), encoding="utf-8")
    early = json.loads(shop.search(*image, "--confidence", "0.9", "--calibration", str(file)).stdout)
    assert (early["rerank_mode"], early["scored"]) == ("adaptive", 2)
    assert "--confidence" in only_sentence(shop.search(*image, "--calibration", str(file), code=3))


def test_calibrate_writes_what_search_reads(shop: Shop, tmp_path: Path) -> None:
    lines = [json.dumps({"reference": f"{name}.png", "modification_text": "make it blue"}) for name in COLORS] * 4
    (tmp_path / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    file = tmp_path / "effort.json"
    options = ["-c", "colors", "--bundle", str(shop.bundle), "--queries", str(tmp_path / "queries.jsonl")]
    told = json.loads(
        shop.run("calibrate", *options, "--out", str(file), "--rerank-depth", "6", "--step", "2", "--json").stdout
    )
    assert (told["queries"], told["rerank_depth"], told["step"]) == (24, 6, 2)
    answer = shop.search(
        "--text", "blue", "-k", "6", "--limit", "2", "--confidence", "0.9", "--calibration", str(file), "--json"
    )
    assert json.loads(answer.stdout)["rerank_mode"] in ("exact", "adaptive")


def test_explain_shows_words_and_cells_as_a_table_as_json_and_as_a_picture(
    tmp_path: Path,
    build_tiny_bundle: Callable[..., Path],
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    paths = write_solid_images(tmp_path / "pictures", COLORS)
    half = Image.new("RGB", (20, 20), (0, 0, 255))
    half.paste((255, 0, 0), (0, 0, 10, 20))
    half.save(tmp_path / "pictures" / "half.png")
    shop = Shop(tmp_path / "pictures", tmp_path / "store", build_tiny_bundle(tmp_path / "bundle", weighted=True))
    shop.index()
    query = (
        "half.png",
        "-c",
        "colors",
        "--bundle",
        str(shop.bundle),
        "-i",
        str(paths[list(COLORS).index("red")]),
        "-t",
        "make it blue",
    )
    told = json.loads(shop.run("explain", *query, "--json").stdout)
    assert [word["word"] for word in told["words"]] == ["make", "it", "blue"]
    assert told["words"][2]["drop"] > 0.2
    saved = tmp_path / "why.png"
    shown = shop.run("explain", *query, "--save", str(saved))
    assert f"now number {told['candidate']['rank']} of 7" in shown.stdout
    assert "row 1 column 2" in shown.stdout
    with Image.open(saved) as sheet:
        drawn = sheet.convert("RGB")
    # the candidate, 448 px wide from 28 on: the blue half, which carries the score, is redder than it was
    assert drawn.getpixel((28 + 336, 250)) != (0, 0, 255)
    assert drawn.getpixel((28 + 112, 250)) == (255, 0, 0)
    assert "not among" in only_sentence(shop.run("explain", *query, "-k", "1", code=3))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("index", "{pictures}", "--prune", "--prune-limit", "-1"), "share of the images"),
        (("index", "{pictures}", "--prune", "--prune-limit", "nan"), "share of the images"),
        (("index", "{pictures}", "--retry-seconds", "nan"), "--retry-seconds"),
        (("index", "{pictures}", "--retry-seconds", "-1"), "--retry-seconds"),
        (("index", "{pictures}", "--grpc-port", "0"), "--grpc-port"),
        (("serve", "--min-match", "-1"), "--min-match"),
        (("serve", "--min-match", "nan"), "--min-match"),
        (("calibrate", "--queries", "{queries}", "--out", "{out}", "--step", "0"), "--step"),
        (("calibrate", "--queries", "{queries}", "--out", "{out}", "--rerank-depth", "0"), "--rerank-depth"),
        (("calibrate", "--queries", "{queries}", "--out", "{none}/cal.json"), "--out"),
        (("calibrate-match", "--edits", "0"), "--edits"),
        (("evaluate", "own", "--root", "{pictures}", "--queries", "{queries}", "-k", "-1"), "rerank_depth is -1"),
        (("evaluate", "own", "--root", "{pictures}", "--queries", "{queries}", "-k", "9" * 20), "rerank_depth is 9"),
        (("calibrate-match", "--seed", "-1"), "--seed"),
        (("catalog", "build", "--out", "{out}", "--size", "99999999999999999999"), "size"),
        (("catalog", "build", "--out", "{out}", "--products", "99999999999999999999"), "at most 1,000,000 products"),
        (("demo", "--out", "{out}", "--products", "99999999999999999999"), "at most 1,000,000 products"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_number_that_cannot_be_used_is_refused_before_anything_is_done(
    tmp_path: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
    tiny_bundle: Path,
    command: tuple[str, ...],
    words: str,
) -> None:
    pictures = tmp_path / "pictures"
    write_solid_images(pictures, {"red": (255, 0, 0)})
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"reference": "red.png", "modification_text": "blue", "targets": ["red.png"]}\n' * 20)
    places = {"pictures": pictures, "queries": queries, "out": tmp_path / "out", "none": tmp_path / "none"}
    made = [part.format(**places) for part in command]
    if command[0] == "evaluate":
        made += ["--out", str(tmp_path / "out")]
    elif command[0] not in ("catalog", "demo"):
        made += ["--collection", "shop", "--path", str(tmp_path / "store"), "--bundle", str(tiny_bundle)]
    refused = CliRunner().invoke(app, made, env={"QDRANT_URL": "", "NO_COLOR": "1", "COLUMNS": "200"})
    assert refused.exit_code in (2, 3), (refused.stdout, refused.stderr, refused.exception)
    assert words in refused.stderr
    # there is no store, and nothing was asked for before
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "queries.jsonl"}
