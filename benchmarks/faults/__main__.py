"""Put faults into a copy of the repository, one after another, and print which the tests caught.

    python -m benchmarks.faults [NAME ...]

The copy holds the files that git knows or would take; the bundles are linked. The tests of all chosen faults run
once without a fault first, so that "caught" means that the fault made the test fail. The exit code is 1 where a
fault lived, no longer applies, or could not be judged.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.fault import Fault

ROOT = Path(__file__).parents[2]
PARTS = ("storage", "attached", "path", "search")
"""Modules of this package, each with a tuple ``FAULTS``."""
LINKED = (Path("qdrant_cir/bundles"),)
"""Folders too large to copy."""
BESIDE = "shared"
"""A folder beside the repository, from which tests read data where it is there."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", re.MULTILINE)


class NotApplicableError(Exception):
    """The text that a fault replaces is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a fault; ``text`` is what the table says of it."""

    caught: bool
    text: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults asked for, print the table, and return the exit code."""
    known = {fault.name: fault for fault in load_faults()}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to put in; all by default")
    names = parser.parse_args(arguments).names or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no fault is called {', '.join(unknown)}; there are: {', '.join(known)}")
    faults = [known[name] for name in names]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        tree = copy_tree(Path(folder))
        clean = run_tests(tree, dict.fromkeys(test for fault in faults for test in fault.tests))
        if clean.returncode != 0:
            print(clean.stdout, clean.stderr, "The tests fail without any fault.", sep="\n")
            return 1
        width = max(map(len, names), default=0)
        caught = 0
        for fault in faults:
            verdict = judge(tree, fault)
            caught += verdict.caught
            print(f"{fault.name:{width}}  {verdict.text}", flush=True)
    print(f"{caught} of {len(faults)} faults caught")
    return 0 if caught == len(faults) else 1


def load_faults() -> list[Fault]:
    """Read the faults of every part.

    Raises:
        ValueError: two faults share a name.
    """
    faults: list[Fault] = []
    for part in PARTS:
        faults += importlib.import_module(f"{__package__}.{part}").FAULTS
    names = [fault.name for fault in faults]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two faults are called {', '.join(twice)}")
    return faults


def judge(tree: Path, fault: Fault) -> Verdict:
    """Put a fault into the copy, run its tests, and take it out again."""
    path = tree / fault.file
    try:
        whole, faulty = path.read_text(encoding="utf-8"), faulty_text(tree, fault)
    except (NotApplicableError, OSError) as error:
        return Verdict(caught=False, text=f"NO LONGER APPLIES: {error}")
    path.write_text(faulty, encoding="utf-8")
    try:
        run = run_tests(tree, fault.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    if run.returncode == 0:
        return Verdict(caught=False, text="LIVED")
    failed = _FAILED.search(run.stdout)
    if run.returncode != 1 or failed is None:
        ending = (run.stdout + run.stderr).strip().splitlines()[-1:]
        return Verdict(caught=False, text=f"NOT JUDGED: pytest ended with {run.returncode}: {' '.join(ending)}")
    return Verdict(caught=True, text=f"caught by {failed[1]}")


def faulty_text(tree: Path, fault: Fault) -> str:
    """Return the text of a fault's file with the fault in it.

    Raises:
        NotApplicableError: the text to replace is not there exactly once.
    """
    text = (tree / fault.file).read_text(encoding="utf-8")
    found = text.count(fault.old)
    if found != 1:
        raise NotApplicableError(f"{fault.file} holds the text {found} times")
    return text.replace(fault.old, fault.new)


def copy_tree(folder: Path) -> Path:
    """Copy the working tree into a folder, and return the copy."""
    tree = folder / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in map(Path, filter(None, listed.stdout.split("\0"))):
        if any(name.is_relative_to(linked) for linked in LINKED) or not (ROOT / name).is_file():
            continue
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    for linked in LINKED:
        (tree / linked).symlink_to(ROOT / linked)
    if (ROOT.parent / BESIDE).is_dir():
        (folder / BESIDE).symlink_to((ROOT.parent / BESIDE).resolve())
    return tree


def run_tests(tree: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in the copy, with the copy first on the import path, up to the first that fails."""
    # no bytecode: a file that is changed twice in a second would be taken from the cache
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
