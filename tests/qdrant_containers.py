"""Qdrant servers in containers, of the one version that docker/qdrant-image pins."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from testcontainers.core.network import Network

IMAGE = (Path(__file__).parents[1] / "docker" / "qdrant-image").read_text("utf-8").strip()
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a container, and the ports of this host that stay its own when it stops and starts."""

    container: Any
    url: str
    grpc_port: int

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.container.get_wrapped_container().kill()

    def start_again(self) -> None:
        """Start it after :meth:`kill`; it may take a second to answer."""
        self.container.get_wrapped_container().start()

    def wait(self) -> None:
        """Wait until it is ready."""
        _wait_for(f"{self.url}/readyz", lambda answer: answer.status_code == 200)


def why_not(error: Exception) -> str:
    """Return why a container could not be started, and what to do about it."""
    said = " ".join(str(error).split())
    if "ryuk" in said.lower():
        return f"Ryuk, which removes test containers, has no image here; set TESTCONTAINERS_RYUK_DISABLED=true ({said})"
    return f"Docker cannot start a server ({type(error).__name__}: {said})"


def refuse_without_docker(kind: str, reason: str = "") -> None:
    """Skip with a reason where Docker cannot start a container; ``kind`` is what CIR_REQUIRE calls the need."""
    needs = f"needs {kind}: {reason}"
    try:
        import testcontainers.core.container  # noqa: F401

        import docker
    except ImportError:
        pytest.skip(f"{needs}testcontainers is not installed")
    try:
        docker.from_env().ping()
    except Exception as error:  # whatever Docker's client raises where there is no engine
        pytest.skip(needs + why_not(error))


@contextmanager
def qdrant_server(kind: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start one server; skip where Docker cannot."""
    with _container(kind, environment or {}) as server:
        server.wait()
        yield server


@contextmanager
def qdrant_cluster(kind: str) -> Iterator[list[Server]]:
    """Start three servers that are one cluster with two copies of every shard; skip where Docker cannot."""
    from testcontainers.core.network import Network

    environment = {
        "QDRANT__CLUSTER__ENABLED": "true",
        "QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR": "2",
    }
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except Exception as error:
            pytest.skip(f"needs {kind}: {why_not(error)}")
        servers: list[Server] = []
        for name in ("first", "second", "third"):
            others = ["--bootstrap", "http://first:6335"] if servers else []
            command = ["./entrypoint.sh", *others, "--uri", f"http://{name}:6335"]
            servers.append(stack.enter_context(_container(kind, environment, network, name, command)))
            servers[-1].wait()
        for server in servers:
            _wait_for(f"{server.url}/cluster", lambda answer: len(answer.json()["result"]["peers"]) == 3)
        yield servers


def token(key: str, collections: Mapping[str, str]) -> str:
    """Return a JWT of a server's key with access to collections: ``r`` or ``rw`` by name."""
    claims = {"access": [{"collection": name, "access": access} for name, access in collections.items()]}
    body = b".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.new(key.encode(), body, hashlib.sha256).digest()
    return (body + b"." + _base64(signature)).decode()


@contextmanager
def _container(
    kind: str,
    environment: Mapping[str, str],
    network: Network | None = None,
    name: str = "",
    command: list[str] | None = None,
) -> Iterator[Server]:
    from testcontainers.core.container import DockerContainer

    rest, grpc = _free_port(), _free_port()
    container = DockerContainer(IMAGE).with_bind_ports(6333, rest).with_bind_ports(6334, grpc)
    for key, value in {"QDRANT__TELEMETRY_DISABLED": "true", **environment}.items():
        container.with_env(key, value)
    if network is not None:
        container.with_network(network).with_network_aliases(name).with_command(command)
    try:
        container.start()
    except Exception as error:
        container.stop()
        pytest.skip(f"needs {kind}: {why_not(error)}")
    try:
        yield Server(container, f"http://{container.get_container_host_ip()}:{rest}", grpc)
    finally:
        container.stop()


def _free_port() -> int:
    with socket.create_server(("", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _wait_for(url: str, is_there: Callable[[httpx.Response], bool]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            if is_there(httpx.get(url, timeout=2)):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer as expected after {_START_SECONDS} s")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
