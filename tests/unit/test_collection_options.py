"""Options of new collections reach the server as they are, from Python, the command line and a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from qdrant_client import models
from qdrant_front import rest_front
from typer.testing import CliRunner

from qdrant_cir import CollectionOptions, Gallery, InputError
from qdrant_cir.cli import app
from qdrant_cir.storage.collection_options import differences

SCALAR = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}


def test_the_gallery_takes_all_options_and_the_companion_those_that_are_not_of_vectors(tiny_bundle: Path) -> None:
    options = CollectionOptions(
        shard_number=6,
        sharding_method=models.ShardingMethod.AUTO,
        replication_factor=2,
        write_consistency_factor=2,
        on_disk=True,
        on_disk_payload=True,
        hnsw_config=models.HnswConfigDiff(m=32),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
        quantization_config=models.ScalarQuantization.model_validate(SCALAR),
        strict_mode_config=models.StrictModeConfig(enabled=True),
    )
    with rest_front() as front:
        Gallery.create("shop", store=front.url, bundle=tiny_bundle, options=options).close()
        tokens, gallery = (request.body for request in front.requests if request.method == "PUT")
    shared = {
        "shard_number": 6,
        "sharding_method": "auto",
        "replication_factor": 2,
        "write_consistency_factor": 2,
        "strict_mode_config": {"enabled": True},
    }
    assert {key: value for key, value in tokens.items() if key not in ("vectors", "metadata")} == shared
    assert {key: value for key, value in gallery.items() if key not in ("vectors", "metadata")} == shared | {
        "on_disk_payload": True,
        "hnsw_config": {"m": 32},
        "optimizers_config": {"indexing_threshold": 1},
        "quantization_config": SCALAR,
    }
    assert gallery["vectors"]["image"]["on_disk"] is True


def test_the_command_line_takes_shards_copies_and_a_file(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    write_solid_images(tmp_path / "pictures", {"red": (255, 0, 0)})
    (tmp_path / "options.json").write_text(json.dumps({"quantization_config": SCALAR, "replication_factor": 3}))
    with rest_front() as front:
        given = ["--shards", "6", "--replicas", "2", "--options", str(tmp_path / "options.json")]
        place = ["-c", "shop", "--url", front.url, "--bundle", str(tiny_bundle)]
        done = CliRunner().invoke(app, ["index", str(tmp_path / "pictures"), *place, *given])
        assert done.exit_code == 0, done.stderr
        tokens, gallery = (
            request.body for request in front.requests if request.method == "PUT" and request.path.count("/") == 2
        )
    assert (tokens["shard_number"], tokens["replication_factor"]) == (6, 2)
    assert (gallery["shard_number"], gallery["replication_factor"]) == (6, 2)
    assert gallery["quantization_config"] == SCALAR
    assert "quantization_config" not in tokens


def test_a_collection_that_stands_stays_as_it_is_and_what_is_otherwise_is_said(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    write_solid_images(tmp_path / "pictures", {"red": (255, 0, 0)})
    with rest_front() as front:

        def said(*options: str) -> str:
            place = ["-c", "shop", "--url", front.url, "--bundle", str(tiny_bundle)]
            done = CliRunner().invoke(app, ["index", str(tmp_path / "pictures"), *place, *options])
            assert done.exit_code == 0, done.stderr
            return " ".join(done.stderr.split())

        front.placement = {"shard_number": 6, "replication_factor": 2}
        assert "stands already" not in said("--shards", "6", "--replicas", "2")
        assert "stands already" not in said("--shards", "6", "--replicas", "2")
        assert "stands already" not in said()
        assert said("--shards", "3", "--replicas", "2").count(
            "shop stands already, and options are for a new collection. It stays as it is: shard_number is 6, not 3. "
        ) == 1  # fmt: skip


def test_of_an_option_only_the_fields_that_are_set_are_compared() -> None:
    standing: dict[str, object] = {
        "hnsw_config": models.HnswConfig(m=32, ef_construct=100, full_scan_threshold=10_000),
        "quantization_config": None,
        "sharding_method": None,
        "on_disk": None,
    }
    given = CollectionOptions(
        hnsw_config=models.HnswConfigDiff(m=32),
        sharding_method=models.ShardingMethod.AUTO,
        on_disk=False,
        payload="a server that says nothing of it",
    )
    assert differences(given.given, standing) == []
    other = CollectionOptions(
        hnsw_config=models.HnswConfigDiff(m=64),
        quantization_config=models.ScalarQuantization.model_validate(SCALAR),
        on_disk=True,
    )
    assert differences(other.given, standing) == [
        "on_disk is False, not True",
        "hnsw_config.m is 32, not 64",
        f"quantization_config is not set, not {json.dumps(SCALAR)}",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[1]", "expected a JSON object"),
        ('{"shards": 6}', "'shards'"),
        ('{"shard_number": "many"}', "shard_number"),
        ('{"on_disk": "yes"}', "on_disk"),
        ('{"quantization_config": {"scalar": {"type": "int9"}}}', "quantization_config"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "options.json").write_text(text)
    with pytest.raises(InputError, match=words):
        CollectionOptions.read(tmp_path / "options.json")


def test_the_embedded_store_takes_none(tmp_path: Path, tiny_bundle: Path) -> None:
    options = CollectionOptions(replication_factor=2)
    with pytest.raises(InputError, match="replication_factor"):
        Gallery.create("shop", store=tmp_path / "store", bundle=tiny_bundle, options=options)
    with Gallery.create("shop", store=tmp_path / "store", bundle=tiny_bundle) as gallery:
        assert gallery.count() == 0
    with pytest.raises(InputError, match="replication_factor"):
        Gallery.create("shop", store=tmp_path / "store", bundle=tiny_bundle, options=options)
