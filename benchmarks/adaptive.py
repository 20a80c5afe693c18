"""What ending re-ranking early keeps: recall@10 against candidates scored, on queries it was not calibrated with.

    .venv/bin/qdrant-cir demo --products 3000
    .venv/bin/python -m benchmarks.adaptive --demo demo [--bundle DIR] [--calibration effort.json]

Re-ranks every query of the catalogue to the full depth once. Every second query calibrates, the others are
measured: for each confidence the candidates scored, the share of the exact first ten places kept, and recall@10
less that of exact re-ranking with its paired 95% bootstrap interval; the same for re-ranking a fixed number. Then
searches some queries both ways and prints the paired ratio of their re-ranking times.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import LoadMeter, describe_machine, median_ratio
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of
from qdrant_cir.evaluation.runs.rankings import ScoredImage, StageScores
from qdrant_cir.model.bundle import load_bundle, packaged_bundle_path
from qdrant_cir.model.cores import available_threads
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.effort import Effort, EffortCalibration, StopRule
from qdrant_cir.search.effort_calibration import CONFIDENCES, STEP, calibrate_effort
from qdrant_cir.types import GalleryImage, Query

LIMIT = 10
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Ranked:
    """One query, re-ranked to the full depth.

    Attributes:
        query: as it was asked.
        retrieved: stage one's ranking.
        reranked: stage two's scores, in that order.
        targets: the right answers.
    """

    query: Query
    retrieved: tuple[ScoredImage, ...]
    reranked: tuple[ScoredImage, ...]
    targets: frozenset[str]

    @property
    def scores(self) -> tuple[float, ...]:
        """Stage two's scores, in stage one's order."""
        return tuple(image.score for image in self.reranked)

    def first(self, scored: int) -> tuple[str, ...]:
        """Return the first ten results where so many candidates were scored."""
        return StageScores(self.retrieved, self.reranked[:scored]).reranked_order()[:LIMIT]

    def is_found(self, scored: int) -> bool:
        """Whether a right answer is among them."""
        return not self.targets.isdisjoint(self.first(scored))

    def stopped(self, rule: StopRule) -> int:
        """Return how many candidates a rule scores."""
        steps: list[tuple[float, ...]] = []
        for start in range(0, len(self.scores), rule.step or len(self.scores)):
            if rule.is_settled(steps):
                return start
            steps.append(self.scores[start : start + (rule.step or len(self.scores))])
        return len(self.scores)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder with catalog/ and store/")
    parser.add_argument("--bundle", type=Path, default=packaged_bundle_path("drawn"))
    parser.add_argument("-K", "--rerank-depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000, help="at most so many")
    parser.add_argument("--timed", type=int, default=20, help="queries to search both ways")
    parser.add_argument("--calibration", type=Path, help="write what the calibrating half gave")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    print(describe_machine(available_threads(), packages=("onnxruntime", "qdrant-edge-py")))
    with Retriever.open("catalog", store=arguments.demo / "store", bundle=arguments.bundle) as retriever:
        rows = read_rows(arguments.demo / "catalog", arguments.queries)
        ranked = [rank(retriever, row, arguments.rerank_depth) for row in rows]
        held_out, measured = ranked[::2], ranked[1::2]
        calibration = calibrate_effort(
            [query.scores for query in held_out],
            fingerprint=bundle.fingerprint,
            rerank_depth=arguments.rerank_depth,
            step=STEP,
        )
        print(f"{len(held_out)} queries calibrate, {len(measured)} are measured, K={arguments.rerank_depth}")
        print_losses(measured, calibration, arguments.rerank_depth)
        print_times(retriever, measured[: arguments.timed], calibration)
    if arguments.calibration is not None:
        arguments.calibration.write_text(json.dumps(calibration.to_object(), indent=1) + "\n", encoding="utf-8")


def read_rows(catalog: Path, count: int) -> list[dict[str, str | list[str]]]:
    """Read the catalogue's queries."""
    lines = (catalog / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def rank(retriever: Retriever, row: dict[str, str | list[str]], depth: int) -> Ranked:
    """Re-rank one query to the full depth."""
    query = Query(GalleryImage(str(row["reference"])), str(row["modification_text"]))
    result = retriever.search(query, limit=depth, rerank_depth=depth, exclude_reference=True)
    ordered = sorted(result.candidates, key=lambda candidate: candidate.retrieval_rank)
    return Ranked(
        query,
        retrieved=tuple(ScoredImage(candidate.image_id, candidate.retrieval_score) for candidate in ordered),
        reranked=tuple(ScoredImage(candidate.image_id, candidate.rerank_score or 0.0) for candidate in ordered),
        targets=frozenset(row["targets"]),
    )


def print_losses(measured: Sequence[Ranked], calibration: EffortCalibration, depth: int) -> None:
    """Print a line per confidence and per fixed depth."""
    exact = [query.is_found(len(query.scores)) for query in measured]
    print(f"exact: recall@{LIMIT} {100 * np.mean(exact):.1f} from {depth} candidates")
    for confidence in CONFIDENCES:
        rule = StopRule(LIMIT, calibration.step, calibration.lead(limit=LIMIT, confidence=confidence))
        print_loss(f"confidence {confidence:g}", measured, [query.stopped(rule) for query in measured])
    for fixed in range(depth // 5, depth, depth // 5):
        print_loss(f"always {fixed}", measured, [min(fixed, len(query.scores)) for query in measured])


def print_loss(name: str, measured: Sequence[Ranked], scored: Sequence[int]) -> None:
    """Print what scoring so many candidates of every query keeps."""
    kept = [
        len({*query.first(count)} & {*query.first(len(query.scores))}) / min(LIMIT, len(query.scores))
        for query, count in zip(measured, scored, strict=True)
    ]
    found = [
        (query.is_found(count), query.is_found(len(query.scores)))
        for query, count in zip(measured, scored, strict=True)
    ]
    differences = np.array([[100.0 * one - 100.0 * other] for one, other in found])
    draws = bootstrap_means([differences], [np.arange(len(differences))], resamples=RESAMPLES, seed=0)
    interval = interval_of(float(differences.mean()), draws[:, 0])
    share = np.sum(scored) / sum(len(query.scores) for query in measured)
    print(
        f"{name:16} {np.mean(scored):6.1f} candidates ({share:4.0%})  places kept {np.mean(kept):6.1%}  recall@{LIMIT} "
        f"{interval.value:+.2f} points [{interval.low:+.2f}, {interval.high:+.2f}]"
    )


def print_times(retriever: Retriever, measured: Sequence[Ranked], calibration: EffortCalibration) -> None:
    """Search both ways in turn, and print the paired ratio of re-ranking times."""
    depth = calibration.rerank_depth
    load = LoadMeter()
    for confidence in (0.8, 0.9, 0.95):
        effort = Effort(confidence=confidence, calibration=calibration)
        exact, early, scored = [], [], []
        for query in measured:
            exact.append(retriever.search(query.query, rerank_depth=depth, exclude_reference=True).timings.rerank)
            result = retriever.search(query.query, rerank_depth=depth, exclude_reference=True, effort=effort)
            early.append(result.timings.rerank)
            scored.append(result.scored)
        print(
            f"searched {len(measured)} queries at confidence {confidence:g}: {np.mean(scored):.1f} candidates scored, "
            f"re-ranking {median_ratio(exact, early):.2f}x as fast (median), "
            f"{sum(exact) / sum(early):.2f}x in total; others kept {load.cores_taken():.1f} cores busy"
        )


if __name__ == "__main__":
    main()
