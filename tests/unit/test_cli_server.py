"""The command line against a server over HTTP: what it sends for payload indexes and exact search, what it warns of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from qdrant_front import Fault, rest_front
from typer.testing import CliRunner

from qdrant_cir.cli import app


def test_payload_indexes_are_made_before_the_images_come_and_exact_search_is_asked_for(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    write_solid_images(tmp_path / "pictures", {"blue": (0, 0, 255), "red": (255, 0, 0)})
    with rest_front() as front:

        def run(*arguments: str) -> str:
            options = ["-c", "shop", "--url", front.url, "--retry-seconds", "0"]
            result = CliRunner().invoke(app, [*arguments, *options], env={"QDRANT_CIR_PATH": "", "QDRANT_API_KEY": ""})
            assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
            return result.stdout

        bundle = ("--bundle", str(tiny_bundle))
        run("index", str(tmp_path / "pictures"), "--filterable", "shop.name:keyword", *bundle)
        run("index-field", "price:float")
        assert [request.body for request in front.asked("PUT", "shop/index")] == [
            {"field_name": "shop.name", "field_schema": "keyword"},
            {"field_name": "price", "field_schema": "float"},
        ]
        paths = [request.path for request in front.requests]
        assert paths.index("/collections/shop/index") < paths.index("/collections/shop/points")

        found = json.loads(run("search", "-t", "blue", "--exact", "--json", *bundle))
        assert {each["image_id"] for each in found["candidates"]} == {"blue.png", "red.png"}
        (query,) = front.asked("POST", "points/query")
        assert query.body["params"]["exact"] is True


def test_a_command_says_that_it_waits_that_its_key_can_be_read_and_that_versions_are_far_apart(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> None:
    write_solid_images(tmp_path / "pictures", {"red": (255, 0, 0)})
    with rest_front() as front:
        front.version = "0.1.0"
        front.is_faulty = lambda request: request.method == "PUT" and request.path.endswith("/points")
        front.faults = [Fault(503)]
        result = CliRunner().invoke(
            app,
            ["index", str(tmp_path / "pictures"), "-c", "shop", "--url", front.url, "--bundle", str(tiny_bundle)],
            env={"QDRANT_CIR_PATH": "", "QDRANT_API_KEY": "key"},
        )
        assert result.exit_code == 0, result.stderr
        for said in (
            f"The API key is sent to {front.url} unencrypted",
            f"Qdrant at {front.url} is version 0.1.0",
            f"Qdrant at {front.url} failed (down for the moment); trying again in 0.5 s",
        ):
            assert result.stderr.count(said) == 1
