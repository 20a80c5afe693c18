"""Catalogues that the documents build can be drawn: products and queries fit."""

import re
from pathlib import Path

from qdrant_cir.drawn.dataset import _plan

ROOT = Path(__file__).parents[2]
DOCUMENTED = re.compile(r"catalog build [^\n]*--products (\d+) --queries (\d+)")


def test_every_catalogue_that_the_documents_build_can_be_drawn() -> None:
    asked = [
        (int(match[1]), int(match[2]))
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for match in DOCUMENTED.finditer(path.read_text(encoding="utf-8"))
    ]
    assert len(asked) >= 6
    for products, queries in asked:
        _plan(products, queries)  # raises where they do not fit
