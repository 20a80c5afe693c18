"""Queries through the retriever, in batches, into a run file; nothing here is given a target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from qdrant_client import models

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, EvaluationQuery
from qdrant_cir.evaluation.runs.rankings import QueryRecord, check_query_ids, record_of
from qdrant_cir.evaluation.runs.run_file import RunHeader, append_records, open_run
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.points import point_id_of
from qdrant_cir.types import GalleryImage, Query, SearchResult

__all__ = ["DEFAULT_BATCH", "complete_run", "queries_sha256"]

DEFAULT_BATCH = 32
"""Queries that are answered between two writes of the run file."""


def complete_run(
    retriever: Retriever,
    queries: Sequence[EvaluationQuery],
    *,
    path: Path,
    header: RunHeader,
    batch: int = DEFAULT_BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, QueryRecord]:
    """Answer the queries that the run file does not answer yet.

    Args:
        retriever: over the part's gallery.
        queries: all that can be run; those that have an answer in the file are not run again.
        path: the run file; made where there is none.
        header: what the run is of.
        batch: queries that are searched together.
        progress: called with answers and queries after every batch.

    Returns:
        The answer to every query, in the order of ``queries``.

    Raises:
        EvaluationError: the file is of another run or damaged, or a score is not a number.
        CirError: as :meth:`Retriever.search_many`; what was answered before is in the file.
    """
    records = open_run(path, header)
    left = [query for query in queries if query.query_id not in records]
    for start in range(0, len(left), batch):
        answered = _answer(retriever, left[start : start + batch], header)
        append_records(path, answered)
        records.update((record.query_id, record) for record in answered)
        if progress is not None:
            progress(len(records), len(queries))
    check_query_ids(records, [query.query_id for query in queries])
    return {query.query_id: records[query.query_id] for query in queries}


def queries_sha256(part: EvaluationPart) -> str:
    """Return a digest of the queries, which a run file keeps to recognise them."""
    asked = [
        [
            query.query_id,
            query.reference.image_id if isinstance(query.reference, GalleryImage) else str(query.reference),
            query.modification_text,
            list(query.subset),
        ]
        for query in part.queries
    ]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def _answer(retriever: Retriever, queries: Sequence[EvaluationQuery], header: RunHeader) -> list[QueryRecord]:
    results = retriever.search_many(
        [_query(query) for query in queries],
        limit=header.limit,
        rerank_depth=header.rerank_depth,
        exclude_reference=header.excludes_reference,
    )
    records = []
    for query, result in zip(queries, results, strict=True):
        subset = _rank_subset(retriever, query, reranks=header.rerank_depth > 0) if query.subset else None
        for answer, depth in ((result, header.rerank_depth), (subset, len(query.subset))):
            if answer is not None:
                _check_reranked(query, answer, depth)
        records.append(record_of(query.query_id, result, subset))
    return records


def _rank_subset(retriever: Retriever, query: EvaluationQuery, *, reranks: bool) -> SearchResult:
    """Rank the subset alone, every image of it by both stages, wherever the gallery's ranking has them."""
    members = models.HasIdCondition(has_id=[point_id_of(image_id) for image_id in query.subset])
    return retriever.search(
        _query(query),
        limit=len(query.subset),
        rerank_depth=len(query.subset) if reranks else 0,
        filter=models.Filter(must=[members]),
    )


def _check_reranked(query: EvaluationQuery, result: SearchResult, depth: int) -> None:
    """Refuse an answer with candidates that stage two could not read: they are ranked last without a score."""
    unread = [
        candidate.image_id
        for candidate in result.candidates
        if candidate.retrieval_rank <= depth and candidate.rerank_score is None
    ]
    if result.rerank_mode != "none" and unread:
        raise EvaluationError(
            f"Query {query.query_id!r}: {len(unread)} candidates have no valid tokens "
            f"({', '.join(unread[:3])}), so re-ranking could not see them. Index these images again."
        )


def _query(query: EvaluationQuery) -> Query:
    return Query(reference=query.reference, modification_text=query.modification_text)
