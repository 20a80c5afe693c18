"""Writes of a collection that is sharded by keys name their key, and those of any other name none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import models
from qdrant_front import RestFront, rest_front
from typer.testing import CliRunner

from qdrant_cir import CollectionOptions, Gallery, ImageRecord, InputError, attach, attach_async
from qdrant_cir.cli import app

COLORS = ("red", "blue")
CUSTOM = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        yield front


def record(image_id: str, color: str, **payload: int) -> ImageRecord:
    return ImageRecord(image_id, Image.new("RGB", (8, 8), color), payload={**payload}, source=None)


def everything(gallery: Gallery) -> None:
    """Write, change the payload, drop a field, and delete."""
    gallery.index([record("1", "red", a=1, b=2), record("2", "blue")])
    gallery.index([record("1", "red", a=3), record("2", "blue")])
    gallery.delete(["2"])


def keys(front: RestFront) -> set[object]:
    """The shard keys of all writes of points; None where one has none."""
    found: set[object] = set()
    for request in front.requests:
        if request.path.endswith("/batch"):
            changes = [change for operation in request.body["operations"] for change in operation.values()]
            found |= {change.get("shard_key") for change in changes}
        elif request.path.endswith("/delete") or (
            request.method == "PUT" and request.path.endswith(("/points", "/points/vectors"))
        ):
            found.add(request.body.get("shard_key"))
    return found


def test_every_write_goes_to_the_key_which_is_made_in_both_collections(front: RestFront, tiny_bundle: Path) -> None:
    front.placement = {"sharding_method": "custom"}
    for _ in range(2):
        with Gallery.create(
            "shop", store=front.url, bundle=tiny_bundle, options=CUSTOM, shard_key="tenant-1"
        ) as gallery:
            everything(gallery)
    assert front.shard_keys == {"shop": {"tenant-1"}, "shop__tokens": {"tenant-1"}}
    assert keys(front) == {"tenant-1"}
    with Gallery.open("shop", store=front.url, bundle=tiny_bundle, shard_key="tenant-1") as gallery:
        gallery.search(None, "blue", shard_key_selector="tenant-1")
    asked = front.asked("POST", "points/query")[-1].body
    assert asked["shard_key"] == "tenant-1"


def test_a_collection_without_keys_is_given_none(front: RestFront, tiny_bundle: Path) -> None:
    with Gallery.create("shop", store=front.url, bundle=tiny_bundle, shard_key="tenant-1") as gallery:
        everything(gallery)
    assert keys(front) == {None}
    assert front.shard_keys == {}


def own_points(front: RestFront, pictures: Path) -> None:
    """A collection of the user's, with two pictures."""
    front.memory.create_collection("products", vectors_config={})
    front.memory.upsert(
        "products",
        [models.PointStruct(id=n, payload={"picture": f"{color}.png"}, vector={}) for n, color in enumerate(COLORS, 1)],
    )
    for color in COLORS:
        Image.new("RGB", (8, 8), color).save(pictures / f"{color}.png")
    front.placement = {"sharding_method": "custom"}


def test_an_attached_gallery_writes_to_the_key_which_is_made_in_the_companion_alone(
    front: RestFront, tiny_bundle: Path, tmp_path: Path
) -> None:
    own_points(front, tmp_path)

    def join(key: str) -> Gallery:
        given = {"picture": "picture", "bundle": tiny_bundle, "root": tmp_path}
        return attach(front.url, "products", **given, shard_key=key)  # type: ignore[arg-type]

    with join("tenant-1") as gallery:
        assert gallery.index().indexed == len(COLORS)
        gallery.delete([1])
    assert front.shard_keys == {"products__cir": {"tenant-1"}}
    assert keys(front) == {"tenant-1"}
    join("tenant-2").close()
    assert front.shard_keys == {"products__cir": {"tenant-1", "tenant-2"}}

    async def index() -> None:
        async with attach_async(
            front.url, "products", picture="picture", bundle=tiny_bundle, root=tmp_path, shard_key="tenant-1"
        ) as again:
            assert (await again.index()).indexed == 1

    front.calls()
    asyncio.run(index())
    assert keys(front) == {"tenant-1"}


def test_the_command_line_writes_to_the_key(front: RestFront, tiny_bundle: Path, tmp_path: Path) -> None:
    own_points(front, tmp_path)
    store = ["--url", front.url, "--shard-key", "7"]
    common = [*store, "--bundle", str(tiny_bundle)]
    for command in (
        ["index", str(tmp_path), "-c", "shop", *common],
        ["delete", "blue", "-c", "shop", "-y", *store],
        ["attach", "-c", "products", "--picture", "picture", "--root", str(tmp_path), *common],
        ["index", "-c", "products", *common],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert front.shard_keys == {"shop": {7}, "shop__tokens": {7}, "products__cir": {7}}
    assert keys(front) == {7}


def test_where_there_are_no_shards_a_key_is_refused(tmp_path: Path, tiny_bundle: Path, front: RestFront) -> None:
    with pytest.raises(InputError, match="embedded store has no shards"):
        Gallery.create("shop", store=tmp_path / "store", bundle=tiny_bundle, shard_key="tenant-1")
    with pytest.raises(InputError, match="not a shard key"):
        Gallery.create("shop", store=front.url, bundle=tiny_bundle, shard_key="")


def test_a_key_for_a_collection_without_keys_is_said_not_to_be_used(
    front: RestFront, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Gallery.create("shop", store=front.url, bundle=tiny_bundle, shard_key="tenant-1") as gallery:
        everything(gallery)
    assert caplog.text.count("shop is not sharded by keys: the shard key 'tenant-1' is not used.") == 1
    assert keys(front) == {None}
