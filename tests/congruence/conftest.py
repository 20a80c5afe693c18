"""The stores that must give the same answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient

from qdrant_cir.storage.stores import EdgeStore, ServerStore, Store


@pytest.fixture(scope="module", params=["memory", "edge"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The client's own exact store, which is the oracle, and Qdrant Edge; one for all tests of a module."""
    if request.param == "memory":
        client = QdrantClient(":memory:")
        yield ServerStore(client)
        client.close()
    else:
        with EdgeStore(tmp_path_factory.mktemp("edge")) as embedded:
            yield embedded
