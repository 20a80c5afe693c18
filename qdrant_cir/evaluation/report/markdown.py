"""The report as Markdown, for a reader."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_cir.evaluation.report.bootstrap import Interval
from qdrant_cir.evaluation.report.contents import EvaluationReport, MetricRow, PartReport
from qdrant_cir.model.bundle import ModelSizes

__all__ = ["sizes_text", "write_markdown"]

_NAMED = 20
"""Missing images and affected queries that are listed here; the JSON report lists all."""


def write_markdown(report: EvaluationReport) -> str:
    """Write the whole report; numbers are percentages with 95% intervals."""
    blocks = [f"# {report.benchmark} ({report.split})", _description(report)]
    if report.rows:
        several = len(report.parts) > 1
        if several:
            blocks += [f"## Mean of {len(report.parts)} parts", _rows_table(report.rows)]
            blocks += _ceiling(report.ceiling, report.run.rerank_depth)
        for part in report.parts:
            blocks += _part(part, report, heading=part.name if several else "Result")
    else:
        blocks.append("The answers of this split are not published, so nothing is scored here.")
    blocks += _controls(report)
    blocks += _missing(report.parts)
    blocks += ["## Latency", _latency_table(report)]
    blocks += ["## Protocol", "\n".join(f"* {note}" for note in report.notes)]
    return "\n\n".join(blocks) + "\n"


def _description(report: EvaluationReport) -> str:
    run = report.run
    precision = "" if run.precision == "float32" else f" in {run.precision}"
    stage_two = f"the best {run.rerank_depth} re-ranked{precision}" if run.rerank_depth else "stage one alone"
    model = f"Model {run.bundle_name} ({run.fingerprint[:12]}; {sizes_text(run.model_sizes)})"
    return (
        f"{model}, {stage_two}. qdrant-cir {run.version}, graphs on "
        f"{run.provider}, {run.machine}. Percentages; in brackets 95 % bootstrap intervals, queries of one "
        f"reference drawn together ({report.resamples} resamples, seed {report.seed})."
    )


def sizes_text(sizes: ModelSizes) -> str:
    """Write a model's sizes as a part of a sentence."""
    return (
        f"pictures of {sizes.image_size} pixels, vectors of {sizes.vector_size}, {sizes.stored_rows} stored tokens of "
        f"{sizes.stored_dims}, texts of {sizes.fusion_dims}"
    )


def _part(part: PartReport, report: EvaluationReport, *, heading: str) -> list[str]:
    blocks = [f"## {heading}", _denominator(part), _rows_table(part.rows)]
    blocks += _ceiling(part.ceiling, report.run.rerank_depth)
    if part.index_recall is not None:
        blocks.append(
            f"The index finds {part.index_recall:.1%} of the exactly nearest {report.run.rerank_depth} images."
        )
    if part.losses:
        rows = [
            (f"{loss.k}", f"{loss.found}", f"{loss.candidate_misses}", f"{loss.ordering_losses}")
            for loss in part.losses
        ]
        heads = ("within", "found", "lost by stage one (no candidate)", "lost by stage two (order)")
        blocks.append(_table(heads, rows))
    if part.slices:
        names = [row.name for row in part.slices[0].rows]
        kinds = ("queries of kind", "n", *names)
        lines = [(entry.label, f"{entry.queries}", *(_both(row) for row in entry.rows)) for entry in part.slices]
        blocks.append("By kind of query" + (", retrieved / re-ranked:" if report.run.rerank_depth else ", retrieved:"))
        blocks.append(_table(kinds, lines))
    return blocks


def _denominator(part: PartReport) -> str:
    scored = f"{part.scored} of {part.queries} queries are scored" if part.rows else f"{part.queries} queries"
    return f"{scored}, over {part.gallery} of {part.gallery_wanted} images."


def _rows_table(rows: Sequence[MetricRow]) -> str:
    reranks = rows[0].reranked is not None
    lost = any(row.retrieved_at_least != row.retrieved.value for row in rows)
    heads = ["", "retrieved"]
    heads += ["re-ranked", "gain"] if reranks else []
    heads += ["unscored queries as misses"] if lost else []
    lines = []
    for row in rows:
        line = [row.name, _interval(row.retrieved)]
        if row.reranked is not None and row.gain is not None:
            line += [_interval(row.reranked), _interval(row.gain, signed=True)]
        if lost:
            line.append(_least(row))
        lines.append(line)
    return _table(heads, lines)


def _least(row: MetricRow) -> str:
    first = f"{row.retrieved_at_least:.2f}"
    return first if row.reranked_at_least is None else f"{first} / {row.reranked_at_least:.2f}"


def _both(row: MetricRow) -> str:
    first = f"{row.retrieved.value:.2f}"
    return first if row.reranked is None else f"{first} / {row.reranked.value:.2f}"


def _ceiling(ceiling: Interval | None, rerank_depth: int) -> list[str]:
    if ceiling is None:
        return []
    return [
        f"Ceiling: {_interval(ceiling)} of the queries have a target among the {rerank_depth} candidates; "
        f"re-ranking cannot bring more to the first {rerank_depth} places."
    ]


def _controls(report: EvaluationReport) -> list[str]:
    if not report.controls:
        return []
    heads = ("stage one alone", *(figure.name for figure in report.controls[0].figures))
    lines = [(each.name, *(_interval(figure.interval) for figure in each.figures)) for each in report.controls]
    meaning = (
        "The same queries with one half taken away. image-only: the reference's own vector is searched and the "
        "reference left out of the answer. text-only: the text is composed with a blank picture."
    )
    return ["## Controls", _table(heads, lines), meaning]


def _missing(parts: Sequence[PartReport]) -> list[str]:
    blocks = []
    for part in parts:
        if part.missing:
            lines = [f"* {image.image_id}: {image.reason}" for image in part.missing[:_NAMED]]
            blocks += [
                f"## Missing images of {part.name}: {len(part.missing)}",
                "The rest was evaluated. A gallery with fewer distractors is an easier one: these numbers "
                "are not those of the whole data set.",
                "\n".join(lines + _more(len(part.missing))),
            ]
        if part.affected:
            lines = [f"* {query.query_id}: {query.reason}" for query in part.affected[:_NAMED]]
            blocks += [
                f"### Queries of {part.name} that are not scored: {len(part.affected)} of {part.queries}",
                "\n".join(lines + _more(len(part.affected))),
            ]
    return blocks


def _more(count: int) -> list[str]:
    return [f"* and {count - _NAMED} more, all of them in report.json"] if count > _NAMED else []


def _latency_table(report: EvaluationReport) -> str:
    lines = [(step.step, f"{step.mean_ms:.2f}", f"{step.p50_ms:.2f}", f"{step.p95_ms:.2f}") for step in report.latency]
    return _table(("ms per query", "mean", "median", "95th percentile"), lines)


def _interval(interval: Interval, *, signed: bool = False) -> str:
    value = f"{interval.value:+.2f}" if signed else f"{interval.value:.2f}"
    return f"{value} [{interval.low:.2f}, {interval.high:.2f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:" for _ in heads[1:]]], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
