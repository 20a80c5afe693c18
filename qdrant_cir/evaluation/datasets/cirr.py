"""CIRR: one gallery, the reference left out, and a subset of look-alikes that is ranked by itself.

Layout as published: ``captions/cap.rc2.SPLIT.json`` and ``image_splits/split.rc2.SPLIT.json``, under the
root or its folder ``cirr``; the latter file gives every picture's path below the folder of images. A query's
image set has six members; the five that are not the reference are scored directly by both stages, whether
stage one found them or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_json, read_records
from qdrant_cir.evaluation.datasets.benchmark import (
    Average,
    Benchmark,
    EvaluationPart,
    EvaluationQuery,
    gallery_record,
)
from qdrant_cir.evaluation.metrics import Recall, Truth
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.types import GalleryImage

__all__ = ["CirrSplit", "read_cirr"]

CirrSplit: TypeAlias = Literal["val", "test1"]
"""``val`` has published answers; ``test1`` is scored by the authors' server."""

_METRICS = (*map(Recall, (1, 5, 10, 50)), *(Recall(k, of="subset") for k in (1, 2, 3)))
_MEMBERS = 6


def read_cirr(root: Path, *, split: CirrSplit = "val", images: Path | None = None) -> Benchmark:
    """Read the queries and the gallery of a split.

    Args:
        root: holds ``captions`` and ``image_splits``, itself or in ``cirr``.
        split: ``val`` or ``test1``.
        images: folder that the paths of ``image_splits`` start from; by default ``root``, ``root/images`` or
            ``root/img_raw``, wherever the first picture is.

    Raises:
        InputError: a file is missing or not as published.
    """
    annotations = root if (root / "captions").is_dir() else root / "cirr"
    gallery = _gallery(annotations / "image_splits" / f"split.rc2.{split}.json", root, images)
    entries = read_records(annotations / "captions" / f"cap.rc2.{split}.json")
    queries = tuple(_query(entry) for entry in entries)
    truth = {
        query.query_id: Truth(frozenset({entry.text("target_hard")}))
        for query, entry in zip(queries, entries, strict=True)
        if split == "val"
    }
    if len({query.query_id for query in queries}) < len(queries):
        raise InputError(f"cap.rc2.{split}.json gives a pairid twice; expected one query for each")
    return Benchmark(
        name="cirr",
        split=split,
        parts=(EvaluationPart(split, queries, gallery, excludes_reference=True),),
        truth={split: truth} if truth else {},
        metrics=_METRICS,
        averages=(Average("(R@5 + Rsubset@1) / 2", ("R@5", "Rsubset@1")),),
        notes=(
            "The reference is left out of the answers.",
            "Rsubset ranks the five members of a query's image set that are not the reference, all of them "
            "scored directly by each stage.",
        ),
    )


def _query(entry: Annotation) -> EvaluationQuery:
    reference = entry.text("reference")
    members = entry.inner("img_set").texts("members")
    if len(set(members)) != _MEMBERS or reference not in members:
        raise InputError(
            f"{entry.place}: expected an image set of {_MEMBERS} with the reference {reference!r} in it, "
            f"found {', '.join(members)}"
        )
    return EvaluationQuery(
        query_id=str(entry.integer("pairid")),
        reference=GalleryImage(reference),
        modification_text=entry.text("caption"),
        subset=tuple(member for member in members if member != reference),
    )


def _gallery(path: Path, root: Path, images: Path | None) -> tuple[ImageRecord, ...]:
    paths = read_json(path)
    if not isinstance(paths, dict) or not paths or not all(isinstance(relative, str) for relative in paths.values()):
        raise InputError(f"{path}: expected an object that gives every image its path")
    folders = [images] if images is not None else [root, root / "images", root / "img_raw"]
    first = next(iter(paths.values()))
    folder = next((folder for folder in folders if (folder / first).is_file()), folders[0])
    return tuple(gallery_record(image_id, folder / relative) for image_id, relative in paths.items())
