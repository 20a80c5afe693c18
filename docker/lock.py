"""Writes a hashed lock file of the images: ``python3.11 docker/lock.py KIND``, one of build, cpu, gpu and parquet.

pip resolves what pyproject.toml asks for, as on the image's Python, and reports the wheels that it would install;
nothing is installed. The hashes are those of the wheels for x86-64 and, but for the GPU, for 64-bit ARM.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MACHINES = {
    "build": ("x86_64", "aarch64"),
    "cpu": ("x86_64", "aarch64"),
    "gpu": ("x86_64",),
    "parquet": ("x86_64", "aarch64"),
}
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


def wanted(declared: Mapping[str, Any], kind: str) -> list[str]:
    """Return the requirements that a lock file answers, from what pyproject.toml declares."""
    if kind == "build":
        return list(declared["build-system"]["requires"])
    extras: Mapping[str, list[str]] = declared["project"]["optional-dependencies"]
    if kind == "parquet":
        return extras[kind]
    return [*declared["project"]["dependencies"], *extras[kind], *extras["service"]]


def resolved(requirements: Sequence[str], machine: str) -> dict[str, Any]:
    """Return pip's report of what it would install on a Linux machine with Python 3.11."""
    platforms = [f"--platform={glibc}_{machine}" for glibc in GLIBC]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"),
                *("--ignore-installed", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp"),
                *(f"--target={folder}/target", f"--report={report}", *platforms, *requirements),
            ],
            check=True,
        )
        found: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return found


def locked(reports: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a lock file, sorted by name. Raises ValueError where two machines get two versions."""
    versions: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    for report in reports:
        for item in report["install"]:
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            version = item["metadata"]["version"]
            if versions.setdefault(name, version) != version:
                raise ValueError(f"{name} is {versions[name]} on one machine and {version} on another. Pin it.")
            hashes.setdefault(name, set()).add(item["download_info"]["archive_info"]["hashes"]["sha256"])
    return [
        " \\\n".join([f"{name}=={versions[name]}", *(f"    --hash=sha256:{value}" for value in sorted(hashes[name]))])
        for name in sorted(versions)
    ]


def main(kind: str) -> None:
    """Resolve and write ``requirements-KIND.txt`` beside this file."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit("Run this with Python 3.11, the images' own: markers are those of the running Python.")
    declared = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    lines = locked(resolved(wanted(declared, kind), machine) for machine in MACHINES[kind])
    head = f"# Made by: python3.11 docker/lock.py {kind}"
    (HERE / f"requirements-{kind}.txt").write_text("\n".join([head, *lines]) + "\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in MACHINES:
        raise SystemExit(f"usage: python3.11 docker/lock.py {'|'.join(MACHINES)}")
    main(sys.argv[1])
