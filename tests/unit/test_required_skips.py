"""A skip must be able to fail: ``CIR_REQUIRE`` forbids skips of the kinds that it names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SKIPPING = {
    "in_a_test": 'import pytest\ndef test_it():\n    pytest.skip("needs KIND: do this")\n',
    "in_a_fixture": (
        "import pytest\n@pytest.fixture\ndef server():\n"
        '    pytest.skip("needs KIND: do this")\ndef test_it(server):\n    pass\n'
    ),
    "by_a_mark": 'import pytest\n@pytest.mark.skipif(True, reason="needs KIND: do this")\ndef test_it():\n    pass\n',
    "of_a_module": (
        'import pytest\npytest.skip("needs KIND: do this", allow_module_level=True)\ndef test_it():\n    pass\n'
    ),
}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Lines of a run in which qdrant is required and browser is not, with a file for every way to skip and each."""
    folder = tmp_path_factory.mktemp("skipping")
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    for way, code in _SKIPPING.items():
        for kind in ("qdrant", "browser"):
            (folder / f"test_{way}_{kind}.py").write_text(code.replace("KIND", kind))
    options = ["-q", "-rA", "--continue-on-collection-errors", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CIR_REQUIRE": "torch,qdrant", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout.splitlines()


@pytest.mark.parametrize("way", _SKIPPING)
def test_a_skip_of_a_required_kind_fails_and_any_other_does_not(summary: list[str], way: str) -> None:
    (required,) = [line for line in summary if line.startswith(("FAILED", "ERROR")) and way in line]
    assert f"test_{way}_qdrant.py" in required
    assert summary.count("CIR_REQUIRE=torch,qdrant forbids this skip. Skipped: needs qdrant: do this") == len(_SKIPPING)
    (skipped,) = [line for line in summary if line.startswith("SKIPPED") and way in line]
    assert f"test_{way}_browser.py" in skipped
    assert "needs browser: do this" in skipped
