"""Attached to a collection of somebody else's: the same laws in memory, embedded, over HTTP and on a server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_front import Fault, Request, RestFront, rest_front
from shops import ClientOwner, Id, Item, Owner, ShardOwner, id_of, item

import qdrant_cir
from qdrant_cir.errors import (
    CirError,
    CollectionError,
    CollectionMismatchError,
    CollectionNotFoundError,
    InputError,
    StoreError,
)
from qdrant_cir.gallery import Gallery
from qdrant_cir.storage.attachment import attached_vectors
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.storage.stores.protocol import VectorSpec
from qdrant_cir.types import GalleryImage, SearchResult, Timings

Color = tuple[int, int, int]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]
COUNT = 12
BARE = 7
"""The product that has no picture."""

KINDS = ["memory", "front", "keeping", "edge", "shard", "server"]


class Attach(Protocol):
    """Attaches with the tiny model and the folder of pictures."""

    def __call__(self, owner: Owner, **options: Any) -> Gallery: ...  # noqa: ANN401


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> Path:
    random = np.random.default_rng(3)
    colors: dict[str, Color] = {}
    for n in range(2 * COUNT):
        red, green, blue = random.integers(0, 256, 3).tolist()
        colors[f"c{n}"] = (red, green, blue)
    folder = tmp_path_factory.mktemp("shop")
    write_solid_images(folder, {**colors, "red": (255, 0, 0), "blue": (0, 0, 255)})
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        yield front


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owner]:
    """An owner without a collection."""
    kind = request.param
    if kind == "memory":
        yield ClientOwner(QdrantClient(":memory:", force_disable_check_same_thread=True))
    elif kind in ("front", "keeping"):
        with rest_front() as front:
            front.keeps_vectors = kind == "keeping"
            yield ClientOwner(QdrantClient(front.url, check_compatibility=False))
    elif kind == "server":
        url = os.environ.get("QDRANT_URL")
        if not url:
            pytest.skip("needs qdrant: QDRANT_URL is not set")
        client = QdrantClient(url, api_key=os.environ.get("QDRANT_API_KEY"))
        owner = ClientOwner(client, f"products-{uuid4()}")
        yield owner
        for found in client.get_collections().collections:
            if found.name.startswith(owner.name):
                client.delete_collection(found.name)
        client.close()
    else:
        with EdgeStore(tmp_path / "edge") as store:
            yield ShardOwner(store, is_bare=kind == "shard")


@pytest.fixture
def owner(empty: Owner) -> Owner:
    """An owner of twelve products, of which one has no picture."""
    empty.create()
    empty.put([item(n, None if n == BARE else f"c{n}.png") for n in range(COUNT)])
    return empty


@pytest.fixture
def join(tiny_bundle: Path, pictures: Path) -> Attach:
    def attach(owner: Owner, **options: Any) -> Gallery:  # noqa: ANN401
        given = {"picture": "media.main", "root": pictures, "bundle": tiny_bundle, "provider": "cpu"} | options
        return qdrant_cir.attach(owner.store, owner.name, **given)

    return attach


@pytest.fixture
def gallery(owner: Owner, join: Attach) -> Gallery:
    joined = join(owner)
    joined.index()
    return joined


def without_time(result: SearchResult) -> SearchResult:
    """Leave out the seconds, and a cosine's last digit, which ``:memory:`` rounds by where arrays lie."""
    candidates = tuple(replace(c, retrieval_score=round(c.retrieval_score, 5)) for c in result.candidates)
    return replace(result, candidates=candidates, timings=Timings(0, 0, 0, 0, 0, 0))


def ids(result: SearchResult) -> list[Any]:
    return [candidate.point_id for candidate in result]


def everything(gallery: Gallery, pictures: Path, **options: Any) -> SearchResult:  # noqa: ANN401
    return gallery.search(pictures / "c3.png", "make it darker", limit=100, rerank_depth=100, **options)


def is_whole(gallery: Gallery) -> bool:
    """Whether another index finds nothing to do."""
    report = gallery.index()
    return (report.indexed, report.failed, report.swept) == (0, (), 0)


def test_what_is_the_users_is_equal_before_and_after(owner: Owner, join: Attach, pictures: Path) -> None:
    before, config = owner.dump(), owner.config()
    gallery = join(owner)
    report = gallery.index()
    assert (report.indexed, report.without_picture, report.failed) == (COUNT - 1, 1, ())
    assert owner.dump() == before
    assert len(everything(gallery, pictures)) == COUNT - 1
    assert owner.dump() == before
    gallery.detach()
    assert owner.dump() == before
    assert owner.config() == config
    assert gallery.collection.store.describe(f"{owner.name}__cir") is None


def test_index_again_does_nothing(gallery: Gallery) -> None:
    report = gallery.index()
    assert (report.indexed, report.unchanged, report.without_picture, report.swept) == (0, COUNT - 1, 1, 0)


def test_search_is_compose_and_the_users_query_and_rerank(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    hits = owner.query(query.vector.tolist(), query.using, 8)
    found = gallery.search(pictures / "c3.png", "make it darker", limit=5, rerank_depth=8)
    assert without_time(gallery.rerank(query, hits, limit=5)) == without_time(found)
    assert [c.rerank_score for c in gallery.rerank(query, hits, limit=5)] == [c.rerank_score for c in found]


def test_points_are_taken_in_every_form_that_qdrant_returns(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    hits = owner.query(query.vector.tolist(), query.using, 6)
    points = getattr(hits, "points", hits)
    best = gallery.rerank(query, hits)
    chosen = [point.id for point in points]
    assert ids(gallery.rerank(query, points)) == ids(best)
    assert ids(gallery.rerank(query, chosen)) == ids(best)
    assert ids(gallery.rerank(query, [GalleryImage(str(id)) for id in chosen])) == ids(best)
    assert ids(gallery.rerank(query, [str(id) for id in chosen])) == ids(best)
    assert ids(gallery.rerank(query, list(best))) == ids(best)
    found = gallery.search(pictures / "c3.png", "make it darker", limit=6, rerank_depth=6)
    assert ids(gallery.rerank(query, [candidate.point for candidate in found])) == ids(best)
    assert [c.point for c in gallery.rerank(query, points)] == [
        next(point for point in points if str(point.id) == str(c.point_id)) for c in best
    ]
    if isinstance(owner, ClientOwner):
        records = owner.store.retrieve(owner.name, chosen)
        assert ids(gallery.rerank(query, records)) == ids(best)
        # of the payload somebody may have read what is not the picture
        partly = owner.store.retrieve(owner.name, chosen, with_payload=["media.tags", "n"])
        assert gallery.rerank(query, partly).notes == ()
        assert ids(gallery.rerank(query, partly)) == ids(best)


def test_pictures_of_the_callers_stand_among_points(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    path = pictures / "c20.png"
    given = [id_of(1), path, id_of(2)]
    as_path = gallery.rerank(query, given)
    as_bytes = gallery.rerank(query, [id_of(1), path.read_bytes(), id_of(2)])
    as_image = gallery.rerank(query, [id_of(1), Image.open(path), id_of(2)])
    for other in (as_bytes, as_image):
        assert [c.rerank_score for c in other] == [c.rerank_score for c in as_path]
    assert {str(id) for id in ids(as_path)} == {str(id_of(1)), str(id_of(2)), "None"}


def test_points_without_tokens_follow_in_the_order_given(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    assert gallery.delete([str(id_of(4)), id_of(1)]) == {str(id_of(4)), id_of(1)}
    result = gallery.rerank(query, [id_of(4), id_of(BARE), id_of(5), id_of(1)])
    assert ids(result) == [id_of(5), id_of(4), id_of(BARE), id_of(1)]
    assert [c.rerank_score is None for c in result] == [False, True, True, True]
    assert "3 candidates without valid tokens" in result.notes[0]
    assert "Index" in result.notes[1]
    # indexing again would not help a point that names no picture
    (note,) = gallery.rerank(query, [id_of(BARE), id_of(5)]).notes
    assert f"{id_of(BARE)}: no picture" in note


def test_missing_tokens_are_encoded_when_asked_and_not_written(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    whole = gallery.rerank(query, [id_of(4), id_of(5), id_of(1)])
    gallery.delete([str(id_of(4))])
    assert gallery.rerank(query, [id_of(4), id_of(5), id_of(1)], encode_missing=True).candidates == whole.candidates
    assert gallery.rerank(query, [id_of(4), id_of(5), id_of(1)]).candidates[-1].point_id == id_of(4)
    assert id_of(4) not in owner.having("cir")


def test_a_group_is_its_best_member(gallery: Gallery, pictures: Path) -> None:
    best: dict[Any, Any] = {}
    for candidate in everything(gallery, pictures):
        best.setdefault(candidate.payload["brand"], candidate.point_id)
    grouped = everything(gallery, pictures, group_by="brand")
    assert [(c.group, c.point_id) for c in grouped] == list(best.items())


def test_a_field_to_group_by_that_no_point_has_is_refused(gallery: Gallery, pictures: Path) -> None:
    with pytest.raises(InputError, match=r"group_by names the field 'brnad'.*Fields that images have: brand"):
        everything(gallery, pictures, group_by="brnad")


def test_the_vector_of_a_query_is_no_query(gallery: Gallery, pictures: Path) -> None:
    query = gallery.compose(pictures / "c3.png", "make it darker")
    with pytest.raises(InputError, match="is a ndarray; expected what compose"):
        gallery.rerank(query.vector, [id_of(4)])  # type: ignore[arg-type]


def test_groups_of_the_users_are_reranked(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    if not isinstance(owner, ClientOwner):
        pytest.skip("Qdrant Edge groups nothing by itself")
    query = gallery.compose(pictures / "c3.png", "make it darker")
    groups = owner.store.query_points_groups(
        owner.name, "brand", query.vector.tolist(), using=query.using, limit=100, group_size=10
    )
    found = everything(gallery, pictures, group_by="brand")
    assert without_time(gallery.rerank(query, groups, limit=100)).candidates == without_time(found).candidates


def test_a_stored_picture_is_a_reference(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    for image_id in (id_of(3), str(id_of(3)), id_of(4), str(id_of(4))):
        by_id = gallery.search(GalleryImage(image_id), "make it darker", limit=100, rerank_depth=100)
        picture = pictures / ("c3.png" if str(image_id) == str(id_of(3)) else "c4.png")
        assert ids(by_id) == ids(gallery.search(picture, "make it darker", limit=100, rerank_depth=100))
    by_id = gallery.search(GalleryImage(id_of(3)), "make it darker", limit=100, rerank_depth=100)
    without = everything(gallery, pictures, exclude_reference=True)
    assert set(ids(by_id)) - set(ids(without)) == {id_of(3)}


def test_a_tenant_sees_no_other(gallery: Gallery, pictures: Path) -> None:
    mine = models.Filter(must=[models.FieldCondition(key="brand", match=models.MatchValue(value="b1"))])
    assert {c.payload["brand"] for c in everything(gallery, pictures, filter=mine)} == {"b1"}


def test_two_vectors_lie_side_by_side(
    gallery: Gallery, owner: Owner, join: Attach, pictures: Path, tmp_path: Path, build_tiny_bundle: Callable[..., Path]
) -> None:
    before, first = owner.dump(), everything(gallery, pictures)
    other = join(owner, vector="other", bundle=build_tiny_bundle(tmp_path / "other", "float16"))
    assert other.index().indexed == COUNT - 1
    assert without_time(everything(gallery, pictures)) == without_time(first)
    assert ids(everything(other, pictures)) == ids(first)
    with pytest.raises(InputError, match="cir, other"):
        Gallery.open(owner.name, store=owner.store, bundle=gallery.bundle.folder)
    gallery.detach()
    assert ids(everything(other, pictures)) == ids(first)
    other.detach()
    assert owner.dump() == before


def test_another_picture_or_bundle_is_refused(
    gallery: Gallery, owner: Owner, join: Attach, tmp_path: Path, build_tiny_bundle: Callable[..., Path]
) -> None:
    with pytest.raises(CollectionMismatchError, match=r"picture='media\.main'"):
        join(owner, picture="other")
    with pytest.raises(CollectionMismatchError, match="bundle"):
        join(owner, bundle=build_tiny_bundle(tmp_path / "other", "float16"))
    assert join(owner).collection.attachment == gallery.collection.attachment


def test_companions_of_one_name_are_not_mixed_up(gallery: Gallery, owner: Owner, join: Attach, pictures: Path) -> None:
    # products__cir__more: the vector cir__more of products, or the vector more of products__cir
    owner.store.create_collection("products__cir__more", {}) if isinstance(owner, ClientOwner) else None
    with pytest.raises(CollectionMismatchError):
        join(ClientOwner(owner.store, f"{owner.name}__cir"), vector="more")
    if isinstance(owner, ClientOwner):
        with pytest.raises(CollectionMismatchError, match="another origin"):
            join(owner, vector="cir__more")
        owner.store.delete_collection("products__cir__more")
        other = ClientOwner(owner.store, f"{owner.name}__a")
        other.create()
        join(owner, vector="a__b").index()
        with pytest.raises(CollectionMismatchError, match="belongs to the vector 'a__b'"):
            join(other, vector="b")
        with pytest.raises(CollectionMismatchError, match="belongs to the vector 'a__b'"):
            Gallery.open(other.name, store=owner.store, vector="b", bundle=gallery.bundle.folder)
    for name in ("", "tokens"):
        with pytest.raises(InputError, match="another name"):
            join(owner, vector=name)


def test_a_vector_of_another_size_is_refused(owner: Owner, join: Attach) -> None:
    with pytest.raises(CollectionMismatchError, match="4 numbers"):
        join(owner, vector="image")


def test_values_that_are_not_ours_are_left_unless_overwriting_is_asked(
    owner: Owner, join: Attach, pictures: Path
) -> None:
    store = join(owner, vector="own").collection.store
    qdrant_cir.Gallery.open(owner.name, store=owner.store, vector="own", bundle=join(owner, vector="own").bundle.folder)
    # the owner's now: a vector that fits, with values of his
    store.drop(f"{owner.name}__own")
    owner.set_vector(id_of(1), "own", [1.0, 0.0, 0.0])
    owner.set_vector(id_of(BARE), "own", [0.0, 1.0, 0.0])
    with pytest.raises(CollectionMismatchError, match="overwrite=True"):
        join(owner, vector="own")
    gallery = join(owner, vector="own", overwrite=True)
    assert gallery.index().indexed == COUNT - 1
    assert is_whole(gallery)
    assert len(everything(gallery, pictures)) == COUNT
    gallery.detach()
    # the vector stood before, so it stays; the value that nobody replaced too
    assert owner.having("own") == {id_of(BARE)}
    assert "own" in store.describe(owner.name).vectors  # type: ignore[union-attr]


def declare_again(owner: Owner, store: Any, size: int) -> None:  # noqa: ANN401
    """Remove our vector and declare one of the same name and size with values of the owner's."""
    store.remove_vector(owner.name, "cir")
    store.add_vector(owner.name, "cir", VectorSpec(size))
    for n in (1, 2):
        owner.set_vector(id_of(n), "cir", np.eye(size, dtype=np.float32)[-n].tolist())


def test_a_vector_that_the_owner_declared_again_is_not_taken_for_ours(
    gallery: Gallery, owner: Owner, join: Attach, pictures: Path
) -> None:
    size = gallery.bundle.manifest.vector_size
    declare_again(owner, gallery.collection.store, size)
    mine = owner.dump()
    uses: list[Callable[[], object]] = [
        *(gallery.index, gallery.info, lambda: gallery.delete([1]), lambda: join(owner)),
        *(gallery.check, lambda: gallery.check(repair=True)),
    ]
    for use in uses:
        with pytest.raises(CollectionMismatchError, match=r"was removed and declared again.*overwrite=True"):
            use()
    assert owner.dump() == mine
    gallery.detach()
    # the vector is the owner's, the tokens were ours
    assert owner.dump() == mine
    assert owner.having("cir") == {id_of(1), id_of(2)}
    assert not gallery.collection.store.describe(f"{owner.name}__cir")


def test_a_vector_that_was_declared_again_is_filled_where_that_is_asked_and_then_stays(
    gallery: Gallery, owner: Owner, join: Attach, pictures: Path
) -> None:
    declare_again(owner, gallery.collection.store, gallery.bundle.manifest.vector_size)
    again = join(owner, overwrite=True)
    assert again.index().indexed == COUNT - 1
    assert is_whole(again)
    assert len(everything(again, pictures)) == COUNT - 1
    again.detach()
    assert "cir" in again.collection.store.describe(owner.name).vectors  # type: ignore[union-attr]


def test_detaching_again_leaves_what_came_after(gallery: Gallery, owner: Owner, join: Attach) -> None:
    size = gallery.bundle.manifest.vector_size
    join(owner).detach()
    declare_again(owner, gallery.collection.store, size)
    mine = owner.dump()
    # this one still holds what stood before
    gallery.detach()
    assert owner.dump() == mine
    assert owner.having("cir") == {id_of(1), id_of(2)}
    # attached again over the owner's vector, which is not ours to remove now
    join(owner, overwrite=True)
    gallery.detach()
    assert "cir" in gallery.collection.store.describe(owner.name).vectors  # type: ignore[union-attr]


def test_a_killed_write_to_a_vector_that_stood_before_is_undone_by_detaching(
    owner: Owner, join: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = join(owner, vector="own").collection.store
    store.drop(f"{owner.name}__own")
    gallery = join(owner, vector="own")
    written: list[int] = []
    kind: Any = type(store)
    upsert = kind.upsert

    def killed(self: object, name: str, points: list[Any]) -> None:
        if any(point.payload["tokens"] for point in points):
            raise KeyboardInterrupt
        written.append(len(points))
        upsert(self, name, points)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "upsert", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.index()
    assert owner.having("own")
    gallery.detach()
    assert owner.having("own") == set()
    assert "own" in store.describe(owner.name).vectors  # type: ignore[union-attr]


def test_a_shard_is_no_store(tmp_path: Path, join: Attach) -> None:
    with EdgeStore(tmp_path) as store:
        ShardOwner(store, is_bare=True).create()
    listed = sorted(path.name for path in (tmp_path / "products").iterdir())
    with pytest.raises(InputError, match="'products' as the collection"):
        EdgeStore(tmp_path / "products")
    assert sorted(path.name for path in (tmp_path / "products").iterdir()) == listed


def test_nothing_of_the_users_can_be_dropped_or_set(gallery: Gallery, owner: Owner) -> None:
    for refused in (
        gallery.drop,
        lambda: gallery.index("/nowhere"),
        lambda: gallery.set_payload(1, {"a": 1}),
    ):
        with pytest.raises(InputError):
            refused()
    assert len(owner.dump()) == COUNT


def test_delete_takes_our_vector_and_tokens_and_leaves_the_point(gallery: Gallery, owner: Owner) -> None:
    before = owner.dump()
    given: list[str | int] = [str(id_of(2)), 3, str(uuid4()), 999]
    assert gallery.delete(given) == {str(id_of(2)), 3}
    assert owner.dump() == before
    assert owner.having("cir") == {id_of(n) for n in range(COUNT) if n not in (2, 3, BARE)}
    assert gallery.info().pictures == COUNT - 3
    assert gallery.index().indexed == 2


@pytest.mark.parametrize("what", ["delete", "picture", "none", "broken", "gone", "clear", "upsert", "rewrite"])
def test_what_the_owner_does_never_fails_a_search_and_index_heals(
    gallery: Gallery, owner: Owner, pictures: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    changed = id_of(3)
    bare = item(3, None)
    writes: dict[str, Callable[[], None]] = {
        "delete": lambda: owner.delete([changed]),
        "picture": lambda: owner.set_payload(changed, item(3, "c20.png").payload),
        "none": lambda: owner.overwrite_payload(changed, bare.payload),
        "broken": lambda: owner.set_payload(changed, item(3, "broken.png").payload),
        "gone": lambda: owner.set_payload(changed, item(3, "gone.png").payload),
        "clear": lambda: owner.clear_payload(changed),
        "upsert": lambda: owner.put([item(3, "c20.png")]),
        "rewrite": lambda: owner.put([item(3, "c3.png")]),
    }
    writes[what]()
    mine = owner.dump()
    is_found = changed in owner.having("cir")
    result = everything(gallery, pictures)
    found = {candidate.point_id: candidate for candidate in result}
    assert (changed in found) == is_found
    if is_found and what != "rewrite":
        assert found[changed].rerank_score is None
        assert str(changed) in " ".join(result.notes)
        assert ids(result)[-1] == changed
    report = gallery.index()
    assert owner.dump() == mine
    assert [failed.image_id for failed in report.failed] == ([str(changed)] if what in ("broken", "gone") else [])
    healed = everything(gallery, pictures)
    if what in ("picture", "upsert", "rewrite"):
        score = {c.point_id: c.rerank_score for c in healed}[changed]
        query = gallery.compose(pictures / "c3.png", "make it darker")
        picture = "c3.png" if what == "rewrite" else "c20.png"
        assert score == pytest.approx(gallery.rerank(query, [pictures / picture]).candidates[0].rerank_score)
        assert not healed.notes
    if what in ("delete", "none", "clear"):
        assert changed not in ids(healed)
        assert gallery.info().pictures == COUNT - 2
        assert changed not in owner.having("cir")
        assert is_whole(gallery)
    owner.put([item(3, "c3.png")])
    gallery.index()
    assert ids(everything(gallery, pictures)) == ids(everything(gallery, pictures))
    assert not everything(gallery, pictures).notes
    assert is_whole(gallery)


def test_pictures_that_moved_are_found_below_another_root(
    gallery: Gallery, owner: Owner, join: Attach, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20), (9, 90, 200)).save(tmp_path / "moved.png")
    owner.set_payload(id_of(3), item(3, "moved.png").payload)
    assert len(gallery.index().failed) == 1
    assert join(owner, root=tmp_path).index().indexed == 1


def test_a_version_field_says_that_the_picture_is_another(owner: Owner, join: Attach) -> None:
    gallery = join(owner, version="n")
    gallery.index()
    owner.set_payload(id_of(3), {"n": 1003})
    assert gallery.index().indexed == 1
    assert is_whole(gallery)
    with pytest.raises(CollectionMismatchError, match="version"):
        join(owner)


def test_verify_reads_every_picture_again(owner: Owner, join: Attach, pictures: Path) -> None:
    shown = {f"c{n}.png": pictures / f"c{n}.png" for n in range(COUNT)}
    gallery = join(owner, open_picture=lambda value: shown[value])
    gallery.index()
    shown["c3.png"] = pictures / "c20.png"
    assert is_whole(gallery)
    report = gallery.index(verify=True)
    assert (report.indexed, report.unchanged) == (1, COUNT - 2)


def test_what_a_function_of_the_users_raises_is_a_failure_of_one_picture(owner: Owner, join: Attach) -> None:
    def load(value: str) -> Image.Image:
        if value == "c3.png":
            raise RuntimeError("no luck")
        return Image.new("RGB", (20, 20), (len(value), 9, 200))

    report = join(owner, open_picture=load).index()
    assert report.indexed == COUNT - 2
    assert "no luck" in report.failed[0].reason


def test_a_picture_outside_of_the_root_is_not_read(owner: Owner, join: Attach, pictures: Path) -> None:
    owner.set_payload(id_of(3), item(3, f"../{pictures.name}/c3.png").payload)
    owner.set_payload(id_of(4), item(4, "/etc/passwd").payload)
    report = join(owner, root=pictures).index()
    assert {failed.image_id for failed in report.failed} >= {str(id_of(4))}


def test_a_collection_that_was_made_again_is_noticed(
    gallery: Gallery, owner: Owner, join: Attach, pictures: Path
) -> None:
    owner.remove()
    with pytest.raises(CirError):
        everything(gallery, pictures)
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(3)])
    mine = owner.dump()
    with pytest.raises(CollectionError, match="made again"):
        everything(gallery, pictures)
    with pytest.raises(CollectionError, match="made again"):
        gallery.index()
    with pytest.raises(CollectionError, match="made again"):
        Gallery.open(owner.name, store=owner.store, bundle=gallery.bundle.folder)
    again = join(owner)
    assert again.index().indexed == 3
    assert again.info().pictures == 3
    assert len(everything(again, pictures)) == 3
    again.detach()
    assert owner.dump() == mine


def test_detach_goes_on_where_it_was_stopped(gallery: Gallery, owner: Owner, join: Attach) -> None:
    mine = owner.dump()
    gallery.collection.store.remove_vector(owner.name, "cir")
    join(owner).detach()
    assert owner.dump() == mine
    assert gallery.collection.store.collection_names().count(f"{owner.name}__cir") == 0
    gallery.detach()


def test_an_attached_gallery_is_opened_by_its_name(gallery: Gallery, owner: Owner, pictures: Path) -> None:
    opened = Gallery.open(owner.name, store=owner.store, bundle=gallery.bundle.folder, provider="cpu")
    assert opened.collection.attachment == gallery.collection.attachment
    assert without_time(everything(opened, pictures)) == without_time(everything(gallery, pictures))
    assert is_whole(opened)
    info = opened.info()
    assert (info.images, info.points, info.pictures) == (COUNT - 1, COUNT, COUNT - 1)
    assert info.fields == ("brand", "media", "n")


def test_an_unknown_collection_or_path_is_refused(empty: Owner, join: Attach) -> None:
    with pytest.raises(CollectionNotFoundError):
        join(empty)
    empty.create()
    for picture in ("a..b", 5):
        with pytest.raises(InputError, match="path"):
            join(empty, picture=picture)
    for vector in (None, 7, "", "tokens"):
        with pytest.raises(InputError, match="cannot be attached"):
            join(empty, vector=vector)
    with pytest.raises(InputError, match="/nope is not a folder"):
        join(empty, root="/nope")
    assert attached_vectors(join(empty).collection.store, empty.name) == ["cir"]


def test_what_ends_attaching_half_way_leaves_no_companion(
    owner: Owner, join: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = join(owner, vector="other").collection.store

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(store), "add_vector", stopped)
    with pytest.raises(KeyboardInterrupt):
        join(owner)
    assert attached_vectors(store, owner.name) == ["other"]


def test_an_alias_stands_for_its_collection(owner: Owner, join: Attach, pictures: Path) -> None:
    if not isinstance(owner, ClientOwner):
        pytest.skip("Qdrant Edge has no aliases")
    alias = f"{owner.name}-live"
    operation = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=owner.name, alias_name=alias)
    )
    owner.store.update_collection_aliases([operation])
    named = ClientOwner(owner.store, alias)
    gallery = join(named)
    assert gallery.index().indexed == COUNT - 1
    assert gallery.collection.layout.companion == f"{owner.name}__cir"
    assert len(everything(Gallery.open(alias, store=owner.store, bundle=gallery.bundle.folder), pictures)) == COUNT - 1
    gallery.detach()
    assert owner.having("cir") == set()


def several(n: int, *pictures: str) -> Item:
    return Item(id_of(n), {"images": [{"url": url} for url in pictures], "n": n}, {"image": [1.0, 2, 3, n]})


@pytest.fixture
def views(empty: Owner, join: Attach) -> tuple[Owner, Gallery]:
    """Products with several pictures each; the one of n has the pictures n and n + 12, product 5 none."""
    empty.create(several="cir" if isinstance(empty, ClientOwner) else None)
    empty.put([several(n, *([] if n == 5 else [f"c{n}.png", f"c{n + 12}.png"])) for n in range(8)])
    gallery = join(empty, picture="images[].url")
    report = gallery.index()
    assert (report.indexed, report.swept) == (14, 0)
    return empty, gallery


def test_the_best_of_several_pictures_counts_and_is_named(views: tuple[Owner, Gallery], pictures: Path) -> None:
    _, gallery = views
    result = everything(gallery, pictures)
    assert len(result) == 7
    query = gallery.compose(pictures / "c3.png", "make it darker")
    for candidate in result:
        n = candidate.payload["n"]
        assert isinstance(n, int)
        shown = [f"c{n}.png", f"c{n + 12}.png"]
        scores = [gallery.rerank(query, [pictures / name]).candidates[0].rerank_score for name in shown]
        assert candidate.rerank_score == pytest.approx(max(scores))  # type: ignore[type-var]
        assert candidate.view == shown[scores.index(max(scores))]  # type: ignore[type-var]
    info = gallery.info()
    assert (info.images, info.points, info.pictures) == (7, 8, 14)
    assert is_whole(gallery)


def test_a_view_that_is_dropped_added_or_broken_is_healed(views: tuple[Owner, Gallery], pictures: Path) -> None:
    owner, gallery = views
    owner.set_payload(id_of(1), several(1, "c1.png").payload)
    owner.set_payload(id_of(2), several(2, "c2.png", "broken.png", "c14.png").payload)
    owner.set_payload(id_of(3), several(3).payload)
    owner.set_payload(id_of(4), several(4, "c4.png", "c16.png", "red.png").payload)
    owner.set_payload(id_of(6), several(6, "gone.png", "broken.png").payload)
    owner.delete([id_of(0)])
    mine = owner.dump()
    everything(gallery, pictures)
    report = gallery.index()
    assert sorted(failed.image_id.split()[1] for failed in report.failed) == ["broken.png", "broken.png", "gone.png"]
    assert owner.dump() == mine
    found = {c.point_id: c for c in everything(gallery, pictures)}
    assert id_of(3) not in found
    assert id_of(0) not in found
    assert found[id_of(6)].rerank_score is None
    query = gallery.compose(pictures / "red.png", "same")
    assert gallery.rerank(query, [id_of(4)]).candidates[0].view == "red.png"
    # 1: one, 2: two of three, 4: three, 7: two
    assert gallery.info().pictures == 8
    assert owner.having("cir") == {id_of(n) for n in (1, 2, 4, 6, 7)}


def test_a_stored_point_of_several_pictures_is_a_reference(views: tuple[Owner, Gallery], pictures: Path) -> None:
    _, gallery = views
    by_id = gallery.search(GalleryImage(str(id_of(3))), "make it darker", limit=100, rerank_depth=100)
    assert ids(by_id) == ids(everything(gallery, pictures))


def test_memory_refuses_a_vector_of_several_pictures_that_was_not_declared(join: Attach) -> None:
    owner = ClientOwner(QdrantClient(":memory:"))
    owner.create()
    with pytest.raises(InputError, match="Declare it when the collection is made"):
        join(owner, picture="images[].url")
    assert [c.name for c in owner.store.get_collections().collections] == [owner.name]


def test_a_collection_with_an_unnamed_vector_takes_one_of_ours(join: Attach, pictures: Path) -> None:
    with rest_front() as front:
        for client in (QdrantClient(":memory:"), QdrantClient(front.url, check_compatibility=False)):
            client.create_collection("plain", models.VectorParams(size=2, distance=models.Distance.DOT))
            points = [models.PointStruct(id=n, vector=[n, 1.0], payload={"pic": f"c{n}.png"}) for n in range(1, 6)]
            client.upsert("plain", points)

            def dump(client: QdrantClient = client) -> Any:  # noqa: ANN401
                found = client.scroll("plain", with_vectors=True)[0]
                return [
                    (p.id, p.payload, p.vector.get("", p.vector) if isinstance(p.vector, dict) else p.vector)
                    for p in found
                ]

            before = dump()
            gallery = join(ClientOwner(client, "plain"), picture="pic")
            assert gallery.index().indexed == 5
            assert len(everything(gallery, pictures)) == 5
            gallery.detach()
            assert dump() == before


def test_a_point_that_vanishes_while_index_writes_is_left_out(front: RestFront, join: Attach) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(COUNT)])
    gallery = join(owner)

    def vanish(request: Any) -> None:  # noqa: ANN401
        if request.call == "PUT products/points/vectors":
            front.memory.delete(owner.name, models.PointIdsList(points=[str(id_of(4)), 5]))

    front.before = vanish
    report = gallery.index()
    assert {failed.image_id for failed in report.failed} == {str(id_of(4)), "5"}
    assert report.indexed == COUNT - 2
    front.before = lambda request: None
    assert owner.having("cir") == {id_of(n) for n in range(COUNT) if n not in (4, 5)}
    assert gallery.info().pictures == COUNT - 2
    assert is_whole(gallery)


def test_a_strict_server_is_asked_nothing_that_it_forbids(front: RestFront, join: Attach, pictures: Path) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(COUNT)])
    front.indexed, front.allows_exact = {"brand"}, False
    gallery = join(owner)
    assert gallery.index().indexed == COUNT
    assert gallery.info().images == COUNT
    mine = models.Filter(must=[models.FieldCondition(key="brand", match=models.MatchValue(value="b1"))])
    assert len(everything(gallery, pictures, filter=mine)) == 4
    assert is_whole(gallery)
    gallery.delete([1])
    gallery.detach()


def test_a_search_makes_two_reads_and_index_three_calls_a_batch(front: RestFront, join: Attach, pictures: Path) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(COUNT)])
    front.calls()
    gallery = join(owner)
    attached = front.calls()
    assert [call for call in attached if not call.startswith("GET")] == [
        "PUT products__cir",
        "PUT products/vectors/cir",
    ]
    gallery.index()
    indexed = [call for call in front.calls() if not call.startswith("GET")]
    # with the vector: none; without: a page, and the end; the vectors, then the tokens; then the tokens are counted
    assert sorted(indexed) == sorted(
        [
            "POST products/points/count",
            "POST products/points/scroll",
            "POST products/points/scroll",
            "POST products/points/scroll",
            "PUT products/points/vectors",
            "PUT products__cir/points",
            "POST products__cir/points/count",
            # whether the vector is the one that was filled before: nothing was
            "POST products__cir/points/scroll",
        ]
    )
    two = ["POST products/points/query", "POST products__cir/points"]
    everything(gallery, pictures)
    assert front.calls() == two
    everything(gallery, pictures)
    assert front.calls() == two
    query = gallery.compose(pictures / "c3.png", "make it darker")
    assert front.calls() == []
    hits = owner.query(query.vector.tolist(), query.using, 5)
    assert front.calls() == two[:1]
    gallery.rerank(query, hits)
    assert front.calls() == two[1:]
    gallery.search(GalleryImage("3"), "make it darker")
    assert front.calls() == ["POST products/points", "POST products__cir/points", *two]
    everything(gallery, pictures, group_by="brand")
    assert front.calls() == ["POST products/points/query/groups", *two[1:]]
    # the digests of the candidates, of which only the companion knows
    everything(gallery, pictures, exclude_reference=True)
    assert front.calls() == [*two, two[1]]
    gallery.rerank(query, [1, 3])
    assert front.calls() == ["POST products/points", two[1]]
    gallery.index()
    # some records and their vectors show that it is the one that was filled before
    assert sorted(call for call in front.calls() if not call.startswith("GET")) == [
        "POST products/points",
        "POST products/points/count",
        "POST products/points/scroll",
        "POST products/points/scroll",
        "POST products/points/scroll",
        "POST products__cir/points",
        "POST products__cir/points/count",
        "POST products__cir/points/scroll",
    ]


@pytest.mark.parametrize("cut", ["no", "before", "after"])
def test_a_server_that_fails_for_a_moment_changes_nothing(
    front: RestFront, join: Attach, pictures: Path, cut: Literal["no", "before", "after"]
) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(COUNT)])
    mine = owner.dump()
    failed: set[str] = set()

    def is_first(request: Request) -> bool:
        is_new = request.call not in failed
        failed.add(request.call)
        return is_new

    front.faults, front.is_faulty = [Fault(cut=cut) for _ in range(99)], is_first
    gallery = join(owner)
    assert gallery.index().indexed == COUNT
    assert len(everything(gallery, pictures)) == COUNT
    assert is_whole(gallery)
    gallery.detach()
    front.faults.clear()
    assert owner.dump() == mine
    assert {c.name for c in owner.store.get_collections().collections} == {owner.name}


def test_a_server_that_is_too_old_is_left_as_it_was(front: RestFront, join: Attach) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    front.version = "1.17.0"
    front.faults, front.is_faulty = [Fault(status=404, body=b"")], lambda request: "/vectors/cir" in request.path
    with pytest.raises(StoreError, match=r"1\.18"):
        join(owner)
    assert [c.name for c in owner.store.get_collections().collections] == [owner.name]


def test_the_companion_lies_as_the_collection_does(front: RestFront, join: Attach) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    front.placement = {
        "shard_number": 3,
        "sharding_method": "custom",
        "replication_factor": 2,
        "write_consistency_factor": 2,
        "payload": {"memory": "cold"},
    }
    front.strict = {"enabled": True, "max_query_limit": 100, "search_allow_exact": False, "max_points_count": 9}
    join(owner)
    (made,) = front.asked("PUT", "/products__cir")
    assert {key: made.body[key] for key in front.placement} == front.placement
    # how many points the owner allows is about the owner's points; a companion can have more
    assert made.body["strict_mode_config"] == {"enabled": True, "max_query_limit": 100, "search_allow_exact": False}


def test_a_shard_key_goes_with_the_reads_of_the_users_collection(
    front: RestFront, join: Attach, pictures: Path
) -> None:
    owner = ClientOwner(QdrantClient(front.url, check_compatibility=False))
    owner.create()
    owner.put([item(n, f"c{n}.png") for n in range(COUNT)])
    gallery = join(owner)
    gallery.index()
    front.calls()
    everything(gallery, pictures, shard_key_selector="tenant-1")
    keys = {request.call: request.body.get("shard_key") for request in front.requests}
    # the companion has no shard keys: it is read by the ids that the tenant's shard returned
    assert keys == {"POST products/points/query": "tenant-1", "POST products__cir/points": None}


def test_the_asynchronous_gallery_answers_alike(tiny_bundle: Path, pictures: Path, front: RestFront) -> None:
    async def run(client: AsyncQdrantClient) -> None:
        given: dict[str, Any] = {"picture": "media.main", "root": pictures, "bundle": tiny_bundle, "provider": "cpu"}
        async with qdrant_cir.attach_async(client, "products", **given) as gallery:
            assert (await gallery.index()).indexed == COUNT
            query = await gallery.compose(pictures / "c3.png", "make it darker")
            hits = await client.query_points("products", query.vector.tolist(), using=query.using, limit=8)
            best = await gallery.rerank(query, hits, limit=5)
            found = await gallery.search(pictures / "c3.png", "make it darker", limit=5, rerank_depth=8)
            assert without_time(best) == without_time(found)
            again = await qdrant_cir.attach_async(client, "products", **given)
            assert (await again.info()).images == COUNT
            same = await asyncio.gather(
                *[again.search(pictures / "c3.png", "make it darker", limit=5) for _ in range(9)]
            )
            assert {tuple(ids(result)) for result in same} == {tuple(ids(found))}
            await gallery.delete([1])
            assert await gallery.count() == COUNT - 1
            await gallery.detach()
        await again.close()

    async def main() -> None:
        for client in (AsyncQdrantClient(":memory:"), AsyncQdrantClient(front.url, check_compatibility=False)):
            vectors = {"text": models.VectorParams(size=2, distance=models.Distance.COSINE)}
            await client.create_collection("products", vectors)
            points = [item(n, f"c{n}.png") for n in range(COUNT)]
            await client.upsert(
                "products",
                [
                    models.PointStruct(
                        id=p.id if isinstance(p.id, int) else str(p.id), vector={"text": [1, 2]}, payload=p.payload
                    )
                    for p in points
                ],
            )
            await run(client)

    asyncio.run(main())


def test_a_killed_write_leaves_nothing_that_passes_for_current(
    gallery: Gallery, owner: Owner, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: Id = id_of(3)
    owner.set_payload(changed, item(3, "c20.png").payload)
    store = type(gallery.collection.store)
    for method in ("upsert", "update_vectors"):
        with monkeypatch.context() as patch:

            def fail(*args: object, **options: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(store, method, fail)
            with pytest.raises(KeyboardInterrupt):
                gallery.index()
        found = {c.point_id: c.rerank_score for c in everything(gallery, pictures)}
        assert found[changed] is None
    assert gallery.index().indexed == 1
    query = gallery.compose(pictures / "c3.png", "make it darker")
    best = gallery.rerank(query, [pictures / "c20.png"]).candidates[0].rerank_score
    assert {c.point_id: c.rerank_score for c in everything(gallery, pictures)}[changed] == pytest.approx(best)
