"""What the re-ranker depends on: the same candidates re-ranked again with part of its input replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.quality.answers import compose_all, score_with
from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.changed_graphs import open_changed, with_first_states, without_stream, write_changed
from benchmarks.quality.figures import R1, R10, compare, gain_in_words, in_words, interval_json
from benchmarks.quality.sections import Section
from qdrant_cir.model.preprocess import blank_pixels
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.types import Composition, Float32, Int64, JsonObject

_MEAN_QUERIES = 16
"""Queries whose candidates give the mean of a stream's first state."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """One replaced input.

    Attributes:
        name: of the file that keeps its scores.
        title: of its row.
        queries: input of the re-ranker.
        reranker: that scores them.
    """

    name: str
    title: str
    queries: tuple[Composition, ...]
    reranker: Reranker


def ablation_sections(bench: Bench) -> list[Section]:
    """Re-rank the first queries' candidates once per ablation; candidates are always those of the whole model."""
    count = min(bench.settings.ablation_queries, len(bench.queries))
    order, full = bench.order[:count, :RERANK_DEPTH], bench.reranked[:count]
    rows: list[tuple[str, ...]] = []
    data: JsonObject = {"queries": count}
    tables = [("stage_one", "nothing: stage one alone", bench.retrieved[:count])]
    for ablation in _ablations(bench, count, order):
        kept = bench.kept / "ablations" / f"{ablation.name}.npy"
        scores = score_with(bench.gallery.scorer(ablation.reranker), ablation.queries, order, kept)
        tables.append((ablation.name, ablation.title, bench.rescored(scores)))
    for name, title, table in tables:
        compared = compare(full, table, bench.clusters[:count])
        first, tenth = compared[R1], compared[R10]
        if not rows:
            rows.append(("all of it", in_words(first.before), "", in_words(tenth.before), ""))
            data["full"] = {"R@1": interval_json(first.before), "R@10": interval_json(tenth.before)}
        rows.append(
            (title, in_words(first.after), gain_in_words(first.gain), in_words(tenth.after), gain_in_words(tenth.gain))
        )
        data[name] = {
            metric.name: {"value": interval_json(metric.after), "difference": interval_json(metric.gain)}
            for metric in (first, tenth)
        }
    return [
        Section(
            name="ablations",
            title=f"What the re-ranker depends on, K = {order.shape[1]}",
            command=bench.settings.command_of("ablations"),
            columns=("the re-ranker is given", "R@1", "difference, paired", "R@10", "difference, paired"),
            rows=tuple(rows),
            notes=(
                f"The first {count} queries; candidates are the whole model's own. The model is not trained again: "
                "an input is replaced by one that carries nothing of this query, so the differences show what the "
                "trained model uses, not what another one could do without. The mean fusion state is over "
                "all of these queries' words, at every place of the text; the blank picture stands for the reference "
                "in the composer alone. Texts of other queries come from the next query by length of text, cut or "
                "filled with [SEP] where lengths differ. A stream that is not read keeps its part in the layers, where "
                f"both meet: its first state before the head is its mean over candidates of {_MEAN_QUERIES} queries.",
            ),
            data=data,
        )
    ]


def _ablations(bench: Bench, count: int, order: Int64) -> list[Ablation]:
    queries, reranker = bench.composed[:count], bench.reranker
    mean = np.concatenate([query.fusion_states for query in queries]).mean(axis=0)
    blank = bench.encoder.encode(blank_pixels(bench.bundle.manifest.preprocessing)[None]).tokens
    unseen = compose_all(bench.composer, np.repeat(blank, count, axis=0), bench.texts[:count])
    others = next_by_length(queries)
    streams = _first_states(bench, queries, order)
    alone = [
        open_changed(
            bench.bundle,
            lambda model, stream=stream: without_stream(model, stream, streams[stream]),  # type: ignore[misc]
            bench.kept / "graphs" / f"without_stream_{stream}.onnx",
            threads=bench.settings.threads,
        )
        for stream in (0, 1)
    ]
    return [
        Ablation("zero_states", "zeros for fusion states", _with_states(queries, np.zeros_like(mean)), reranker),
        Ablation("mean_states", "the mean fusion state", _with_states(queries, mean), reranker),
        Ablation(
            "no_reference",
            "fusion states of text and a blank picture",
            tuple(replace(q, fusion_states=u.fusion_states) for q, u in zip(queries, unseen, strict=True)),
            reranker,
        ),
        Ablation(
            "other_text",
            "another query's text, its own fusion states",
            tuple(replace(q, input_ids=fitted(o.input_ids, q.input_ids)) for q, o in zip(queries, others, strict=True)),
            reranker,
        ),
        Ablation("other_query", "another query's text and fusion states", others, reranker),
        Ablation("fusion_stream", "the stream of fusion states alone", queries, alone[1]),
        Ablation("text_stream", "the stream of the text alone", queries, alone[0]),
    ]


def next_by_length(queries: Sequence[Composition]) -> tuple[Composition, ...]:
    """Return another query for each: the next when sorted by length of text, the first for the last."""
    places = sorted(range(len(queries)), key=lambda place: (len(queries[place].input_ids), place))
    following = dict(zip(places, [*places[1:], places[0]], strict=True))
    return tuple(queries[following[place]] for place in range(len(queries)))


def fitted(input_ids: Int64, length_of: Int64) -> Int64:
    """Bring a text [L] to the length of another: cut before its last token, or filled up with that."""
    length = len(length_of)
    kept = input_ids[: min(length, len(input_ids)) - 1]
    return np.concatenate((kept, np.full(length - len(kept), input_ids[-1])))


def _with_states(queries: Sequence[Composition], state: Float32) -> tuple[Composition, ...]:
    return tuple(
        replace(query, fusion_states=np.repeat(state[None], len(query.input_ids), axis=0)) for query in queries
    )


def _first_states(bench: Bench, queries: Sequence[Composition], order: Int64) -> list[Float32]:
    """Return the mean first state float32 [H] of both streams."""
    path = bench.kept / "graphs" / "first_states.onnx"
    session = write_changed(bench.bundle, with_first_states, path, threads=bench.settings.threads)
    found: list[list[Float32]] = [[], []]
    for query, rows in zip(queries[:_MEAN_QUERIES], order, strict=False):
        stored = bench.gallery.candidates(rows)
        outputs = session.run(
            {
                "input_ids": query.input_ids[None],
                "fusion_states": query.fusion_states[None],
                "candidate_tokens": stored.values,
                "candidate_scales": stored.scales,
            }
        )
        for stream in (0, 1):
            found[stream].append(outputs[f"stream_{stream}"])
    return [np.concatenate(states).mean(axis=0) for states in found]
