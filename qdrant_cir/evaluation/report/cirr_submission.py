"""The two files that CIRR's evaluation server takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.metrics import Answer
from qdrant_cir.evaluation.runs.rankings import check_query_ids

__all__ = ["write_cirr_submission"]

_VERSION = "rc2"
_RANKING = 50
_SUBSET = 3


def write_cirr_submission(
    answers: Mapping[str, Answer], query_ids: tuple[str, ...], folder: Path, *, gallery: int
) -> tuple[Path, Path]:
    """Write ``recall.json``, 50 names per pair, and ``recall_subset.json``, 3 names per pair.

    Args:
        answers: by pair id, without the reference.
        query_ids: all pair ids of the split.
        folder: made where there is none.
        gallery: images of the split; fewer than 51 give shorter rankings.

    Returns:
        Both paths, in this order.

    Raises:
        EvaluationError: a pair has no answer, or one that is too short: the server would refuse it.
    """
    check_query_ids(answers, query_ids)
    wanted = min(_RANKING, gallery - 1)
    for query_id in query_ids:
        lengths = (len(answers[query_id].ranking), len(answers[query_id].subset_ranking))
        if lengths[0] < wanted or lengths[1] < _SUBSET:
            raise EvaluationError(
                f"Pair {query_id} has {lengths[0]} names and {lengths[1]} of its subset; a submission needs "
                f"{wanted} and {_SUBSET}. Run all queries over the whole gallery."
            )
    folder.mkdir(parents=True, exist_ok=True)
    written = (
        (
            folder / "recall.json",
            "recall",
            {query_id: answers[query_id].ranking[:_RANKING] for query_id in query_ids},
        ),
        (
            folder / "recall_subset.json",
            "recall_subset",
            {query_id: answers[query_id].subset_ranking[:_SUBSET] for query_id in query_ids},
        ),
    )
    for path, metric, names in written:
        path.write_text(json.dumps({"version": _VERSION, "metric": metric, **names}), encoding="utf-8")
    return written[0][0], written[1][0]
