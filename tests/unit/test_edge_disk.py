"""The embedded store on disks that are full or read-only: really mounted, in a mount namespace of a child process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qdrant_cir.errors import InputError, StoreError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint
from qdrant_cir.storage.stores import edge_room as room
from qdrant_cir.storage.stores.checks import DEEPEST

HEAD = """
import os, sys, tempfile
from pathlib import Path
from uuid import UUID
import numpy as np
from qdrant_cir import CirError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint
SPEC = CollectionSpec(4, {})
def points(start, count, size=10):
    text = os.urandom(size // 2).hex()
    return [StoredPoint(n, np.ones(4, np.float32), {"text": text}) for n in range(start, start + count)]
"""


@functools.cache
def _can_mount() -> bool:
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def mounted(mount: str, code: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run code with a folder mounted as said; PLACE and TMPDIR are in the environment."""
    if not _can_mount():
        pytest.skip("this process may not mount file systems")
    scratch = place.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PLACE": str(place),
        "TMPDIR": str(scratch),
        "CODE": HEAD + code,
    }
    script = f'set -e; {mount}; exec \'{sys.executable}\' -c "$CODE" "$PLACE"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=environment, timeout=120
    )


READ_ONLY = 'mount --bind "$PLACE" "$PLACE"; mount -o remount,ro,bind "$PLACE"'


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with EdgeStore(tmp_path / "store") as store:
        store.create("shop", CollectionSpec(4, {}))
        store.upsert("shop", [StoredPoint(n, np.ones(4, np.float32), {"n": n}) for n in range(9)])
    return tmp_path / "store"


def test_a_full_disk_refuses_writes_before_they_end_the_process(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    code = """
store = EdgeStore(sys.argv[1])
store.create("shop", SPEC)
for start in range(0, 10**6, 16):
    try:
        store.upsert("shop", points(start, 16, 65536))
    except CirError as error:
        print(type(error).__name__, error)
        break
print(store.count("shop", None) == start, start > 0)
store.close()
# on a disk that others have filled, a collection is not opened, and can be dropped
with open(sys.argv[1] + "/filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
with EdgeStore(sys.argv[1], creates=False) as store:
    try:
        store.count("shop", None)
    except CirError as error:
        print(type(error).__name__, "nearly full" in str(error))
    store.drop("shop")
    print(store.collection_names())
"""
    done = mounted('mount -t tmpfs -o size=100m tmpfs "$PLACE"', code, tmp_path / "store")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done
    assert lines[0].startswith("StoreError The disk of")
    assert "nearly full" in lines[0]
    assert lines[1:] == ["True True", "StoreError True", "[]"]


def test_a_store_that_cannot_be_written_is_searched_in_a_copy_that_is_removed(shop: Path) -> None:
    code = """
import logging
logging.basicConfig(format="%(message)s")
with EdgeStore(sys.argv[1], creates=False) as first, EdgeStore(sys.argv[1]) as second:
    print(first.count("shop", None), len(second.query("shop", np.ones(4, np.float32), limit=5, filter=None)))
    print(len(list(Path(tempfile.gettempdir()).iterdir())))
    for write in (lambda: first.upsert("shop", points(0, 1)), lambda: first.create("new", SPEC),
                  lambda: first.drop("shop"), lambda: first.optimize("shop")):
        try:
            write()
        except CirError as error:
            print(type(error).__name__, "read-only" in str(error))
print(len(list(Path(tempfile.gettempdir()).iterdir())))
"""
    before = sorted(path.name for path in shop.iterdir())
    done = mounted(READ_ONLY, code, shop)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == ["9 5", "1", *["StoreError True"] * 4, "0"]
    assert done.stderr.count("cannot be written: it is searched in a copy") == 1
    assert sorted(path.name for path in shop.iterdir()) == before


def test_the_commands_say_once_that_they_read_a_copy(shop: Path) -> None:
    code = """
from qdrant_cir.cli.app import main
sys.argv = ["qdrant-cir", "info", "--path", sys.argv[1]]
main()
"""
    shop_of_ours = mounted(f"{READ_ONLY}", code, _gallery(shop.parent / "gallery"))
    assert shop_of_ours.returncode == 0, shop_of_ours
    assert shop_of_ours.stderr.count("is searched in a copy") == 1
    assert "shop" in shop_of_ours.stdout
    assert list((shop.parent / "scratch").iterdir()) == []


def _gallery(folder: Path) -> Path:
    from PIL import Image

    from qdrant_cir import Gallery, ImageRecord

    with Gallery.create("shop", store=folder, bundle="drawn", provider="cpu") as gallery:
        gallery.index([ImageRecord("a", Image.new("RGB", (16, 16)), {}, None)])
    return folder


def test_two_processes_read_a_store_that_neither_can_write(shop: Path) -> None:
    code = """
import subprocess
with EdgeStore(sys.argv[1]) as store:
    print(store.count("shop", None), flush=True)
    if len(sys.argv) == 2:
        subprocess.run([sys.executable, "-c", os.environ["CODE"], sys.argv[1], "second"], check=True)
"""
    assert mounted(READ_ONLY, code, shop).stdout == "9\n9\n"


def test_a_read_only_store_that_a_writer_holds_is_refused(shop: Path) -> None:
    code = """
try:
    EdgeStore(sys.argv[1])
except CirError as error:
    print(type(error).__name__, error)
"""
    with EdgeStore(shop):
        done = mounted(READ_ONLY, code, shop)
    assert done.stdout.startswith("StoreLockedError")
    assert f"pid {os.getpid()}" in done.stdout


def test_without_room_for_the_copy_one_sentence_says_what_to_do(shop: Path) -> None:
    code = """
with EdgeStore(sys.argv[1]) as store:
    try:
        store.count("shop", None)
    except CirError as error:
        print(type(error).__name__, error)
print(os.listdir(tempfile.gettempdir()))
"""
    done = mounted(f'{READ_ONLY}; mount -t tmpfs -o size=1m tmpfs "$TMPDIR"', code, shop)
    first, second = done.stdout.splitlines()
    assert first.startswith("StoreError The store in")
    assert "set TMPDIR" in first
    assert second == "[]"


def test_the_holes_of_copied_files_stay_holes(shop: Path, tmp_path: Path) -> None:
    room.copy_folder(shop, tmp_path / "copy")
    assert room.bytes_on_disk(tmp_path / "copy") < 2**18
    for path in shop.rglob("*"):
        copy = tmp_path / "copy" / path.relative_to(shop)
        assert path.is_dir() == copy.is_dir()
        assert path.is_dir() or path.read_bytes() == copy.read_bytes()


def test_a_reader_makes_neither_folder_nor_lock_file(tmp_path: Path) -> None:
    with EdgeStore(tmp_path / "no" / "store", creates=False) as store:
        assert store.collection_names() == []
        assert store.describe("shop") is None
        store.drop("shop")
    assert list(tmp_path.iterdir()) == []
    with EdgeStore(tmp_path, creates=False) as store:
        assert store.collection_names() == []
        assert list(tmp_path.iterdir()) == []
        # the first write makes both
        store.create("shop", CollectionSpec(4, {}))
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "shop"}


def test_a_reader_without_a_lock_file_locks_the_one_that_a_writer_of_its_process_makes(tmp_path: Path) -> None:
    with EdgeStore(tmp_path, creates=False) as reader, EdgeStore(tmp_path) as writer:
        writer.create("shop", CollectionSpec(4, {}))
        assert reader.count("shop", None) == 0


@pytest.mark.parametrize("deep", ["a list", "an object"])
def test_payload_fields_that_are_set_are_checked_as_those_that_are_written(tmp_path: Path, deep: str) -> None:
    value: object = 1
    for _ in range(DEEPEST * 2):
        value = [value] if deep == "a list" else {"a": value}
    with EdgeStore(tmp_path) as store:
        store.create("shop", CollectionSpec(4, {}))
        store.upsert("shop", [StoredPoint(1, np.ones(4, np.float32), {"n": 1})])
        with pytest.raises(InputError, match="deeper than 64"):
            store.set_payloads("shop", {1: {"deep": value}})  # type: ignore[dict-item]
        with pytest.raises(InputError, match="valid Unicode"):
            store.set_payloads("shop", {1: {"text": "\ud800"}})
    with EdgeStore(tmp_path) as store:
        assert store.fetch("shop", [1], with_vectors=False)[0].payload == {"n": 1}


def test_a_collection_whose_description_is_damaged_or_gone_can_be_dropped(tmp_path: Path) -> None:
    for name in ("collection.json", "shard/edge_config.json"):
        for content in ("{", None):
            with EdgeStore(tmp_path) as store:
                store.create("shop", CollectionSpec(4, {}))
            (tmp_path / "shop" / name).unlink() if content is None else (tmp_path / "shop" / name).write_text(content)
            with EdgeStore(tmp_path) as store:
                store.drop("shop")
                assert not (tmp_path / "shop").exists()
                store.create("shop", CollectionSpec(4, {}))
                store.drop("shop")


def test_the_sentence_about_a_disk_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda directory: 5 * 2**20)
    with pytest.raises(StoreError, match=r"nearly full: 5 MB are free, and 33 MB are needed to write"):
        room.check_room(tmp_path, "write", 2**20)
