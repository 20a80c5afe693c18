"""What of a write is in the segments when it returns, and not in the log alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from qdrant_cir.storage.stores import CollectionSpec, EdgeStore, StoredPoint

NAME = "gallery"
IDS = [UUID(int=number + 1) for number in range(20)]
POINTS = [StoredPoint(point_id, np.ones(4, np.float32), {"n": 1}) for point_id in IDS]


def points_without_the_log(folder: Path, copy: Path) -> int:
    """Count the points of a copy of an open store that has lost its write-ahead log."""
    shutil.copytree(folder, copy, ignore=lambda path, names: names if Path(path).name == "wal" else [])
    with EdgeStore(copy) as store:
        return store.count(NAME, None)


@pytest.mark.parametrize(
    ("write", "left"),
    [
        (lambda store: store.upsert(NAME, POINTS[:3]), 3),
        (lambda store: (store.upsert(NAME, POINTS), store.delete(NAME, IDS[:5])), 15),
    ],
    ids=["upsert", "delete"],
)
def test_a_write_is_flushed_when_it_returns(tmp_path: Path, write: Callable[[EdgeStore], object], left: int) -> None:
    with EdgeStore(tmp_path / "store") as store:
        store.create(NAME, CollectionSpec(4, {}))
        write(store)
        assert points_without_the_log(tmp_path / "store", tmp_path / "copy") == left
