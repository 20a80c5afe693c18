"""docs/cli.md is what the command line says of itself, and every command says something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qdrant_cir.cli import app

COMMANDS = [
    ["attach"],
    ["index"],
    ["index-field"],
    ["search"],
    ["explain"],
    ["calibrate"],
    ["calibrate-match"],
    ["fit-codec"],
    ["info"],
    ["check"],
    ["delete"],
    ["detach"],
    ["demo"],
    ["catalog"],
    ["catalog", "build"],
]


def test_the_committed_page_is_what_the_command_generates() -> None:
    """Regenerate with: typer qdrant_cir.cli utils docs --name qdrant-cir --output docs/cli.md."""
    generated = subprocess.run(
        [sys.executable, "-m", "typer", "qdrant_cir.cli", "utils", "docs", "--name", "qdrant-cir"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page.strip() == generated.strip()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize("command", [["attach"], ["index"], ["search"], ["detach"], ["catalog", "build"]], ids=" ".join)
def test_a_missing_option_is_a_usage_error(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "Missing" in result.stderr


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).parent / "qdrant-cir"
    if not command.is_file():
        pytest.skip("the package is not installed in this environment")
    result = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "Exit codes" in result.stdout
