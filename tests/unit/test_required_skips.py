"""A skip must be able to fail: ``CIR_REQUIRE`` forbids skips of the kinds that it names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SKIPPING = {
    "in a test": 'import pytest\ndef test_it():\n    pytest.skip("needs qdrant: set QDRANT_URL")\n',
    "in a fixture": (
        "import pytest\n@pytest.fixture\ndef server():\n"
        '    pytest.skip("needs qdrant: set QDRANT_URL")\ndef test_it(server):\n    pass\n'
    ),
    "by a mark": (
        'import pytest\n@pytest.mark.skipif(True, reason="needs qdrant: set QDRANT_URL")\ndef test_it():\n    pass\n'
    ),
    "of a module": (
        'import pytest\npytest.skip("needs qdrant: set QDRANT_URL", allow_module_level=True)\n'
        "def test_it():\n    pass\n"
    ),
}


def outcome(folder: Path, code: str, required: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    (folder / "test_skipping.py").write_text(code)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CIR_REQUIRE": required},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("kind", _SKIPPING)
def test_a_skip_of_a_required_kind_fails_and_any_other_does_not(tmp_path: Path, kind: str) -> None:
    required = outcome(tmp_path, _SKIPPING[kind], "torch,qdrant")
    assert required.returncode != 0, required.stdout
    assert "CIR_REQUIRE=torch,qdrant forbids this skip" in required.stdout
    assert "needs qdrant: set QDRANT_URL" in required.stdout
    other = outcome(tmp_path, _SKIPPING[kind], "torch")
    assert "1 skipped" in other.stdout
