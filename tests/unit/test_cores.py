"""Threads are counted from what the process may use, not from what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qdrant_cir.model import cores
from qdrant_cir.model.cores import available_threads, int8_dot_products


def quota_folder(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_cgroup_quota_is_read_in_cores(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert cores._quota(quota_folder(tmp_path, files)) == expected


def test_the_quota_bounds_the_threads_and_is_rounded_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = len(os.sched_getaffinity(0))
    quota_folder(tmp_path, {"cpu.max": "50000 100000"})
    monkeypatch.setattr(cores, "_cgroup_folders", lambda: [tmp_path])
    assert available_threads() == 1
    (tmp_path / "cpu.max").write_text("99900000 100000")
    assert available_threads() == affinity


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("Features\t: fp asimd asimddp\n", True),
        ("model name\t: Some CPU\n", None),
    ],
)
def test_8_bit_dot_products_are_read_off_the_processors_flags(
    tmp_path: Path, content: str, expected: bool | None
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    assert int8_dot_products(tmp_path / "cpuinfo") is expected
    assert int8_dot_products(tmp_path / "nothing") is None
