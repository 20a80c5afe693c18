"""How many candidates to re-rank: recall and milliseconds against K, as a table and a plot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import LoadMeter, describe_machine
from benchmarks.quality.answers import retrieve
from benchmarks.quality.bench import Bench
from benchmarks.quality.figures import R1, R10, compare, gain_in_words, in_words, interval_json, intervals
from benchmarks.quality.progress import Progress
from benchmarks.quality.recall_plot import RecallPoint, draw_recalls
from benchmarks.quality.sections import Section

DEPTHS = (0, 10, 20, 50, 100, 200)
PICTURE = "rerank_depth.png"
_TIMED_QUERIES = 50


@dataclass(frozen=True, slots=True)
class Timed:
    """Median milliseconds of one query, and how many cores other processes took meanwhile."""

    milliseconds: dict[int, float]
    others: float


def depth_sections(bench: Bench) -> list[Section]:
    """Measure every K; scores are computed once, time on ``_TIMED_QUERIES`` queries apart."""
    depths = [depth for depth in DEPTHS if depth <= bench.answers.order.shape[1]]
    timed = _time(bench, depths)
    tables = {depth: bench.reranked_at(depth) for depth in depths}
    queries = bench.held_out.queries
    found = {depth: intervals(tables[depth], queries) for depth in depths}
    gains = {depth: compare(bench.retrieved, tables[depth], queries)[R1].gain for depth in depths}
    names = ["stage one" if depth == 0 else f"K={depth}" for depth in depths]
    points = [
        RecallPoint(name, found[depth][R1], found[depth][R10], timed.milliseconds[depth])
        for name, depth in zip(names, depths, strict=True)
    ]
    (bench.settings.out / "images").mkdir(parents=True, exist_ok=True)
    title = f"Re-ranking K candidates: {len(bench.held_out.pictures)} pictures, {len(bench.held_out.queries)} queries"
    draw_recalls(points, title=title, cost="milliseconds per query").save(bench.settings.out / "images" / PICTURE)
    return [
        Section(
            name="k",
            title="How many candidates to re-rank",
            command=bench.settings.command_of("k"),
            columns=("K", "R@1, %", "R@10, %", "gain of R@1", "ms per query"),
            rows=tuple(
                (
                    point.name.removeprefix("K="),
                    in_words(point.first),
                    in_words(point.tenth),
                    gain_in_words(gains[depth]) if depth else "",
                    f"{point.cost:.0f}",
                )
                for depth, point in zip(depths, points, strict=True)
            ),
            notes=(
                f"Milliseconds: median of {min(_TIMED_QUERIES, len(bench.texts))} queries, one at a time, from the "
                "reference's stored tokens to the final order: composing, exact search, re-ranking; nothing is read "
                f"from a store. {describe_machine(bench.settings.threads, packages=('onnxruntime', 'numpy'))}; other "
                f"processes took {timed.others:.1f} cores meanwhile.",
            ),
            picture=PICTURE,
            data={
                f"{depth}": {
                    "R@1": interval_json(point.first),
                    "R@10": interval_json(point.tenth),
                    "milliseconds": point.cost,
                }
                for depth, point in zip(depths, points, strict=True)
            },
        )
    ]


def _time(bench: Bench, depths: Sequence[int]) -> Timed:
    count = min(_TIMED_QUERIES, len(bench.texts))
    seconds: dict[int, list[float]] = {depth: [] for depth in depths}
    progress, load = Progress("timing queries", count), LoadMeter()
    _answer(bench, 0, max(depths))
    for place in range(count):
        for depth in depths if place % 2 else reversed(depths):
            began = time.perf_counter()
            _answer(bench, place, depth)
            seconds[depth].append(time.perf_counter() - began)
        progress.reaches(place + 1)
    return Timed({depth: 1000 * statistics.median(seconds[depth]) for depth in depths}, load.cores_taken())


def _answer(bench: Bench, place: int, depth: int) -> None:
    """Answer one query from its reference's tokens."""
    tokens = bench.gallery.reference_tokens[place : place + 1]
    query = bench.composer.compose(tokens, [bench.texts[place]])[0]
    order = retrieve(query.vector[None], bench.gallery.vectors, depth=max(depth, 10))[0]
    if depth:
        np.argsort(-bench.scorer.score(query, bench.gallery.candidates(order[:depth])), kind="stable")
