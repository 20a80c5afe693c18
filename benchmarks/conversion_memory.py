"""Memory and seconds of `convert released`, against the size of the files it reads.

    python -m benchmarks.conversion_memory --out OUT                 # the paper's sizes: 5 GB of OUT, several minutes
    python -m benchmarks.conversion_memory --out OUT --sizes FILE    # other sizes, as `convert released --sizes`

Writes a pair of checkpoints with random weights in the released layout (float32, one image encoder in both, as where
the recipe was followed; ``--two-encoders`` gives stage two another), then converts them by the tool's own command in a
process of its own, and watches that process. Its resident memory is of two kinds: what the command allocated, and pages
of the mapped checkpoint files, which the system takes back whenever it needs the room.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.machine import LoadMeter, describe_machine, write_json
from onnx_export.checkpoints.blip import read_sizes
from onnx_export.models import BLIP_BASE, ModelSizes, build_model
from onnx_export.training.drawn.tokenizer import build_tokenizer
from qdrant_cir.model.cores import available_threads

SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True, slots=True)
class Watched:
    """A process from start to end, in MB (10^6 bytes): its peak, the part of it that it allocated, its seconds."""

    peak_megabytes: float
    allocated_megabytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One conversion: what it read, what it wrote, what it took."""

    stage_one_megabytes: float
    stage_two_megabytes: float
    bundle_megabytes: float
    two_encoders: bool
    watched: Watched

    def __str__(self) -> str:
        files, used = self.stage_one_megabytes + self.stage_two_megabytes, self.watched
        return (
            f"checkpoints {self.stage_one_megabytes:.0f} + {self.stage_two_megabytes:.0f} MB, bundle "
            f"{self.bundle_megabytes:.0f} MB{' with two image encoders' if self.two_encoders else ''}: peak "
            f"{used.peak_megabytes:.0f} MB resident ({used.peak_megabytes / files:.2f} x the files), of which at most "
            f"{used.allocated_megabytes:.0f} MB allocated ({used.allocated_megabytes / files:.2f} x), "
            f"{used.seconds:.0f} s"
        )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints and bundle are written")
    parser.add_argument("--sizes", type=Path, help="sizes as JSON; the paper's by default")
    parser.add_argument("--two-encoders", action="store_true", help="give stage two an image encoder of its own")
    parser.add_argument("--json", type=Path, help="write the row here too")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(available_threads(), packages=("torch", "onnxruntime"))
    print(machine, flush=True)
    sizes = BLIP_BASE if asked.sizes is None else read_sizes(asked.sizes)
    one, two = write_checkpoints(sizes, asked.out, two_encoders=asked.two_encoders)
    build_tokenizer().save(str(asked.out / "tokenizer.json"))
    bundle = asked.out / "bundle"
    command = [sys.executable, "-m", "onnx_export", "convert", "released", "--stage-one", str(one)]
    command += ["--stage-two", str(two), "--tokenizer", str(asked.out / "tokenizer.json"), "--out", str(bundle)]
    load = LoadMeter()
    watched = watch(command if asked.sizes is None else [*command, "--sizes", str(asked.sizes)])
    row = Row(_megabytes(one), _megabytes(two), _megabytes(bundle), asked.two_encoders, watched)
    print(f"{row}; other processes kept {load.cores_taken():.1f} cores busy, the command's own among them")
    if asked.json:
        write_json(asked.json, machine, [asdict(row)])


def write_checkpoints(sizes: ModelSizes, folder: Path, *, two_encoders: bool) -> tuple[Path, Path]:
    """Write a pair in the released layout, with weights of random values; gives stage one's file and stage two's."""
    model = build_model(sizes)
    encoder = model.image_encoder.state_dict()
    vision = {name: value for name, value in encoder.items() if name.startswith("visual_encoder.")}
    second = {name: value + 1e-3 for name, value in vision.items()} if two_encoders else vision
    states = {
        "BLIP_Retrieval": {**encoder, **model.composer.state_dict(), "temp": torch.tensor(0.07)},
        "BLIP_NLVR": {**second, **model.reranker.state_dict()},
    }
    paths = (folder / "stage_one.pt", folder / "stage_two.pt")
    for path, (name, state) in zip(paths, states.items(), strict=True):
        torch.save({"epoch": 0, name: state}, path)
    return paths


def watch(command: Sequence[str]) -> Watched:
    """Run a command and look at its memory until it ends; Linux alone.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    began = time.perf_counter()
    peak = allocated = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            fields = _status(process.pid)
            peak = max(peak, fields.get("VmHWM", 0.0))
            allocated = max(allocated, fields.get("RssAnon", 0.0))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Watched(peak, allocated, time.perf_counter() - began)


def _status(pid: int) -> dict[str, float]:
    """Read a process's memory by the kernel's names, in MB; empty once it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return {
            name: int(value.split()[0]) * 1024 / 1e6
            for name, _, value in (line.partition(":") for line in lines)
            if value.endswith(" kB")
        }
    return {}


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    main()
