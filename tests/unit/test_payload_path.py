"""Paths into a payload, as Qdrant writes them."""

from __future__ import annotations

import pytest

from qdrant_cir.errors import InputError
from qdrant_cir.storage.payload_path import PayloadPath
from qdrant_cir.types import JsonObject

PAYLOAD: JsonObject = {
    "url": "a.png",
    "media": {"main": "b.png", "with space": "c.png", "none": None, "number": 3},
    "images": [{"url": "d.png"}, {"url": "e.png"}, {"url": "d.png"}, {}, {"url": 7}],
    "list": ["f.png", "", "g.png"],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("url", ("a.png",)),
        ("media.main", ("b.png",)),
        ('media."with space"', ("c.png",)),
        ("images[0].url", ("d.png",)),
        ("images[1].url", ("e.png",)),
        ("images[9].url", ()),
        ("images[].url", ("d.png", "e.png")),
        ("list[]", ("f.png", "g.png")),
        ("list[2]", ("g.png",)),
        ("list", ()),
        ("url.main", ()),
        ("url[0]", ()),
        ("media.none", ()),
        ("media.number", ()),
        ("nowhere", ()),
    ],
)
def test_texts_are_found_each_once(path: str, expected: tuple[str, ...]) -> None:
    assert PayloadPath.parse(path).strings(PAYLOAD) == expected


@pytest.mark.parametrize("text", ["", ".", ".a", "a..b", "a.", "[0]", "a[", "a[x]", "a b", 'a."b'])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="path"):
        PayloadPath.parse(text)


def test_another_value_is_another_text() -> None:
    path = PayloadPath.parse("v")
    values = [1, 1.0, True, "1", None, [], {}, [1]]
    assert len({path.texts({"v": value}) for value in values} | {path.texts({})}) == len(values) + 1  # type: ignore[dict-item]
