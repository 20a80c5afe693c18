"""The page's files: how heavy they are, and that they load nothing from elsewhere and read no payload as markup."""

from __future__ import annotations

import re
from importlib import resources

import pytest

MOST_BYTES = 60 * 1024
PAGE = {
    entry.name: entry.read_text("utf-8") for entry in resources.files("qdrant_cir").joinpath("service/page").iterdir()
}
SCRIPTS = sorted(name for name in PAGE if name.endswith(".js"))


def test_all_files_together_stay_within_the_limit() -> None:
    weights = {name: len(content.encode()) for name, content in PAGE.items()}
    assert sum(weights.values()) <= MOST_BYTES, weights


@pytest.mark.parametrize("name", sorted(PAGE))
def test_no_file_names_another_host(name: str) -> None:
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", PAGE[name])) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_out_of_text(name: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", PAGE[name])


def test_the_document_has_neither_scripts_nor_styles_inside() -> None:
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|javascript:", PAGE["index.html"])


def test_every_file_is_used() -> None:
    everything = "".join(PAGE.values())
    assert [name for name in PAGE if name != "index.html" and f"/{name}" not in everything] == []
