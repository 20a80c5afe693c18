"""The drawn product catalogue, read like custom queries, with every kind of edit reported apart."""

from __future__ import annotations

from pathlib import Path

from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_json_lines
from qdrant_cir.evaluation.datasets.benchmark import Benchmark
from qdrant_cir.evaluation.datasets.custom import METRICS, QUERY_FILE, gallery_of, part_of, protocol_notes

__all__ = ["read_drawn"]


def read_drawn(root: Path, *, excludes_reference: bool = False) -> Benchmark:
    """Read a catalogue as ``qdrant-cir catalog`` writes it.

    Args:
        root: holds ``gallery.csv``, ``queries.jsonl`` and the pictures.
        excludes_reference: leave a query's own reference out of its answer.

    Raises:
        InputError: a file is missing or not as written.
    """
    entries = read_json_lines(root / QUERY_FILE)
    part, truth = part_of(
        "catalog",
        entries,
        gallery=gallery_of(root),
        folder=root,
        labels=[_labels(entry) for entry in entries],
        excludes_reference=excludes_reference,
    )
    return Benchmark(
        name="catalog",
        split="queries",
        parts=(part,),
        truth={part.name: truth},
        metrics=METRICS,
        notes=protocol_notes(excludes_reference=excludes_reference),
    )


def _labels(entry: Annotation) -> tuple[str, ...]:
    """Return the kind of edit, and whether training shows products of this family, colour and pattern."""
    kind = entry.text("kind")
    return (kind, f"{entry.text('combination')} combination") if "combination" in entry.fields else (kind,)
