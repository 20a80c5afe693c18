"""The cores that this process may use, and what they are fast at."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_threads", "int8_dot_products"]

_DOT_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp"})
"""As the Linux kernel calls products of 8-bit integers on x86 and ARM."""

_CGROUP = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """Count the cores this process may use: the minimum of its affinity and its cgroups' quotas, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _cgroup_folders()]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def int8_dot_products(cpu_information: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Return whether the processor has products of 8-bit integers, for int8 arithmetic; None where it does not say."""
    try:
        lines = cpu_information.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = {
        flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()
    }
    return bool(flags & _DOT_PRODUCTS) if flags else None


def _cgroup_folders() -> list[Path]:
    """List the folders whose quotas bind this process: its own cgroup and all above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = _CGROUP / own
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(_CGROUP)), _CGROUP / "cpu"]


def _quota(folder: Path) -> float | None:
    """Read the CPU quota of a cgroup in cores, in the format of version 2 or 1; None where there is none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    if not quota.isdigit() or not period.isdigit() or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)
