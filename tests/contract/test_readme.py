"""The README is short, and what it shows exists. Its program is run by test_programs.py."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qdrant_cir.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "docs/quickstart.md", "docs/galleries.md")


def blocks(language: str, document: str = "README.md") -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shown_commands(*documents: str) -> list[str]:
    lines = [line for document in documents for block in blocks("bash", document) for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("qdrant-cir ")))


def test_the_readme_has_at_most_700_words_and_60_numbers() -> None:
    assert len(README.split()) <= 700
    assert len(re.findall(r"\d+", README)) <= 60


def test_the_program_of_the_readme_is_at_most_twelve_lines() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_readme_shows_commands() -> None:
    assert len(shown_commands("README.md")) >= 5


@pytest.mark.parametrize("line", shown_commands(*DOCUMENTS))
def test_every_command_and_option_that_is_shown_exists(line: str) -> None:
    words = line.split()
    command = words[1:3] if words[1] in ("catalog", "evaluate") else words[1:2]
    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    for option in re.findall(r"(?<!\w)--?[a-z][a-z-]*", line):
        assert re.search(rf"(?<![\w-]){option}\b", shown.output), f"{option} of: {line}"


@pytest.mark.parametrize("document", [*DOCUMENTS, "ARCHITECTURE.md"])
def test_the_files_and_headings_that_a_document_links_to_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", text):
        name, _, heading = target.partition("#")
        file = ROOT / document if not name else (ROOT / document).parent / name
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, target


def test_the_two_commands_come_first_and_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [line.split("#")[0].strip() for line in blocks("bash")[0].splitlines()] == ["make demo", "make test"]
    for command in ("demo", "test"):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_the_install_line_is_of_an_extra_that_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"\"\.\[(\w+)\]\"", README)
    assert extras == ["cpu", "gpu"]
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
