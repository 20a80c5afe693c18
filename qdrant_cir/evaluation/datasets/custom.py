"""Custom queries: one JSON object per line, over a folder of pictures or a collection that exists.

``{"reference": ..., "modification_text": ..., "targets": [...]}``, and if wanted ``query_id`` (else the line
number) and ``labels``, a list of kinds that are reported separately. Targets are image ids: the relative path in
a folder, or the id in the manifest or the collection. A reference is an image id, or the path of a file, relative
to the file of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_json_lines
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart, EvaluationQuery, Reference
from qdrant_cir.evaluation.metrics import AveragePrecision, Metric, Recall, Truth
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow, read_images
from qdrant_cir.types import GalleryImage

__all__ = ["METRICS", "QUERY_FILE", "gallery_of", "part_of", "read_custom"]

QUERY_FILE = "queries.jsonl"
METRICS: tuple[Metric, ...] = (Recall(1), Recall(5), Recall(10), Recall(50), Recall(100), AveragePrecision(10))
_MANIFESTS = ("gallery.csv", "gallery.jsonl", "gallery.parquet")


def read_custom(
    queries: Path, *, gallery: Path | None, excludes_reference: bool = False, name: str = "own"
) -> Benchmark:
    """Read custom queries.

    Args:
        queries: the JSONL file.
        gallery: folder or manifest of the pictures, read as ``qdrant-cir index`` does; None to search a
            collection that exists.
        excludes_reference: leave a query's own reference out of its answer.
        name: of the report.

    Raises:
        InputError: a file is missing, a line is not as described above, or a query id is given twice.
    """
    entries = read_json_lines(queries)
    records = None if gallery is None else gallery_of(gallery)
    part, truth = part_of(
        name,
        entries,
        gallery=records,
        folder=queries.parent,
        labels=[entry.texts("labels") if "labels" in entry.fields else () for entry in entries],
        excludes_reference=excludes_reference,
    )
    return Benchmark(
        name=name,
        split="queries",
        parts=(part,),
        truth={part.name: truth},
        metrics=METRICS,
        notes=protocol_notes(excludes_reference=excludes_reference),
    )


def protocol_notes(*, excludes_reference: bool) -> tuple[str, ...]:
    """Return the sentences about the protocol for the report."""
    return (
        "R@k counts a query as right where at least one of its targets is among the first k.",
        "The reference is left out of the answers." if excludes_reference else "The reference stays in the gallery.",
    )


def gallery_of(source: Path) -> tuple[ImageRecord, ...]:
    """List the pictures of a folder or manifest; a folder that holds a gallery manifest is read by it.

    Raises:
        InputError: as :func:`qdrant_cir.indexing.sources.read_images`, or a row names no picture.
    """
    manifests = [source / name for name in _MANIFESTS if (source / name).is_file()]
    records = list(read_images(manifests[0] if manifests else source))
    rejected = [record for record in records if isinstance(record, RejectedRow)]
    if rejected:
        raise InputError(
            f"{rejected[0].place}: {rejected[0].reason}. {len(rejected)} rows name no picture; correct or "
            "remove them, because the size of the gallery decides what a number means."
        )
    return tuple(record for record in records if isinstance(record, ImageRecord))


def part_of(
    name: str,
    entries: Sequence[Annotation],
    *,
    gallery: tuple[ImageRecord, ...] | None,
    folder: Path,
    labels: Sequence[tuple[str, ...]],
    excludes_reference: bool,
) -> tuple[EvaluationPart, dict[str, Truth]]:
    """Split the lines of a query file into queries and right answers.

    Raises:
        InputError: a line lacks a field, has no target, or repeats a query id.
    """
    known = None if gallery is None else {record.image_id for record in gallery}
    queries: list[EvaluationQuery] = []
    truth: dict[str, Truth] = {}
    for number, (entry, kinds) in enumerate(zip(entries, labels, strict=True), start=1):
        query_id = entry.text("query_id") if "query_id" in entry.fields else str(number)
        targets = frozenset(entry.texts("targets"))
        if not targets:
            raise InputError(f"{entry.place}: targets is empty; expected at least one image id")
        if query_id in truth:
            raise InputError(f"{entry.place}: the query id {query_id!r} was given before; ids must be unique")
        reference = _reference(entry.text("reference"), known, folder)
        queries.append(EvaluationQuery(query_id, reference, entry.text("modification_text"), kinds))
        truth[query_id] = Truth(targets)
    return EvaluationPart(name, tuple(queries), gallery, excludes_reference), truth


def _reference(given: str, known: set[str] | None, folder: Path) -> Reference:
    """Read a reference as an image of the gallery where there is one of this id, else as a file that exists."""
    if known is not None and given in known:
        return GalleryImage(given)
    path = folder / given
    return path if path.is_file() else GalleryImage(given)
