"""FashionIQ: three categories, each with its own gallery; two captions per query.

Layout as published: ``captions/cap.CATEGORY.val.json`` and ``image_splits/split.CATEGORY.val.json``,
pictures by product number; other data in this layout is read with the categories that it has. In these files
``candidate`` is the *reference* image. The reference stays in the gallery. Recall is averaged over a category's
queries, then over the categories without weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.annotation_files import Annotation, find_file, read_json, read_records
from qdrant_cir.evaluation.datasets.benchmark import (
    Average,
    Benchmark,
    EvaluationPart,
    EvaluationQuery,
    gallery_record,
)
from qdrant_cir.evaluation.metrics import Recall, Truth
from qdrant_cir.types import GalleryImage

__all__ = ["CATEGORIES", "FashionIqSplit", "join_captions", "read_fashioniq"]

CATEGORIES = ("dress", "shirt", "toptee")

FashionIqSplit: TypeAlias = Literal["original", "val"]
"""``original``: every image of ``image_splits`` is in the gallery, and a query joins both captions. ``val``:
the gallery is made of the queries' references and targets, and every caption is a query (Chen, Gong,
Bazzani, *VAL*, CVPR 2020)."""

_METRICS = (Recall(10), Recall(50))
_STRIPPED = ".?, "


def read_fashioniq(
    root: Path,
    *,
    split: FashionIqSplit = "original",
    images: Path | None = None,
    categories: tuple[str, ...] | None = None,
    excludes_reference: bool = False,
) -> Benchmark:
    """Read the validation queries of FashionIQ.

    Args:
        root: holds ``captions`` and ``image_splits``.
        split: which galleries and queries.
        images: folder of the pictures; by default ``root/images``, ``root/images/CATEGORY``,
            ``root/resized_image`` or ``root``.
        categories: in the order of the report; by default all that ``captions`` has, of FashionIQ itself the three.
        excludes_reference: leave the reference out, which FashionIQ does not, but the published code of the
            VAL split does.

    Raises:
        InputError: a file is missing or not as published.
    """
    read = [
        _read_category(root, category, split, images, excludes_reference=excludes_reference)
        for category in (_categories_of(root) if categories is None else categories)
    ]
    empty = sum(category.empty_captions for category in read)
    return Benchmark(
        name="fashioniq",
        split=split,
        parts=tuple(category.part for category in read),
        truth={category.part.name: category.truth for category in read},
        metrics=_METRICS,
        averages=(Average("(R@10 + R@50) / 2", ("R@10", "R@50")),),
        notes=_notes(split, empty, excludes_reference=excludes_reference),
    )


def join_captions(captions: tuple[str, ...]) -> str:
    """Join the captions of a query as the paper does at evaluation: ``"{A} and {b}"``.

    Each is stripped of ``.?,`` and blanks, and the first is capitalised. A caption that is empty then is
    left out with its "and": three queries of the validation split have one.

    Example:
        >>> join_captions(("is Shiny.", "has short sleeves "))
        'Is shiny and has short sleeves'
        >>> join_captions(("", "is grey"))
        'Is grey'
    """
    given = [caption.strip(_STRIPPED) for caption in captions if caption.strip(_STRIPPED)]
    return " and ".join([given[0].capitalize(), *given[1:]]) if given else ""


def _categories_of(root: Path) -> tuple[str, ...]:
    """List the categories that have captions. Raises InputError where only some of FashionIQ's three have."""
    found = sorted(path.name.removeprefix("cap.").removesuffix(".val.json") for path in _caption_files(root))
    missing = [category for category in CATEGORIES if category not in found]
    if set(found) <= set(CATEGORIES) and missing:
        raise InputError(
            f"There is no {_caption_file(root, missing[0])}; expected {', '.join(CATEGORIES)}, found "
            f"{', '.join(found) or 'none'}. Give the folder that holds the published files, or name the "
            "categories that are wanted."
        )
    return CATEGORIES if set(found) == set(CATEGORIES) else tuple(found)


def _caption_files(root: Path) -> list[Path]:
    return list((root / "captions").glob("cap.*.val.json"))


def _caption_file(root: Path, category: str) -> Path:
    return root / "captions" / f"cap.{category}.val.json"


@dataclass(frozen=True, slots=True)
class _Category:
    part: EvaluationPart
    truth: dict[str, Truth]
    empty_captions: int


def _read_category(
    root: Path, category: str, split: FashionIqSplit, images: Path | None, *, excludes_reference: bool
) -> _Category:
    entries = read_records(_caption_file(root, category))
    folders = _folders(root, images, category)
    queries: list[EvaluationQuery] = []
    truth: dict[str, Truth] = {}
    for number, entry in enumerate(entries):
        asked = _queries_of(entry, number, split)
        queries += asked
        truth.update((query.query_id, Truth(frozenset({entry.text("target")}))) for query in asked)
    gallery = tuple(
        gallery_record(image_id, find_file(folders, image_id))
        for image_id in _gallery_ids(root, category, entries, split)
    )
    captions = sum(len(entry.texts("captions")) for entry in entries)
    return _Category(
        EvaluationPart(category, tuple(queries), gallery, excludes_reference),
        truth,
        empty_captions=captions - len(queries) if split == "val" else 0,
    )


def _queries_of(entry: Annotation, number: int, split: FashionIqSplit) -> list[EvaluationQuery]:
    reference, captions = GalleryImage(entry.text("candidate")), entry.texts("captions")
    if split == "original":
        return [EvaluationQuery(f"{number}", reference, join_captions(captions))]
    return [
        EvaluationQuery(f"{number}-{place}", reference, caption.strip())
        for place, caption in enumerate(captions)
        if caption.strip()
    ]


def _gallery_ids(root: Path, category: str, entries: list[Annotation], split: FashionIqSplit) -> tuple[str, ...]:
    if split == "val":
        pairs = [image for entry in entries for image in (entry.text("candidate"), entry.text("target"))]
        return tuple(sorted(set(pairs)))
    path = root / "image_splits" / f"split.{category}.val.json"
    ids = read_json(path)
    if not isinstance(ids, list) or not ids or not all(isinstance(image_id, str) for image_id in ids):
        raise InputError(f"{path}: expected a list of product numbers that is not empty")
    return tuple(dict.fromkeys(ids))


def _folders(root: Path, images: Path | None, category: str) -> list[Path]:
    """List the folders that may hold the pictures, only those that exist if any does: each is searched for every id."""
    folders = [root / "images", root / "images" / category, root / "resized_image", root]
    if images is not None:
        folders = [images, images / category]
    return [folder for folder in folders if folder.is_dir()] or folders


def _notes(split: FashionIqSplit, empty: int, *, excludes_reference: bool) -> tuple[str, ...]:
    notes = [
        "Every category has its own gallery; numbers are unweighted means over the categories.",
        "The reference is left out of the answers, as in the published code of the VAL split."
        if excludes_reference
        else "The reference stays in the gallery.",
    ]
    if split == "val":
        notes.append("The galleries are the queries' references and targets; every caption is a query.")
        if empty:
            notes.append(f"{empty} empty captions give no query, as in the published code of the VAL split.")
    else:
        notes.append("Both captions of a query are joined.")
    return tuple(notes)
