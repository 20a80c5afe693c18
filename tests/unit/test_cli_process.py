"""The command line as a process: signals, closed pipes, full disks and terminals without the characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# the second batch of pictures is encoded while the signal comes; background jobs of a shell start with SIGINT ignored
_INTERRUPTED = """
import os, signal, sys
from qdrant_cir.indexer import Indexer
from qdrant_cir.model.image_encoder import ImageEncoder
number = getattr(signal, sys.argv.pop())
encode, runs = ImageEncoder.encode, []
def encode_and_stop(self, pixels):
    runs.append(1)
    if len(runs) == 2:
        os.kill(os.getpid(), number)
    return encode(self, pixels)
ImageEncoder.encode = encode_and_stop
signal.signal(signal.SIGINT, signal.default_int_handler)
from qdrant_cir.cli import main
main()
"""
_MAIN = "from qdrant_cir.cli import main; main()"


@pytest.fixture
def index(
    tmp_path: Path,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]],
) -> list[str]:
    """The arguments that index 40 pictures, more than one batch, one of them with a name in Cyrillic."""
    colors = {f"{number:02}": (number, 0, 0) for number in range(39)} | {
        "\u043f\u043b\u0430\u0442\u044c\u0435": (0, 0, 9)
    }
    write_solid_images(tmp_path / "pictures", colors)
    options = ["-c", "shop", "--path", str(tmp_path / "store"), "--bundle", str(tiny_bundle)]
    return ["index", str(tmp_path / "pictures"), *options]


def run(*arguments: str, code: str = _MAIN, **settings: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "QDRANT_URL": "", **settings}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=False, env=environment, timeout=60
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_in_one_sentence_and_the_same_command_goes_on(index: list[str], name: str, code: int) -> None:
    stopped = run(*index, name, code=_INTERRUPTED)
    assert stopped.returncode == code
    assert stopped.stderr.decode().splitlines()[-1] == "Interrupted: 32 of 40 are in. Run the same command to continue."
    assert b"Traceback" not in stopped.stderr
    report = json.loads(run(*index, "--json").stdout)
    assert (report["indexed"], report["unchanged"]) == (8, 32)


def test_what_the_output_cannot_show_is_escaped(index: list[str]) -> None:
    run(*index)
    search = ["search", *index[2:], "--image-id", "01.png", "-n", "40"]
    latin = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    table = run(*search, **latin)
    assert (table.returncode, b"\\u043f" in table.stdout) == (0, True)
    document = run(*search, "--json", **latin)
    assert "\u043f\u043b\u0430\u0442\u044c\u0435.png" in [
        each["image_id"] for each in json.loads(document.stdout)["candidates"]
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["index"]], ids=" ".join)
def test_a_full_disk_under_stdout_is_one_sentence(index: list[str], arguments: list[str]) -> None:
    given = index if arguments == ["index"] else arguments
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *given], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith("Error: The output cannot be written: ")
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_ended_is_no_error_to_speak_of(index: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *index], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr
