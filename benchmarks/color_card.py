"""A catalogue variant that the bundled model has not seen: a shop whose texts name colours as its own colour card does.

``make the sleeves navy blue`` becomes ``make the sleeves dark 1``. Every word of the card is in the bundled model's
vocabulary, and what a name on it stands for is nowhere but in the shop's own triplets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from qdrant_cir.drawn.dataset import DrawnCatalog
from qdrant_cir.drawn.files import write_drawn
from qdrant_cir.drawn.wording import COLOR_WORDS

TRAINING_FILE, TEST_FILE = "training.jsonl", "both_wordings.jsonl"
ORDINARY, CARD = "ordinary", "card"

CARD_NAMES = {
    color: f"{group} {number}"
    for group, colors in {
        "golden": ("red", "orange", "yellow", "green"),
        "light": ("blue", "pink", "white", "grey"),
        "dark": ("navy", "purple", "brown", "black"),
    }.items()
    for number, color in enumerate(colors, start=1)
}
"""The card: three groups of four colours, by the catalogue's name of the colour."""

_CARD_WORDS = {word: CARD_NAMES[color] for color, words in COLOR_WORDS.items() for word in words}
_WORDS = re.compile(rf"\b(an )?({'|'.join(sorted(_CARD_WORDS, key=len, reverse=True))})\b")


def say_by_card(text: str) -> str:
    """Give a text with every colour, whatever it is called, by its name on the card."""
    return _WORDS.sub(lambda found: ("a " if found[1] else "") + _CARD_WORDS[found[2]], text)


def write_training(catalog: DrawnCatalog, folder: Path) -> Path:
    """Write pictures and the shop's triplets, each in two texts by the card; gives the triplets' file."""
    write_drawn(catalog, folder)
    lines = [
        {"reference": query.reference_id, "modification_text": say_by_card(text), "targets": list(query.target_ids)}
        for query in catalog.queries
        for text in (query.modification_text, query.paraphrase)
    ]
    return _write(folder / TRAINING_FILE, lines)


def write_test(catalog: DrawnCatalog, folder: Path) -> Path:
    """Write pictures and every query in both wordings, which are its labels; gives the queries' file."""
    write_drawn(catalog, folder)
    lines = [
        {
            "query_id": f"{query.query_id} {wording}",
            "reference": query.reference_id,
            "modification_text": text,
            "targets": list(query.target_ids),
            "labels": [wording],
        }
        for query in catalog.queries
        for wording, text in (
            (ORDINARY, query.modification_text),
            (CARD, say_by_card(query.modification_text)),
        )
    ]
    return _write(folder / TEST_FILE, lines)


def _write(path: Path, lines: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
