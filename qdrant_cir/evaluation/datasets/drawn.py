"""The drawn product catalogue: queries of one's own, with every kind of edit reported apart.

It is judged itself: a model that has learnt anything finds the family of near-duplicates (R@100), and no single
vector should choose well inside it (R@1), nor half of a query.
"""

from __future__ import annotations

from pathlib import Path

from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_json_lines
from qdrant_cir.evaluation.datasets.benchmark import Bar, Benchmark
from qdrant_cir.evaluation.datasets.custom import METRICS, QUERY_FILE, gallery_of, part_of, protocol_notes

__all__ = ["BARS", "read_catalog"]

BARS = (Bar("R@100", least=97.0), Bar("R@1", most=70.0))
"""What stage one must reach, as a ceiling of stage two, and must not exceed, for there to be something to gain."""


def read_catalog(root: Path, *, excludes_reference: bool = False) -> Benchmark:
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
        bars=BARS,
    )


def _labels(entry: Annotation) -> tuple[str, ...]:
    """Give the kind of edit, and whether training shows products of this family, colour and pattern."""
    kind = entry.text("kind")
    return (kind, f"{entry.text('combination')} combination") if "combination" in entry.fields else (kind,)
