"""What every benchmark reports: the machine, the load on it, paired timings, peak memory, the GEMM ceiling."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from qdrant_cir.model.cores import available_threads

Result = TypeVar("Result")

VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
"""As the kernel calls them; with one of the last three, there are products of 8-bit integers."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a benchmark ran: processor, processors visible, threads used, versions of what computes."""

    processor: str
    cores: int
    threads: int
    versions: Mapping[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.processor}, {self.cores} cores, {self.threads} threads; {versions}"


def describe_machine(threads: int, *, packages: Sequence[str] = ("onnxruntime", "torch", "numpy")) -> Machine:
    """Describe this machine; packages that are not installed are left out."""
    versions = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return Machine(processor_name(), available_threads(), threads, versions)


def processor_name() -> str:
    """Name the processor as the kernel does, where it does, with what it has for products of matrices."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    known = [name for name in VECTOR_INSTRUCTIONS if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", "unknown"), *([f"({', '.join(known)})"] if known else [])])


class LoadMeter:
    """How many cores other processes kept busy since the meter was made: near 0 on an idle machine."""

    def __init__(self) -> None:
        self._before = _busy_seconds(), time.process_time(), time.perf_counter()

    def cores_taken(self) -> float:
        """Cores' worth of work done by others, on average; nan where /proc is not there."""
        busy, own, now = _busy_seconds(), time.process_time(), time.perf_counter()
        before_busy, before_own, before = self._before
        return max(0.0, ((busy - before_busy) - (own - before_own)) / (now - before))


def _busy_seconds() -> float:
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return float("nan")
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run: on the clock, and of all threads of this process together."""

    wall: float
    processor: float


def alternate_timings(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, seconds_at_most: float = float("inf")
) -> dict[str, list[Timing]]:
    """Time variants in turn, each round in the other direction. Run each once before, to warm it up.

    Args:
        variants: what to run.
        rounds: timed runs of each.
        seconds_at_most: no new round starts after this long; one round is always run.

    Returns:
        Times per variant and round. Entries of one round belong together.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in variants}
    began = time.perf_counter()
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            start, processor = time.perf_counter(), time.process_time()
            variants[name]()
            timings[name].append(Timing(time.perf_counter() - start, time.process_time() - processor))
        if time.perf_counter() - began > seconds_at_most:
            break
    return timings


def alternate(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, seconds_at_most: float = float("inf")
) -> dict[str, list[float]]:
    """Time variants as :func:`alternate_timings` does, on the clock alone."""
    timings = alternate_timings(variants, rounds=rounds, seconds_at_most=seconds_at_most)
    return {name: [timing.wall for timing in of_name] for name, of_name in timings.items()}


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over rounds of ``slow / fast``: how many times faster the second is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


@dataclass(frozen=True, slots=True)
class Measured(Generic[Result]):
    """The result of a run, and by how many MB the resident memory rose above its level before; nan off Linux."""

    result: Result
    peak_megabytes: float


def measure_peak(run: Callable[[], Result]) -> Measured[Result]:
    """Run once and see how far the resident memory rose meanwhile."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    except OSError:
        return Measured(run(), float("nan"))
    before = status_megabytes("VmRSS")
    result = run()
    return Measured(result, max(0.0, status_megabytes("VmHWM") - before))


def status_megabytes(field: str) -> float:
    """Read a size of this process, such as its resident memory (``VmRSS``) or its highest (``VmHWM``); Linux alone."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{field}:"))


def gemm_ceiling(*, size: int = 2048, rounds: int = 12) -> float:
    """Measure the fastest of some float32 products of [size, size] by torch on one thread, in GFLOP/s."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.rand(size, size), torch.rand(size, size)
    timings = alternate_timings({"product": lambda: torch.mm(left, right)}, rounds=rounds)["product"]
    torch.set_num_threads(before)
    return 2 * size**3 / min(timing.processor for timing in timings) / 1e9


def write_json(path: Path, machine: Machine, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a benchmark's rows with the machine they were measured on."""
    path.write_text(json.dumps({"machine": asdict(machine), "rows": list(rows)}, indent=2) + "\n", encoding="utf-8")
