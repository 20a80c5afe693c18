"""Is a data set hard and fair? What stage one must reach, must not reach, and cannot do with half of a query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdrant_cir.evaluation.datasets.benchmark import Bar, EvaluationPart
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of, number_clusters
from qdrant_cir.evaluation.report.contents import CredibilityLine, Figure, MetricRow
from qdrant_cir.evaluation.runs.floors import FLOORS, FloorScores
from qdrant_cir.evaluation.runs.scoring import QueryScores

__all__ = ["FLOOR_BAR", "judge_credibility"]

FLOOR_BAR = Bar("R@1", most=20.0)
"""What queries with one half taken away may reach. By the picture alone the target is one of about six that are one
attribute away from the reference, so that chance is one in six."""


def judge_credibility(
    bars: Sequence[Bar],
    rows: Sequence[MetricRow],
    floors: Sequence[tuple[EvaluationPart, Sequence[FloorScores]]],
    *,
    resamples: int,
    seed: int,
) -> tuple[CredibilityLine, ...]:
    """Hold stage one against the bars, and the floors against theirs.

    Args:
        bars: of the benchmark.
        rows: its numbers over all parts.
        floors: per part; empty where they were not run.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    values = {row.name: row.retrieved for row in rows}
    lines = [_line("stage one", [Figure(bar.metric_name, values[bar.metric_name])], bar) for bar in bars]
    for place, floor in enumerate(FLOORS):
        scores = [(part, found[place].scores) for part, found in floors if found]
        if scores:
            lines.append(_line(floor, _figures(scores, resamples, seed), FLOOR_BAR))
    return tuple(lines)


def _line(subject: str, figures: Sequence[Figure], bar: Bar) -> CredibilityLine:
    value = next(figure.interval.value for figure in figures if figure.name == bar.metric_name)
    return CredibilityLine(subject, tuple(figures), str(bar), bar.admits(value))


def _figures(scores: Sequence[tuple[EvaluationPart, QueryScores]], resamples: int, seed: int) -> list[Figure]:
    tables = [found.values for _, found in scores]
    clusters = [number_clusters(part.references_of(found.query_ids)) for part, found in scores]
    means = 100 * np.mean([table.mean(axis=0) for table in tables], axis=0)
    draws = 100 * bootstrap_means(tables, clusters, resamples=resamples, seed=seed)
    intervals: list[Interval] = [interval_of(float(mean), draws[:, column]) for column, mean in enumerate(means)]
    return [Figure(name, interval) for name, interval in zip(scores[0][1].metric_names, intervals, strict=True)]
