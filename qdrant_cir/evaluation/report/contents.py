"""The report of an evaluation: both stages side by side, their ceiling, and what is missing.

All numbers are percentages. All intervals are 95% bootstrap intervals, in which queries of one reference are drawn
together.
"""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_cir.evaluation.report.affected import AffectedQuery
from qdrant_cir.evaluation.report.bootstrap import Interval
from qdrant_cir.evaluation.report.latency import StepLatency
from qdrant_cir.evaluation.report.losses import Losses
from qdrant_cir.indexing.report import FailedImage
from qdrant_cir.model.bundle import ModelSizes

__all__ = [
    "ControlReport",
    "EvaluationReport",
    "Figure",
    "MetricRow",
    "PartReport",
    "RunDescription",
    "SliceReport",
]


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What was evaluated, and where.

    Attributes:
        version: of this library.
        bundle_name: of the model.
        fingerprint: of the model.
        model_sizes: of the model.
        rerank_depth: candidates that stage two scored; 0 for stage one alone.
        precision: what stage two computed in.
        provider: where the graphs ran.
        machine: processor, cores and system.
    """

    version: str
    bundle_name: str
    fingerprint: str
    model_sizes: ModelSizes
    rerank_depth: int
    precision: str
    provider: str
    machine: str


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric.

    Attributes:
        name: as papers print it.
        retrieved: stage one.
        reranked: after stage two; None where it did not run.
        gain: reranked minus retrieved, paired by query; None likewise.
        retrieved_at_least: stage one with every query that could not be scored counted as a miss; equal to
            the value where there is none.
        reranked_at_least: likewise after stage two.
    """

    name: str
    retrieved: Interval
    reranked: Interval | None
    gain: Interval | None
    retrieved_at_least: float
    reranked_at_least: float | None


@dataclass(frozen=True, slots=True)
class SliceReport:
    """The queries of one label."""

    label: str
    queries: int
    rows: tuple[MetricRow, ...]


@dataclass(frozen=True, slots=True)
class PartReport:
    """One part.

    Attributes:
        name: of the part.
        gallery: images that were searched.
        gallery_wanted: images that the data set asks for.
        missing: those that could not be read, and why.
        queries: of the data set.
        scored: queries that the numbers are means over; 0 where answers are not published.
        affected: the other queries.
        rows: one per metric and average; empty where answers are not published.
        ceiling: recall of stage one at the re-rank depth, which stage two cannot exceed; None where it did
            not run.
        losses: what became of the scored queries, per cut-off of a recall; empty where stage two did not run.
        slices: by label, sorted.
        index_recall: how many of the exactly nearest images the index finds at the re-rank depth, as a share; None
            where that was not looked at.
    """

    name: str
    gallery: int
    gallery_wanted: int
    missing: tuple[FailedImage, ...]
    queries: int
    scored: int
    affected: tuple[AffectedQuery, ...]
    rows: tuple[MetricRow, ...]
    ceiling: Interval | None
    losses: tuple[Losses, ...]
    slices: tuple[SliceReport, ...]
    index_recall: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A number by its metric's name."""

    name: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class ControlReport:
    """What stage one finds with half of every query.

    Attributes:
        name: ``image-only`` or ``text-only``.
        figures: one per metric that reads the gallery's ranking.
    """

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The whole evaluation.

    Attributes:
        benchmark: name of the data set.
        split: of it.
        run: what was evaluated.
        rows: means over the parts without weights; empty where answers are not published.
        ceiling: likewise.
        parts: in the data set's order.
        latency: seconds per step and query, over all parts.
        notes: about the protocol, and the retriever's notes on queries.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        controls: of the same queries; empty where they were not run.
    """

    benchmark: str
    split: str
    run: RunDescription
    rows: tuple[MetricRow, ...]
    ceiling: Interval | None
    parts: tuple[PartReport, ...]
    latency: tuple[StepLatency, ...]
    notes: tuple[str, ...]
    resamples: int
    seed: int
    controls: tuple[ControlReport, ...]
