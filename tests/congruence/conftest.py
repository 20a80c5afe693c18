"""The stores that must give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from qdrant_cir.storage.stores import EdgeStore, ServerStore, Store


@pytest.fixture(params=["memory", "edge"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The client's own exact store, which is the oracle, and Qdrant Edge."""
    if request.param == "memory":
        client = QdrantClient(":memory:")
        yield ServerStore(client)
        client.close()
    else:
        with EdgeStore(tmp_path / "edge") as embedded:
            yield embedded
