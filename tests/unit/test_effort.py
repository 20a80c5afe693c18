"""How re-ranking ends early: the rule by hand, its promise on fresh queries, and what a search says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, replace
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qdrant_cir.errors import InputError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.manifest import MANIFEST_FILE
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.effort import PROVENANCE_KEY, Effort, EffortCalibration, LeadBound, StopRule, lead_of
from qdrant_cir.search.effort_calibration import CONFIDENCES, calibrate_effort
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import Query, SearchResult

Color = tuple[int, int, int]
COUNT = 24


def test_the_lead_is_the_limits_best_above_the_last_step_in_deviations() -> None:
    # mean 3, squares 4 + 4 + 4 + 4, so the deviation is 2; the second best is 5, the last step's mean 1
    assert lead_of([[5, 5], [1, 1]], limit=2) == pytest.approx((5 - 1) / 2)
    assert lead_of([[4.0], [1.0], [1.0]], limit=1) == pytest.approx((4 - 1) / sqrt(2))


@pytest.mark.parametrize("steps", [[], [[1.0]], [[2.0, 2.0]], [[3.0, 1.0], []]])
def test_too_few_equal_or_missing_scores_settle_nothing(steps: list[list[float]]) -> None:
    assert lead_of(steps, limit=2) == -inf
    assert not StopRule(limit=2, step=2, lead=-1e9).is_settled(steps)


def test_the_next_limit_and_the_next_confidence_are_taken_and_beyond_them_nothing_stops() -> None:
    bounds = (LeadBound(5, 0.9, 1.0), LeadBound(5, 0.95, 2.0), LeadBound(10, 0.9, 3.0))
    calibration = EffortCalibration("f" * 64, 50, 10, 100, bounds)
    assert calibration.lead(limit=5, confidence=0.9) == 1.0
    assert calibration.lead(limit=3, confidence=0.92) == 2.0
    assert calibration.lead(limit=6, confidence=0.5) == 3.0
    assert calibration.lead(limit=6, confidence=0.95) == inf
    assert calibration.lead(limit=11, confidence=0.5) == inf


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    calibration = EffortCalibration("f" * 64, 50, 10, 30, (LeadBound(1, 0.9, 0.25), LeadBound(1, 0.99, inf)))
    path = tmp_path / "effort.json"
    path.write_text(json.dumps(calibration.to_object()), encoding="utf-8")
    assert EffortCalibration.read(path) == calibration


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1, "bundle": 3}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "effort.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        EffortCalibration.read(tmp_path / "effort.json")


def drawn_scores(random: np.random.Generator, queries: int, depth: int = 40) -> list[list[float]]:
    """Draw queries of which stage one is right about falling scores, more or less."""
    slope = random.uniform(0, 0.1, (queries, 1))
    rows: list[list[float]] = (random.normal(size=(queries, depth)) - slope * np.arange(depth)).tolist()
    return rows


def share_lost(row: list[float], rule: StopRule) -> float:
    """Give the share of the exact first places that a rule never looks at."""
    assert rule.step is not None
    steps: list[list[float]] = []
    for start in range(0, len(row), rule.step):
        if rule.is_settled(steps):
            break
        steps.append(row[start : start + rule.step])
    seen = sum(map(len, steps))
    first = sorted(range(len(row)), key=lambda place: -row[place])[: rule.limit]
    return sum(place >= seen for place in first) / rule.limit


@pytest.mark.parametrize("confidence", [0.8, 0.9])
@pytest.mark.parametrize("limit", [1, 5])
def test_on_fresh_queries_at_least_the_stated_share_of_places_is_exact(confidence: float, limit: int) -> None:
    random = np.random.default_rng(3)
    lost, unseen = [], []
    for _ in range(4):
        calibration = calibrate_effort(drawn_scores(random, 60), fingerprint="f" * 64, rerank_depth=40, step=8)
        rule = StopRule(limit, 8, calibration.lead(limit=limit, confidence=confidence))
        shares = [share_lost(row, rule) for row in drawn_scores(random, 60)]
        lost.append(np.mean(shares))
        unseen.append(max(shares))
    # 240 queries: two standard errors are below 0.05
    assert np.mean(lost) <= 1 - confidence + 0.05
    assert max(unseen) > 0


def test_more_confidence_never_stops_earlier() -> None:
    calibration = calibrate_effort(
        drawn_scores(np.random.default_rng(5), 60), fingerprint="f" * 64, rerank_depth=40, step=8
    )
    leads = [calibration.lead(limit=5, confidence=confidence) for confidence in CONFIDENCES]
    assert leads == sorted(leads)


def leads_of_twenty(*, losing: int) -> EffortCalibration:
    """Calibrate with 20 queries, of which stopping after the first step loses the best candidate of ``losing``."""
    kept, lost = [3.0, 2.0, 1.0, 0.0], [2.0, 1.0, 3.0, 0.0]
    return calibrate_effort([lost] * losing + [kept] * (20 - losing), fingerprint="f" * 64, rerank_depth=4, step=2)


def test_twenty_queries_that_lose_nothing_back_95_percent_and_not_98() -> None:
    # the bound is (0 + 1) / (20 + 1) = 0.048
    calibration = leads_of_twenty(losing=0)
    assert calibration.lead(limit=1, confidence=0.95) < inf
    assert calibration.lead(limit=1, confidence=0.98) == inf


@pytest.mark.parametrize(("losing", "may_stop_first"), [(5, True), (6, False)])
def test_the_bound_counts_one_lost_query_more_than_was_seen(losing: int, may_stop_first: bool) -> None:
    # with 5 lost of 20 the bound is 6 / 21 = 0.29, with 6 it is 7 / 21 = 0.33
    calibration = leads_of_twenty(losing=losing)
    first_lead = lead_of([[3.0, 2.0]], limit=1)
    assert first_lead == lead_of([[2.0, 1.0]], limit=1)
    assert (calibration.lead(limit=1, confidence=0.7) <= first_lead) == may_stop_first


def test_few_queries_make_no_calibration() -> None:
    with pytest.raises(InputError, match="19 queries"):
        calibrate_effort([[1.0, 2.0]] * 19, fingerprint="f" * 64, rerank_depth=2)


@pytest.fixture(scope="module")
def retriever(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]],
) -> Iterator[Retriever]:
    random = np.random.default_rng(2)
    colors = {f"c{n}": tuple(random.integers(0, 256, 3).tolist()) for n in range(COUNT)}
    pictures = write_solid_images(tmp_path_factory.mktemp("pictures"), colors)
    bundle, client = load_bundle(tiny_bundle), QdrantClient(":memory:")
    collection = Collection.create(ServerStore(client), "colors", bundle)
    records = [ImageRecord(path.stem, path, payload={}, source=None) for path in pictures]
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    with Retriever.open("colors", store=client, bundle=tiny_bundle, provider="cpu") as retriever:
        yield retriever


QUERY = Query(modification_text="make it blue")


def calibration_of(bundle: Path, *, lead: float, depth: int = COUNT, step: int = 8) -> EffortCalibration:
    bounds = tuple(LeadBound(limit, 0.9, lead) for limit in (3, 5))
    return EffortCalibration(load_bundle(bundle).fingerprint, depth, step, 100, bounds)


def search(retriever: Retriever, effort: Effort, limit: int = 3) -> SearchResult:
    return retriever.search(QUERY, limit=limit, rerank_depth=COUNT, effort=effort)


def test_by_default_every_candidate_is_scored(retriever: Retriever) -> None:
    result = retriever.search(QUERY, limit=3, rerank_depth=COUNT)
    assert (result.rerank_mode, result.scored, result.notes) == ("exact", COUNT, search(retriever, Effort()).notes)


def test_settled_places_end_re_ranking_and_the_result_says_so(retriever: Retriever, tiny_bundle: Path) -> None:
    always = Effort(confidence=0.9, calibration=calibration_of(tiny_bundle, lead=-1e9))
    result = search(retriever, always, limit=5)
    # eight are scored, then the first five of them are returned
    assert (result.rerank_mode, result.scored) == ("adaptive", 8)
    assert any("8 of 24" in note for note in result.notes)
    eight = retriever.search(QUERY, limit=5, rerank_depth=8)
    assert [c.image_id for c in result.candidates] == [c.image_id for c in eight.candidates]


def test_a_lead_that_is_never_reached_is_exact_re_ranking(retriever: Retriever, tiny_bundle: Path) -> None:
    never = search(retriever, Effort(confidence=0.9, calibration=calibration_of(tiny_bundle, lead=1e9)))
    exact = search(retriever, Effort())
    assert (never.rerank_mode, never.scored) == ("exact", COUNT)
    assert [c.image_id for c in never.candidates] == [c.image_id for c in exact.candidates]


def test_tokens_that_are_not_needed_are_not_read(retriever: Retriever, tiny_bundle: Path) -> None:
    def effort(lead: float) -> Effort:
        return Effort(confidence=0.9, calibration=calibration_of(tiny_bundle, lead=lead, step=2))

    exact = search(retriever, Effort())
    early, never = search(retriever, effort(-1e9)), search(retriever, effort(1e9))
    assert (early.scored, never.scored) == (4, COUNT)
    assert [c.image_id for c in never.candidates] == [c.image_id for c in exact.candidates]
    assert never.timings.total == pytest.approx(sum(astuple(never.timings)[:-1]))


def test_a_spent_time_budget_leaves_stage_ones_order(retriever: Retriever) -> None:
    result = search(retriever, Effort(time_budget=1e-9))
    assert (result.rerank_mode, result.scored) == ("budget", 0)
    assert [c.retrieval_rank for c in result.candidates] == [1, 2, 3]
    assert any("0 of 24" in note for note in result.notes)


def test_a_long_time_budget_changes_nothing(retriever: Retriever) -> None:
    result = search(retriever, Effort(time_budget=600))
    assert (result.rerank_mode, result.scored) == ("exact", COUNT)


def test_the_bundles_own_calibration_is_taken(retriever: Retriever, tiny_bundle: Path, tmp_path: Path) -> None:
    calibration = calibration_of(tiny_bundle, lead=-1e9)
    bundle = load_bundle(tiny_bundle)
    manifest = replace(bundle.manifest, provenance={PROVENANCE_KEY: calibration.to_object()})
    assert Effort(confidence=0.9).stop_rule(replace(bundle, manifest=manifest), limit=3, rerank_depth=8).lead == -1e9
    assert json.loads((tiny_bundle / MANIFEST_FILE).read_text(encoding="utf-8"))["provenance"] == {"made_by": "hand"}


@pytest.mark.parametrize("effort", [Effort(confidence=0.9), Effort(confidence=1.0), Effort(time_budget=0)])
def test_what_cannot_be_kept_is_refused(retriever: Retriever, effort: Effort) -> None:
    with pytest.raises(InputError):
        search(retriever, effort)


def test_a_calibration_of_another_bundle_or_a_smaller_depth_is_refused(retriever: Retriever, tiny_bundle: Path) -> None:
    calibration = calibration_of(tiny_bundle, lead=0.0)
    with pytest.raises(InputError, match="bundle"):
        search(retriever, Effort(confidence=0.9, calibration=replace(calibration, fingerprint="0" * 64)))
    with pytest.raises(InputError, match="holds up to 8"):
        search(retriever, Effort(confidence=0.9, calibration=replace(calibration, rerank_depth=8)))
