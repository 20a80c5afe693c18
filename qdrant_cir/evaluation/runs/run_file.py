"""Run files: a header, then one line per query, written as the queries are answered.

The same call completes a run that was interrupted. A run with another header is refused, and so is scoring an
incomplete one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.runs.rankings import QueryRecord, ScoredImage, StageScores, check_record
from qdrant_cir.types import JsonObject, JsonValue, Timings

__all__ = ["RunHeader", "append_records", "open_run", "read_run"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunHeader:
    """Everything that an answer depends on; two runs with equal headers may be joined.

    Attributes:
        benchmark: name of the data set.
        split: of it.
        part: of it.
        bundle: fingerprint of the model.
        limit: how many images a ranking holds.
        rerank_depth: how many of them stage two scored; 0 for none.
        excludes_reference: whether references were left out.
        queries: how many.
        queries_sha256: digest of the queries as they were asked.
        gallery: how many images.
        gallery_sha256: digest of their ids and contents; and the collection's name where it existed before.
        precision: what the re-ranker computed in.
    """

    benchmark: str
    split: str
    part: str
    bundle: str
    limit: int
    rerank_depth: int
    excludes_reference: bool
    queries: int
    queries_sha256: str
    gallery: int
    gallery_sha256: str
    precision: str = "float32"


def open_run(path: Path, header: RunHeader) -> dict[str, QueryRecord]:
    """Start a run, or read the answers that one with this header has so far.

    An incomplete last line is removed, so that the file can be continued.

    Raises:
        EvaluationError: the file is of another run, or damaged.
    """
    if not path.exists() or not _drop_torn_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_line({"format": _FORMAT, "run": asdict(header)}), encoding="utf-8")
        return {}
    found, records = read_run(path)
    if found != header:
        different = [
            f"{field.name} {getattr(found, field.name)!r} instead of {getattr(header, field.name)!r}"
            for field in fields(RunHeader)
            if getattr(found, field.name) != getattr(header, field.name)
        ]
        raise EvaluationError(
            f"{path} holds another run: {'; '.join(different)}. Its answers cannot be joined with these. "
            "Remove the file, or write to another folder."
        )
    return records


def append_records(path: Path, records: Iterable[QueryRecord]) -> None:
    """Add answers to a run; they are on the disk when it returns."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(_line(_record_json(record)))
        file.flush()
        os.fsync(file.fileno())


def read_run(path: Path) -> tuple[RunHeader, dict[str, QueryRecord]]:
    """Read a run as far as it goes.

    Raises:
        EvaluationError: it is missing or damaged, or answers a query twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"The run {path} cannot be read: {error}") from error
    if not lines:
        raise EvaluationError(f"The run {path} is empty; expected a header in the first line")
    header = _header_of(path, lines[0])
    records: dict[str, QueryRecord] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = _record_of(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise EvaluationError(
                f"{path} line {number} is not an answer to a query ({error}). Remove the line and complete the run."
            ) from error
        check_record(record)
        if record.query_id in records:
            raise EvaluationError(
                f"{path} line {number} answers the query {record.query_id!r} a second time; expected one "
                "line per query. Remove the file and run again."
            )
        records[record.query_id] = record
    return header, records


def _header_of(path: Path, line: str) -> RunHeader:
    try:
        value = json.loads(line)
        if value["format"] != _FORMAT:
            raise EvaluationError(
                f"{path} has the format {value['format']!r}; this version reads {_FORMAT}. Remove it and run again."
            )
        return RunHeader(**value["run"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise EvaluationError(
            f"{path} does not begin with a valid header ({error}). Remove it and run again."
        ) from error


def _drop_torn_line(path: Path) -> bool:
    """Cut off everything after the last line end; return whether anything is left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    return whole > 0


def _line(value: Mapping[str, JsonValue]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _record_json(record: QueryRecord) -> JsonObject:
    timings: JsonObject = dict(asdict(record.timings))
    return {
        "query_id": record.query_id,
        "gallery": _scores_json(record.gallery),
        "subset": None if record.subset is None else _scores_json(record.subset),
        "timings": timings,
        "notes": list(record.notes),
    }


def _scores_json(scores: StageScores) -> JsonObject:
    return {
        "retrieved": [[image.image_id, image.score] for image in scores.retrieved],
        "reranked": [[image.image_id, image.score] for image in scores.reranked],
    }


def _record_of(value: Mapping[str, object]) -> QueryRecord:
    subset, timings, notes = value["subset"], value["timings"], value["notes"]
    if not isinstance(timings, dict) or not isinstance(notes, list):
        raise ValueError("timings or notes are missing")
    return QueryRecord(
        query_id=str(value["query_id"]),
        gallery=_scores_of(value["gallery"]),
        subset=None if subset is None else _scores_of(subset),
        timings=Timings(**timings),
        notes=tuple(str(note) for note in notes),
    )


def _scores_of(value: object) -> StageScores:
    if not isinstance(value, dict):
        raise ValueError("scores are missing")
    return StageScores(
        retrieved=tuple(ScoredImage(str(image_id), float(score)) for image_id, score in value["retrieved"]),
        reranked=tuple(ScoredImage(str(image_id), float(score)) for image_id, score in value["reranked"]),
    )
