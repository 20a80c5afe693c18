"""Several processes that index into one collection of a server, each a part; and galleries that are made half-way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import QdrantClient, models
from qdrant_front import Fault, rest_front

from qdrant_cir import Gallery, ImageRecord, InputError, StoreError, attach
from qdrant_cir.indexing.sources import in_part


def test_parts_are_disjoint_and_together_the_whole() -> None:
    names = [f"{n}.jpg" for n in range(300)]
    parts = [[name for name in names if in_part(name, (number, 3))] for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(len(part) > 60 for part in parts)


def test_three_processes_share_the_work_on_one_collection(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    write_solid_images(tmp_path / "pictures", {f"{n}": (n * 8, 0, n) for n in range(30)})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "QDRANT_CIR_PATH": "", "QDRANT_API_KEY": ""}
    with rest_front() as front:

        def index(part: int) -> subprocess.Popen[str]:
            command = ["index", str(tmp_path / "pictures"), "-c", "shop", "--url", front.url, "--json"]
            return subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from qdrant_cir.cli.app import main; main()",
                    *command,
                    "--part",
                    f"{part}/3",
                    "--bundle",
                    str(tiny_bundle),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )

        running = [index(part) for part in (1, 2, 3)]
        done = [process.communicate(timeout=300) for process in running]
        assert [process.returncode for process in running] == [0, 0, 0], done
        indexed = [json.loads(stdout)["indexed"] for stdout, _ in done]
        assert sum(indexed) == 30
        assert all(indexed)
        assert front.memory.count("shop").count == front.memory.count("shop__tokens").count == 30
        with Gallery.open("shop", store=front.url, bundle=tiny_bundle) as gallery:
            again = gallery.index(tmp_path / "pictures")
        assert (again.indexed, again.unchanged) == (0, 30)


def test_parts_of_an_attached_collection_are_its_points(tiny_bundle: Path, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("shop", vectors_config={})
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    points = [models.PointStruct(id=n, vector={}, payload={"image": "a.png"}) for n in range(20)]
    client.upsert("shop", points)
    gallery = attach(client, "shop", picture="image", root=tmp_path, bundle=tiny_bundle)
    first, second = (gallery.index(part=(number, 2)) for number in (1, 2))
    assert first.indexed > 0
    assert second.indexed > 0
    assert first.indexed + second.indexed == 20
    assert gallery.index().unchanged == 20


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_gallery_that_cannot_be_made_whole_leaves_nothing(tiny_bundle: Path, status: int) -> None:
    with rest_front() as front:
        front.is_faulty = lambda request: (request.method, request.path) == ("PUT", "/collections/shop")
        front.faults.append(Fault(status))
        with pytest.raises((StoreError, InputError)):
            Gallery.create("shop", store=front.url, bundle=tiny_bundle, retry_seconds=0)
        assert front.memory.get_collections().collections == []
        Gallery.create("shop", store=front.url, bundle=tiny_bundle).close()
        # what stood before stays
        front.memory.delete_collection("shop")
        front.faults.append(Fault(status))
        with pytest.raises((StoreError, InputError)):
            Gallery.create("shop", store=front.url, bundle=tiny_bundle, retry_seconds=0)
        assert [each.name for each in front.memory.get_collections().collections] == ["shop__tokens"]


@pytest.mark.parametrize("name", ["a/b", "x" * 200, ""])
def test_a_name_that_cannot_be_is_refused_as_it_was_given(tiny_bundle: Path, name: str) -> None:
    with pytest.raises(InputError) as raised:
        Gallery.create(name, store=":memory:", bundle=tiny_bundle)
    assert "__tokens" not in str(raised.value)


def test_one_record_is_in_one_part(tiny_bundle: Path) -> None:
    with Gallery.create("parted", store=":memory:", bundle=tiny_bundle) as gallery:
        record = ImageRecord("1", Image.new("RGB", (8, 8)), payload={}, source=None)
        assert sum(gallery.index([record], part=(number, 3)).indexed for number in (1, 2, 3)) == 1
        with pytest.raises(InputError, match="not a part"):
            gallery.index([record], part=(4, 3))
        gallery.drop()
