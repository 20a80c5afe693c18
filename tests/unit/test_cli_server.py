"""The command line against a server over HTTP: what it sends for payload indexes and exact search."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from qdrant_front import rest_front
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
