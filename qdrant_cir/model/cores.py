"""The number of cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_threads"]

_CGROUP = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """Count the cores this process may use: the minimum of its affinity and its cgroups' quotas, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _cgroup_folders()]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas if quota is not None)]))


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
