"""Several stores of one process at one place: they share what is open, and the last one closes it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from qdrant_client import AsyncQdrantClient
from typer.testing import CliRunner

from qdrant_cir import ImageRecord, Indexer, Query, Retriever
from qdrant_cir.cli import app
from qdrant_cir.errors import InputError, StoreError
from qdrant_cir.retriever import AsyncRetriever
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, Store, StoredPoint, open_store, open_store_async
from qdrant_cir.storage.stores.places import folder_of

SPEC = CollectionSpec(vector_size=4, metadata={})
PICTURES: Mapping[str, tuple[int, int, int]] = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def point(number: int) -> StoredPoint:
    return StoredPoint(UUID(int=number + 1), np.eye(4, dtype=np.float32)[number % 4], {"n": number})


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def is_free(folder: Path) -> bool:
    """Whether another process can open the store in a folder."""
    code = """
import sys
from qdrant_cir.errors import StoreLockedError
from qdrant_cir.storage.stores import EdgeStore
try:
    EdgeStore(sys.argv[1]).close()
    print("free")
except StoreLockedError:
    print("locked")
"""
    return run(code, str(folder)) == "free\n"


@pytest.mark.parametrize("place", ["a folder", ":memory:"])
def test_an_indexer_and_two_retrievers_share_one_store_without_ceremony(
    tmp_path: Path, tiny_bundle: Path, place: str
) -> None:
    store = place if place == ":memory:" else tmp_path / "store"
    name = f"shop of {tmp_path}".replace("/", "-")
    records = [ImageRecord(key, Image.new("RGB", (32, 32), color), {}, None) for key, color in PICTURES.items()]
    with Indexer.open(name, store=store, bundle=tiny_bundle, provider="cpu") as indexer:
        indexer.index(records[:1])
        with (
            Retriever.open(name, store=store, bundle=tiny_bundle, provider="cpu") as first,
            Retriever.open(name, store=store, bundle=tiny_bundle, provider="cpu") as second,
        ):
            query = Query(modification_text="make it blue")
            assert len(first.search(query).candidates) == 1
            indexer.index(records)
            assert len(first.search(query).candidates) == len(second.search(query).candidates) == 2
            first.close()
            assert len(second.search(query).candidates) == 2

    async def search() -> int:
        retriever = await AsyncRetriever.open(name, store=store, bundle=tiny_bundle, provider="cpu")
        async with retriever:
            return len((await retriever.search(query)).candidates)

    assert asyncio.run(search()) == 2


@pytest.mark.parametrize("opened", [EdgeStore, open_store])
def test_the_folder_is_free_when_the_last_of_its_stores_is_closed(tmp_path: Path, opened: type[EdgeStore]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first, second = opened(tmp_path / "real"), opened(tmp_path / "link")
    first.create("gallery", SPEC)
    second.upsert("gallery", [point(0)])
    assert first.count("gallery", None) == second.count("gallery", None) == 1
    first.close()
    first.close()
    with pytest.raises(StoreError, match="closed"):
        first.count("gallery", None)
    assert second.count("gallery", None) == 1
    assert not is_free(tmp_path / "real")
    second.close()
    assert is_free(tmp_path / "real")


def test_a_store_that_was_dropped_without_being_closed_holds_nothing(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path)
    store.create("gallery", SPEC)
    assert not is_free(tmp_path)
    del store
    gc.collect()
    assert is_free(tmp_path)


def test_a_folder_that_was_removed_and_made_again_is_another_one(tmp_path: Path) -> None:
    forgotten = EdgeStore(tmp_path / "store")
    forgotten.create("gallery", SPEC)
    shutil.rmtree(tmp_path / "store")
    with EdgeStore(tmp_path / "store") as store:
        assert store.collection_names() == []
        store.create("gallery", SPEC)
        store.upsert("gallery", [point(0)])
        forgotten.close()
        assert not is_free(tmp_path / "store")
    with EdgeStore(tmp_path / "store") as store:
        assert store.count("gallery", None) == 1


def test_a_forked_child_starts_clean_and_opens_the_folder_when_the_parent_has_left_it(tmp_path: Path) -> None:
    code = """
import gc, os, sys
import numpy as np
from uuid import UUID
from qdrant_cir.errors import StoreLockedError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint
store = EdgeStore(sys.argv[1])
store.create("gallery", CollectionSpec(4, {}))
store.upsert("gallery", [StoredPoint(UUID(int=1), np.ones(4, np.float32), {})])
end, begin = os.pipe()
tried, trying = os.pipe()
child = os.fork()
if child == 0:
    os.close(begin)
    try:
        EdgeStore(sys.argv[1])
        os._exit(1)
    except StoreLockedError as error:
        if f"another process (pid {os.getppid()})" not in str(error):
            os._exit(2)
    os.close(trying)
    del store
    gc.collect()
    os.read(end, 1)
    with EdgeStore(sys.argv[1]) as own:
        own.upsert("gallery", [StoredPoint(UUID(int=2), np.ones(4, np.float32), {})])
        sys.exit(0 if own.count("gallery", None) == 2 else 3)
os.close(trying)
os.read(tried, 1)
store.close()
os.close(begin)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with EdgeStore(sys.argv[1]) as store:
    print(store.count("gallery", None))
"""
    assert run(code, str(tmp_path)) == "0\n2\n"


def test_a_forked_child_that_lives_on_keeps_nobody_from_opening_the_folder_again(tmp_path: Path) -> None:
    code = """
import os, sys
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore
store = EdgeStore(sys.argv[1])
store.create("gallery", CollectionSpec(4, {}))
store.count("gallery", None)
end, begin = os.pipe()
ready, telling = os.pipe()
child = os.fork()
if child == 0:
    os.write(telling, b"x")
    os.close(begin)
    os.read(end, 1)
    os._exit(0)
os.read(ready, 1)
store.close()
with EdgeStore(sys.argv[1]) as again:
    print(again.count("gallery", None))
os.close(begin)
os.waitpid(child, 0)
"""
    assert run(code, str(tmp_path)) == "0\n"


@pytest.mark.parametrize("place", ["a folder", ":memory:"])
def test_threads_with_stores_of_their_own_write_and_read_together(tmp_path: Path, place: str) -> None:
    where = place if place == ":memory:" else tmp_path / "store"
    name = f"threads-{tmp_path.name}-{place.strip(':')}"
    holding = open_store(where)
    holding.create(name, SPEC)

    def work(part: int) -> int:
        store = open_store(where)
        for number in range(part * 10, part * 10 + 10):
            store.upsert(name, [point(number)])
            store.query(name, np.ones(4, np.float32), limit=5, filter=None)
        store.close()
        return store.count(name, None) if place == ":memory:" else 0

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert holding.count(name, None) == 60
    holding.drop(name)
    holding.close()


def test_what_is_in_memory_stands_until_the_process_ends_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(":memory:")
    store.create(tmp_path.name, SPEC)
    store.close()

    async def names() -> list[str]:
        return (await open_store_async(":memory:")).collection_names()

    assert tmp_path.name in open_store(":memory:").collection_names()
    assert tmp_path.name in asyncio.run(names())
    open_store(":memory:").drop(tmp_path.name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place",
    [
        "localhost:6333",
        "127.0.0.1:6333",
        "[::1]:6333",
        "qdrant.example.com:6333/path",
        "grpc://localhost:6334",
        "file:///tmp/store",
        Path("http://localhost:6333"),
        Path("https://secret@localhost:6333"),
        "",
        " ",
        "a\0b",
    ],
)
def test_what_is_no_folder_is_refused_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for opened in (open_store, EdgeStore):
        with pytest.raises(InputError, match="http://localhost:6333") as raised:
            opened(place)
        assert "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["http://localhost:6333", ":memory:"])
def test_the_embedded_store_itself_takes_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder"):
        EdgeStore(address)
    assert list(tmp_path.iterdir()) == []


MISTYPED = [
    *(
        " :memory: ",
        ":memory:/",
        "./:memory:",
        " http://localhost:6333",
        "http:\\\\localhost:6333",
        "a/https://x.io:6333",
    ),
    *("~/store", " ~/store", "~", "localhost:6333 ", " ", ""),
]


@pytest.mark.parametrize("place", MISTYPED)
def test_a_place_that_was_mistyped_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, place: str
) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    monkeypatch.chdir(tmp_path)
    if not place.lstrip().startswith("http://"):  # as a store it is a server
        with pytest.raises(InputError, match=r"is not (a folder|the place of)|, not a folder|begins with a tilde"):
            open_store(place)
    arguments = ["index", "pictures", "-c", "shop", "--bundle", str(tiny_bundle), "--path", place]
    refused = CliRunner().invoke(app, arguments, env={"QDRANT_URL": "", "QDRANT_CIR_PATH": ""})
    assert refused.exit_code == 3, (refused.stdout, refused.stderr, refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_drive_of_windows_is_no_scheme() -> None:
    assert folder_of("C:/stores") == Path("C:/stores")


@pytest.mark.parametrize("nothing", [None, 7, b"store", {"url": "x"}])
def test_what_is_no_store_is_refused_by_name(nothing: Store) -> None:
    with pytest.raises(InputError, match=f"{type(nothing).__name__} is not a store"):
        open_store(nothing)
    with pytest.raises(InputError, match=f"{type(nothing).__name__} is not a store"):
        asyncio.run(open_store_async(nothing))


def test_an_asynchronous_client_is_told_where_it_belongs() -> None:
    client = AsyncQdrantClient(":memory:")
    with pytest.raises(InputError, match="AsyncRetriever"):
        open_store(client)  # type: ignore[arg-type]
