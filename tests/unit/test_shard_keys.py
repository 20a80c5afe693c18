"""Writes of a collection that is sharded by keys name their key, and those of any other name none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from qdrant_client import models
from qdrant_front import RestFront, rest_front

from qdrant_cir import CollectionOptions, Gallery, ImageRecord, InputError

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
        elif (request.method == "PUT" and request.path.endswith("/points")) or request.path.endswith("/delete"):
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


def test_where_there_are_no_shards_a_key_is_refused(tmp_path: Path, tiny_bundle: Path, front: RestFront) -> None:
    with pytest.raises(InputError, match="embedded store has no shards"):
        Gallery.create("shop", store=tmp_path / "store", bundle=tiny_bundle, shard_key="tenant-1")
    with pytest.raises(InputError, match="not a shard key"):
        Gallery.create("shop", store=front.url, bundle=tiny_bundle, shard_key="")
