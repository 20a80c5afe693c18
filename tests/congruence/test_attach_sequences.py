"""Whatever the owner of an attached collection writes in between: searches answer, index heals, his data are his."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_front import rest_front
from shops import SIZES, ClientOwner, Id, Item, Owner, ShardOwner, id_of

import qdrant_cir
from qdrant_cir.gallery import Gallery
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import GalleryImage

Color = tuple[int, int, int]
Place = tuple[Owner, bool]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]

PRODUCTS = 5
PICTURES = ["p0.png", "p1.png", "p2.png", "broken.png", "gone.png", None]

products = st.integers(0, PRODUCTS - 1)
shown = st.sampled_from(PICTURES)
numbers = st.integers(1, 9)
WRITES = st.one_of(
    st.tuples(st.just("upsert"), products, shown),
    st.tuples(st.just("upsert with ours"), products, shown),
    st.tuples(st.just("delete"), products),
    st.tuples(st.just("set"), products, shown),
    st.tuples(st.just("overwrite"), products, shown),
    st.tuples(st.just("clear"), products),
    st.tuples(st.just("vector"), products, numbers),
    st.tuples(st.just("no vector"), products),
    st.just(("index",)),
    st.just(("search",)),
    st.just(("rerank",)),
    st.just(("our delete",)),
)

SEQUENCES = st.lists(WRITES, min_size=3, max_size=14)


def payload_of(picture: str | None, n: int = 0) -> dict[str, Any]:
    return {"n": n, "deep": {"list": [1, {"a": None}]}, **({} if picture is None else {"picture": picture})}


class Model:
    """What the owner has written, in dictionaries."""

    def __init__(self) -> None:
        self.points: dict[Id, tuple[dict[str, Any], dict[str, list[float]]]] = {}

    def upsert(self, id: Id, payload: dict[str, Any], vectors: dict[str, list[float]], *, keeps: bool) -> None:
        old = self.points[id][1] if keeps and id in self.points else {}
        self.points[id] = (payload, {**old, **vectors})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    write_solid_images(folder, {"p0": (250, 10, 30), "p1": (20, 200, 90), "p2": (90, 80, 220)})
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module", params=["memory", "keeping"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An owner, and whether the store keeps vectors that an upsert does not name."""
    if request.param == "memory":
        yield ClientOwner(QdrantClient(":memory:", force_disable_check_same_thread=True), "seq"), False
    else:
        with rest_front() as front:
            front.keeps_vectors = True
            yield ClientOwner(QdrantClient(front.url, check_compatibility=False), "seq"), True


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with EdgeStore(tmp_path_factory.mktemp("edge")) as store:
        yield ShardOwner(store, "seq", is_bare=True), False


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(writes=SEQUENCES)
def test_searches_answer_index_heals_and_the_data_are_the_owners(
    place: Place, tiny_bundle: Path, pictures: Path, writes: list[tuple[Any, ...]]
) -> None:
    live(place, tiny_bundle, pictures, writes)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(writes=SEQUENCES)
def test_the_same_holds_for_a_shard_of_the_users_own(
    shard: Place, tiny_bundle: Path, pictures: Path, writes: list[tuple[Any, ...]]
) -> None:
    live(shard, tiny_bundle, pictures, writes)


def live(place: Place, bundle: Path, pictures: Path, writes: list[tuple[Any, ...]]) -> None:
    """Let the owner write, and us search and index in between, then compare his data with the model."""
    logging.disable(logging.CRITICAL)
    (owner, keeps), model = place, Model()
    owner.create()
    gallery = qdrant_cir.attach(owner.store, "seq", picture="picture", root=pictures, bundle=bundle, provider="cpu")
    for n in range(3):
        write(owner, model, ("upsert", n, PICTURES[n]), keeps=keeps)
    for step in writes:
        write(owner, model, step, keeps=keeps)
        ours(gallery, pictures, step)
    gallery.search(pictures / "p0.png", "make it red", limit=9)
    gallery.index()
    check_healed(gallery, owner, model, pictures)
    gallery.detach()
    check_data(owner, model)
    owner.remove()
    assert gallery.collection.store.collection_names() == []
    logging.disable(logging.NOTSET)


def ours(gallery: Gallery, pictures: Path, step: tuple[Any, ...]) -> None:
    match step:
        case ("index",):
            gallery.index()
        case ("search",):
            result = gallery.search(pictures / "p1.png", "make it red", limit=9)
            for candidate in result:
                assert candidate.rerank_score is not None or str(candidate.point_id) in " ".join(result.notes)
        case ("rerank",):
            query = gallery.compose(pictures / "p2.png", "make it blue")
            gallery.rerank(query, [id_of(n) for n in range(PRODUCTS)], encode_missing=True)
            gallery.rerank(query, [id_of(n) for n in range(PRODUCTS)])
        case ("our delete",):
            gallery.delete([str(id_of(n)) for n in range(2)])


def write(owner: Owner, model: Model, step: tuple[Any, ...], *, keeps: bool) -> None:
    match step:
        case ("upsert" | "upsert with ours" as kind, n, picture):
            id, payload, vectors = id_of(n), payload_of(picture, n), {"image": [1.0, 2.0, 3.0, float(n)]}
            extra = {"cir": [1.0, 0.0, 0.0]} if kind == "upsert with ours" else {}
            owner.put([Item(id, payload, {**vectors, **extra})])
            model.upsert(id, payload, vectors, keeps=keeps)
        case ("delete", n):
            owner.delete([id_of(n)])
            model.points.pop(id_of(n), None)
        case ("set" | "overwrite" as kind, n, picture) if id_of(n) in model.points:
            payload, vectors = model.points[id_of(n)]
            new = payload_of(picture, 7)
            (owner.set_payload if kind == "set" else owner.overwrite_payload)(id_of(n), new)
            model.points[id_of(n)] = ({**payload, **new} if kind == "set" else new, vectors)
        case ("clear", n) if id_of(n) in model.points:
            owner.clear_payload(id_of(n))
            model.points[id_of(n)] = ({}, model.points[id_of(n)][1])
        case ("vector", n, value) if id_of(n) in model.points:
            owner.set_vector(id_of(n), "text", [float(value), 1.0])
            payload, vectors = model.points[id_of(n)]
            model.points[id_of(n)] = (payload, {**vectors, "text": [float(value), 1.0]})
        case ("no vector", n) if id_of(n) in model.points:
            owner.delete_vector(id_of(n), "image")
            payload, vectors = model.points[id_of(n)]
            model.points[id_of(n)] = (payload, {name: value for name, value in vectors.items() if name != "image"})


def check_data(owner: Owner, model: Model) -> None:
    found = owner.dump()
    assert found.keys() == model.points.keys()
    for id, (payload, vectors) in model.points.items():
        assert found[id][0] == payload
        assert found[id][1].keys() == vectors.keys() <= SIZES.keys()
        for name, value in vectors.items():
            unit = np.array(value) / np.linalg.norm(value)
            assert np.allclose(found[id][1][name], unit, atol=1e-6)


def check_healed(gallery: Gallery, owner: Owner, model: Model, pictures: Path) -> None:
    check_data(owner, model)
    readable = {id for id, (payload, _) in model.points.items() if payload.get("picture") in PICTURES[:3]}
    result = gallery.search(pictures / "p0.png", "make it red", limit=9)
    assert {c.point_id for c in result if c.rerank_score is not None} == readable
    query = gallery.compose(pictures / "p0.png", "make it red")
    for candidate in result:
        if candidate.rerank_score is not None:
            picture = pictures / str(candidate.payload["picture"])
            assert candidate.rerank_score == pytest.approx(gallery.rerank(query, [picture])[0].rerank_score, abs=1e-5)
    again = gallery.index()
    assert again.indexed == 0
    assert again.swept == 0
    for id in readable:
        gallery.search(GalleryImage(str(id)), "make it blue")


def test_a_picture_that_changes_while_index_runs_is_found_by_the_next(tiny_bundle: Path, pictures: Path) -> None:
    with rest_front() as front:
        front.keeps_vectors = True
        owner = ClientOwner(QdrantClient(front.url, check_compatibility=False), "seq")
        owner.create()
        owner.put([Item(n, payload_of(PICTURES[n]), {}) for n in range(3)])
        gallery = qdrant_cir.attach(
            owner.store, "seq", picture="picture", root=pictures, bundle=tiny_bundle, provider="cpu"
        )

        def change(request: Any) -> None:  # noqa: ANN401
            if request.call == "PUT seq/points/vectors":
                front.memory.set_payload("seq", {"picture": "p2.png"}, models.PointIdsList(points=[0]))

        front.before = change
        gallery.index()
        front.before = lambda request: None
        assert {c.point_id: c.rerank_score is None for c in gallery.search(None, "red", limit=9)}[0]
        assert gallery.index().indexed == 1
        assert not gallery.search(None, "red", limit=9).notes[1:]
