"""The faults of ``python -m benchmarks.faults`` still fit the code, so that a run of them proves something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import PARTS, faulty_text, load_faults
from benchmarks.faults.fault import Fault

ROOT = Path(__file__).parents[2]
FAULTS = load_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_replaces_what_stands_once_by_other_code(fault: Fault) -> None:
    faulty = faulty_text(ROOT, fault)
    whole = (ROOT / fault.file).read_text(encoding="utf-8")
    # a syntax error would be caught by any test
    assert ast.dump(ast.parse(faulty)) != ast.dump(ast.parse(whole))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_tests_of_a_fault_are_there(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") if name else (ROOT / file).is_file()


def test_every_module_of_faults_is_run() -> None:
    folder = ROOT / "benchmarks" / "faults"
    assert {path.stem for path in folder.glob("*.py")} == {*PARTS, "__init__", "__main__", "fault"}
