"""Queries and galleries of a data set, apart from the right answers.

An :class:`EvaluationPart` holds queries and a gallery without right answers, and is all that a run sees. The
:class:`Truth` of every query is in a separate mapping, which only scoring reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from qdrant_cir.evaluation.metrics import Metric, Truth
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.types import GalleryImage

__all__ = [
    "Average",
    "Benchmark",
    "EvaluationPart",
    "EvaluationQuery",
    "PartTruth",
    "Reference",
    "gallery_record",
]

Reference: TypeAlias = GalleryImage | Path
"""An image of the gallery, or a file that is not in it."""

PartTruth: TypeAlias = Mapping[str, Truth]
"""The right answers of a part, by query id; a query that is not in it cannot be judged."""


@dataclass(frozen=True, slots=True)
class EvaluationQuery:
    """One query as a system sees it.

    Attributes:
        query_id: unique in its part.
        reference: the reference image; None for a query by text alone.
        modification_text: what should be different; empty where the data set's is.
        labels: kinds of query that it belongs to, each reported separately.
        subset: image ids that both stages also rank among themselves (CIRR), in the data set's order; empty for
            other data sets.
    """

    query_id: str
    reference: Reference | None
    modification_text: str
    labels: tuple[str, ...] = ()
    subset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationPart:
    """Queries that share a gallery.

    Attributes:
        name: such as a FashionIQ category.
        queries: in the data set's order.
        gallery: every image that may be returned; None to search a collection that exists.
        excludes_reference: whether a query's own reference is left out of its answer.
    """

    name: str
    queries: tuple[EvaluationQuery, ...]
    gallery: tuple[ImageRecord, ...] | None
    excludes_reference: bool

    def references_of(self, query_ids: Sequence[str]) -> tuple[Reference | None, ...]:
        """Return the references of some queries, in the order asked."""
        references = {query.query_id: query.reference for query in self.queries}
        return tuple(references[query_id] for query_id in query_ids)


@dataclass(frozen=True, slots=True)
class Average:
    """A number that is the plain mean of several metrics, such as CIRR's (R@5 + Rsubset@1) / 2."""

    name: str
    metric_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A data set with its protocol.

    Attributes:
        name: the data set.
        split: which queries and galleries of it.
        parts: each with its own gallery. The benchmark's numbers are means over its queries in every part,
            then the unweighted mean over the parts.
        truth: right answers by part name; empty for a split whose answers are not published.
        metrics: what is computed for every judged query.
        averages: numbers made of those.
        notes: sentences about the protocol for the report.
    """

    name: str
    split: str
    parts: tuple[EvaluationPart, ...]
    truth: Mapping[str, PartTruth]
    metrics: tuple[Metric, ...]
    averages: tuple[Average, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """The number of places of a ranking that the metrics read."""
        return max(metric.depth for metric in self.metrics)

    def truth_of(self, part: EvaluationPart) -> PartTruth:
        """Return the right answers of a part; empty where they are not published."""
        return self.truth.get(part.name, MappingProxyType({}))


def gallery_record(image_id: str, path: Path) -> ImageRecord:
    """Return the record of an image in a file, without payload."""
    return ImageRecord(image_id=image_id, image=str(path), payload={}, source=str(path))
