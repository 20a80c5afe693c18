"""A folder whose pictures go, change, or stand under the names of another folder's, on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from qdrant_client import QdrantClient, models
from typer.testing import CliRunner

from qdrant_cir import Gallery, ImageRecord, InputError, attach
from qdrant_cir.cli import app
from qdrant_cir.indexing.sources import RejectedRow

Write = Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]
Shop = Callable[..., Result]
COLORS = {f"{n}": (n * 20, 0, 0) for n in range(10)}


@pytest.fixture
def folder(tmp_path: Path, write_solid_images: Write) -> Path:
    write_solid_images(tmp_path / "pictures", COLORS)
    return tmp_path / "pictures"


@pytest.fixture
def shop(tmp_path: Path, tiny_bundle: Path) -> Shop:
    def index(folder: Path, *arguments: str) -> Result:
        place = ["-c", "shop", "--path", str(tmp_path / "store"), "--bundle", str(tiny_bundle)]
        return CliRunner().invoke(app, ["index", str(folder), *place, *arguments])

    return index


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_is_gone_from_the_folder_is_deleted_when_asked_and_only_listed_in_a_dry_run(
    folder: Path, shop: Shop
) -> None:
    report(shop(folder, "--json"))
    (folder / "3.png").unlink()
    (folder / "4.png").write_bytes(b"no picture any more")
    shown = shop(folder, "--prune", "--dry-run")
    assert "1 images of shop are not in the source any more; nothing was changed." in shown.stdout
    assert "  3.png" in shown.stdout
    kept = report(shop(folder, "--json"))
    assert (kept["images"], kept["pruned"]) == (10, [])
    assert "The version indexed before is kept." in kept["failed"][0]["reason"]
    pruned = report(shop(folder, "--prune", "--json"))
    assert pruned["pruned"] == ["3.png"]
    assert report(shop(folder, "--prune", "--json"))["images"] == 9


def test_a_folder_that_is_nearly_empty_deletes_nothing(folder: Path, shop: Shop) -> None:
    report(shop(folder, "--json"))
    for n in range(3):
        (folder / f"{n}.png").unlink()
    refused = shop(folder, "--prune")
    assert refused.exit_code == 3
    assert "Nothing was deleted: 3 of 10 images are not in the source, and at most 20%" in " ".join(
        refused.stderr.split()
    )
    assert report(shop(folder, "--prune", "--prune-limit", "0.3", "--json"))["images"] == 7


def test_replaced_pictures_are_counted_and_those_of_another_folder_are_noticed(
    folder: Path, shop: Shop, tmp_path: Path, write_solid_images: Write
) -> None:
    report(shop(folder, "--json"))
    write_solid_images(folder, {"1": (1, 200, 1)})
    again = report(shop(folder, "--json"))
    assert (again["indexed"], again["replaced"], again["replaced_from_elsewhere"]) == (1, 1, 0)
    # the same pictures at another place are moved, not replaced
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    third = report(shop(moved, "--json"))
    assert (third["indexed"], third["updated"], third["replaced"]) == (0, 10, 0)
    write_solid_images(tmp_path / "other", {"1": (9, 9, 200), "2": (9, 200, 200)})
    other = shop(tmp_path / "other")
    assert "Indexed 2 (2 replaced)" in other.stdout
    assert "2 of the replaced pictures came from another place." in other.stdout
    apart = report(shop(tmp_path / "other", "--prefix", "other/", "--json"))
    assert (apart["indexed"], apart["replaced"], apart["images"]) == (2, 0, 12)
    # pruning with a prefix sees its images alone
    (tmp_path / "other" / "2.png").unlink()
    pruned = report(shop(tmp_path / "other", "--prefix", "other/", "--prune", "--prune-limit", "0.5", "--json"))
    assert pruned["pruned"] == ["other/2.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dry-run",), "without --prune"),
        (("--prune", "--part", "1/2"), "do not go together"),
        (("--part", "3/2"), "'3/2' is not a part. Expected one such as 1/3"),
        (("--part", "0/2"), "is not a part"),
        (("--part", "half"), "Expected one such as 1/3"),
        (("--prune", "--prune-limit", "20"), "not a share"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    folder: Path, shop: Shop, arguments: tuple[str, ...], words: str
) -> None:
    refused = shop(folder, *arguments)
    assert refused.exit_code == 3
    assert words in " ".join(refused.stderr.split())


def test_a_row_that_names_no_picture_stops_the_pruning(tiny_bundle: Path) -> None:
    with Gallery.create("pruned", store=":memory:", bundle=tiny_bundle) as gallery:
        records = [ImageRecord(f"{n}", Image.new("RGB", (8, 8)), payload={}, source=None) for n in range(3)]
        gallery.index(records)
        with pytest.raises(InputError, match="row 2 names no picture"):
            gallery.prune([*records[:2], RejectedRow("row 2", "no file")], most=1)
        assert gallery.count() == 3
        assert gallery.prune(records[:1], most=1) == ["1", "2"]
        assert gallery.count() == 1
        gallery.drop()


def test_an_attached_collection_is_not_pruned(tiny_bundle: Path) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("shop", vectors_config={})
    client.upsert("shop", [models.PointStruct(id=1, vector={}, payload={"image": "a.png"})])
    gallery = attach(client, "shop", picture="image", bundle=tiny_bundle)
    with pytest.raises(InputError, match="`detach` leaves the collection as it was"):
        gallery.prune([], most=1)
    assert client.count("shop").count == 1
