"""Queries per second: one search at a time, and `search_many`, in one process and one run.

    .venv/bin/qdrant-cir demo && .venv/bin/python -m benchmarks.throughput --demo demo

Asks the queries of the demonstration's catalogue with pictures as references, at K=50, in turn in four ways:
`search` and `search_many` as they are, and both with the two threads inside every matrix of the re-ranker instead
of on candidates of their own, one query after the other. Prints medians of wall clock and processor time, paired
ratios to the last way, and the largest difference of a score between `search` and `search_many`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.machine import LoadMeter, describe_machine, median_ratio
from qdrant_cir.model.bundle import Bundle, load_bundle, packaged_bundle_path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.search.scoring import CandidateScorer, SharedReranker
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import Query, SearchResult


class SharedMatrixScorer(CandidateScorer):
    """All threads inside each matrix, candidates one chunk after the other."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        super().__init__(bundle, Compute(threads=1))
        self._reranker = SharedReranker(Reranker.open(bundle, Compute(threads=threads)), threads=1)


class SharedMatrixModel(QueryModel):
    """A model with that scorer."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        super().__init__(bundle, Compute(threads=threads))
        self._scorer = SharedMatrixScorer(bundle, threads=threads)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `qdrant-cir demo`")
    parser.add_argument("--bundle", type=Path, default=packaged_bundle_path("drawn"))
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("-K", "--rerank-depth", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=available_threads())
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    queries = read_queries(arguments.demo / "catalog", arguments.queries)
    depth = arguments.rerank_depth
    with EdgeStore(arguments.demo / "store") as store:
        collection = Collection.open(store, "catalog", bundle)
        now = Retriever(collection, QueryModel(bundle, Compute(threads=arguments.threads)))
        before = Retriever(collection, SharedMatrixModel(bundle, threads=arguments.threads))
        variants: dict[str, Callable[[], list[SearchResult]]] = {
            "search_many": lambda: now.search_many(queries, rerank_depth=depth),
            "search": lambda: [now.search(query, rerank_depth=depth) for query in queries],
            "shared matrices, search_many": lambda: before.search_many(queries, rerank_depth=depth),
            "shared matrices, search": lambda: [before.search(query, rerank_depth=depth) for query in queries],
        }
        difference = largest_difference(variants["search_many"](), variants["search"]())
        for warm_up in variants.values():
            warm_up()
        print(describe_machine(arguments.threads, packages=("onnxruntime", "qdrant-edge-py")))
        print(f"{len(queries)} queries, K={depth}, {arguments.rounds} rounds")
        load = LoadMeter()
        report(variants, measure(variants, arguments.rounds), queries=len(queries))
        print(f"search_many and search: same order, scores differ by at most {difference:g}")
        print(f"other processes kept {load.cores_taken():.1f} cores busy")


def read_queries(catalog: Path, count: int) -> list[Query]:
    """Return the catalogue's queries with their pictures, starting again from the first where there are too few."""
    lines = (catalog / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(lines[place % len(lines)]) for place in range(count)]
    return [Query(catalog / "images" / f"{row['reference']}.jpg", row["modification_text"]) for row in rows]


def measure(
    variants: dict[str, Callable[[], list[SearchResult]]], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Run variants in turn, each round in the other direction; seconds of wall clock and of processor."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in variants}
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            wall, processor = time.perf_counter(), time.process_time()
            variants[name]()
            seconds[name][0].append(time.perf_counter() - wall)
            seconds[name][1].append(time.process_time() - processor)
    return seconds


def report(
    variants: dict[str, Callable[[], list[SearchResult]]],
    seconds: dict[str, tuple[list[float], list[float]]],
    *,
    queries: int,
) -> None:
    """Print a line per variant, with ratios to the last one."""
    base_wall, base_processor = seconds[list(variants)[-1]]
    for name, (wall, processor) in seconds.items():
        print(
            f"{name:29} {queries / statistics.median(wall):6.1f} queries/s ({queries / min(wall):5.1f} at best)  "
            f"{median_ratio(base_wall, wall):4.2f}x   processor {1000 * statistics.median(processor) / queries:6.1f} "
            f"ms/query  {median_ratio(base_processor, processor):4.2f}x"
        )


def largest_difference(many: Sequence[SearchResult], alone: Sequence[SearchResult]) -> float:
    """Compare answers: the largest difference of a re-rank score; inf where an order differs."""
    pairs = [
        (one, other)
        for together, single in zip(many, alone, strict=True)
        for one, other in zip(together.candidates, single.candidates, strict=True)
    ]
    if any(one.image_id != other.image_id for one, other in pairs):
        return float("inf")
    return max(abs((one.rerank_score or 0.0) - (other.rerank_score or 0.0)) for one, other in pairs)


if __name__ == "__main__":
    main()
