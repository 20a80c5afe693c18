"""What the README shows works as pasted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qdrant_cir.cli.app import app
from qdrant_cir.model.bundle import default_bundle_path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    not (default_bundle_path() / "cir_config.json").exists(), reason="the bundled model is not built"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves behind, smaller."""
    folder = tmp_path_factory.mktemp("readme")
    arguments = ["catalog", "build", "--out", str(folder / "demo" / "catalog"), "--products", "120"]
    assert CliRunner().invoke(app, [*arguments, "--queries", "6"]).exit_code == 0
    return folder


def test_the_python_of_the_readme_runs_as_pasted(folder: Path) -> None:
    (code,) = blocks("python")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "120 indexed, 0 failed"
    assert len(lines) == 1 + 5 + 1
    assert lines[-1].startswith("Timings(")


def test_the_python_of_the_readme_is_at_most_twelve_lines() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_every_command_and_option_of_the_readme_exists() -> None:
    shown_lines = [line for block in blocks("bash") for line in block.splitlines()]
    lines = [line for line in shown_lines if line.startswith("qdrant-cir ")]
    assert len(lines) >= 5
    for line in lines:
        words = line.split()
        command = words[1:3] if words[1] in ("catalog", "evaluate") else words[1:2]
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in shown.output, f"{option} of: {line}"


def test_the_files_that_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert f"make {command}" in README
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
