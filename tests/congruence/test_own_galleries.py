"""A gallery of our own beside other hands: theirs survive, and what they broke is healed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from qdrant_cir.errors import CirError
from qdrant_cir.gallery import Gallery
from qdrant_cir.indexing.report import IndexReport
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.storage.points import point_id_of
from qdrant_cir.storage.stores import Store
from qdrant_cir.storage.stores.protocol import StoredPoint
from qdrant_cir.storage.stores.server import ServerStore

Color = tuple[int, int, int]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]
COLORS: dict[str, Color] = {f"c{n}": (20 * n, 250 - 20 * n, (n * 70) % 256) for n in range(6)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> list[Path]:
    return write_solid_images(tmp_path_factory.mktemp("own"), COLORS)


@pytest.fixture
def index(store: Store, tiny_bundle: Path, pictures: list[Path]) -> Callable[..., tuple[Gallery, IndexReport]]:
    def run(**fields: Any) -> tuple[Gallery, IndexReport]:  # noqa: ANN401
        gallery = Gallery.create("own", store=store, bundle=tiny_bundle, provider="cpu")
        return gallery, gallery.index([ImageRecord(path.stem, path, payload=fields, source=None) for path in pictures])

    return run


Index = Callable[..., tuple[Gallery, IndexReport]]


def found(gallery: Gallery) -> dict[str, Any]:
    result = gallery.search(None, "make it red", limit=20)
    assert all(candidate.rerank_score is not None for candidate in result)
    return {candidate.image_id: candidate.payload for candidate in result}


def test_foreign_points_are_left_out_and_counted(store: Store, index: Index) -> None:
    gallery, _ = index(brand="a")
    import numpy as np

    vector = np.array([1, -1, -1], np.float32)
    store.upsert("own", [StoredPoint(n, vector, {"brand": "theirs"}) for n in range(3)])
    assert set(found(gallery)) == set(COLORS)
    result = gallery.search(None, "make it red", limit=20)
    assert "3 of the points found are not images of this gallery" in " ".join(result.notes)
    _, report = index(brand="a")
    assert (report.indexed, report.unchanged, report.swept) == (0, 6, 0)
    assert (gallery.info().images, gallery.info().points) == (6, 9)
    assert {record.point_id for record in store.fetch("own", [0, 1, 2], with_vectors=False)} == {0, 1, 2}


def test_fields_that_somebody_set_survive_and_those_of_the_source_follow_it(index: Index) -> None:
    gallery, _ = index(brand="a", season="x")
    gallery.set_payload("c1", {"sold": 3, "shop": {"city": "B"}})
    _, report = index(brand="b")
    assert (report.indexed, report.updated) == (0, 6)
    assert found(gallery)["c1"] == {"brand": "b", "sold": 3, "shop": {"city": "B"}}
    assert found(gallery)["c2"] == {"brand": "b"}
    _, report = index(brand="b")
    assert (report.indexed, report.updated, report.unchanged) == (0, 0, 6)


def test_a_payload_that_was_overwritten_is_healed(store: Store, index: Index) -> None:
    gallery, _ = index(brand="a")
    id = point_id_of("c1")
    (record,) = store.fetch("own", [id], with_vectors=False)
    store.delete_payloads("own", {id: list(record.payload)})
    assert set(found(gallery)) == COLORS.keys() - {"c1"}
    _, report = index(brand="a")
    assert (report.indexed, report.updated) == (0, 1)
    assert found(gallery)["c1"] == {"brand": "a"}


def test_points_that_were_deleted_leave_no_tokens(store: Store, index: Index) -> None:
    gallery, _ = index()
    ids = [point_id_of("c1"), point_id_of("c2")]
    store.delete("own", ids)
    gallery.index([])
    assert gallery.info().pictures == 4
    assert store.fetch("own__tokens", ids, with_vectors=False) == []
    assert set(found(gallery)) == COLORS.keys() - {"c1", "c2"}
    _, report = index()
    assert (report.indexed, report.swept) == (2, 0)


def test_a_collection_that_was_dropped_is_noticed_and_made_again(store: Store, index: Index) -> None:
    gallery, _ = index()
    store.drop("own")
    with pytest.raises(CirError):
        found(gallery)
    again, report = index()
    assert report.indexed == 6
    assert set(found(again)) == COLORS.keys()


def test_an_alias_stands_for_the_gallery(tiny_bundle: Path, pictures: list[Path]) -> None:
    client = QdrantClient(":memory:", force_disable_check_same_thread=True)
    made = Gallery.create("own-v1", store=client, bundle=tiny_bundle, provider="cpu")
    made.index([ImageRecord(path.stem, path, payload={}, source=None) for path in pictures])
    operation = models.CreateAlias(collection_name="own-v1", alias_name="own")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=operation)])
    for gallery in (
        Gallery.open("own", store=client, bundle=tiny_bundle, provider="cpu"),
        Gallery.create("own", store=ServerStore(client), bundle=tiny_bundle, provider="cpu"),
    ):
        assert set(found(gallery)) == COLORS.keys()
        assert gallery.collection.name == "own-v1"
    assert {c.name for c in client.get_collections().collections} == {"own-v1", "own-v1__tokens"}
