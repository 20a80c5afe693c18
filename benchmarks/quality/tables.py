"""The tables that are arithmetic over a run: both stages, bars, every depth, slices."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.bars import CONTROL_BAR, STAGE_ONE_BARS
from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.figures import (
    R1,
    R10,
    R100,
    compare,
    gain_in_words,
    in_words,
    interval_json,
    intervals,
)
from benchmarks.quality.sections import Section
from benchmarks.quality.templates import uses_unseen_template
from qdrant_cir.evaluation.datasets.custom import METRICS
from qdrant_cir.evaluation.runs.controls import CONTROLS
from qdrant_cir.types import JsonObject

DEPTHS = (0, 10, 20, 50, 100, 200)
_BAR_COLUMNS = {"R@1": R1, "R@100": R100}


def main_sections(bench: Bench) -> list[Section]:
    """Make the tables of both stages, of the score's parts, and of the catalogue's bars."""
    weight = similarity_weight(bench)
    return [_stages(bench), *([_parts(bench, weight)] if weight else []), _bars(bench)]


def _stages(bench: Bench) -> Section:
    compared = compare(bench.retrieved, bench.reranked, bench.clusters)
    return Section(
        name="main",
        title=f"Stage one, and re-ranked at K = {RERANK_DEPTH}",
        command=bench.settings.command_of("main"),
        columns=("metric, %", "stage one", "re-ranked", "gain, paired"),
        rows=tuple((row.name, in_words(row.before), in_words(row.after), gain_in_words(row.gain)) for row in compared),
        notes=(
            f"{len(bench.image_ids)} pictures, {len(bench.queries)} queries; in brackets the 95% interval of a "
            "bootstrap in which queries of one reference are drawn together. The reference stays in the ranking.",
        ),
        data={
            row.name: {
                "stage_one": interval_json(row.before),
                "reranked": interval_json(row.after),
                "gain": interval_json(row.gain),
            }
            for row in compared
        },
    )


def similarity_weight(bench: Bench) -> float:
    """Return the weight of stage one's cosine in the bundle's scores, as the exporter recorded it; 0 for none."""
    sizes = bench.bundle.manifest.provenance.get("sizes")
    weight = sizes.get("similarity_weight", 0.0) if isinstance(sizes, dict) else 0.0
    return float(weight) if isinstance(weight, int | float) else 0.0


def _parts(bench: Bench, weight: float) -> Section:
    """Order the same candidates by the re-ranker's own part of the score."""
    own = np.asarray(bench.scores - weight * bench.cosines, dtype=np.float32)
    tables = {
        "stage one's cosine": bench.retrieved,
        "the re-ranker alone": bench.rescored(own[:, :RERANK_DEPTH]),
        f"their sum, the cosine {weight:g} times": bench.reranked,
    }
    found = {name: intervals(table, bench.clusters) for name, table in tables.items()}
    columns = (R1, R10)
    return Section(
        name="parts",
        title="What the score is made of",
        command=bench.settings.command_of("main"),
        columns=("order by", *(f"{METRICS[column].name}, %" for column in columns)),
        rows=tuple((name, *(in_words(values[column]) for column in columns)) for name, values in found.items()),
        data={
            name: {METRICS[column].name: interval_json(values[column]) for column in columns}
            for name, values in found.items()
        },
    )


def _bars(bench: Bench) -> Section:
    tables = {"stage one": bench.retrieved} | {name: bench.control(name) for name in CONTROLS}
    subjects = {name: intervals(table, bench.clusters) for name, table in tables.items()}
    rows = []
    for name, found in subjects.items():
        for bar in STAGE_ONE_BARS if name == "stage one" else (CONTROL_BAR,):
            holds = bar.admits(found[_BAR_COLUMNS[bar.metric_name]].value)
            figures = (found[R1], found[R10], found[R100])
            rows.append((name, *map(in_words, figures), str(bar), "yes" if holds else "NO"))
    return Section(
        name="bars",
        title="Is the catalogue hard and fair?",
        command=bench.settings.command_of("main"),
        columns=("queries", "R@1", "R@10", "R@100", "bar", "holds"),
        rows=tuple(rows),
        notes=(
            "Image-only: the reference's own vector is searched and the reference left out. Text-only: the text is "
            "composed with a blank picture. Both by stage one alone.",
        ),
        data={
            name: {METRICS[column].name: interval_json(found[column]) for column in (R1, R10, R100)}
            for name, found in subjects.items()
        },
    )


def depth_sections(bench: Bench) -> list[Section]:
    """Make the table of every re-rank depth that the run holds."""
    depths = [depth for depth in DEPTHS if depth <= bench.order.shape[1]]
    compared = {depth: compare(bench.retrieved, bench.reranked_at(depth), bench.clusters) for depth in depths}
    return [
        Section(
            name="k",
            title="How many candidates to re-rank",
            command=bench.settings.command_of("k"),
            columns=("K", "R@1, %", "R@10, %", "gain of R@1"),
            rows=tuple(
                (
                    f"{depth}" if depth else "stage one",
                    in_words(found[R1].after),
                    in_words(found[R10].after),
                    gain_in_words(found[R1].gain) if depth else "",
                )
                for depth, found in compared.items()
            ),
            data={
                f"{depth}": {found[column].name: interval_json(found[column].after) for column in (R1, R10)}
                for depth, found in compared.items()
            },
        )
    ]


def slice_sections(bench: Bench) -> list[Section]:
    """Make the table of every kind of edit, of combinations, and of templates; a query counts in each of its own."""
    labels = [(*query.labels, _template(query.modification_text)) for query in bench.queries]
    names = [name for sort in zip(*labels, strict=True) for name in sorted(set(sort))]
    rows: list[tuple[str, ...]] = []
    data: JsonObject = {}
    for name in names:
        of_slice = np.array([name in each for each in labels])
        compared = compare(bench.retrieved[of_slice], bench.reranked[of_slice], bench.clusters[of_slice])
        first, tenth = compared[R1], compared[R10]
        count = int(of_slice.sum())
        both = (in_words(first.before), in_words(first.after), gain_in_words(first.gain))
        rows.append((name, f"{count}", *both, f"{tenth.before.value:.1f}", f"{tenth.after.value:.1f}"))
        data[name] = {
            "queries": count,
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
                "a text has an unseen template where training's templates do not produce it.",
            ),
            data=data,
        )
    ]


def _template(text: str) -> str:
    return "an unseen template" if uses_unseen_template(text) else "seen templates"
