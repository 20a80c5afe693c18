"""The same comparison for every kind of edit, and for what training shows and does not."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.figures import R1, R10, compare, gain_in_words, in_words, interval_json
from benchmarks.quality.sections import Section
from qdrant_cir.types import JsonObject


def slice_sections(bench: Bench) -> list[Section]:
    """Measure every slice that holds at least one query; a query counts in each that it belongs to."""
    labels = [query.labels for query in bench.held_out.queries]
    names = [sorted({label[sort] for label in labels}) for sort in range(3)]
    rows: list[tuple[str, ...]] = []
    data: JsonObject = {}
    for sort, found in enumerate(names):
        for name in found:
            of_slice = np.array([label[sort] == name for label in labels])
            queries = [bench.held_out.queries[place] for place in np.flatnonzero(of_slice)]
            compared = compare(bench.retrieved[of_slice], bench.reranked[of_slice], queries)
            first, tenth = compared[R1], compared[R10]
            rows.append(
                (
                    name,
                    f"{of_slice.sum()}",
                    in_words(first.before),
                    in_words(first.after),
                    gain_in_words(first.gain),
                    f"{tenth.before.value:.1f}",
                    f"{tenth.after.value:.1f}",
                )
            )
            data[name] = {
                "queries": int(of_slice.sum()),
                "stage_one": interval_json(first.before),
                "reranked": interval_json(first.after),
                "gain": interval_json(first.gain),
                "R@10": [tenth.before.value, tenth.after.value],
            }
    return [
        Section(
            name="slices",
            title="Kinds of edit, and what training does not show",
            command=bench.settings.command_of("slices"),
            columns=("slice", "queries", "R@1 stage one", "R@1 re-ranked", "gain", "R@10 stage one", "R@10 re-ranked"),
            rows=tuple(rows),
            notes=(
                f"Re-ranked at K = {RERANK_DEPTH}. A combination is a family with the main part's colour and pattern; "
                "a text has an unseen template where training's templates do not give it.",
            ),
            data=data,
        )
    ]
