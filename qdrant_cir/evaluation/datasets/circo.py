"""CIRCO: queries over the unlabeled images of COCO 2017 with several right answers each.

Layout as published: ``annotations/SPLIT.json`` and ``COCO2017_unlabeled/unlabeled2017/000000000000.jpg``.
The gallery is what ``COCO2017_unlabeled/annotations/image_info_unlabeled2017.json`` lists; without that
file, the folder's pictures. The reference stays in the gallery. Image ids are COCO's numbers without leading
zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_json, read_records
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart, EvaluationQuery, gallery_record
from qdrant_cir.evaluation.metrics import AveragePrecision, Recall, Truth
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.types import GalleryImage

__all__ = ["CircoSplit", "read_circo", "read_circo_queries", "read_circo_truth"]

CircoSplit: TypeAlias = Literal["val", "test"]
"""``val`` has published answers; ``test`` is scored by the authors' server."""

GALLERY_SIZE = 123_403
"""Pictures of the published gallery."""

METRICS = tuple(AveragePrecision(k) for k in (5, 10, 25, 50)) + tuple(Recall(k, of="single") for k in (5, 10, 25, 50))


def read_circo(root: Path, *, split: CircoSplit = "val", images: Path | None = None) -> Benchmark:
    """Read the queries and the gallery of a split.

    Args:
        root: holds ``annotations`` and ``COCO2017_unlabeled``.
        split: ``val`` or ``test``.
        images: folder of the pictures; by default ``root/COCO2017_unlabeled/unlabeled2017``.

    Raises:
        InputError: a file is missing or not as published.
    """
    coco = root / "COCO2017_unlabeled"
    folder = images if images is not None else coco / "unlabeled2017"
    entries = read_records(root / "annotations" / f"{split}.json")
    gallery = _gallery(coco / "annotations" / "image_info_unlabeled2017.json", folder)
    part = EvaluationPart(name=split, queries=read_circo_queries(entries), gallery=gallery, excludes_reference=False)
    missing = GALLERY_SIZE - len(gallery)
    return Benchmark(
        name="circo",
        split=split,
        parts=(part,),
        truth={split: read_circo_truth(entries)} if split == "val" else {},
        metrics=METRICS,
        notes=(
            "mAP counts every right answer, over min(right answers, k); recall counts the single target "
            "that the text was written for.",
            "The reference stays in the gallery.",
            *([_lack(missing)] if missing > 0 else []),
        ),
    )


def _lack(missing: int) -> str:
    return (
        f"The gallery lacks {missing:,} of the {GALLERY_SIZE:,} published pictures: these figures are higher than over "
        "all of them, and cannot be compared with published ones."
    )


def read_circo_queries(entries: list[Annotation]) -> tuple[EvaluationQuery, ...]:
    """Return the queries of an annotation file, their semantic aspects as labels. Raises InputError."""
    return tuple(
        EvaluationQuery(
            query_id=str(entry.integer("id")),
            reference=GalleryImage(str(entry.integer("reference_img_id"))),
            modification_text=entry.text("relative_caption"),
            labels=entry.texts("semantic_aspects") if "semantic_aspects" in entry.fields else (),
        )
        for entry in entries
    )


def read_circo_truth(entries: list[Annotation]) -> dict[str, Truth]:
    """Return the right answers of an annotation file. Raises InputError."""
    truth: dict[str, Truth] = {}
    for entry in entries:
        query_id, single = str(entry.integer("id")), str(entry.integer("target_img_id"))
        targets = frozenset(str(image_id) for image_id in entry.integers("gt_img_ids"))
        if single not in targets:
            raise InputError(f"{entry.place}: the target {single} is not among gt_img_ids")
        if query_id in truth:
            raise InputError(f"{entry.place}: the id {query_id} was given before; expected one query for each")
        truth[query_id] = Truth(targets, single)
    return truth


def _gallery(info: Path, folder: Path) -> tuple[ImageRecord, ...]:
    if info.is_file():
        listed = read_json(info)
        if not isinstance(listed, dict) or not isinstance(listed.get("images"), list):
            raise InputError(f"{info}: expected COCO's object with a list of images")
        images = [Annotation(f"{info.name}, image {n}", item) for n, item in enumerate(listed["images"])]
        return tuple(gallery_record(str(image.integer("id")), folder / image.text("file_name")) for image in images)
    found = sorted(path for path in folder.glob("*.jpg") if path.stem.isdigit())
    if not found:
        raise InputError(
            f"There is no {info} and no picture named by a COCO number in {folder}. Put COCO's "
            "unlabeled2017 images there, or name their folder."
        )
    return tuple(gallery_record(str(int(path.stem)), path) for path in found)
