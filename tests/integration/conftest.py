"""A real Qdrant server: the one at QDRANT_URL, or one that Docker starts for the tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from qdrant_containers import qdrant_server, refuse_without_docker

from qdrant_cir.storage.stores import ServerStore, connect


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        # one place for all, so that pytest's summary has each reason once
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def qdrant_url() -> Iterator[str]:
    """The server's address. Skips where there is none."""
    if os.environ.get("QDRANT_URL"):
        yield os.environ["QDRANT_URL"]
        return
    refuse_without_docker("qdrant", "QDRANT_URL is not set, and ")
    # gRPC is on a port of this host's choice, which nobody could guess
    with qdrant_server("qdrant") as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("QDRANT_GRPC_PORT", str(server.grpc_port))
        yield server.url


@pytest.fixture(scope="module")
def store(qdrant_url: str) -> Iterator[ServerStore]:
    """A store on that server; every test makes and drops collections of its own."""
    client = connect(qdrant_url, os.environ.get("QDRANT_API_KEY"))
    yield ServerStore(client)
    client.close()


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Docker, for tests that stop servers or set them up differently; QDRANT_URL cannot stand in for it."""
    refuse_without_docker("cluster")
