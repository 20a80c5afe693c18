"""A docstring begins with "Return", another plain verb, or a noun."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("qdrant_cir", "onnx_export", "benchmarks")
OLD_OPENINGS = {"give", "gives", "say", "says", "tell", "tells", "part", "parts"}
STILL_TO_CHANGE = (
    "qdrant_cir/indexing/row_files.py",
    "qdrant_cir/model/text_tokenizer.py",
)
"""Files and folders whose docstrings have the old openings; each is taken out of here when it has been changed."""


def old_openings(source: str) -> list[str]:
    """Return the line and the text of every docstring, and string below a constant, with an old opening."""
    strings = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return [
        f"{string.lineno}: {string.value.splitlines()[0]}"
        for string in strings
        if (words := string.value.split()) and words[0].lower().strip(".,;:`") in OLD_OPENINGS
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_return_another_plain_verb_or_a_noun(package: str) -> None:
    changed = [
        path
        for path in sorted((ROOT / package).rglob("*.py"))
        if not any(path.is_relative_to(ROOT / name) for name in STILL_TO_CHANGE)
    ]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in changed for line in old_openings(path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_an_old_opening_is_found_wherever_a_docstring_can_be() -> None:
    source = (
        '"""Part of it."""\nX = 1\n"""Says x."""\ndef f():\n    """Give 1.\n\n    Really.\n    """\n'
        'class A:\n    """Parts of it."""\n    def g(self):\n        """Return what it gives."""\n        "Tell."\n'
    )
    assert sorted(int(found.split(":")[0]) for found in old_openings(source)) == [1, 3, 5, 10, 13]
