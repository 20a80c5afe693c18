"""Writes that are too large or not applied, and searches while the server fails: real HTTP, and real graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient
from qdrant_front import Fault, Request, RestFront, rest_front

from qdrant_cir import Effort, Gallery, Indexer, IndexingError, StoreUnavailableError, TooLargeError
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.storage.stores import CollectionSpec, ServerStore, StoredPoint

VECTOR = np.eye(3, dtype=np.float32)[0]
RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


@pytest.fixture
def front() -> Iterator[RestFront]:
    with rest_front() as front:
        yield front


@pytest.fixture
def store(front: RestFront) -> Iterator[ServerStore]:
    client = QdrantClient(url=front.url, check_compatibility=False)
    store = ServerStore(client, retry_seconds=1)
    store.create("gallery", CollectionSpec(vector_size=3, metadata={}))
    front.requests.clear()
    yield store
    client.close()


@pytest.fixture
def gallery(front: RestFront, tiny_bundle: Path) -> Iterator[Gallery]:
    with Gallery.create("shop", store=front.url, bundle=tiny_bundle, provider="cpu", threads=1) as gallery:
        yield gallery


def record(image_id: str, picture: Image.Image, text: str = "") -> ImageRecord:
    return ImageRecord(image_id, picture, payload={"text": text}, source=None)


def fill(gallery: Gallery) -> None:
    report = gallery.index([record(f"{n}", picture) for n, picture in enumerate((RED, BLUE))])
    assert report.indexed == 2


def test_a_write_that_is_too_large_is_made_in_parts_and_only_a_point_too_large_by_itself_is_refused(
    store: ServerStore, front: RestFront
) -> None:
    front.largest = 4000
    ids = [UUID(int=n + 1) for n in range(9)]
    sizes = [5000 if n == 6 else 900 for n in range(9)]
    points = [StoredPoint(id_, VECTOR, {"a": "x" * size}) for id_, size in zip(ids, sizes, strict=True)]
    with pytest.raises(TooLargeError, match=f"as large as {ids[6]} of 'gallery'") as raised:
        store.upsert("gallery", points)
    assert raised.value.point_ids == (ids[6],)
    assert store.count("gallery", None) == 8
    with pytest.raises(TooLargeError):
        store.set_payloads("gallery", {ids[0]: {"b": "y"}, ids[1]: {"b": "y" * 5000}})
    found = store.fetch("gallery", ids[:2], with_vectors=False, fields=("b",))
    assert [record.payload for record in found] == [{"b": "y"}, {}]


def test_a_record_over_the_servers_limit_is_that_records_failure(gallery: Gallery, front: RestFront) -> None:
    front.largest = 20_000
    records = [record("small", RED), record("large", BLUE, "x" * 30_000), record("other", BLUE)]
    report = gallery.index(records)
    assert (report.indexed, [failed.image_id for failed in report.failed]) == (2, ["large"])
    assert "payload is larger than the server" in report.failed[0].reason
    # a payload that grew is a failure as well, and the old one stays
    again = gallery.index([record("small", RED, "x" * 30_000), record("other", BLUE, "new")])
    assert (again.updated, [failed.image_id for failed in again.failed]) == (1, ["small"])
    assert gallery.search(RED, limit=1, rerank_depth=0)[0].payload == {"text": ""}


def test_a_run_whose_write_was_given_up_waits_for_the_server_no_second_time(
    front: RestFront, tiny_bundle: Path
) -> None:
    def is_write(request: Request) -> bool:
        if not request.call.startswith("PUT shop__tokens/points"):
            return False
        sleep(0.3)  # the other batches line up behind it
        return True

    with Indexer.open("shop", store=front.url, bundle=tiny_bundle, retry_seconds=0) as indexer:
        front.is_faulty = is_write
        front.faults = [Fault(503)] * 99
        pictures = [record(f"{n}", Image.new("RGB", (8, 8), (n, 0, 0))) for n in range(200)]
        with pytest.raises(IndexingError, match="after 0 images"):
            indexer.index(pictures)
    calls = front.calls()
    assert calls[-1].startswith("PUT shop__tokens/points")
    assert len([call for call in calls if call.startswith("PUT shop__tokens/points")]) == 1


def test_a_write_that_is_only_acknowledged_is_made_until_it_is_applied(store: ServerStore, front: RestFront) -> None:
    front.acknowledges = 1
    store.upsert("gallery", [StoredPoint(UUID(int=1), VECTOR, {})])
    assert len(front.asked("PUT", "/points")) == 2
    front.acknowledges = 99
    with pytest.raises(StoreUnavailableError, match="acknowledged but not applied"):
        store.delete("gallery", [UUID(int=1)])


def test_tokens_that_cannot_be_read_are_given_up_after_two_seconds_for_stage_ones_order(
    gallery: Gallery, front: RestFront
) -> None:
    fill(gallery)
    first = gallery.search(RED, "make it blue", rerank_depth=0)
    front.is_faulty = lambda request: request.path.endswith("shop__tokens/points")
    front.faults += [Fault(503)] * 99
    started = perf_counter()
    found = gallery.search(RED, "make it blue")
    assert 2 <= perf_counter() - started < 8
    assert [each.image_id for each in found] == [each.image_id for each in first]
    assert (found.rerank_mode, found.scored) == ("none", 0)
    assert found.notes[0].startswith("The tokens of 2 of 2 candidates could not be read, so these stand in stage one's")
    composed = gallery.compose(RED, "make it blue")
    again = gallery.rerank(composed, ["0", "1"] and [each.point_id for each in first], effort=Effort(time_budget=0.2))
    assert (again.rerank_mode, again.scored) == ("none", 0)


@pytest.mark.parametrize(("timeout", "effort"), [(1, Effort()), (None, Effort(time_budget=1.0))])
def test_retries_of_a_search_end_with_its_timeout_and_its_time_budget(
    gallery: Gallery, front: RestFront, timeout: int | None, effort: Effort
) -> None:
    fill(gallery)
    front.faults += [Fault(503)] * 99
    started = perf_counter()
    with pytest.raises(StoreUnavailableError):
        gallery.search(RED, "make it blue", timeout=timeout, effort=effort)
    assert perf_counter() - started < 8


def test_explaining_a_place_needs_the_tokens(gallery: Gallery, front: RestFront) -> None:
    fill(gallery)
    found = gallery.search(RED, "make it blue")
    front.is_faulty = lambda request: request.path.endswith("shop__tokens/points")
    front.faults += [Fault(503)] * 99
    with pytest.raises(StoreUnavailableError):
        gallery.explain(RED, "make it blue", found[0])
