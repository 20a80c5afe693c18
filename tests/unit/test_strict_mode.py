"""Strict mode, as Qdrant Cloud has it: every call of ours passes, and what is refused says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from qdrant_client import QdrantClient, models
from qdrant_front import RestFront, rest_front
from typer.testing import CliRunner

from qdrant_cir import Gallery, InputError
from qdrant_cir.cli import app
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, ServerStore, Store, StoredPoint

RED = models.Filter(must=[models.FieldCondition(key="color", match=models.MatchValue(value="red"))])
RED_WORD = models.Filter(must=[models.FieldCondition(key="color", match=models.MatchText(text="red"))])
VECTOR = np.eye(3, dtype=np.float32)[0]
WORDS = [
    models.MatchText(text="dress red"),
    models.MatchTextAny(text_any="red"),
    models.MatchPhrase(phrase="red dress"),
]


@pytest.fixture
def strict() -> Iterator[RestFront]:
    """A server with all limits of strict mode."""
    with rest_front() as front:
        front.indexed, front.allows_exact, front.most, front.most_written = set(), False, 60, 2
        yield front


@pytest.fixture
def run(strict: RestFront, tiny_bundle: Path) -> Callable[..., Result]:
    def run(*arguments: str, bundle: bool = False) -> Result:
        options = ["-c", "shop", "--url", strict.url, "--retry-seconds", "0"]
        options += ["--bundle", str(tiny_bundle)] if bundle else []
        return CliRunner().invoke(app, [*arguments, *options], env={"QDRANT_CIR_PATH": "", "QDRANT_API_KEY": ""})

    return run


@pytest.fixture
def pictures(
    tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]
) -> Path:
    colors = {f"{n}": (n * 20, 0, 0) for n in range(6)}
    write_solid_images(tmp_path / "pictures", colors)
    return tmp_path / "pictures"


def test_every_command_works_in_strict_mode_and_counts_are_said_to_be_about_right(
    run: Callable[..., Result], pictures: Path
) -> None:
    indexed = run("index", str(pictures), bundle=True)
    assert indexed.exit_code == 0, indexed.stderr
    assert "shop holds ~6 images. Indexed 6," in indexed.stdout
    assert json.loads(run("index", str(pictures), "--json", bundle=True).stdout)["is_approximate"] is True
    shown = run("info")
    assert shown.exit_code == 0, shown.stderr
    assert "~6" in shown.stdout
    assert json.loads(run("info", "--json").stdout)["collections"][0]["is_approximate"] is True
    found = run("search", "-t", "blue", "-k", "60", "--json", bundle=True)
    assert len(json.loads(found.stdout)["candidates"]) == 6
    assert run("delete", "1.png", "--yes").exit_code == 0
    assert run("delete", "--all", "--yes").exit_code == 0


def test_a_filter_and_groups_on_a_field_without_an_index_name_the_command_that_makes_it(
    run: Callable[..., Result], pictures: Path
) -> None:
    run("index", str(pictures), bundle=True)
    for arguments in (("-f", "file=1.png"), ("--group-by", "file")):
        refused = run("search", "-t", "blue", *arguments, bundle=True)
        assert refused.exit_code == 3
        assert (
            "The field 'file' of 'shop' has no keyword index, which this call in strict mode needs. Make one first: "
            "`qdrant-cir index-field 'file:keyword' -c shop`, or gallery.create_payload_index('file', 'keyword')."
        ) in " ".join(refused.stderr.split())
    assert run("index-field", "file:keyword").exit_code == 0
    for arguments in (("-f", "file=1.png"), ("--group-by", "file")):
        assert run("search", "-t", "blue", *arguments, bundle=True).exit_code == 0


def test_more_results_than_strict_mode_allows_are_refused_with_the_number(
    run: Callable[..., Result], pictures: Path
) -> None:
    run("index", str(pictures), bundle=True)
    refused = run("search", "-t", "blue", "-k", "61", bundle=True)
    assert refused.exit_code == 3
    assert "at most 60 results of the collection 'shop' at once (strict mode)" in " ".join(refused.stderr.split())


def test_a_page_is_as_small_as_strict_mode_wants_it(strict: RestFront) -> None:
    store = ServerStore(QdrantClient(url=strict.url, check_compatibility=False), retry_seconds=0)
    store.create("shop", CollectionSpec(vector_size=3, metadata={}))
    store.upsert("shop", [StoredPoint(UUID(int=n + 1), VECTOR, {}) for n in range(70)])
    first = store.scroll("shop", filter=None, limit=1000, after=None)
    rest = store.scroll("shop", filter=None, limit=1000, after=first[-1].point_id)
    assert (len(first), len(rest)) == (60, 10)
    assert store.count("shop", None) == 70
    assert not store.counts_exactly("shop")


def test_a_gallery_of_another_origin_is_not_taken_for_empty_because_counts_are_rough(
    strict: RestFront, tiny_bundle: Path
) -> None:
    strict.memory.create_collection("shop__tokens", vectors_config={})
    strict.memory.upsert("shop__tokens", [models.PointStruct(id=1, vector={}, payload={})])
    with pytest.raises(Exception, match="of another origin"):
        Gallery.create("shop", store=strict.url, bundle=tiny_bundle)
    assert strict.memory.count("shop__tokens").count == 1


@pytest.fixture(params=["memory", "edge", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with rest_front() as front:
        made: dict[str, Callable[[], Store]] = {
            "memory": lambda: ServerStore(QdrantClient(":memory:")),
            "edge": lambda: EdgeStore(tmp_path / "store"),
            "server": lambda: ServerStore(QdrantClient(url=front.url, check_compatibility=False)),
        }
        store = made[request.param]()
        store.create("shop", CollectionSpec(vector_size=3, metadata={}))
        titles = ["a red dress", "a blue dress"]
        store.upsert("shop", [StoredPoint(UUID(int=n + 1), VECTOR, {"title": t}) for n, t in enumerate(titles)])
        yield store
        store.close()


@pytest.mark.parametrize("match", WORDS, ids=lambda match: type(match).__name__)
def test_words_are_looked_for_with_a_text_index_alone_in_every_store(store: Store, match: models.Match) -> None:
    condition = models.FieldCondition(key="title", match=match)
    for filter in (models.Filter(must=[condition]), models.Filter(must_not=[models.Filter(should=[condition])])):
        for ask in (
            lambda filter=filter: store.query("shop", VECTOR, limit=2, filter=filter),
            lambda filter=filter: store.scroll("shop", filter=filter, limit=2, after=None),
            lambda filter=filter: store.count("shop", filter),
        ):
            with pytest.raises(InputError, match="no text index, which a filter on its words needs"):
                ask()
    store.create_payload_index("shop", "title", "keyword")
    with pytest.raises(InputError, match="no text index"):
        store.count("shop", models.Filter(must=[condition]))
    store.create_payload_index("shop", "title", "text")
    assert store.count("shop", models.Filter(must=[condition])) == 1
    assert len(store.query("shop", VECTOR, limit=2, filter=models.Filter(must_not=[condition]))) == 1


def test_a_gallery_makes_the_index_that_a_filter_needs_and_a_search_makes_none(tiny_bundle: Path) -> None:
    with rest_front() as front, Gallery.create("shop", store=front.url, bundle=tiny_bundle) as gallery:
        gallery.index([ImageRecord("1", Image.new("RGB", (8, 8), "red"), {"color": "red"}, None)])
        with pytest.raises(InputError, match="index-field"):
            gallery.search(None, "blue", filter=RED_WORD)
        assert front.asked("PUT", "/index") == []
        gallery.create_payload_index("color", "text")
        assert len(gallery.search(None, "blue", filter=RED_WORD)) == 1
        assert len(gallery.search(None, "blue", filter=RED)) == 1


def test_the_loss_of_the_index_is_told_where_exact_searches_are_allowed(
    run: Callable[..., Result], strict: RestFront, pictures: Path
) -> None:
    run("index", str(pictures), bundle=True)
    told = run("info", "--index-recall", "3")
    assert "The index finds 100.0% of the exactly nearest 3 images." in told.stdout
    exact = [request.body["params"] for request in strict.asked("POST", "points/query")]
    assert [params.get("exact") for params in exact[:2]] == [True, None]
    assert json.loads(run("info", "--index-recall", "3", "--json").stdout)["index_recall"] == 1
    strict.indexed, strict.before = set(), lambda request: _refuse_exact(request.body)
    refused = run("info", "--index-recall", "3")
    assert refused.exit_code == 3
    assert "Exact search disabled" in refused.stderr


def _refuse_exact(body: object) -> None:
    params = body.get("params") if isinstance(body, dict) else None
    if params and params.get("exact"):
        raise ValueError("Forbidden: Exact search disabled! Help: Set exact=false.")
