"""The programs of the README, docs/quickstart.md and docs/galleries.md run as they stand, from top to bottom.

On ``:memory:`` and over HTTP; and on the server of QDRANT_URL, where there is one, with the blocks that a document
marks with ``<!-- needs a server -->``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models
from qdrant_front import rest_front
from typer.testing import CliRunner

from qdrant_cir.cli.app import app
from qdrant_cir.model.bundle import packaged_bundle_path

ROOT = Path(__file__).parents[2]
COLLECTIONS = ("products", "documents", "looks", "arrivals")

pytestmark = pytest.mark.skipif(
    not (packaged_bundle_path("drawn") / "cir_config.json").exists(), reason="the bundle drawn is not built"
)


@dataclass(frozen=True, slots=True)
class Program:
    """One block of Python in a document."""

    document: str
    line: int
    code: str
    needs_server: bool

    def run(self, names: dict[str, object], *, address: str = '":memory:"', replaced: str = '":memory:"') -> None:
        """Run it, with another server where that is asked for; a traceback names the document and its line."""
        code = self.code.replace(replaced, address)
        exec(compile("\n" * self.line + code, self.document, "exec"), names)


def programs(document: str) -> list[Program]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Program(document, text[: found.start(2)].count("\n"), found[2], bool(found[1]))
        for found in re.finditer(r"(<!-- needs a server -->\n)?```python\n(.*?)```", text, re.DOTALL)
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `qdrant-cir catalog build --out drawn` of the page leaves behind."""
    folder = tmp_path_factory.mktemp("programs")
    arguments = ["catalog", "build", "--out", str(folder / "drawn"), "--products", "60", "--queries", "6"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder


@pytest.fixture
def folder(drawn: Path, build_tiny_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the programs run in, with a second bundle."""
    if not (drawn / "bundles" / "own").exists():
        build_tiny_bundle(drawn / "bundles" / "own")
    monkeypatch.chdir(drawn)
    return drawn


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that has no collection of the programs' names."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("needs qdrant: QDRANT_URL is not set")
    client = QdrantClient(url)
    standing = [name for name in COLLECTIONS if client.collection_exists(name)]
    if standing:
        pytest.skip(f"the server has collections of these names already: {', '.join(standing)}")
    yield url
    for name in COLLECTIONS:
        for made in (f"{name}__cir", f"{name}__cir_own", name):
            client.delete_collection(made)
    client.close()


def test_the_programs_on_galleries_run_in_memory(folder: Path) -> None:
    names: dict[str, object] = {}
    for program in programs("docs/galleries.md"):
        if not program.needs_server:
            program.run(names)


def test_the_programs_on_galleries_run_over_http(folder: Path) -> None:
    names: dict[str, object] = {}
    with rest_front() as front:
        for program in programs("docs/galleries.md"):
            if not program.needs_server:
                program.run(names, address=repr(front.url))


def test_the_programs_on_galleries_run_on_a_server(folder: Path, server: str) -> None:
    names: dict[str, object] = {}
    for program in programs("docs/galleries.md"):
        program.run(names, address=repr(server))


def test_the_programs_of_the_quickstart_run(folder: Path) -> None:
    names: dict[str, object] = {}
    for program in programs("docs/quickstart.md"):
        program.run(names)


def test_the_first_program_of_the_readme_runs_on_a_collection_that_exists(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "products", vectors_config={"text": models.VectorParams(size=2, distance=models.Distance.COSINE)}
    )
    points = [
        models.PointStruct(
            id=number,
            vector={"text": [1.0, float(number)]},
            payload={"image_url": f"drawn/images/p{number:06}.jpg", "in_stock": number % 3 > 0},
        )
        for number in range(1, 60)
    ]
    client.upsert("products", points)
    before = client.scroll("products", limit=200, with_vectors=True)
    (folder / "shirt.jpg").write_bytes((folder / "drawn/images/p000002.jpg").read_bytes())

    (program,) = programs("README.md")
    program.run({"prepared": client}, replaced='QdrantClient("http://localhost:6333")', address="prepared")

    assert len(capsys.readouterr().out.splitlines()) == 10
    assert client.scroll("products", limit=200, with_vectors=True) == before
    assert [described.name for described in client.get_collections().collections] == ["products"]


def test_a_program_that_needs_a_server_says_so_in_its_text() -> None:
    text = (ROOT / "docs/galleries.md").read_text(encoding="utf-8")
    marked = [paragraph for paragraph in text.split("\n\n") if paragraph.startswith("<!-- needs a server -->")]
    assert marked
    for paragraph in marked:
        before = text[: text.index(paragraph)].rstrip().split("\n\n")[-1]
        assert "needs a server" in before
