"""The file that CIRCO's evaluation server takes, written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from qdrant_cir.errors import EvaluationError, InputError
from qdrant_cir.evaluation.datasets.annotation_files import read_json
from qdrant_cir.evaluation.metrics import Answer
from qdrant_cir.evaluation.runs.rankings import check_query_ids, check_ranking

__all__ = ["read_circo_submission", "write_circo_submission"]

_RANKING = 50


def write_circo_submission(
    answers: Mapping[str, Answer], query_ids: Sequence[str], path: Path, *, gallery: int
) -> None:
    """Write 50 COCO numbers per query, by query id.

    Args:
        answers: by query id.
        query_ids: all of the split.
        path: of the file; its folder is made where there is none.
        gallery: images that were searched; fewer than 50 give shorter rankings.

    Raises:
        EvaluationError: a query has no answer, or one that is too short.
    """
    check_query_ids(answers, query_ids)
    wanted = min(_RANKING, gallery)
    for query_id in query_ids:
        if len(answers[query_id].ranking) < wanted:
            raise EvaluationError(
                f"Query {query_id} has {len(answers[query_id].ranking)} images; a submission needs "
                f"{wanted}. Run it over the whole gallery."
            )
    numbers = {query_id: [int(image_id) for image_id in answers[query_id].ranking[:_RANKING]] for query_id in query_ids}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers), encoding="utf-8")


def read_circo_submission(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a submission: image ids, best first, by query id.

    Raises:
        InputError: the file is missing or not an object of lists of numbers.
        EvaluationError: a ranking names an image twice.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not all(
        isinstance(numbers, list) and all(type(number) is int for number in numbers) for numbers in value.values()
    ):
        raise InputError(f"{path}: expected an object that gives every query id a list of COCO numbers")
    rankings = {query_id: tuple(str(number) for number in numbers) for query_id, numbers in value.items()}
    for query_id, ranking in rankings.items():
        check_ranking(query_id, ranking)
    return rankings
