"""A folder of photographs with a label each: reading ``labels.csv``, and the split by who took them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_cir.errors import InputError

__all__ = ["FEWEST_PHOTOGRAPHS", "KINDS", "LABELS_FILE", "Kind", "Photograph", "Split", "read_photographs", "split_of"]

LABELS_FILE = "labels.csv"
FEWEST_PHOTOGRAPHS = 50
Split = Literal["training", "validation", "test"]
_TEST_SHARE, _VALIDATION_SHARE = 0.22, 0.08


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of clothing.

    Attributes:
        label: as the label column spells it; case does not matter there.
        nouns: what texts call it, the plainest first.
        region: where on the body it is worn; prints go on ``upper`` and ``whole`` alone.
        sleeves: ``long``, ``short`` or ``none`` where the label says it, else empty.
    """

    label: str
    nouns: tuple[str, ...]
    region: Literal["upper", "lower", "whole", "head", "feet"]
    sleeves: Literal["long", "short", "none", ""] = ""


KINDS: dict[str, Kind] = {
    kind.label.lower(): kind
    for kind in (
        Kind("Blazer", ("blazer", "suit jacket", "formal jacket"), "upper", "long"),
        Kind("Blouse", ("blouse", "women's shirt"), "upper"),
        Kind("Body", ("bodysuit", "body", "romper", "onesie"), "whole"),
        Kind("Dress", ("dress", "gown", "frock", "sundress"), "whole"),
        Kind("Hat", ("hat", "cap", "beanie"), "head"),
        Kind("Hoodie", ("hoodie", "hooded sweatshirt", "sweatshirt with a hood"), "upper", "long"),
        Kind(
            "Longsleeve",
            ("longsleeve", "long sleeve top", "long sleeved shirt", "sweater", "pullover"),
            "upper",
            "long",
        ),
        Kind("Outwear", ("jacket", "coat", "outerwear", "outdoor jacket", "parka"), "upper", "long"),
        Kind("Pants", ("pants", "trousers", "jeans", "long pants", "leggings"), "lower"),
        Kind("Polo", ("polo", "polo shirt", "collared t-shirt"), "upper", "short"),
        Kind("Shirt", ("shirt", "button up shirt", "button down shirt", "dress shirt"), "upper"),
        Kind("Shoes", ("shoes", "pair of shoes", "footwear", "sneakers", "sandals"), "feet"),
        Kind("Shorts", ("shorts", "short pants", "pair of shorts"), "lower"),
        Kind("Skirt", ("skirt", "miniskirt", "short skirt"), "lower"),
        Kind(
            "T-Shirt", ("t-shirt", "tee", "tshirt", "t shirt", "tee shirt", "short sleeved t-shirt"), "upper", "short"
        ),
        Kind("Top", ("top", "crop top"), "upper"),
        Kind("Undershirt", ("undershirt", "tank top", "tank", "sleeveless top", "vest", "singlet"), "upper", "none"),
    )
}
"""Every kind that the model is taught, by its label in lower case."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One labelled photograph.

    Attributes:
        image_id: path inside the folder, with forward slashes.
        path: of the file.
        kind: what it shows.
        sender: who took it; the picture's own id where the file does not say.
    """

    image_id: str
    path: Path
    kind: Kind
    sender: str


def read_photographs(root: Path, *, label_column: str = "label") -> tuple[Photograph, ...]:
    """Read the photographs of a folder in the order of its ``labels.csv``.

    The file has a column ``file`` (path inside the folder), a label column, and may have a column ``sender``.

    Raises:
        InputError: there is no such file, it lacks a column, holds classes that the model is not taught, names pictures
            that do not exist, or fewer than ``FEWEST_PHOTOGRAPHS``.
    """
    file = root / LABELS_FILE
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened)
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}. It must name each photograph and its label.") from error
    missing = [column for column in ("file", label_column) if column not in columns]
    if missing:
        raise InputError(
            f"{file} has no column {' and no column '.join(missing)}; it has {', '.join(columns) or 'none'}."
        )
    _check_labels(file, [row[label_column] or "" for row in rows])
    if len(rows) < FEWEST_PHOTOGRAPHS:
        raise InputError(
            f"{root} holds {len(rows)} labelled photographs; at least {FEWEST_PHOTOGRAPHS} are needed, because a "
            "part of them must be held out and the others must show each colour on more than one garment."
        )
    found = [
        Photograph(
            row["file"], root / row["file"], KINDS[(row[label_column] or "").lower()], row.get("sender") or row["file"]
        )
        for row in rows
    ]
    lost = [photograph.image_id for photograph in found if not photograph.path.is_file()]
    if lost:
        raise InputError(f"{file} names {len(lost)} files that {root} does not hold, such as {lost[0]}.")
    return tuple(found)


def _check_labels(file: Path, labels: Sequence[str]) -> None:
    unknown = sorted({label for label in labels if label.lower() not in KINDS})
    if unknown:
        known = ", ".join(kind.label for kind in KINDS.values())
        raise InputError(
            f"{file} has labels that the model is not taught: {', '.join(repr(label) for label in unknown)}. Known are "
            f"{known}. Rename them or leave those pictures out."
        )


def split_of(sender: str) -> Split:
    """Assign a sender to a split, by a hash of the name: never by picture, for senders repeat garments and floors."""
    digest = hashlib.sha256(f"photographs by {sender}".encode()).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32
    if place < _TEST_SHARE:
        return "test"
    return "validation" if place < _TEST_SHARE + _VALIDATION_SHARE else "training"
