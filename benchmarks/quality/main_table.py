"""Stage one against both stages, whether the catalogue is hard and fair, and whether the retriever says the same."""

from __future__ import annotations

import tempfile

import numpy as np

from benchmarks.quality.answers import compose_all, rerank, retrieve
from benchmarks.quality.bars import CONTROL_BAR, STAGE_ONE_BARS
from benchmarks.quality.bench import MOST_CANDIDATES, RERANK_DEPTH, Bench
from benchmarks.quality.figures import (
    METRICS,
    R1,
    R10,
    R100,
    compare,
    gain_in_words,
    in_words,
    interval_json,
    intervals,
    score_rankings,
)
from benchmarks.quality.sections import Section
from qdrant_cir.evaluation.report.bootstrap import Interval
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.preprocess import blank_pixels
from qdrant_cir.retriever import Retriever
from qdrant_cir.types import GalleryImage, Query

_AGREEMENT_QUERIES = 20
_AGREEMENT_DEPTH = 20
_BAR_COLUMNS = {"R@1": R1, "R@100": R100}


def main_sections(bench: Bench) -> list[Section]:
    """Measure stage one, both stages, the controls, and the agreement with the retriever."""
    weight = similarity_weight(bench)
    return [_stages(bench), *([_parts(bench, weight)] if weight else []), _credibility(bench), _agreement(bench)]


def _stages(bench: Bench) -> Section:
    compared = compare(bench.retrieved, bench.reranked, bench.held_out.queries)
    return Section(
        name="main",
        title=f"Stage one, and re-ranked at K = {RERANK_DEPTH}",
        command=bench.settings.command_of("main"),
        columns=("metric, %", "stage one", "re-ranked", "gain, paired"),
        rows=tuple((row.name, in_words(row.before), in_words(row.after), gain_in_words(row.gain)) for row in compared),
        notes=(
            f"{len(bench.held_out.pictures)} pictures, {len(bench.held_out.queries)} queries, held-out seed "
            f"{bench.held_out.seed}; in brackets the 95% interval of a bootstrap in which queries of one "
            "reference are drawn together. The reference stays in the ranking.",
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
    """Give the weight of stage one's cosine in the bundle's scores, which the exporter wrote down; 0 for none."""
    sizes = bench.bundle.manifest.provenance.get("sizes")
    weight = sizes.get("similarity_weight", 0.0) if isinstance(sizes, dict) else 0.0
    return float(weight) if isinstance(weight, int | float) else 0.0


def _parts(bench: Bench, weight: float) -> Section:
    """Take the score apart: the same candidates in the order of the re-ranker's own part of it."""
    answers = bench.answers
    cosines = [bench.gallery.vectors[rows] @ q.vector for q, rows in zip(answers.queries, answers.order, strict=True)]
    own = np.asarray(answers.scores - weight * np.stack(cosines), dtype=np.float32)
    alone = rerank(answers.order, own, depth=RERANK_DEPTH)
    tables = {
        "stage one's cosine": bench.retrieved,
        "the re-ranker alone": score_rankings(alone, bench.held_out.queries),
        f"their sum, the cosine {weight:g} times": bench.reranked,
    }
    found = {name: intervals(table, bench.held_out.queries) for name, table in tables.items()}
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


def _credibility(bench: Bench) -> Section:
    subjects = [("stage one", intervals(bench.retrieved, bench.held_out.queries)), *_controls(bench)]
    rows = []
    for place, (name, found) in enumerate(subjects):
        for bar in STAGE_ONE_BARS if place == 0 else (CONTROL_BAR,):
            holds = bar.admits(found[_BAR_COLUMNS[bar.metric_name]].value)
            figures = (found[R1], found[R10], found[R100])
            rows.append((name, *map(in_words, figures), str(bar), "yes" if holds else "NO"))
    return Section(
        name="credibility",
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
            for name, found in subjects
        },
    )


def _controls(bench: Bench) -> list[tuple[str, tuple[Interval, ...]]]:
    queries, gallery = bench.held_out.queries, bench.gallery
    depth = min(MOST_CANDIDATES, len(gallery.vectors))
    by_image = retrieve(gallery.vectors[bench.references], gallery.vectors, depth=depth, excluded=bench.references)
    blank = bench.encoder.encode(blank_pixels(bench.bundle.manifest.preprocessing)[None]).tokens
    by_text = compose_all(bench.composer, np.repeat(blank, len(queries), axis=0), bench.texts)
    orders = {
        "image-only": by_image,
        "text-only": retrieve(np.stack([query.vector for query in by_text]), gallery.vectors, depth=depth),
    }
    return [(name, intervals(score_rankings(order, queries), queries)) for name, order in orders.items()]


def _agreement(bench: Bench) -> Section:
    """Ask the retriever itself, over the pictures that the first queries' answers need; that keeps their order."""
    held_out, answers = bench.held_out, bench.answers
    count, depth = min(_AGREEMENT_QUERIES, len(held_out.queries)), min(_AGREEMENT_DEPTH, answers.order.shape[1])
    order, scores = answers.order[:count, :depth], answers.scores[:count, :depth]
    rows = sorted({*order.ravel().tolist(), *bench.references[:count]})
    with tempfile.TemporaryDirectory() as store:
        with Indexer.open("quality", store=store, bundle=bench.bundle.folder, provider="cpu") as indexer:
            indexer.index([ImageRecord(f"{row:06d}", held_out.pictures[row], payload={}, source=None) for row in rows])
        with Retriever.open("quality", store=store, bundle=bench.bundle.folder, provider="cpu") as retriever:
            asked = [Query(GalleryImage(f"{query.reference:06d}"), query.text) for query in held_out.queries[:count]]
            found = retriever.search_many(asked, limit=depth, rerank_depth=depth)
    same, largest = 0, 0.0
    final = rerank(order, scores, depth=depth)
    for place, result in enumerate(found):
        said = {int(candidate.image_id): candidate.rerank_score or 0.0 for candidate in result.candidates}
        same += list(said) == final[place].tolist()
        ours = dict(zip(order[place].tolist(), scores[place].tolist(), strict=True))
        largest = max([largest, *(abs(said[row] - ours[row]) for row in said.keys() & ours.keys())])
    return Section(
        name="agreement",
        title="Is it what the retriever answers?",
        command=bench.settings.command_of("main"),
        columns=("queries", "places", "queries in the same order", "largest difference of a score"),
        rows=((f"{count}", f"{depth}", f"{same}", f"{largest:.1e}"),),
        data={"queries": count, "places": depth, "same_order": same, "largest_difference": largest},
    )
