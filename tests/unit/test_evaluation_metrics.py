"""Metrics as arithmetic, and against numbers that others published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.datasets.annotation_files import Annotation, read_records
from qdrant_cir.evaluation.datasets.circo import METRICS as CIRCO_METRICS
from qdrant_cir.evaluation.datasets.circo import read_circo_queries, read_circo_truth
from qdrant_cir.evaluation.metrics import Answer, AveragePrecision, Recall, Truth
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of, number_clusters
from qdrant_cir.evaluation.report.circo_submission import read_circo_submission
from qdrant_cir.evaluation.report.losses import Losses, TargetPlaces, count_losses
from qdrant_cir.evaluation.runs.rankings import ScoredImage, StageScores, rank_by_score
from qdrant_cir.evaluation.runs.scoring import best_place, score_rankings

ABCDE = Answer(tuple("abcde"), tuple("xyz"))


def truth(*targets: str, single: str | None = None) -> Truth:
    return Truth(frozenset(targets), single)


def test_recall_is_one_from_the_place_of_the_first_target_on() -> None:
    assert [Recall(k).score(ABCDE, truth("c", "e")) for k in (1, 2, 3, 5)] == [0, 0, 1, 1]
    assert Recall(5).score(ABCDE, truth("z")) == 0


def test_recall_on_the_single_target_ignores_other_right_images() -> None:
    both = truth("a", "d", single="d")
    assert [Recall(k, of="single").score(ABCDE, both) for k in (1, 3, 4)] == [0, 0, 1]
    with pytest.raises(EvaluationError, match="none of them is named"):
        Recall(1, of="single").score(ABCDE, truth("a"))


def test_subset_recall_reads_the_subsets_ranking_alone() -> None:
    assert [Recall(k, of="subset").score(ABCDE, truth("y")) for k in (1, 2, 3)] == [0, 1, 1]
    assert Recall(3, of="subset").score(ABCDE, truth("a")) == 0


def test_average_precision_sums_precision_at_hits_over_the_smaller_of_truth_and_k() -> None:
    # hits at places 1 and 3: 1/1 + 2/3
    assert AveragePrecision(5).score(ABCDE, truth("a", "c")) == pytest.approx((1 + 2 / 3) / 2)
    # three right answers, of which one is not found: still three in the denominator
    assert AveragePrecision(5).score(ABCDE, truth("a", "c", "z")) == pytest.approx((1 + 2 / 3) / 3)
    # but at k = 2 no more than two can be found
    assert AveragePrecision(2).score(ABCDE, truth("a", "c", "z")) == pytest.approx(1 / 2)
    assert AveragePrecision(2).score(ABCDE, truth("a", "b", "c")) == 1


def test_released_label_file_gives_the_published_recall(shared_data: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: the label file is a torch file")
    labels = torch.load(shared_data / "paper" / "fiq_stageII_labels_val_dress.pt", weights_only=True).numpy()
    assert labels.shape == (2017, 200)
    rankings = {
        str(query): tuple("target" if hit else f"{place}" for place, hit in enumerate(row))
        for query, row in enumerate(labels)
    }
    scores = score_rankings(rankings, {query_id: truth("target") for query_id in rankings}, [Recall(10), Recall(50)])
    assert len(scores.query_ids) == 2017
    assert round(100 * scores.mean("R@10"), 2) == 47.89
    assert round(100 * scores.mean("R@50"), 2) == 71.44


def test_circos_example_submission_scores_what_its_authors_definition_gives(shared_data: Path) -> None:
    circo = shared_data / "circo"
    entries = read_records(circo / "annotations" / "val.json")
    rankings = read_circo_submission(circo / "submission_examples" / "submission_val.json")
    scores = score_rankings(rankings, read_circo_truth(entries), CIRCO_METRICS)
    for k in (5, 10, 25, 50):
        expected_map, expected_recall = circo_by_definition(entries, rankings, k)
        assert scores.mean(f"mAP@{k}") == pytest.approx(expected_map, abs=1e-12)
        assert scores.mean(f"R@{k}") == pytest.approx(expected_recall, abs=1e-12)
    assert 0 < scores.mean("mAP@50") < 0.5
    aspects = {label for query in read_circo_queries(entries) for label in query.labels}
    assert len(aspects) == 9


def circo_by_definition(entries: list[Annotation], rankings: dict[str, tuple[str, ...]], k: int) -> tuple[float, float]:
    """Compute mAP@k and R@k over arrays, as the paper writes the formula."""
    precisions, recalls = [], []
    for entry in entries:
        predicted = np.array([int(name) for name in rankings[str(entry.integer("id"))]])[:k]
        right = np.isin(predicted, entry.integers("gt_img_ids"))
        at_every_place = np.cumsum(right) / np.arange(1, len(right) + 1)
        precisions.append((at_every_place * right).sum() / min(len(entry.integers("gt_img_ids")), k))
        recalls.append((predicted == entry.integer("target_img_id")).any())
    return float(np.mean(precisions)), float(np.mean(recalls))


def test_ties_go_by_image_id_whatever_the_order_of_the_input() -> None:
    images = [ScoredImage("b", 1.0), ScoredImage("c", 2.0), ScoredImage("a", 1.0)]
    assert rank_by_score(images) == rank_by_score(reversed(images)) == ("c", "a", "b")


def test_unsorted_scores_are_ranked_by_score_and_the_unseen_follow_in_stage_ones_order() -> None:
    scores = StageScores(
        retrieved=(
            ScoredImage("d", 0.1),
            ScoredImage("a", 0.9),
            ScoredImage("c", 0.3),
            ScoredImage("b", 0.5),
        ),
        reranked=(ScoredImage("c", 7.0), ScoredImage("a", 1.0), ScoredImage("b", 7.0)),
    )
    assert scores.retrieved_order() == ("a", "b", "c", "d")
    # b and c tie at 7.0: stage one had b first
    assert scores.reranked_order() == ("b", "c", "a", "d")


def test_ties_of_stage_two_go_by_stage_ones_order_and_not_by_image_id() -> None:
    retrieved = (ScoredImage("z", 0.9), ScoredImage("a", 0.5))
    for reranked in ((ScoredImage("a", 7.0), ScoredImage("z", 7.0)), (ScoredImage("z", 7.0), ScoredImage("a", 7.0))):
        assert StageScores(retrieved, reranked).reranked_order() == ("z", "a")


def test_a_ranking_that_names_an_image_twice_is_refused() -> None:
    with pytest.raises(EvaluationError, match="'b' is in the ranking 2 times"):
        score_rankings({"q": ("a", "b", "b")}, {"q": truth("a")}, [Recall(1)])


def test_a_missing_query_is_refused_by_name_and_never_left_out_of_the_mean() -> None:
    both = {"q1": truth("a"), "q2": truth("a")}
    with pytest.raises(EvaluationError, match=r"Of 2 queries, 1 have no answer \(q2\)"):
        score_rankings({"q1": ("a",)}, both, [Recall(1)])


def test_an_unknown_query_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"1 are not of this data set \(q9\)"):
        score_rankings({"q1": ("a",), "q9": ("a",)}, {"q1": truth("a")}, [Recall(1)])


def test_an_empty_run_has_no_number() -> None:
    with pytest.raises(EvaluationError, match="no queries to score"):
        score_rankings({}, {}, [Recall(1)])
    with pytest.raises(EvaluationError, match="the ranking is empty"):
        score_rankings({"q": ()}, {"q": truth("a")}, [Recall(1)])


def test_every_query_is_found_or_lost_by_exactly_one_stage() -> None:
    places = [
        TargetPlaces("found", retrieved=12, final=2),
        TargetPlaces("put too low", retrieved=3, final=11),
        TargetPlaces("no candidate", retrieved=21, final=21),
        TargetPlaces("not returned", retrieved=None, final=None),
    ]
    assert count_losses(places, k=10, rerank_depth=20) == Losses(10, found=1, candidate_misses=2, ordering_losses=1)
    # behind the candidates, yet within k: found, though stage two never saw it
    assert count_losses(places, k=25, rerank_depth=20) == Losses(25, found=3, candidate_misses=1, ordering_losses=0)


def test_the_best_place_is_that_of_the_first_target() -> None:
    assert best_place(tuple("abc"), frozenset("cb")) == 2
    assert best_place(tuple("abc"), frozenset("z")) is None


def test_bootstrap_is_seeded_and_spans_what_the_binomial_law_says() -> None:
    hits = np.zeros((400, 1))
    hits[:100] = 1
    alone = [np.arange(400)]
    draws = bootstrap_means([hits], alone, resamples=2000, seed=3)
    assert np.array_equal(draws, bootstrap_means([hits], alone, resamples=2000, seed=3))
    interval = interval_of(0.25, draws[:, 0])
    # 1.96 * sqrt(0.25 * 0.75 / 400) = 0.0424
    assert interval.low == pytest.approx(0.25 - 0.0424, abs=0.006)
    assert interval.high == pytest.approx(0.25 + 0.0424, abs=0.006)


def test_bootstrap_weighs_parts_alike_and_keeps_a_querys_columns_together() -> None:
    small, large = np.array([[1.0, 0.0]]), np.tile([[0.0, 1.0], [1.0, 0.0]], (50, 1))
    draws = bootstrap_means([small, large], [np.arange(1), np.arange(100)], resamples=500, seed=0)
    # the one query of the small part is half of every draw
    assert draws[:, 0].min() >= 0.5
    # one column is right exactly where the other is wrong, so their sum never moves
    assert np.allclose(draws.sum(axis=1), 1.0)


def test_queries_of_one_reference_are_drawn_together() -> None:
    # forty references with ten queries each that all succeed or all fail: as good as forty queries, not four hundred
    hits = np.repeat([[1.0], [0.0], [0.0], [0.0]] * 10, 10, axis=0)
    together = [number_clusters([f"r{row // 10}" for row in range(400)])]
    interval = interval_of(0.25, bootstrap_means([hits], together, resamples=2000, seed=3)[:, 0])
    # 1.96 * sqrt(0.25 * 0.75 / 40) = 0.134
    assert interval.low == pytest.approx(0.25 - 0.134, abs=0.02)
    assert interval.high == pytest.approx(0.25 + 0.134, abs=0.02)


def test_references_of_different_numbers_of_queries_keep_their_weights() -> None:
    values, clusters = np.array([[1.0], [1.0], [1.0], [0.0]]), [np.array([5, 5, 5, 9])]
    draws = bootstrap_means([values], clusters, resamples=4000, seed=0)
    # both, one twice, the other twice: (3 + 0) / 4, 1 and 0
    assert set(draws[:, 0].round(6)) == {0.0, 0.75, 1.0}


def test_queries_without_a_reference_are_clusters_of_their_own() -> None:
    assert number_clusters(["a", None, "b", None, "a"]).tolist() == [0, 1, 2, 3, 0]
