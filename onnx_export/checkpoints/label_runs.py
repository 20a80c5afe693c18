"""Conversion of an evaluation run to a Top-K file, the candidate list of the original's stage two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from onnx_export.checkpoints.label_files import LabelFile
from onnx_export.errors import LabelFileError
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart
from qdrant_cir.evaluation.metrics import Answer
from qdrant_cir.evaluation.runs.rankings import QueryRecord, answer_reranked, answer_retrieved
from qdrant_cir.evaluation.runs.run_file import read_run

__all__ = ["Stage", "label_run"]

Stage: TypeAlias = Literal["one", "two"]
"""The order to write: stage one's, as in the original's files, or the final one."""

_ANSWERS: Mapping[Stage, Callable[[QueryRecord], Answer]] = {"one": answer_retrieved, "two": answer_reranked}


def label_run(run: Path, benchmark: Benchmark, *, depth: int | None = None, stage: Stage = "one") -> LabelFile:
    """Return a run as a Top-K file.

    Args:
        run: a run file of ``qdrant-cir evaluate``.
        benchmark: the data set of the run, with one right answer per query (FashionIQ, CIRR).
        depth: K; by default the number of places of the run.
        stage: whose order to write.

    Raises:
        EvaluationError: the run cannot be read.
        LabelFileError: it is of another data set, or has fewer than K places for a query.
    """
    header, records = read_run(run)
    part = next((part for part in benchmark.parts if part.name == header.part), None)
    if part is None or part.gallery is None or (header.benchmark, header.split) != (benchmark.name, benchmark.split):
        raise LabelFileError(
            f"{run} is of {header.benchmark} {header.split} {header.part}; the data set is {benchmark.name} "
            f"{benchmark.split}. Name the data set that was evaluated."
        )
    answers = {query_id: _ANSWERS[stage](record) for query_id, record in records.items()}
    k = header.limit if depth is None else depth
    _check_table(run, part, answers, k)
    names = np.array([answers[query.query_id].ranking[:k] for query in part.queries], dtype=np.str_)
    targets = tuple(_target_of(query.query_id, benchmark, part) for query in part.queries)
    return LabelFile(
        labels=names == np.array(targets)[:, None],
        names=names,
        target_names=targets,
        index_names=tuple(record.image_id for record in part.gallery),
        split="val" if benchmark.name == "fashioniq" else benchmark.split,
        category=part.name if benchmark.name == "fashioniq" else "",
        group_labels=_group_labels(part, answers, targets),
    )


def _check_table(run: Path, part: EvaluationPart, answers: Mapping[str, Answer], k: int) -> None:
    short = [q.query_id for q in part.queries if len(answers.get(q.query_id, Answer(())).ranking) < k]
    if k < 1 or short:
        place = f"query {short[0]!r} has {len(answers.get(short[0], Answer(())).ranking)}, and " if short else ""
        raise LabelFileError(
            f"A Top-{k} file needs {k} images for every one of {len(part.queries)} queries; in {run} {place}"
            f"{len(short)} have fewer. Give a smaller --depth, or complete the run."
        )


def _target_of(query_id: str, benchmark: Benchmark, part: EvaluationPart) -> str:
    truth = benchmark.truth_of(part).get(query_id)
    if truth is None or len(truth.targets) != 1:
        raise LabelFileError(
            f"Query {query_id!r} has {len(truth.targets) if truth else 0} right answers; the file holds exactly one "
            "for each. Only FashionIQ's and CIRR's validation splits have that."
        )
    return next(iter(truth.targets))


def _group_labels(
    part: EvaluationPart, answers: Mapping[str, Answer], targets: tuple[str, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Return where the target stands in every query's subset (CIRR): bool [Q, 5]; None without subsets."""
    subsets = [answers[query.query_id].subset_ranking for query in part.queries]
    if not all(subsets):
        return None
    return np.array([[name == target for name in names] for names, target in zip(subsets, targets, strict=True)])
