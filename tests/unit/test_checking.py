"""Checks of what is stored, and their repair: what is wrong is named by id, and indexing brings it back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient
from typer.testing import CliRunner

from qdrant_cir import AsyncGallery, CheckReport, Gallery, ImageRecord, attach
from qdrant_cir.cli import app
from qdrant_cir.indexing import checking
from qdrant_cir.indexing.checking import check_collection, check_store
from qdrant_cir.storage.points import point_id_of
from qdrant_cir.storage.stores import EdgeStore, Store, StoredPoint
from qdrant_cir.storage.stores.protocol import CollectionSpec
from qdrant_cir.storage.stores.server import ServerStore

COUNT = 41
NAMES = [f"picture {n}" for n in range(COUNT)]
Opening: TypeAlias = Callable[[], Gallery]


def picture(n: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (n * 6, 250 - n * 6, n * 31 % 256))


def records() -> list[ImageRecord]:
    return [ImageRecord(name, picture(n), {"n": n}, None) for n, name in enumerate(NAMES)]


@pytest.fixture(params=["edge", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = EdgeStore(tmp_path / "store") if request.param == "edge" else ServerStore(QdrantClient(":memory:"))
    yield opened
    opened.close()


@pytest.fixture
def gallery(store: Store, tiny_bundle: Path) -> Gallery:
    made = Gallery.create("shop", store=store, bundle=tiny_bundle, provider="cpu")
    made.index(records())
    return made


@pytest.fixture
def products(store: Store, tiny_bundle: Path, tmp_path: Path) -> Gallery:
    if isinstance(store, ServerStore):
        pytest.skip("a client in memory finds no vector that was added")
    store.create("products", CollectionSpec(4, {}))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    points = []
    for n in range(6):
        picture(n).save(pictures / f"{n}.png")
        points.append(StoredPoint(n + 1, np.eye(4, dtype=np.float32)[n % 4], {"file": f"{n}.png", "n": n}))
    store.upsert("products", points)
    made = attach(store, "products", picture="file", root=pictures, bundle=tiny_bundle, provider="cpu")
    made.index()
    return made


def found(report: CheckReport) -> dict[str, str]:
    return {finding.id: finding.kind for finding in report.findings}


def payload_of(store: Store, name: str, point_id: int | UUID) -> dict[str, object]:
    (record,) = store.fetch(name, [point_id], with_vectors=False)
    return dict(record.payload)


def put(store: Store, name: str, point_id: int | UUID, **fields: object) -> None:
    store.set_payloads(name, {point_id: fields})  # type: ignore[dict-item]


def dump(store: Store) -> list[object]:
    """The user's own points, as text."""
    return [
        (record.point_id, record.payload, None if record.vector is None else record.vector.tolist())
        for record in store.fetch("products", [1, 2, 3, 4, 5, 6], with_vectors=True, using="image")
    ]


@pytest.fixture(autouse=True)
def does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "sleep", lambda seconds: None)


def test_a_gallery_that_was_indexed_is_whole(gallery: Gallery) -> None:
    report = gallery.check()
    assert (report.collection, report.vector, report.images, report.findings) == ("shop", None, COUNT, ())
    assert report.is_whole
    assert asyncio.run(AsyncGallery(gallery).check()) == report


@pytest.mark.parametrize("swapped", ["tokens", "tokens and checksum", "all but the id", "all"])
def test_tokens_that_were_put_under_another_image_are_noticed_each_one(gallery: Gallery, swapped: str) -> None:
    store, companion = gallery.collection.store, gallery.collection.layout.companion
    ids = [point_id_of(name) for name in NAMES]
    payloads = [payload_of(store, companion, point_id) for point_id in ids]
    for n, point_id in enumerate(ids):
        other = payloads[(n + 1) % COUNT]
        fields = {"tokens": other["tokens"]}
        if swapped != "tokens":
            fields["crc"] = other["crc"]
        if swapped == "all but the id":
            fields["_cir"] = {**other["_cir"], "id": NAMES[n]}  # type: ignore[dict-item]
        if swapped == "all":
            fields["_cir"] = other["_cir"]
        put(store, companion, point_id, **fields)
    kind = "stale tokens" if swapped.startswith("all") else "damaged tokens"
    assert found(gallery.check()) == dict.fromkeys(NAMES, kind)
    result = gallery.search(picture(0), "make it red", limit=COUNT, rerank_depth=COUNT)
    assert all(candidate.rerank_score is None for candidate in result)
    assert any("without valid tokens" in note for note in result.notes)
    assert gallery.check(repair=True).to_index == tuple(found(gallery.check()))
    assert gallery.index(records()).indexed == COUNT
    assert gallery.check().findings == ()


def test_tokens_of_earlier_versions_have_no_such_checksum_and_are_read(gallery: Gallery) -> None:
    store, companion = gallery.collection.store, gallery.collection.layout.companion
    before = gallery.search(picture(0), "make it red", limit=COUNT)
    store.delete_payloads(companion, {point_id_of(name): ["crc"] for name in NAMES})
    after = gallery.search(picture(0), "make it red", limit=COUNT)
    assert [each.rerank_score for each in after] == [each.rerank_score for each in before]
    assert None not in [each.rerank_score for each in after]
    assert gallery.check().is_whole
    # they become new ones when their picture is encoded again, and a changed payload alone does not touch them
    changed = [replace(record, payload={"m": 1}) for record in records()]
    assert gallery.index(changed).updated == COUNT
    assert gallery.check().is_whole


def test_changed_payloads_keep_the_checksum(gallery: Gallery) -> None:
    store, companion = gallery.collection.store, gallery.collection.layout.companion
    gallery.index([replace(record, payload={"m": 1}) for record in records()])
    assert "crc" in payload_of(store, companion, point_id_of(NAMES[0]))
    assert gallery.check().findings == ()


def test_everything_that_is_wrong_is_named_by_id_and_indexing_after_repair_heals_it(gallery: Gallery) -> None:
    store, companion = gallery.collection.store, gallery.collection.layout.companion
    ids = dict(zip(NAMES, map(point_id_of, NAMES), strict=True))
    good = payload_of(store, companion, ids[NAMES[0]])
    tokens = bytearray(base64.b64decode(str(good["tokens"])))
    tokens[-1] ^= 1
    put(store, companion, ids[NAMES[0]], tokens=base64.b64encode(tokens).decode())
    put(store, companion, ids[NAMES[1]], tokens="no base64!")
    store.delete(companion, [ids[NAMES[2]]])
    put(store, companion, ids[NAMES[3]], _cir={**good["_cir"], "sha256": "0" * 64})  # type: ignore[dict-item]
    store.delete("shop", [ids[NAMES[4]]])
    ours = payload_of(store, "shop", ids[NAMES[5]])
    store.upsert("shop", [StoredPoint(ids[NAMES[5]], np.zeros(3, np.float32), ours)])  # type: ignore[arg-type]
    store.upsert("shop", [StoredPoint(7, np.ones(3, np.float32), {"whose": "another program's"})])
    wrong = {
        NAMES[0]: "damaged tokens",
        NAMES[1]: "damaged tokens",
        NAMES[2]: "no tokens",
        NAMES[3]: "stale tokens",
        NAMES[4]: "orphan tokens",
        NAMES[5]: "no unit vector",
        "7": "foreign point",
    }
    report = gallery.check()
    assert found(report) == wrong
    assert not report.is_whole
    assert not any(finding.is_removed for finding in report.findings)
    assert found(gallery.check()) == wrong
    repaired = gallery.check(repair=True)
    assert found(repaired) == wrong
    assert sorted(repaired.to_index) == sorted([*NAMES[:4], NAMES[5]])
    removed = {finding.id for finding in repaired.findings if finding.is_removed}
    assert removed == {NAMES[0], NAMES[1], NAMES[4], NAMES[5]}
    assert store.fetch(companion, [ids[NAMES[4]]], with_vectors=False) == []
    assert gallery.index(records()).indexed == 6
    after = gallery.check()
    assert found(after) == {"7": "foreign point"}
    assert after.is_whole


def test_an_attached_collection_keeps_all_that_is_its_owners(products: Gallery) -> None:
    store, companion = products.collection.store, products.collection.layout.companion
    assert products.check().findings == ()
    tokens = str(payload_of(store, companion, 2)["tokens"])
    put(store, companion, 1, tokens=tokens)
    store.delete(companion, [2])
    put(store, "products", 3, file="other.png")
    store.delete_payloads("products", {4: ["file"]})
    store.delete("products", [5])
    store.update_vectors("products", "cir", {6: np.zeros(3, np.float32)})
    before = dump(store)
    report = products.check()
    assert report.vector == "cir"
    assert [(finding.id, finding.kind) for finding in report.findings] == [
        ("1", "damaged tokens"),
        ("2", "no tokens"),
        ("3", "stale tokens"),
        ("4", "vector without picture"),
        ("6", "no unit vector"),
        ("4", "orphan tokens"),
        ("5", "orphan tokens"),
    ]
    assert products.check(repair=True).to_index == ("1", "2", "3", "6")
    assert dump(store) == before
    left = store.fetch("products", [1, 2, 3, 4, 5, 6], with_vectors=True, using="cir")
    assert [record.point_id for record in left if record.vector is None] == [1, 4, 6]
    put(store, "products", 3, file="2.png")
    products.index()
    assert products.check().findings == ()


def test_tokens_of_no_gallery_are_dropped_and_a_gallery_without_tokens_is_named(
    gallery: Gallery, tiny_bundle: Path
) -> None:
    store = gallery.collection.store
    Gallery.create("half", store=store, bundle=tiny_bundle, provider="cpu")
    Gallery.create("other", store=store, bundle=tiny_bundle, provider="cpu")
    store.drop("half")
    store.drop("other__tokens")
    store.create("theirs__tokens", CollectionSpec(None, {}))
    assert [(each.id, each.kind) for each in check_store(store)] == [
        ("half__tokens", "companion without gallery"),
        ("other", "gallery without companion"),
    ]
    assert [each.id for each in check_store(store, "half")] == ["half__tokens"]
    assert check_store(store, "shop") == []
    assert [each.is_removed for each in check_store(store, repair=True)] == [True, False]
    assert store.collection_names() == ["other", "shop", "shop__tokens", "theirs__tokens"]


def test_the_companion_of_a_collection_that_is_gone_is_dropped(products: Gallery) -> None:
    store = products.collection.store
    store.drop("products")
    assert [(each.id, each.kind) for each in check_store(store)] == [("products__cir", "companion without gallery")]
    check_store(store, "products", repair=True)
    assert store.collection_names() == []


def test_without_its_bundle_the_bytes_are_checked_and_with_another_one_their_form(gallery: Gallery) -> None:
    assert check_collection(gallery.collection).is_whole
    other = replace(gallery.bundle, manifest=replace(gallery.bundle.manifest, token_codec="float16"))
    assert set(found(check_collection(gallery.collection, other)).values()) <= {"damaged tokens", "stale tokens"}
    assert len(found(check_collection(gallery.collection, other))) == COUNT


def invoke(place: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments, "--path", str(place)], env={"QDRANT_URL": "", "NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


def test_the_command_lists_by_id_repairs_and_says_what_is_left(tmp_path: Path, tiny_bundle: Path) -> None:
    place, companion = tmp_path / "store", "shop__tokens"
    with Gallery.create("shop", store=place, bundle=tiny_bundle, provider="cpu") as gallery:
        gallery.index(records()[:4])
    run = partial(invoke, place, "check", "--bundle", str(tiny_bundle))
    assert run() == (0, "shop: 4 images; nothing is wrong\n", "")
    with EdgeStore(place) as store:
        put(store, companion, point_id_of(NAMES[0]), tokens="AAAA")
        store.delete("shop", [point_id_of(NAMES[1])])
        store.create("gone__tokens", store.describe(companion) or CollectionSpec(None, {}))
    code, text, notes = run()
    assert code == 8
    assert text.splitlines() == [
        "gone__tokens: companion without gallery",
        "shop: 3 images; 1 damaged tokens, 1 orphan tokens",
        "  picture 0: damaged tokens; index it again",
        "  picture 1: orphan tokens",
    ]
    assert "1 to index again with `qdrant-cir index`, 2 to remove with `qdrant-cir check --repair`" in notes
    code, text, notes = run("-c", "shop", "--json")
    told = json.loads(text)
    assert code == 8
    assert (told["is_whole"], told["repaired"], told["halves"]) == (False, False, [])
    assert told["collections"][0]["to_index"] == ["picture 0"]
    assert told["collections"][0]["findings"][1] == {
        "id": "picture 1",
        "kind": "orphan tokens",
        "is_removed": False,
        "needs_index": False,
    }
    code, text, notes = run("--repair")
    assert code == 8
    assert "  picture 0: damaged tokens (removed); index it again" in text
    assert "remove with" not in notes
    with Gallery.create("shop", store=place, bundle=tiny_bundle, provider="cpu") as gallery:
        assert gallery.index(records()[:4]).indexed == 2
    assert run()[:2] == (0, "shop: 4 images; nothing is wrong\n")
    code, _, notes = run("-c", "none")
    assert code == 6
    assert "There is no collection 'none'" in notes


def test_a_gallery_that_cannot_be_opened_is_deleted_by_the_command(tmp_path: Path, tiny_bundle: Path) -> None:
    place = tmp_path / "store"
    for file in ("shop/collection.json", "shop/shard/edge_config.json", "shop__tokens/collection.json", "vectors"):
        with Gallery.create("shop", store=place, bundle=tiny_bundle, provider="cpu") as gallery:
            gallery.index(records()[:2])
        if file == "vectors":
            (status,) = place.glob("shop/shard/segments/*/vector_storage-image/vectors/status.dat")
            status.write_bytes(status.read_bytes()[:4])
        else:
            (place / file).write_text("{")
        assert invoke(place, "info")[0] == 0
        code, text, _ = invoke(place, "check")
        assert (code, "shop: unreadable collection; index it again" in text) == (8, True)
        code, text, notes = invoke(place, "delete", "--all", "--yes", "-c", "shop")
        assert (code, text) == (0, "Deleted the collection.\n"), notes
        assert {path.name for path in place.iterdir()} == {".lock"}
