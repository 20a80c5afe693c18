"""What callers of an attached gallery may pass, and what is refused with a sentence before anything is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from shops import ClientOwner, Item, Owner, ShardOwner, id_of, item

import qdrant_cir
from qdrant_cir.errors import CollectionError, CollectionMismatchError, CollectionNotFoundError, InputError
from qdrant_cir.gallery import Gallery
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.effort import Effort
from qdrant_cir.storage.attachment import Attachment, attach_collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import GalleryImage, SearchResult

Writer = Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]

COLORS = {"c0": (250, 10, 30), "c1": (20, 200, 90), "c2": (90, 80, 220), "c3": (5, 5, 60)}
TOO_LONG = "9" * 5000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_solid_images(folder, COLORS)
    return folder


@pytest.fixture(params=["memory", "edge"])
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owner]:
    if request.param == "memory":
        yield ClientOwner(QdrantClient(":memory:"))
    else:
        with EdgeStore(tmp_path / "edge") as store:
            yield ShardOwner(store, is_bare=True)


@pytest.fixture
def gallery(owner: Owner, tiny_bundle: Path, pictures: Path) -> Gallery:
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(4)])
    gallery = join(owner, tiny_bundle, root=pictures)
    assert gallery.index().indexed == 4
    return gallery


def join(owner: Owner, tiny: Path, **options: Any) -> Gallery:  # noqa: ANN401
    given = {"picture": "media.main", "bundle": tiny, "provider": "cpu", "threads": 1} | options
    return qdrant_cir.attach(owner.store, owner.name, **given)


def ids(result: SearchResult) -> list[Any]:
    return [candidate.point_id for candidate in result]


def test_ids_to_delete_come_in_a_list(gallery: Gallery, owner: Owner) -> None:
    wrong: tuple[Any, ...] = ("13", b"13", 1, None)
    for given in wrong:
        with pytest.raises(InputError, match="expected a list of ids"):
            gallery.delete(given)
    assert len(owner.having("cir")) == 4


def test_what_is_no_id_of_a_point_is_refused_alike_by_all_stores(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    wrong: tuple[Any, ...] = (TOO_LONG, 2**64, -1, True, "abc", 1.5)
    for image_id in wrong:
        with pytest.raises(InputError, match="unsigned integer of 64 bits or a UUID"):
            gallery.search(GalleryImage(image_id), "make it darker")
        with pytest.raises(InputError, match="unsigned integer of 64 bits or a UUID"):
            gallery.delete([image_id])
        with pytest.raises(InputError, match=r"hits holds|is not the id of a point"):
            gallery.rerank(query, [image_id])


def test_an_option_of_a_search_that_cannot_be_used_is_refused(gallery: Gallery, pictures: Path) -> None:
    references = [pictures / "c3.png", pictures / "c1.png"]
    query = gallery.compose(references, "make it darker")
    options: list[tuple[str, Any, str]] = [
        ("limit", 2**63, "at most"),
        ("rerank_depth", 2**64, "at most"),
        ("group_size", 2**64, "at most"),
        ("effort", 0.9, "expected an Effort"),
        ("effort", None, "expected an Effort"),
        ("effort", Effort(confidence="high"), "must be a number"),  # type: ignore[arg-type]
        ("params", {"exact": True}, "SearchParams"),
        ("timeout", 0, "at least 1 second"),
        ("timeout", "soon", "whole number"),
        ("weights", [1e308, 1e308], "their sum finite"),
        ("must_not_weight", 1e38, "from 0 to 1e"),
    ]
    for option, value, message in options:
        with pytest.raises(InputError, match=message):
            gallery.search(references, "make it darker", group_by="brand", **{option: value})
        if option in ("limit", "effort", "timeout"):
            with pytest.raises(InputError, match=message):
                gallery.rerank(query, [1, 3], **{option: value})


def test_an_id_is_no_reference_but_names_how_to_give_one(gallery: Gallery) -> None:
    references: tuple[Any, ...] = (1, id_of(2), [1])
    for reference in references:
        with pytest.raises(InputError, match=r"give GalleryImage\("):
            gallery.search(reference, "make it darker")


def test_only_filters_are_counted_by(gallery: Gallery) -> None:
    with pytest.raises(InputError, match=r"expected a qdrant_client\.models\.Filter"):
        gallery.count(5)  # type: ignore[arg-type]


def test_an_argument_of_attach_that_cannot_be_used_is_refused_before_it_writes(owner: Owner, tiny_bundle: Path) -> None:
    owner.create()
    before = owner.config()
    options: list[tuple[str, Any, str]] = [
        ("open_picture", "load", "expected a function"),
        ("root", 5, "is not a folder"),
        ("bundle", 5, "expected a folder, or a packaged model's name"),
        ("picture", ".media", "path"),
    ]
    for option, value, message in options:
        with pytest.raises(InputError, match=message):
            join(owner, tiny_bundle, **{option: value})
    assert owner.config() == before


def test_a_collection_has_a_name(owner: Owner, tiny_bundle: Path) -> None:
    owner.create()
    names: tuple[Any, ...] = ([], None, 5, "")
    for name in names:
        with pytest.raises(InputError, match="expected its name"):
            qdrant_cir.attach(owner.store, name, picture="media.main", bundle=tiny_bundle)
        for door in (Gallery.open, Gallery.create):
            with pytest.raises(InputError, match=r"expected its name|cannot name a collection"):
                door(name, store=owner.store, bundle=tiny_bundle)


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "typing mistake"
    for door in (
        lambda: qdrant_cir.attach(folder, "products", picture="a", bundle=tiny_bundle),
        lambda: Gallery.open("products", store=folder, bundle=tiny_bundle),
        lambda: Retriever.open("products", store=folder, bundle=tiny_bundle),
    ):
        with pytest.raises(CollectionNotFoundError, match="Give the right folder"):
            door()
    assert not folder.exists()


def test_a_root_that_was_removed_is_named_with_what_to_do(
    gallery: Gallery, owner: Owner, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    other = join(owner, tiny_bundle, root=tmp_path / "moved")
    (tmp_path / "moved").rmdir()
    with pytest.raises(InputError, match=r"moved is not a folder.*attach\(\.\.\., root="):
        other.index(verify=True)


def test_a_bundle_of_another_size_is_named_as_another_bundle(gallery: Gallery, owner: Owner) -> None:
    manifest = replace(gallery.bundle.manifest, vector_size=4)
    other = replace(gallery.bundle, fingerprint="other", manifest=manifest)
    wanted = Attachment(owner.name, "cir", "media.main")
    with pytest.raises(CollectionMismatchError, match="was attached under 'cir' with the bundle 'tiny'"):
        attach_collection(gallery.collection.store, wanted, other)


def test_the_doors_of_own_galleries_name_attach_and_what_there_is(
    gallery: Gallery, owner: Owner, tiny_bundle: Path
) -> None:
    with pytest.raises(CollectionMismatchError, match=r"join it with qdrant_cir\.attach"):
        Retriever.open(owner.name, store=owner.store, bundle=tiny_bundle)
    with pytest.raises(CollectionNotFoundError, match=f"There is: {owner.name}\\."):
        Gallery.open("shoes", store=owner.store, bundle=tiny_bundle)


@pytest.mark.parametrize("gone", ["detached", "tokens"])
def test_what_goes_while_index_runs_is_named(owner: Owner, tiny_bundle: Path, pictures: Path, gone: str) -> None:
    if gone == "detached" and not isinstance(owner, ClientOwner):
        pytest.skip("one process has an embedded store")
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(4)])
    other = join(owner, tiny_bundle, root=pictures)

    def load(value: str) -> Path:
        other.detach() if gone == "detached" else other.collection.store.drop(f"{owner.name}__cir")
        return pictures / value

    with pytest.raises(CollectionError, match="Nothing is attached to 'products' under the vector 'cir'"):
        join(owner, tiny_bundle, open_picture=load).index()


def test_limits_are_limits(gallery: Gallery) -> None:
    with pytest.raises(InputError, match="expected PictureLimits"):
        gallery.index(limits=5)  # type: ignore[arg-type]


def test_limits_of_addresses_are_checked_before_anything_is_made(owner: Owner, tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="expected AddressLimits"):
        join(owner, tiny_bundle, address_limits={"seconds": 3})


def test_an_asynchronous_client_is_shown_the_asynchronous_doors(tiny_bundle: Path) -> None:
    client = AsyncQdrantClient(":memory:")
    with pytest.raises(InputError, match="attach_async"):
        qdrant_cir.attach(client, "products", picture="a", bundle=tiny_bundle)  # type: ignore[arg-type]
    asyncio.run(client.close())


def test_groups_may_come_as_a_list(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    groups = [
        models.PointGroup(id=name, hits=[models.ScoredPoint(id=_plain(n), version=0, score=0.5) for n in members])
        for name, members in (("x", (0, 1)), ("y", (2,)), ("z", ()))
    ]
    whole = gallery.rerank(query, models.GroupsResult(groups=groups))
    assert [candidate.group for candidate in whole] in (["x", "y"], ["y", "x"])
    assert gallery.rerank(query, groups).candidates == whole.candidates
    with pytest.raises(InputError, match="groups and other entries"):
        gallery.rerank(query, [*groups, 1])


def test_ids_of_numpy_are_ids(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    assert ids(gallery.rerank(query, np.array([1, 3]))) == ids(gallery.rerank(query, [1, 3]))
    assert ids(gallery.search(GalleryImage(np.int64(3)), "make it darker")) == ids(  # type: ignore[arg-type]
        gallery.search(GalleryImage(3), "make it darker")
    )


def test_candidates_that_are_pictures_are_ranked_again(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    first = gallery.rerank(query, [1, pictures / "c2.png", (pictures / "c0.png").read_bytes()])
    again = gallery.rerank(query, first)
    assert again.notes == ()
    assert [(c.image_id, c.rerank_score) for c in again] == [(c.image_id, c.rerank_score) for c in first]


def test_tokens_that_are_gone_are_named_and_attaching_brings_them_back(
    gallery: Gallery, owner: Owner, tiny_bundle: Path, pictures: Path
) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    gallery.collection.store.drop(f"{owner.name}__cir")
    for read in (
        lambda: gallery.search(pictures / "c3.png", "make it darker"),
        lambda: gallery.search(pictures / "c3.png", exclude_reference=True),
        lambda: gallery.rerank(query, [1]),
    ):
        with pytest.raises(CollectionError, match=r"has lost its tokens.*overwrite=True"):
            read()
    for use in (gallery.info, gallery.index, lambda: gallery.delete([1])):
        with pytest.raises(CollectionError, match="Attach first"):
            use()
    with pytest.raises(CollectionMismatchError, match="tokens are gone"):
        join(owner, tiny_bundle, root=pictures)
    again = join(owner, tiny_bundle, root=pictures, overwrite=True)
    assert again.index().indexed == 4
    assert len(again.search(pictures / "c3.png", "make it darker")) == 4


def test_after_detaching_every_call_names_what_is_gone(gallery: Gallery, pictures: Path) -> None:
    gallery.detach()
    for use in (gallery.info, gallery.index, lambda: gallery.delete([1])):
        with pytest.raises(CollectionError, match="Attach first"):
            use()


@pytest.mark.parametrize("change", ["added", "dropped"])
def test_a_point_whose_pictures_changed_in_part_is_marked(
    owner: Owner, tiny_bundle: Path, pictures: Path, change: str
) -> None:
    def views(*names: str) -> Item:
        return Item(1, {"images": [{"url": name} for name in names]}, {"image": [1.0, 2, 3, 4]})

    owner.create(several="cir" if isinstance(owner, ClientOwner) else None)
    owner.put([views("c0.png", "c1.png")])
    gallery = join(owner, tiny_bundle, root=pictures, picture="images[].url")
    gallery.index()
    assert gallery.search(pictures / "c3.png", "make it darker").notes == ()
    now = views("c0.png", "c2.png") if change == "added" else views("c0.png")
    owner.set_payload(1, now.payload)
    found = gallery.search(pictures / "c3.png", "make it darker")
    assert found[0].rerank_score is not None
    assert found.notes[0].startswith("1 candidates have pictures that are not as they were indexed (1: ")
    assert "Index" in found.notes[1]
    gallery.index()
    assert gallery.search(pictures / "c3.png", "make it darker").notes == ()


def test_failures_of_a_run_are_logged_briefly(
    owner: Owner, tiny_bundle: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(value: str) -> bytes:
        raise RuntimeError(value * 100)

    owner.create()
    owner.put([item(n, f"{uuid4()}{n}") for n in range(130)])
    with caplog.at_level(logging.WARNING, logger="qdrant_cir.indexing.report"):
        report = join(owner, tiny_bundle, open_picture=load).index()
    assert len(report.failed) == 130
    assert len(report.failed[0].reason) > 3000
    lines = [record.getMessage() for record in caplog.records if record.name == "qdrant_cir.indexing.report"]
    assert len(lines) == 101
    assert max(map(len, lines)) < 800
    assert "the report has all of them" in lines[-1]


def _plain(n: int) -> int | str:
    id = id_of(n)
    return id if isinstance(id, int) else str(id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": 5},
        {"shard_key": "tenant"},
        {"shard_key": 1.5},
        {"grpc_port": 0},
        {"grpc_port": 2**70},
        {"retry_seconds": float("nan")},
        {"threads": 0},
        {"limits": 5},
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_before_a_folder_is_made(
    tmp_path: Path, tiny_bundle: Path, wrong: dict[str, Any]
) -> None:
    make: Callable[..., object] = qdrant_cir.Indexer.open if "limits" in wrong else qdrant_cir.Gallery.create
    with pytest.raises(InputError):
        make("shop", store=tmp_path / "store", bundle=tiny_bundle, **wrong)
    assert not (tmp_path / "store").exists()


def test_a_depth_of_the_index_is_checked_without_images_too(tiny_bundle: Path) -> None:
    empty = qdrant_cir.Gallery.create("shop", store=QdrantClient(":memory:"), bundle=tiny_bundle)
    with pytest.raises(InputError, match="limit is 0"):
        empty.index_recall(0)
