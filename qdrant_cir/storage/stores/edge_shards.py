"""One collection of the embedded store on disk: a shard of Qdrant Edge and what it is made of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as edge

from qdrant_cir.errors import CirError, StoreError
from qdrant_cir.storage.stores.edge_room import check_room
from qdrant_cir.storage.stores.protocol import VECTOR_NAME, CollectionSpec, VectorSpec
from qdrant_cir.types import JsonObject

__all__ = [
    "is_shard",
    "read_vectors",
    "collection_folders",
    "create_folder",
    "drop_folder",
    "holds_collection",
    "open_shard",
    "read_spec",
    "release_inherited",
    "remove_leftovers",
    "translated",
]

FORMAT_VERSION = 1
_SPEC_FILE = "collection.json"
_SHARD_FOLDER = "shard"
_SHARD_FILE = "edge_config.json"
"""The file that Qdrant Edge keeps beside a shard's segments; in our folders it is one level deeper."""
# no collection may have these names (checks.py): what is found there is left over from an interrupted call
_CREATING = ".creating"
_DROPPING = ".dropping"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what Qdrant Edge and the file system raise into StoreError.

    Edge raises bare ``Exception``, and for its own defects a PanicException, which is not an ``Exception``:
    ``except Exception`` does not catch it.
    """
    try:
        yield
    except CirError:
        raise
    except Exception as error:
        raise StoreError(f"The embedded store failed to {what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise StoreError(
            f"The embedded store failed to {what}: Qdrant Edge stopped with {str(error)!r}. Files of the collection "
            "are probably damaged: restore them, or drop the collection and index again."
        ) from error


def remove_leftovers(directory: Path) -> None:
    """Remove the leftovers of an interrupted create or drop. The directory must be locked."""
    for rest in (_CREATING, _DROPPING):
        if (directory / rest).exists():
            with translated(f"remove the rest of an interrupted call, {directory / rest}"):
                shutil.rmtree(directory / rest)


def collection_folders(directory: Path) -> list[Path]:
    """List the folders of whole collections, sorted by name: ours, and shards that another program made."""
    found = {path.parent for name in (_SPEC_FILE, _SHARD_FILE) for path in directory.glob(f"[!.]*/{name}")}
    return sorted(found)


def create_folder(folder: Path, spec: CollectionSpec) -> None:
    """Make an empty collection under another name, then rename it, so that a crash leaves all or nothing of it.

    Raises:
        StoreError: Qdrant Edge or the file system refused.
    """
    aside = folder.parent / _CREATING
    remove_leftovers(folder.parent)
    check_room(folder.parent, f"make the collection {folder.name!r}")
    with translated(f"create {folder}"):
        shard = edge.EdgeShard.create(str(aside / _SHARD_FOLDER), _config(spec.vector_size))
        shard.flush()
        shard.close()
        _write_spec(aside / _SPEC_FILE, spec)
        aside.rename(folder)
        _sync_directory(folder.parent)


def update_metadata(folder: Path, values: JsonObject) -> None:
    """Set top-level keys of a collection's metadata; a crash leaves the old ones or the new ones. Raises StoreError."""
    spec = read_spec(folder)
    aside = folder / f"{_SPEC_FILE}.partial"
    with translated(f"write {folder / _SPEC_FILE}"):
        _write_spec(aside, CollectionSpec(spec.vector_size, {**spec.metadata, **values}))
        aside.replace(folder / _SPEC_FILE)
        _sync_directory(folder)


def _write_spec(path: Path, spec: CollectionSpec) -> None:
    text = json.dumps({"format_version": FORMAT_VERSION, "vector_size": spec.vector_size, "metadata": spec.metadata})
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def drop_folder(folder: Path) -> None:
    """Remove a collection, also one that cannot be opened: rename it, then delete it. Raises StoreError."""
    aside = folder.parent / _DROPPING
    with translated(f"drop {folder}"):
        folder.rename(aside)
        _sync_directory(folder.parent)
        shutil.rmtree(aside)


def read_spec(folder: Path) -> CollectionSpec:
    """Read what a collection is made of.

    Raises:
        StoreError: the file is damaged, or a later version of this library wrote it.
    """
    path = folder / _SPEC_FILE
    if not path.exists() and (folder / _SHARD_FILE).exists():
        return CollectionSpec(vector_size=None, metadata={})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, size, metadata = content["format_version"], content["vector_size"], content["metadata"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged or cannot be read: {error!r}. Restore it, or remove {folder} and index again."
        ) from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has the format version {version!r}; this version of qdrant-cir reads {FORMAT_VERSION}. "
            f"Install the version that wrote it, or remove {folder} and index again."
        )
    return CollectionSpec(vector_size=size, metadata=metadata)


def open_shard(folder: Path) -> edge.EdgeShard:
    """Open a collection's shard, replaying its log where the last process was killed. Raises StoreError."""
    with translated(f"open {folder}"):
        return edge.EdgeShard.load(str(_shard_of(folder)))


def read_vectors(folder: Path) -> dict[str, VectorSpec]:
    """Read which dense vectors a collection has, as Qdrant Edge keeps it beside the segments. Raises StoreError."""
    path = _shard_of(folder) / _SHARD_FILE
    with translated(f"read {path}"):
        declared = json.loads(path.read_text(encoding="utf-8")).get("vectors") or {}
        return {
            name: VectorSpec(params["size"], params["distance"], "multivector_config" in params)
            for name, params in declared.items()
        }


def is_shard(folder: Path) -> bool:
    """Return whether a folder is itself a shard that another program made."""
    return (folder / _SHARD_FILE).is_file()


def holds_collection(folder: Path) -> bool:
    """Return whether a folder is a collection, or what damage has left of one of ours."""
    return any(
        (folder / name).exists()
        for name in (_SPEC_FILE, _SHARD_FILE, f"{_SHARD_FOLDER}/{_SHARD_FILE}", f"{_SHARD_FOLDER}/segments")
    )


def _shard_of(folder: Path) -> Path:
    return folder if is_shard(folder) else folder / _SHARD_FOLDER


def release_inherited(folder: Path) -> None:
    """Release, in a forked child, the lock on a shard's log that came with the fork.

    Edge locks the log's folder by a file that is open in both processes: the lock would outlive the parent's
    ``close`` until the child ends, and nobody could open the collection. The null device keeps the file's
    number in use, because Edge believes that the number is its own.
    """
    try:
        log = (_shard_of(folder) / "wal").stat()
        numbers = [int(path.name) for path in Path("/dev/fd").iterdir()]
        null = os.open(os.devnull, os.O_RDONLY)
    except OSError:  # no such list of open files on this platform
        return
    for number in numbers:
        try:
            if os.path.samestat(os.fstat(number), log):
                os.dup2(null, number, inheritable=False)
        except OSError:  # closed since, like the list itself
            continue
    os.close(null)


def _config(vector_size: int | None) -> edge.EdgeConfig:
    """Configure a shard.

    The write-ahead log stays on: a killed process loses nothing. Payloads are cached, because the default reads
    100 sets of tokens of 120 KB in 233 ms instead of 5.5. A shard must have some vector; one that only holds
    payloads has a sparse one that no point uses.
    """
    if vector_size is None:
        unused = {"unused": edge.EdgeSparseVectorParams()}
        return edge.EdgeConfig(sparse_vectors=unused, payload_memory=edge.Memory.Cached)
    return edge.EdgeConfig(
        vectors={VECTOR_NAME: edge.EdgeVectorParams(vector_size, edge.Distance.Cosine)},
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000),
        payload_memory=edge.Memory.Cached,
    )


def _sync_directory(directory: Path) -> None:
    """Write a rename to the disk; Windows has no such call for folders."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
