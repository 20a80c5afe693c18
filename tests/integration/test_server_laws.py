"""The laws of tests/congruence, and a store over an asynchronous client, on a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from qdrant_cir.errors import CollectionNotFoundError
from qdrant_cir.storage.stores import (
    CollectionSpec,
    ServerStore,
    Store,
    StoredPoint,
    connect_async,
)

_path = Path(__file__).parents[1] / "congruence" / "test_store_laws.py"
_spec = importlib.util.spec_from_file_location("store_laws", _path)
assert _spec is not None
assert _spec.loader is not None
_laws = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_laws)
# every law and the fixtures that it needs; ``store`` is the server, of this folder's conftest
globals().update({key: value for key, value in vars(_laws).items() if key.startswith("test_")})
name = _laws.name


@pytest.fixture
def gallery(store: Store, name: str) -> str:
    """A collection of sixty points."""
    _laws.fill(store, name)
    return name


@pytest.fixture
def standing(gallery: str) -> str:
    """The same; elsewhere the laws that change nothing share one."""
    return gallery


def test_the_asynchronous_reader_answers_as_the_store(store: Store, gallery: str, qdrant_url: str) -> None:
    async def ask() -> tuple[object, object, object]:
        client = connect_async(qdrant_url, os.environ.get("QDRANT_API_KEY"))
        own = ServerStore.over_async(client, asyncio.get_running_loop())
        hits = await asyncio.to_thread(own.query, gallery, _laws.VECTORS[0], limit=9, filter=None)
        records = await asyncio.to_thread(own.fetch, gallery, _laws.IDS[:9], with_vectors=False)
        spec = await asyncio.to_thread(own.describe, gallery)
        await client.close()
        return hits, records, spec

    hits, records, spec = asyncio.run(ask())
    assert hits == store.query(gallery, _laws.VECTORS[0], limit=9, filter=None)
    assert records == store.fetch(gallery, _laws.IDS[:9], with_vectors=False)
    assert spec == store.describe(gallery)


def test_what_was_written_is_there_for_the_next_client(store: Store, gallery: str, qdrant_url: str) -> None:
    other = ServerStore.connect(qdrant_url, os.environ.get("QDRANT_API_KEY"))
    assert other.count(gallery, None) == _laws.COUNT
    other.drop(gallery)
    other.close()
    with pytest.raises(CollectionNotFoundError):
        store.count(gallery, None)


@pytest.fixture
def tokens_name(store: Store) -> Iterator[str]:
    made = f"laws-{uuid4().hex}"
    yield made
    store.drop(made)


def test_four_megabytes_pass_in_one_write_and_one_read(store: Store, tokens_name: str) -> None:
    store.create(tokens_name, CollectionSpec(vector_size=None, metadata={}))
    text = np.random.default_rng(0).bytes(20_000).hex()
    points = [StoredPoint(point_id, None, {"tokens": text}) for point_id in (uuid4() for _ in range(100))]
    store.upsert(tokens_name, points)
    records = store.fetch(tokens_name, [point.point_id for point in points], with_vectors=False)
    assert [record.payload["tokens"] for record in records] == [text] * 100
