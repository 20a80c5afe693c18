"""The command line on a collection of another program's in the embedded store: all commands, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import UUID, uuid5

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qdrant_cir import AddressLimits, Gallery, attach
from qdrant_cir.cli import app
from qdrant_cir.storage.stores import EdgeStore, Record
from qdrant_cir.storage.stores.protocol import CollectionSpec, StoredPoint
from qdrant_cir.types import PointId

COLORS: Mapping[str, tuple[int, int, int]] = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
IDS: Mapping[str, PointId] = {
    name: place if place % 2 else uuid5(UUID(int=0), name) for place, name in enumerate(COLORS, start=1)
}
# computed by hand in test_retriever.py
STAGE_TWO = [str(IDS[name]) for name in ("blue", "navy", "black", "pale", "red", "green")]


@dataclass(frozen=True, slots=True)
class Products:
    """A store with another program's ``products``, whose payload names files below ``pictures``."""

    pictures: Path
    store: Path
    bundle: Path

    def run(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(
            app, [*arguments, "--path", str(self.store)], env={"QDRANT_URL": "", "NO_COLOR": "1"}
        )
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    def use(self, command: str, *arguments: str, code: int = 0) -> Result:
        """Run a command that takes the bundle on ``products``."""
        return self.run(command, *arguments, "-c", "products", "--bundle", str(self.bundle), code=code)

    def attach(self, *arguments: str, code: int = 0) -> Result:
        return self.use("attach", "--picture", "media.main", "--root", str(self.pictures), *arguments, code=code)

    def listed(self, *arguments: str) -> list[dict[str, object]]:
        told = json.loads(self.run("info", *arguments, "--json").stdout)["collections"]
        assert isinstance(told, list)
        return told

    def points(self) -> list[Record]:
        """All that is the user's."""
        with EdgeStore(self.store) as store:
            records = store.fetch("products", list(IDS.values()), with_vectors=True, using="image")
        return sorted(records, key=lambda record: str(record.point_id))


@pytest.fixture
def products(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> Products:
    write_solid_images(tmp_path / "pictures", COLORS)
    vector = np.eye(4, dtype=np.float32)[0]
    points = [
        StoredPoint(IDS[name], vector, {"media": {"main": f"{name}.png"}, "shop": "ab"[place % 2]})
        for place, name in enumerate(COLORS)
    ]
    with EdgeStore(tmp_path / "store") as store:
        store.create("products", CollectionSpec(4, {}))
        store.upsert("products", [*points, StoredPoint(99, vector, {"shop": "no picture"})])
    return Products(tmp_path / "pictures", tmp_path / "store", tiny_bundle)


@pytest.fixture
def filled(products: Products) -> Products:
    products.attach()
    products.use("index")
    return products


def sentence(result: Result) -> str:
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def ids(result: Result) -> Sequence[object]:
    return [candidate["image_id"] for candidate in json.loads(result.stdout)["candidates"]]


def same(one: Sequence[Record], other: Sequence[Record]) -> bool:
    return all(
        (a.point_id, a.payload) == (b.point_id, b.payload)
        and np.array_equal(np.asarray(a.vector), np.asarray(b.vector))
        for a, b in zip(one, other, strict=True)
    )


def test_options_of_new_collections_are_refused_for_an_attached_one(products: Products) -> None:
    products.attach()
    refused = products.use("index", "--shards", "6", code=3)
    assert "Leave out --shards, --replicas and --options" in refused.stderr


def test_limits_of_addresses_are_kept_until_others_are_given(products: Products) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(products.pictures))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/red.png"
        vector = np.eye(4, dtype=np.float32)[0]
        with EdgeStore(products.store) as store:
            store.create("shop", CollectionSpec(4, {}))
            store.upsert("shop", [StoredPoint(1, vector, {"url": address})])

        def use(command: str, *options: str, code: int = 0) -> Result:
            return products.run(command, "-c", "shop", "--bundle", str(products.bundle), *options, code=code)

        def limits() -> object:
            attached = products.listed("-c", "shop")[0]["attached"]
            assert isinstance(attached, dict)
            return attached["address_limits"]

        size = (products.pictures / "red.png").stat().st_size
        # the bytes of the smallest limit are fewer than the picture's
        use("attach", "--picture", "url", "--private-addresses", "--address-seconds", "9", "--max-megabytes", "0.001")
        assert limits() == {"max_bytes": 1000, "seconds": 9.0}
        with open_gallery(products, AddressLimits(max_bytes=size - 1)) as gallery:
            report = gallery.index()
            assert f"at most {size - 1} are read (allow more with address_limits=" in report.failed[0].reason
        assert limits() == {"max_bytes": size - 1, "seconds": 20.0}
        use("attach", "--picture", "url", "--private-addresses", "--address-seconds", "7")
        assert limits() == {"max_bytes": size - 1, "seconds": 7.0}
        assert "at most" in use("index", code=9).stdout
        use("attach", "--picture", "url", "--private-addresses", "--max-megabytes", "1")
        assert limits() == {"max_bytes": 1_000_000, "seconds": 7.0}
        use("attach", "--picture", "url", "--private-addresses")
        assert limits() == {"max_bytes": 1_000_000, "seconds": 7.0}
        assert json.loads(use("index", "--json").stdout)["indexed"] == 1
        server.shutdown()


def open_gallery(products: Products, limits: AddressLimits) -> Gallery:
    return attach(
        products.store,
        "shop",
        picture="url",
        private_addresses=True,
        address_limits=limits,
        bundle=products.bundle,
    )


def test_attach_index_search_detach_leave_the_collection_as_it_was(products: Products) -> None:
    before = products.points()
    attached = products.attach().stdout.splitlines()
    assert attached[0] == "Bundle tiny"
    assert "0 of 7 points have the vector cir. Run `qdrant-cir index -c products --vector cir`" in attached[1]

    report = json.loads(products.use("index", "--json").stdout)
    assert (report["indexed"], report["without_picture"], report["images"]) == (6, 1, 6)
    assert json.loads(products.use("index", "--json").stdout)["unchanged"] == 6

    red = ("-i", str(products.pictures / "red.png"), "-t", "make it blue")
    assert ids(products.use("search", *red, "--json")) == STAGE_TWO
    by_id = products.use("search", "--image-id", str(IDS["red"]), "-t", "make it blue", "--json")
    assert ids(by_id) == STAGE_TWO
    first = json.loads(by_id.stdout)["candidates"][0]
    assert (first["id"], first["payload"]["media"]) == (IDS["blue"], {"main": "blue.png"})
    assert ids(products.use("search", *red, "--json", "--filter", "media.main=navy.png")) == [str(IDS["navy"])]

    products.run("detach", "-c", "products", "--yes")
    assert same(products.points(), before)
    with EdgeStore(products.store) as store:
        assert store.collection_names() == ["products"]
    assert "Nothing is attached" in sentence(products.use("search", *red, code=6))


def test_info_shows_what_is_attached_beside_a_gallery_of_our_own(filled: Products) -> None:
    filled.run("index", str(filled.pictures), "-c", "own", "--bundle", str(filled.bundle))
    own, attached = filled.listed()
    assert (own["collection"], own["attached"]) == ("own", None)
    assert (attached["collection"], attached["images"], attached["points"]) == ("products", 6, 7)
    assert attached["attached"] == {
        "vector": "cir",
        "picture": "media.main",
        "version": None,
        "made_vector": True,
        "root": str(filled.pictures.resolve()),
        "private_addresses": False,
        "address_limits": {"max_bytes": 50_000_000, "seconds": 20.0},
    }
    assert [row["collection"] for row in filled.listed("-c", "products")] == ["products"]
    table = filled.run("info").stdout
    assert "attached vector" in table
    assert "media.main" in table


def test_delete_takes_the_vector_of_a_point_and_leaves_the_point(filled: Products) -> None:
    before = filled.points()
    told = filled.run("delete", str(IDS["blue"]), str(IDS["pale"]), "12345", "-c", "products", "--yes")
    assert "2 points; the points stay" in told.stdout
    assert "12345" in told.stderr
    assert same(filled.points(), before)
    assert filled.listed()[0]["images"] == 4
    assert "unsigned integer of 64 bits or a UUID" in sentence(
        filled.run("delete", "blue", "-c", "products", "--yes", code=3)
    )


def test_a_source_and_the_deletion_of_an_attached_collection_are_refused_and_say_what_to_do(filled: Products) -> None:
    refused = filled.use("index", str(filled.pictures), code=3)
    assert refused.stdout == ""
    assert "Index without a source" in sentence(refused)
    deleted = filled.run("delete", "-c", "products", "--all", "--yes", code=3)
    assert "`qdrant-cir detach -c products --vector cir`" in sentence(deleted)
    assert filled.listed()[0]["images"] == 6


def test_nothing_is_made_for_an_index_without_a_source(products: Products) -> None:
    assert "attach -c products --picture FIELD" in sentence(products.use("index", code=6))
    missing = products.run("index", "-c", "nobody", "--bundle", str(products.bundle), code=6)
    assert "no collection 'nobody'" in sentence(missing)
    products.run("index", str(products.pictures), "-c", "own", "--bundle", str(products.bundle))
    own = products.run("index", "-c", "own", "--bundle", str(products.bundle), code=3)
    assert "a folder of pictures, or a manifest" in sentence(own)


def test_where_two_are_attached_the_vector_must_be_named(filled: Products) -> None:
    filled.attach("--vector", "second")
    for command in (
        ("search", "-t", "blue", "--bundle", str(filled.bundle)),
        ("index", "--bundle", str(filled.bundle)),
        ("delete", "1", "--yes"),
        ("detach", "--yes"),
    ):
        assert "cir, second. Name one" in sentence(filled.run(*command, "-c", "products", code=3))
    assert len(filled.listed()) == len(filled.listed("-c", "products")) == 2
    assert [row["images"] for row in filled.listed("-c", "products", "--vector", "second")] == [0]
    filled.use("index", "--vector", "second")
    assert (
        ids(filled.use("search", "--vector", "second", "--image-id", "5", "-t", "make it blue", "--json")) == STAGE_TWO
    )
    filled.run("detach", "-c", "products", "--vector", "second", "--yes")
    assert [row["images"] for row in filled.listed()] == [6]


def test_detach_says_where_there_is_no_such_collection(filled: Products) -> None:
    told = sentence(filled.run("detach", "-c", "shoes", "--yes", code=6))
    assert told == f"Error: There is no collection 'shoes' in {filled.store}."


def test_detach_asks_first_and_goes_on_where_it_was_killed(filled: Products) -> None:
    asked = CliRunner().invoke(app, ["detach", "-c", "products", "--path", str(filled.store)], input="n\n")
    assert asked.exit_code == 1
    assert filled.listed()[0]["images"] == 6
    with EdgeStore(filled.store) as store:
        store.remove_vector("products", "cir")
    told = filled.run("info")
    assert "`qdrant-cir detach -c products --vector cir`" in told.stderr
    filled.run("detach", "-c", "products", "--yes")
    with EdgeStore(filled.store) as store:
        assert store.collection_names() == ["products"]


def test_tokens_of_a_collection_that_was_dropped_are_removed_by_detach(filled: Products) -> None:
    with EdgeStore(filled.store) as store:
        store.drop("products")
    filled.run("detach", "-c", "products", "--yes")
    with EdgeStore(filled.store) as store:
        assert store.collection_names() == []


def test_the_view_that_scored_best_is_shown_of_a_point_with_several(products: Products) -> None:
    with EdgeStore(products.store) as store:
        vector = np.eye(4, dtype=np.float32)[0]
        payload = {"images": [{"url": "green.png"}, {"url": "blue.png"}]}
        store.upsert("products", [StoredPoint(7, vector, payload)])  # type: ignore[arg-type]
    products.use("attach", "--picture", "images[].url", "--vector", "views", "--root", str(products.pictures))
    products.use("index", "--vector", "views")
    red = ("-i", str(products.pictures / "red.png"), "-t", "make it blue")
    (found,) = json.loads(products.use("search", *red, "--vector", "views", "--json").stdout)["candidates"]
    assert (found["id"], found["view"]) == (7, "blue.png")
    assert "blue.png" in products.use("search", *red, "--vector", "views").stdout


def test_a_sheet_is_drawn_of_pictures_below_the_root(filled: Products, tmp_path: Path) -> None:
    from PIL import Image

    sheet = tmp_path / "sheet.png"
    filled.use("search", "--image-id", str(IDS["red"]), "-t", "make it blue", "-n", "2", "--save", str(sheet))
    with Image.open(sheet) as picture:
        colors = {color for _, color in picture.getcolors(maxcolors=1 << 20) or []}
    assert {COLORS["red"], COLORS["blue"], COLORS["pale"]} <= colors


def test_attaching_again_with_another_root_says_that_the_first_stays(products: Products, tmp_path: Path) -> None:
    products.attach()
    other = products.use("attach", "--picture", "media.main", "--root", str(tmp_path))
    assert "detach first" in other.stderr
    assert "is not a folder" in sentence(
        products.use("attach", "--picture", "media.main", "--root", str(tmp_path / "none"), code=3)
    )
    assert "no path into a payload" in sentence(products.use("attach", "--picture", "a b", "--vector", "v", code=3))


def test_a_source_for_a_collection_of_somebody_else_names_attach(products: Products) -> None:
    refused = products.use("index", str(products.pictures), code=6)
    assert "`qdrant-cir attach`" in sentence(refused)
    assert refused.stdout == ""


def test_pictures_beyond_the_limits_are_reported_of_an_attached_collection_too(products: Products) -> None:
    products.attach()
    told = products.use("index", "--max-side", "1", "--json", code=9)
    assert len(json.loads(told.stdout)["failed"]) == 6
