"""The report from the results of all parts: means over queries, then over parts, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.evaluation.datasets.benchmark import Average, Benchmark
from qdrant_cir.evaluation.metrics import Recall
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of, number_clusters
from qdrant_cir.evaluation.report.contents import (
    ControlReport,
    EvaluationReport,
    Figure,
    MetricRow,
    PartReport,
    RunDescription,
    SliceReport,
)
from qdrant_cir.evaluation.report.latency import summarize_latency
from qdrant_cir.evaluation.report.losses import count_losses
from qdrant_cir.evaluation.report.part_result import PartResult
from qdrant_cir.evaluation.runs.scoring import QueryScores

__all__ = ["build_report"]

RESAMPLES = 1000
SEED = 0


def build_report(
    benchmark: Benchmark,
    results: Sequence[PartResult],
    run: RunDescription,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> EvaluationReport:
    """Sum up the results of all parts.

    Args:
        benchmark: what was asked.
        results: one per part.
        run: what answered.
        resamples: of the bootstrap.
        seed: of the bootstrap; equal seeds give equal intervals.
    """
    tables = [_table(result, benchmark.averages) for result in results if result.retrieved is not None]
    bootstrap = _Bootstrap(resamples, seed)
    overall = bootstrap.summarize(tables) if tables else _Summary((), None)
    records = [record for result in results for record in result.records.values()]
    said = Counter(note for record in records for note in record.notes)
    return EvaluationReport(
        benchmark=benchmark.name,
        split=benchmark.split,
        run=run,
        rows=overall.rows,
        ceiling=overall.ceiling,
        parts=tuple(_part_report(benchmark, result, bootstrap) for result in results),
        latency=summarize_latency([record.timings for record in records]),
        notes=(
            *benchmark.notes,
            *(f"{count} queries: {note}" for note, count in sorted(said.items())),
        ),
        resamples=resamples,
        seed=seed,
        controls=tuple(_control_report(place, results, bootstrap) for place in range(len(results[0].controls))),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Scores of Q queries, from 0 to 1, in columns: stage one's metrics, the final ones', the ceiling.

    ``clusters``, int64 [Q], tells which of them share a reference. ``share`` is Q over all of the part's queries,
    those included that could not be scored.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    clusters: NDArray[np.int64]
    reranks: bool
    share: float


@dataclass(frozen=True, slots=True)
class _Summary:
    rows: tuple[MetricRow, ...]
    ceiling: Interval | None


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    resamples: int
    seed: int

    def draw(self, values: Sequence[NDArray[np.float64]], clusters: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Draw means of the columns of every part's [Q, M], in percent: float64 [resamples, M]."""
        return 100 * bootstrap_means(values, clusters, resamples=self.resamples, seed=self.seed)

    def summarize(self, tables: Sequence[_Table]) -> _Summary:
        """Average tables of equal columns without weights, with intervals."""
        names, reranks = tables[0].names, tables[0].reranks
        means = 100 * np.mean([table.values.mean(axis=0) for table in tables], axis=0)
        least = 100 * np.mean([table.values.mean(axis=0) * table.share for table in tables], axis=0)
        values, clusters = [table.values for table in tables], [table.clusters for table in tables]
        draws = self.draw(values, clusters)
        rows = []
        for first, name in enumerate(names):
            last = first + len(names)
            gain = float(means[last] - means[first])
            rows.append(
                MetricRow(
                    name=name,
                    retrieved=interval_of(float(means[first]), draws[:, first]),
                    reranked=interval_of(float(means[last]), draws[:, last]) if reranks else None,
                    gain=interval_of(gain, draws[:, last] - draws[:, first]) if reranks else None,
                    retrieved_at_least=float(least[first]),
                    reranked_at_least=float(least[last]) if reranks else None,
                )
            )
        ceiling = interval_of(float(means[-1]), draws[:, -1]) if reranks else None
        return _Summary(tuple(rows), ceiling)


def _table(result: PartResult, averages: Sequence[Average], rows: Sequence[int] | None = None) -> _Table:
    """Put a part's scores into columns; ``rows`` chooses queries, all by default."""
    if result.retrieved is None or result.final is None:
        raise ValueError("a part without published answers has no scores")
    columns = [_with_averages(result.retrieved, averages), _with_averages(result.final, averages)]
    if result.ceiling is not None:
        columns.append(result.ceiling.values)
    values = np.hstack(columns)
    clusters = number_clusters(result.part.references_of(result.retrieved.query_ids))
    asked = len(result.part.queries)
    return _Table(
        names=(*result.retrieved.metric_names, *(average.name for average in averages)),
        values=values if rows is None else values[list(rows)],
        clusters=clusters if rows is None else clusters[list(rows)],
        reranks=result.ceiling is not None,
        share=len(values) / asked if rows is None else 1.0,
    )


def _with_averages(scores: QueryScores, averages: Sequence[Average]) -> NDArray[np.float64]:
    """Add a column per average. The mean of metrics' means is the mean over queries of metrics' mean."""
    extra = [
        scores.values[:, [scores.metric_names.index(name) for name in average.metric_names]].mean(axis=1)
        for average in averages
    ]
    return np.column_stack([scores.values, *extra])


def _part_report(benchmark: Benchmark, result: PartResult, bootstrap: _Bootstrap) -> PartReport:
    summary, slices = _Summary((), None), tuple[SliceReport, ...]()
    if result.retrieved is not None:
        summary = bootstrap.summarize([_table(result, benchmark.averages)])
        slices = _slices(benchmark, result, result.retrieved, bootstrap)
    cut_offs = [metric.k for metric in benchmark.metrics if isinstance(metric, Recall) and metric.of != "subset"]
    return PartReport(
        name=result.part.name,
        gallery=result.gallery.size,
        gallery_wanted=result.gallery.wanted,
        missing=result.gallery.missing,
        queries=len(result.part.queries),
        scored=len(result.places),
        affected=result.affected,
        rows=summary.rows,
        ceiling=summary.ceiling,
        losses=tuple(
            count_losses(result.places, k=k, rerank_depth=result.rerank_depth)
            for k in cut_offs
            if result.ceiling is not None
        ),
        slices=slices,
        index_recall=result.gallery.index_recall,
    )


def _slices(
    benchmark: Benchmark, result: PartResult, scores: QueryScores, bootstrap: _Bootstrap
) -> tuple[SliceReport, ...]:
    row_of = {query_id: row for row, query_id in enumerate(scores.query_ids)}
    rows: dict[str, list[int]] = {}
    for query in result.part.queries:
        for label in query.labels:
            if query.query_id in row_of:
                rows.setdefault(label, []).append(row_of[query.query_id])
    return tuple(
        SliceReport(
            label,
            len(rows[label]),
            bootstrap.summarize([_table(result, benchmark.averages, rows[label])]).rows,
        )
        for label in sorted(rows)
    )


def _control_report(place: int, results: Sequence[PartResult], bootstrap: _Bootstrap) -> ControlReport:
    """Average one control over the parts, as the metrics themselves."""
    found = [result.controls[place] for result in results]
    scores = [control.scores for control in found]
    clusters = [
        number_clusters(result.part.references_of(of_part.query_ids))
        for result, of_part in zip(results, scores, strict=True)
    ]
    means = 100 * np.mean([of_part.values.mean(axis=0) for of_part in scores], axis=0)
    draws = bootstrap.draw([of_part.values for of_part in scores], clusters)
    names = scores[0].metric_names
    figures = [Figure(name, interval_of(float(means[column]), draws[:, column])) for column, name in enumerate(names)]
    return ControlReport(found[0].control, tuple(figures))
