"""The files that an evaluation leaves: report, queries, plot, submissions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from qdrant_cir.evaluation.datasets.benchmark import Benchmark
from qdrant_cir.evaluation.report.circo_submission import write_circo_submission
from qdrant_cir.evaluation.report.cirr_submission import write_cirr_submission
from qdrant_cir.evaluation.report.contents import EvaluationReport, MetricRow
from qdrant_cir.evaluation.report.markdown import write_markdown
from qdrant_cir.evaluation.report.part_result import PartResult
from qdrant_cir.evaluation.report.rank_change_plot import draw_rank_changes
from qdrant_cir.evaluation.runs.rankings import answer_reranked
from qdrant_cir.types import GalleryImage, JsonObject, JsonValue

__all__ = ["report_json", "write_report"]


def report_json(report: EvaluationReport) -> JsonObject:
    """Return the report as JSON; its numbers are percentages, as ``unit`` states.

    ``stage_one`` and ``stage_two`` hold the numbers by name (``recall@10``, ``map@10``), and so does every entry of
    ``slices``; ``stage_two`` is null where it did not run.
    """
    slices: list[JsonValue] = [
        {"part": part.name, "label": entry.label, "queries": entry.queries, **_stages(entry.rows)}
        for part in report.parts
        for entry in part.slices
    ]
    return {"unit": "percent", **_stages(report.rows), "slices": slices, **asdict(report)}


def _stages(rows: Sequence[MetricRow]) -> JsonObject:
    """Return the numbers of both stages by name."""
    stage_one: JsonObject = {_json_name(row.name): asdict(row.retrieved) for row in rows}
    stage_two: JsonObject = {_json_name(row.name): asdict(row.reranked) for row in rows if row.reranked is not None}
    return {"stage_one": stage_one, "stage_two": stage_two or None}


def _json_name(name: str) -> str:
    """Write out what papers shorten: ``R@10`` is ``recall@10``, ``mAP@10`` is ``map@10``."""
    return name.replace("Rsubset@", "recall_subset@").replace("R@", "recall@").replace("mAP@", "map@")


def write_report(
    benchmark: Benchmark, results: Sequence[PartResult], report: EvaluationReport, folder: Path
) -> list[Path]:
    """Write the files and return their paths.

    ``report.md`` and ``report.json``; ``queries.jsonl`` with every query's places and scores;
    ``rank_change_PART.png`` where stage two ran; ``submission/`` for CIRR and CIRCO where every query has
    its answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.md", folder / "report.json", folder / "queries.jsonl"]
    paths[0].write_text(write_markdown(report), encoding="utf-8")
    paths[1].write_text(json.dumps(report_json(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with paths[2].open("w", encoding="utf-8") as file:
        for result in results:
            for line in _query_lines(result):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    for result in results:
        if result.ceiling is not None:
            paths.append(folder / f"rank_change_{result.part.name}.png")
            title = f"{benchmark.name} {result.part.name}: re-ranking {result.rerank_depth} candidates"
            draw_rank_changes(result.places, rerank_depth=result.rerank_depth, title=title).save(paths[-1])
    return paths + _write_submissions(benchmark, results, folder / "submission")


def _write_submissions(benchmark: Benchmark, results: Sequence[PartResult], folder: Path) -> list[Path]:
    if benchmark.name not in {"cirr", "circo"}:
        return []
    (result,) = results
    if result.affected:
        return []
    answers = {query_id: answer_reranked(record) for query_id, record in result.records.items()}
    query_ids = tuple(query.query_id for query in result.part.queries)
    if benchmark.name == "cirr":
        return [*write_cirr_submission(answers, query_ids, folder, gallery=result.gallery.size)]
    path = folder / f"submission_{benchmark.split}.json"
    write_circo_submission(answers, query_ids, path, gallery=result.gallery.size)
    return [path]


def _query_lines(result: PartResult) -> Iterator[JsonObject]:
    """Return one object per query with its target's places and its scores, or the reason why it has none."""
    places = {place.query_id: place for place in result.places}
    reasons = {query.query_id: query.reason for query in result.affected}
    row_of = {query_id: row for row, query_id in enumerate(places)}
    for query in result.part.queries:
        reference = query.reference
        place = places.get(query.query_id)
        line: JsonObject = {
            "part": result.part.name,
            "query_id": query.query_id,
            "reference": str(reference.image_id) if isinstance(reference, GalleryImage) else str(reference),
            "modification_text": query.modification_text,
            "labels": list(query.labels),
            "not_scored_because": reasons.get(query.query_id),
            "target_place_retrieved": None if place is None else place.retrieved,
            "target_place_final": None if place is None else place.final,
        }
        for stage, scores in (("retrieved", result.retrieved), ("final", result.final)):
            if place is not None and scores is not None:
                row = scores.values[row_of[query.query_id]]
                line[stage] = dict(zip(scores.metric_names, map(float, row), strict=True))
        yield line
