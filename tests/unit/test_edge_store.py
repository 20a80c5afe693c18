"""The embedded store: its directory, its lock, and what a crash leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import pytest
from qdrant_client import models as m

from qdrant_cir.errors import InputError, StoreError, StoreLockedError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint

SPEC = CollectionSpec(vector_size=4, metadata={"made": "by hand"})
IDS = [uuid5(UUID(int=0), str(n)) for n in range(20)]
VECTORS = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)


def points(count: int) -> list[StoredPoint]:
    return [StoredPoint(IDS[n], VECTORS[n], {"n": n, "sale": n % 2 == 0}) for n in range(count)]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )


def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    with EdgeStore(tmp_path / "a" / "store") as store:
        store.create("gallery", SPEC)
        store.create("gallery__tokens", CollectionSpec(None, {}))
        store.upsert("gallery", points(20))
        store.create_payload_index("gallery", "n", "integer")
        store.delete("gallery", IDS[:2])
        before = store.query("gallery", VECTORS[0], limit=20, filter=None)
    with EdgeStore(tmp_path / "a" / "store") as store:
        assert store.collection_names() == ["gallery", "gallery__tokens"]
        assert store.describe("gallery") == SPEC
        assert store.query("gallery", VECTORS[0], limit=20, filter=None) == before
        store.upsert("gallery", points(1))
        assert store.count("gallery", None) == 19


def test_what_was_written_is_there_although_nothing_was_closed(tmp_path: Path) -> None:
    code = """
import os, sys
import numpy as np
from uuid import UUID
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint
store = EdgeStore(sys.argv[1])
store.create("gallery", CollectionSpec(4, {}))
store.upsert("gallery", [StoredPoint(UUID(int=n + 1), np.ones(4, np.float32), {}) for n in range(100)])
os._exit(9)
"""
    assert run(code, str(tmp_path)).returncode == 9
    with EdgeStore(tmp_path) as store:
        assert store.count("gallery", None) == 100


def test_a_dropped_collection_leaves_no_file(tmp_path: Path) -> None:
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
        store.upsert("gallery", points(20))
        store.drop("gallery")
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.parametrize("rest", [".creating", ".dropping"])
def test_the_rest_of_an_interrupted_create_or_drop_is_removed(tmp_path: Path, rest: str) -> None:
    (tmp_path / rest / "shard" / "segments").mkdir(parents=True)
    (tmp_path / rest / "collection.json").write_text('{"format_version": 1')
    with EdgeStore(tmp_path) as store:
        assert store.collection_names() == []
        assert not (tmp_path / rest).exists()
        store.create("gallery", SPEC)
        assert store.collection_names() == ["gallery"]


def test_a_folder_of_other_origin_is_no_collection_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with EdgeStore(tmp_path) as store:
        assert store.collection_names() == []
        assert store.describe("photos") is None
        store.drop("photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "damaged"), ("[]", "damaged"), ("{}", "damaged"), (None, "format version 99")],
)
def test_a_damaged_description_is_named_with_what_to_do(tmp_path: Path, content: str | None, words: str) -> None:
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
    file = tmp_path / "gallery" / "collection.json"
    file.write_text(content or json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    with EdgeStore(tmp_path) as store, pytest.raises(StoreError, match=words) as raised:
        store.describe("gallery")
    assert str(file) in str(raised.value)


def test_a_damaged_shard_is_a_store_error_that_names_the_folder(tmp_path: Path) -> None:
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
    (tmp_path / "gallery" / "shard" / "edge_config.json").write_text("{")
    with EdgeStore(tmp_path) as store, pytest.raises(StoreError, match=str(tmp_path / "gallery")):
        store.count("gallery", None)


def test_another_process_is_refused_and_told_directory_and_pid(tmp_path: Path) -> None:
    with EdgeStore(tmp_path):
        code = "import sys; from qdrant_cir.storage.stores import EdgeStore; EdgeStore(sys.argv[1])"
        refused = run(code, str(tmp_path))
    assert f"StoreLockedError: The store directory {tmp_path} is held by another process" in refused.stderr
    assert f"pid {os.getpid()}" in refused.stderr


def test_a_process_of_another_container_is_named_by_its_host_although_its_pid_is_ours(tmp_path: Path) -> None:
    # two containers on one volume: both processes have the pid 1, say
    code = """
import os, platform, sys
platform.node = lambda: "indexer-7f9c"
real, os.getpid = os.getpid, lambda: int(sys.argv[2])
from qdrant_cir.storage.stores import EdgeStore
store = EdgeStore(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert (tmp_path / ".lock").read_text() == f"indexer-7f9c {os.getpid()}\n"
        with pytest.raises(StoreLockedError, match=f"container indexer-7f9c \\(pid {os.getpid()} there\\)"):
            EdgeStore(tmp_path)
        holder.communicate(b"")
    EdgeStore(tmp_path).close()


def test_a_store_that_a_forked_child_holds_open_too_is_free_when_its_own_process_closes_it(tmp_path: Path) -> None:
    code = """
import os, sys
from qdrant_cir.storage.stores import EdgeStore
store = EdgeStore(sys.argv[1])
end, begin = os.pipe()
child = os.fork()
if child == 0:
    os.close(begin)
    os.read(end, 1)
    os._exit(0)
store.close()
print(os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c",
    "import sys; from qdrant_cir.storage.stores import EdgeStore; EdgeStore(sys.argv[1]).close()", sys.argv[1]]))
os.close(begin)
os.waitpid(child, 0)
"""
    assert run(code, str(tmp_path)).stdout == "0\n"


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from qdrant_cir.storage.stores import EdgeStore; store = EdgeStore(sys.argv[1]); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert run(code, str(tmp_path)).returncode == -9
    EdgeStore(tmp_path).close()


def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    code = """
import os, sys
from qdrant_cir.errors import StoreError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore
store = EdgeStore(sys.argv[1])
store.create("gallery", CollectionSpec(4, {}))
child = os.fork()
if child == 0:
    try:
        store.count("gallery", None)
    except StoreError as error:
        store.close()
        os._exit(7 if "forked" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), store.count("gallery", None))
"""
    assert run(code, str(tmp_path)).stdout == "7 0\n"


@pytest.mark.parametrize("method", ["collection_names", "describe", "count"])
def test_a_closed_store_says_so(tmp_path: Path, method: str) -> None:
    store = EdgeStore(tmp_path)
    store.create("gallery", SPEC)
    store.close()
    store.close()
    arguments = {"collection_names": (), "describe": ("gallery",), "count": ("gallery", None)}[method]
    with pytest.raises(StoreError, match="closed"):
        getattr(store, method)(*arguments)


def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=str(path)):
            EdgeStore(path)


@pytest.mark.parametrize(
    "condition",
    [
        m.FieldCondition(
            key="p", geo_polygon=m.GeoPolygon(exterior=m.GeoLineString(points=[m.GeoPoint(lon=0, lat=0)]))
        ),
        m.FieldCondition(key="p", match=m.MatchValue(value=2**70)),
        m.FieldCondition(key="p", match=m.MatchAny(any=[2**70])),
        m.FieldCondition(key="p", values_count=m.ValuesCount(gt=2**70)),
        m.HasIdCondition(has_id=[2**70]),
        m.HasIdCondition(has_id=[-1]),
    ],
    ids=lambda condition: str(condition)[:40],
)
def test_what_edge_cannot_take_in_a_filter_is_an_input_error(tmp_path: Path, condition: m.Condition) -> None:
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
        with pytest.raises(InputError, match="cannot evaluate the filter"):
            store.count("gallery", m.Filter(must=[condition]))


def test_a_condition_that_edge_lacks_is_named(tmp_path: Path) -> None:
    if not hasattr(m, "SliceCondition"):
        pytest.skip("this client has no condition that Edge lacks")
    condition = m.SliceCondition.model_validate({"slice": {"total": 4, "index": 1}})
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
        with pytest.raises(InputError, match="SliceCondition"):
            store.count("gallery", m.Filter(must=[condition]))


def test_a_refused_write_leaves_no_ghost_after_a_kill(tmp_path: Path) -> None:
    code = """
import os, signal, sys
import numpy as np
from uuid import UUID
from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint
store = EdgeStore(sys.argv[1])
store.create("gallery", CollectionSpec(4, {}))
good = [StoredPoint(UUID(int=n + 1), np.ones(4, np.float32), {}) for n in range(9)]
for bad in (np.ones(3, np.float32), np.full(4, np.nan, np.float32)):
    try:
        store.upsert("gallery", [*good, StoredPoint(UUID(int=99), bad, {})])
    except InputError:
        pass
    else:
        os._exit(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, str(tmp_path)).returncode == -9
    with EdgeStore(tmp_path) as store:
        assert store.count("gallery", None) == 0


def test_a_panic_of_the_engine_is_a_store_error_and_a_collection_that_panics_can_be_dropped(tmp_path: Path) -> None:
    with EdgeStore(tmp_path) as store:
        store.create("gallery", SPEC)
        store.upsert("gallery", points(3))
    (file,) = tmp_path.glob("gallery/shard/segments/*/vector_storage-image/vectors/status.dat")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with EdgeStore(tmp_path) as store:
        with pytest.raises(StoreError, match=r"gallery.*index out of bounds.*damaged"):
            store.count("gallery", None)
        store.drop("gallery")
        assert store.collection_names() == []


def test_a_graph_is_built_once_and_finds_nearly_all_of_what_is_nearest(tmp_path: Path) -> None:
    # 1,300 vectors of 2,048 numbers are 10.6 MB, above the size from which Edge builds an HNSW graph
    random = np.random.default_rng(2)
    vectors = random.normal(size=(1_300, 2_048)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [UUID(int=n + 1) for n in range(len(vectors))]
    graphs = lambda: {path: path.stat().st_mtime_ns for path in tmp_path.glob("gallery/shard/segments/*/**/graph.bin")}  # noqa: E731
    with EdgeStore(tmp_path) as store:
        store.create("gallery", CollectionSpec(2_048, {}))
        store.upsert("gallery", [StoredPoint(ids[n], vectors[n], {}) for n in range(len(ids))])
        assert graphs() == {}
        store.optimize("gallery")
        built = graphs()
        assert len(built) == 1
        store.optimize("gallery")
        assert graphs() == built
        found = 0
        for query in vectors[:20] + 0.02 * random.normal(size=(20, 2_048)).astype(np.float32):
            nearest = {ids[n] for n in np.argsort(-(vectors @ query))[:50]}
            hits = store.query("gallery", query.astype(np.float32), limit=50, filter=None)
            found += len(nearest & {hit.point_id for hit in hits})
    with EdgeStore(tmp_path) as store:
        store.optimize("gallery")
        assert graphs() == built
    assert found >= 0.9 * 20 * 50


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(InputError, match="is not the place of a store"):
        EdgeStore("\ud800")
