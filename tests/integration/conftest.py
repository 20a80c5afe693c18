"""A real Qdrant server: the one at QDRANT_URL, or one that Docker starts for the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qdrant_cir.storage.stores import ServerStore, connect

IMAGE = "qdrant/qdrant:v1.18.3"


@pytest.fixture(scope="session")
def qdrant_url() -> Iterator[str]:
    """The server's address. Skips where there is none."""
    if os.environ.get("QDRANT_URL"):
        yield os.environ["QDRANT_URL"]
        return
    reason = "needs qdrant: QDRANT_URL is not set, and "
    try:
        from testcontainers.community.qdrant import QdrantContainer
    except ImportError:
        pytest.skip(reason + "testcontainers is not installed")
    try:
        container = QdrantContainer(IMAGE)
        container.start()
    except Exception as error:  # whatever Docker's client raises where there is no engine
        pytest.skip(f"{reason}Docker cannot start a server ({type(error).__name__}: {error})")
    try:
        # gRPC is on a port that Docker chose, which nobody could guess
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("QDRANT_GRPC_PORT", str(container.get_exposed_port(6334)))
            yield f"http://{container.rest_host_address}"
    finally:
        container.stop()


@pytest.fixture(scope="module")
def store(qdrant_url: str) -> Iterator[ServerStore]:
    """A store on that server; every test makes and drops collections of its own."""
    client = connect(qdrant_url, os.environ.get("QDRANT_API_KEY"))
    yield ServerStore(client)
    client.close()
