"""The processes that draw a catalogue end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see a process's children")


def workers_of(pid: int) -> list[int]:
    """Children of a process that draw; multiprocessing's tracker of resources is not one of them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def holds_soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    command = "from qdrant_cir.cli import main; main()"
    arguments = ["catalog", "build", "--out", str(tmp_path), "--products", "5000", "--queries", "10"]
    parent = subprocess.Popen([sys.executable, "-c", command, *arguments], stderr=subprocess.DEVNULL)
    try:
        assert holds_soon(lambda: len(list(tmp_path.glob("images/*.jpg"))) > 0)
        workers = workers_of(parent.pid)
        assert len(workers) == 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert holds_soon(lambda: not any(map(is_running, workers)))
