"""Answering the queries on photographs with both stages and with the controls, and the table of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.evaluation.datasets.photos import PhotoBenchmark, PhotoQuery
from qdrant_cir.evaluation.report.bootstrap import Interval, bootstrap_means, interval_of, number_clusters
from qdrant_cir.evaluation.report.markdown import sizes_text
from qdrant_cir.model.bundle import Bundle, ModelSizes
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import blank_pixels, load_image, read_pixels
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Float32, JsonObject

__all__ = ["SYSTEMS", "GroupResult", "PhotoReport", "answer_photo_queries", "photo_markdown", "photo_report_json"]

SYSTEMS = ("stage one", "both stages", "text only", "image only", "sum of both")
PLACES = 5
_BATCH = 16
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What became of one group of queries.

    Attributes:
        group: its name.
        measure: ``P@5`` where several pictures are right, ``R@1`` where one is.
        queries: how many.
        ceiling: the best value that the labels allow.
        systems: value with interval of each system.
        gain: of both stages over stage one, paired.
    """

    group: str
    measure: str
    queries: int
    ceiling: float
    systems: Mapping[str, Interval]
    gain: Interval


@dataclass(frozen=True, slots=True)
class PhotoReport:
    """Results of all groups.

    Attributes:
        bundle: its name.
        fingerprint: of the bundle.
        model_sizes: of the bundle.
        groups: in the order of the queries.
        pictures: photographs, and edited ones.
        without_mask: photographs that were left out for want of a mask.
        unreadable: files that are no pictures.
        orders: for every query, the first five places by system, for looking at them.
    """

    bundle: str
    fingerprint: str
    model_sizes: ModelSizes
    groups: tuple[GroupResult, ...]
    pictures: tuple[int, int]
    without_mask: int
    unreadable: int
    orders: tuple[Mapping[str, NDArray[np.int64]], ...]


def answer_photo_queries(
    benchmark: PhotoBenchmark,
    bundle: Bundle,
    compute: Compute,
    *,
    rerank_depth: int = 50,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PhotoReport:
    """Answer every query with every system.

    Args:
        benchmark: pictures and queries.
        bundle: the model.
        compute: where the graphs run.
        rerank_depth: candidates that stage two orders.
        on_progress: called with what is done and how much there is: pictures and queries together.
    """
    encoder = ImageEncoder.open(bundle, compute)
    composer = Composer.open(bundle, compute)
    reranker = Reranker.open(bundle, compute)
    spec = bundle.manifest.preprocessing
    total = len(benchmark.pictures) + len(benchmark.queries)
    vectors, tokens, candidates = [], [], []
    for start in range(0, len(benchmark.pictures), _BATCH):
        part = benchmark.pictures[start : start + _BATCH]
        encoded = encoder.encode(np.stack([read_pixels(p.picture, spec) for p in part]))
        vectors.append(encoded.vectors)
        tokens.append(encoded.tokens.astype(np.float16))
        candidates.append(encoded.candidate_tokens.astype(np.float16))
        on_progress(start + len(part), total)
    all_vectors, all_tokens = np.concatenate(vectors), np.concatenate(tokens)
    all_candidates = np.concatenate(candidates)
    blank = encoder.encode(blank_pixels(spec)[None]).tokens
    orders: list[Mapping[str, NDArray[np.int64]]] = []
    values = np.empty((len(benchmark.queries), len(SYSTEMS)))
    for number, query in enumerate(benchmark.queries):
        composed = composer.compose(all_tokens[query.reference][None].astype(np.float32), [query.text])[0]
        alone = composer.compose(blank, [query.text])[0].vector
        own = all_vectors[query.reference]
        gallery = all_vectors[query.gallery]
        first = _ranked(gallery @ composed.vector, query.gallery)
        head = first[:rerank_depth]
        stored = quantize(all_candidates[head].astype(np.float32), bundle.manifest.token_codec)
        scores = reranker.score(composed, stored)
        found = {
            "stage one": first,
            "both stages": np.concatenate((_ranked(scores, head), first[rerank_depth:])),
            "text only": _ranked(gallery @ alone, query.gallery),
            "image only": _ranked(gallery @ own, query.gallery),
            "sum of both": _ranked(gallery @ (alone + own), query.gallery),
        }
        values[number] = [_value(query, found[system]) for system in SYSTEMS]
        orders.append({system: order[:PLACES] for system, order in found.items()})
        if number % 20 == 0 or number + 1 == len(benchmark.queries):
            on_progress(len(benchmark.pictures) + number + 1, total)
    photographs = sum(not p.edit for p in benchmark.pictures)
    return PhotoReport(
        bundle.manifest.name,
        bundle.fingerprint,
        bundle.manifest.sizes,
        _groups(benchmark.queries, values),
        (photographs, len(benchmark.pictures) - photographs),
        benchmark.without_mask,
        len(benchmark.unreadable),
        tuple(orders),
    )


def _ranked(scores: Float32, places: NDArray[np.int64]) -> NDArray[np.int64]:
    return places[np.argsort(-scores, kind="stable")]


def _is_single(query: PhotoQuery) -> bool:
    return query.group.startswith("same garment")


def _value(query: PhotoQuery, order: NDArray[np.int64]) -> float:
    places = 1 if _is_single(query) else PLACES
    return float(np.isin(order[:places], query.right).mean())


def _groups(queries: Sequence[PhotoQuery], values: NDArray[np.float64]) -> tuple[GroupResult, ...]:
    results = []
    for group in dict.fromkeys(query.group for query in queries):
        chosen = np.array([number for number, query in enumerate(queries) if query.group == group])
        own = [queries[number] for number in chosen.tolist()]
        columns = np.column_stack((values[chosen], values[chosen, 1] - values[chosen, 0]))
        clusters = number_clusters([query.reference for query in own])
        draws = bootstrap_means([columns], [clusters], resamples=_RESAMPLES, seed=1)
        intervals = [interval_of(float(columns[:, i].mean()), draws[:, i]) for i in range(columns.shape[1])]
        is_single = _is_single(own[0])
        ceiling = 1.0 if is_single else float(np.mean([min(len(query.right), PLACES) / PLACES for query in own]))
        results.append(
            GroupResult(
                group,
                "R@1" if is_single else f"P@{PLACES}",
                len(own),
                ceiling,
                dict(zip(SYSTEMS, intervals, strict=False)),
                intervals[-1],
            )
        )
    return tuple(results)


def photo_markdown(report: PhotoReport) -> str:
    """Write the table: per cent with 95 % intervals, drawn over reference photographs."""
    lines = [
        f"# Photographs: {report.bundle} {report.fingerprint[:12]}",
        "",
        f"Model with {sizes_text(report.model_sizes)}. "
        f"{report.pictures[0]} photographs by held-out senders and {report.pictures[1]} edited pictures of them; "
        f"{report.without_mask} photographs without a usable mask and {report.unreadable} unreadable files left out.",
        "",
        f"| asked for | queries | measure | ceiling | {' | '.join(SYSTEMS)} | gain of stage two |",
        f"|---|---:|---|---:|{'---:|' * len(SYSTEMS)}---:|",
    ]
    for result in report.groups:
        cells = [_interval(result.systems[system]) for system in SYSTEMS]
        lines.append(
            f"| {result.group} | {result.queries} | {result.measure} | {100 * result.ceiling:.1f} | "
            f"{' | '.join(cells)} | "
            f"{_interval(result.gain, signed=True)} |"
        )
    return "\n".join(lines) + "\n"


def _interval(interval: Interval, *, signed: bool = False) -> str:
    value = f"{100 * interval.value:+.1f}" if signed else f"{100 * interval.value:.1f}"
    return f"{value} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def photo_report_json(report: PhotoReport) -> JsonObject:
    """Write the same as JSON, shares between 0 and 1."""

    def numbers(interval: Interval) -> JsonObject:
        return {"value": interval.value, "low": interval.low, "high": interval.high}

    return {
        "benchmark": "photos",
        "run": {
            "bundle": report.bundle,
            "fingerprint": report.fingerprint,
            "model_sizes": asdict(report.model_sizes),
        },
        "photographs": report.pictures[0],
        "edited_pictures": report.pictures[1],
        "without_mask": report.without_mask,
        "unreadable": report.unreadable,
        "groups": [
            {
                "group": result.group,
                "measure": result.measure,
                "queries": result.queries,
                "ceiling": result.ceiling,
                "systems": {system: numbers(result.systems[system]) for system in SYSTEMS},
                "gain": numbers(result.gain),
            }
            for result in report.groups
        ],
    }


def save_photo_sheet(benchmark: PhotoBenchmark, report: PhotoReport, numbers: Sequence[int], path: Path) -> None:
    """Draw queries with what both stages put first: the reference, then five pictures, right ones framed in green."""
    from PIL import Image, ImageDraw

    side, edge = 128, 4
    sheet = Image.new("RGB", ((PLACES + 1) * side, len(numbers) * (side + 16)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, number in enumerate(numbers):
        query = benchmark.queries[number]
        top = row * (side + 16)
        draw.text((2, top + 2), f"{query.group}: {query.text}", fill="black")
        for column, place in enumerate((query.reference, *report.orders[number]["both stages"].tolist())):
            picture = load_image(benchmark.pictures[place].picture)
            picture.thumbnail((side - 2 * edge, side - 2 * edge))
            if place in query.right:
                frame = (column * side, top + 15, column * side + side - 2, top + 15 + side - 2)
                draw.rectangle(frame, outline="green", width=3)
            sheet.paste(picture, (column * side + edge, top + 15 + edge))
    sheet.save(path)
