"""A drawn catalogue in the layouts of FashionIQ, CIRR and CIRCO, scored as a reader would by hand.

The model is that of ``conftest.py``: a picture is its mean colour, a word adds a colour, stage one orders by cosine and
stage two by dot product. ``Hand`` does that in a few lines of numpy, and the metrics are counted from its places.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from qdrant_cir.drawn.dataset import DrawnCatalog, DrawnQuery, sample_drawn
from qdrant_cir.drawn.files import write_drawn
from qdrant_cir.evaluation.datasets.benchmark import Benchmark
from qdrant_cir.evaluation.datasets.circo import read_circo
from qdrant_cir.evaluation.datasets.cirr import read_cirr
from qdrant_cir.evaluation.datasets.fashioniq import join_captions, read_fashioniq
from qdrant_cir.evaluation.evaluate import EvaluationSettings, evaluate
from qdrant_cir.evaluation.report.contents import EvaluationReport, MetricRow
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.preprocess import load_image, preprocess
from qdrant_cir.storage.stores import ServerStore

DEPTH = 20
"""Candidates that stage two sees."""

COLORS = {
    "red": (3, -3, -3),
    "green": (-3, 3, -3),
    "blue": (-3, -3, 3),
    "white": (3, 3, 3),
    "black": (-3, -3, -3),
}
"""What a word adds; all others add nothing."""

KNOWN = {*COLORS, "darker", "lighter", "make", "it", "same", "but"}
"""The tiny model's words. Others are left out before it reads."""

WORDS_READ = 6
"""The tiny model reads 8 tokens, of which the first and the last are marks."""


@dataclass(frozen=True)
class Ranking:
    """Image ids, best first, after each stage."""

    retrieved: list[str]
    reranked: list[str]


class Hand:
    """The tiny model by hand."""

    def __init__(self, catalog: DrawnCatalog, images: Path, bundle: Bundle) -> None:
        spec = bundle.manifest.preprocessing
        self.color = {
            item.image_id: preprocess(load_image(images / f"{item.image_id}.jpg"), spec).mean(axis=(1, 2))
            for item in catalog.items
        }

    def rank(self, reference: str, text: str, gallery: Sequence[str]) -> Ranking:
        """Order a gallery by both stages."""
        known = [word for word in re.findall(r"\w+|[^\w\s]+", text.lower()) if word in KNOWN]
        words = known[:WORDS_READ]
        wanted = self.color[reference] + np.sum([COLORS.get(word, (0, 0, 0)) for word in words], axis=0)
        wanted = wanted / np.linalg.norm(wanted)
        dot = {image_id: float(self.color[image_id] @ wanted) for image_id in gallery}
        cosine = {image_id: dot[image_id] / float(np.linalg.norm(self.color[image_id])) for image_id in gallery}
        retrieved = sorted(gallery, key=lambda image_id: -cosine[image_id])
        # a text of unknown words alone is answered as one without text, which is not re-ranked
        candidates = sorted(retrieved[:DEPTH], key=lambda image_id: -dot[image_id]) if words else retrieved[:DEPTH]
        return Ranking(retrieved, candidates + retrieved[DEPTH:])


@pytest.fixture(scope="module")
def bundle(build_tiny_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model with tokens as they are, so that rounding decides nothing."""
    return load_bundle(build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "exact", codec="float32"))


@pytest.fixture(scope="module")
def catalog() -> DrawnCatalog:
    drawn = sample_drawn(4, products=150, queries=8)
    assert any(len(query.target_ids) > 1 for query in drawn.queries)
    return drawn


@pytest.fixture(scope="module")
def shop(catalog: DrawnCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_drawn(catalog, folder, size=32)
    return folder


@pytest.fixture(scope="module")
def hand(catalog: DrawnCatalog, shop: Path, bundle: Bundle) -> Hand:
    return Hand(catalog, shop / "images", bundle)


@pytest.fixture
def store() -> Iterator[ServerStore]:
    """The client's own store: numbers are the same in every store, and an embedded one takes a while to make."""
    client = QdrantClient(":memory:")
    yield ServerStore(client)
    client.close()


def report_of(benchmark: Benchmark, store: ServerStore, bundle: Bundle, out: Path) -> EvaluationReport:
    settings = EvaluationSettings(rerank_depth=DEPTH, provider="cpu", runs_controls=False)
    return evaluate(benchmark, store=store, bundle=bundle, out=out, settings=settings).report


def both(rows: Sequence[MetricRow]) -> dict[str, tuple[float, float]]:
    """Give the metrics before and after re-ranking by name."""
    return {row.name: (row.retrieved.value, row.reranked.value) for row in rows if row.reranked is not None}


def percent_within(k: int, places: Sequence[int]) -> float:
    return 100 * sum(place <= k for place in places) / len(places)


def place_of(target: str, ranking: Sequence[str]) -> int:
    return list(ranking).index(target) + 1


def expected_recall(
    ks: Sequence[int], rankings: Mapping[DrawnQuery, Ranking], prefix: str = "R@"
) -> dict[str, tuple[float, float]]:
    """Count the queries whose drawn target stands within k, for both stages."""
    before = [place_of(query.drawn_target_id, ranking.retrieved) for query, ranking in rankings.items()]
    after = [place_of(query.drawn_target_id, ranking.reranked) for query, ranking in rankings.items()]
    return {f"{prefix}{k}": (percent_within(k, before), percent_within(k, after)) for k in ks}


def near(expected: Mapping[str, tuple[float, float]]) -> dict[str, object]:
    return {name: pytest.approx(values) for name, values in expected.items()}


def test_the_catalogues_own_fashioniq_layout_scores_what_is_counted_by_hand(
    catalog: DrawnCatalog, shop: Path, hand: Hand, bundle: Bundle, store: ServerStore, tmp_path: Path
) -> None:
    report = report_of(read_fashioniq(shop), store, bundle, tmp_path / "out")
    family_of = {item.image_id: item.scene.family for item in catalog.items}
    per_family = []
    for part in report.parts:
        gallery = [image_id for image_id, family in family_of.items() if family == part.name]
        rankings = {
            query: hand.rank(query.reference_id, join_captions((query.modification_text, query.paraphrase)), gallery)
            for query in catalog.queries
            if family_of[query.reference_id] == part.name
        }
        expected = expected_recall((10, 50), rankings)
        assert {name: both(part.rows)[name] for name in expected} == near(expected)
        assert (part.queries, part.gallery) == (len(rankings), len(gallery))
        per_family.append(expected["R@10"])
    assert sum(part.queries for part in report.parts) == 8
    # every family counts the same, however many queries it has
    assert both(report.rows)["R@10"] == pytest.approx(np.mean(per_family, axis=0))


def test_the_catalogue_in_cirrs_layout_scores_what_is_counted_by_hand(
    catalog: DrawnCatalog, shop: Path, hand: Hand, bundle: Bundle, store: ServerStore, tmp_path: Path
) -> None:
    image_ids = [item.image_id for item in catalog.items]
    subsets: dict[DrawnQuery, list[str]] = {}
    for query in catalog.queries:
        others = [name for name in image_ids if name not in (query.reference_id, query.drawn_target_id)]
        subsets[query] = [query.drawn_target_id, *others[:4]]
    entries = [
        {
            "pairid": number,
            "reference": query.reference_id,
            "target_hard": query.drawn_target_id,
            "caption": query.modification_text,
            "img_set": {"id": number, "members": [query.reference_id, *subset]},
        }
        for number, (query, subset) in enumerate(subsets.items())
    ]
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "cap.rc2.val.json").write_text(json.dumps(entries))
    (tmp_path / "image_splits").mkdir()
    paths = {image_id: f"./images/{image_id}.jpg" for image_id in image_ids}
    (tmp_path / "image_splits" / "split.rc2.val.json").write_text(json.dumps(paths))
    report = report_of(read_cirr(tmp_path, images=shop), store, bundle, tmp_path / "out")
    without_reference = {query: [name for name in image_ids if name != query.reference_id] for query in subsets}
    whole = {q: hand.rank(q.reference_id, q.modification_text, without_reference[q]) for q in subsets}
    five = {q: hand.rank(q.reference_id, q.modification_text, subset) for q, subset in subsets.items()}
    expected = expected_recall((1, 5, 10, 50), whole) | expected_recall((1, 2, 3), five, "Rsubset@")
    found = both(report.rows)
    assert {name: found[name] for name in expected} == near(expected)
    # the paper's single number
    halves = np.array([expected["R@5"], expected["Rsubset@1"]])
    assert found["(R@5 + Rsubset@1) / 2"] == pytest.approx(halves.mean(axis=0))


def test_the_catalogue_in_circos_layout_scores_what_is_counted_by_hand(
    catalog: DrawnCatalog, shop: Path, hand: Hand, bundle: Bundle, store: ServerStore, tmp_path: Path
) -> None:
    folder = tmp_path / "COCO2017_unlabeled" / "unlabeled2017"
    folder.mkdir(parents=True)
    number_of = {item.image_id: number for number, item in enumerate(catalog.items, start=1)}
    for image_id, number in number_of.items():
        os.link(shop / "images" / f"{image_id}.jpg", folder / f"{number:012d}.jpg")
    entries = [
        {
            "id": number,
            "reference_img_id": number_of[query.reference_id],
            "target_img_id": number_of[query.drawn_target_id],
            "gt_img_ids": [number_of[target] for target in query.target_ids],
            "relative_caption": query.modification_text,
        }
        for number, query in enumerate(catalog.queries)
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "val.json").write_text(json.dumps(entries))
    report = report_of(read_circo(tmp_path), store, bundle, tmp_path / "out")
    rankings = {q: hand.rank(q.reference_id, q.modification_text, list(number_of)) for q in catalog.queries}
    expected = expected_recall((5, 10, 25, 50), rankings)
    for k in (5, 10, 25, 50):
        scores = np.array(
            [
                [average_precision(query, order, k) for order in (ranking.retrieved, ranking.reranked)]
                for query, ranking in rankings.items()
            ]
        )
        before, after = 100 * scores.mean(axis=0)
        expected[f"mAP@{k}"] = (before, after)
    found = both(report.rows)
    assert {name: found[name] for name in expected} == near(expected)


def average_precision(query: DrawnQuery, order: Sequence[str], k: int) -> float:
    """Give CIRCO's: the n-th right answer at place p adds n / p, and the sum is over min(right answers, k)."""
    places: NDArray[np.int64] = np.sort([place_of(target, order) for target in query.target_ids])
    terms = [n / place for n, place in enumerate(places, start=1) if place <= k]
    return float(sum(terms)) / min(len(places), k)
