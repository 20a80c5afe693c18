"""The quality benchmark, from nothing to its documents, on a tiny catalogue with the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.quality.__main__ import main
from benchmarks.quality.ablations import fitted, next_by_length
from benchmarks.quality.answers import final_rankings, retrieve
from benchmarks.quality.bars import Bar
from benchmarks.quality.changed_graphs import (
    open_changed,
    with_codec,
    with_first_states,
    without_stream,
    write_changed,
)
from benchmarks.quality.templates import uses_unseen_template
from qdrant_cir.drawn.dataset import sample_training_edit
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, StoredTokens


def _some_triplets(count: int) -> tuple[Composition, StoredTokens]:
    """A random query and candidates of the bundled model's sizes."""
    rng, sizes = np.random.default_rng(0), load_bundle("drawn").manifest.sizes
    query = Composition(
        vector=np.zeros(sizes.vector_size, np.float32),
        input_ids=rng.integers(5, 100, 7),
        fusion_states=rng.standard_normal((7, sizes.fusion_dims), dtype=np.float32),
    )
    tokens = rng.standard_normal((count, sizes.token_rows, sizes.token_dims), dtype=np.float32)
    return query, quantize(tokens, sizes.token_codec)


def _inputs(query: Composition, candidates: StoredTokens) -> dict[str, np.ndarray]:
    return {
        "input_ids": query.input_ids[None],
        "fusion_states": query.fusion_states[None],
        "candidate_tokens": candidates.values,
        "candidate_scales": candidates.scales,
    }


def _scores_of_head(stream_0: np.ndarray, stream_1: np.ndarray) -> np.ndarray:
    """The bundled re-ranker's last two layers by hand."""
    graph = onnx.load(str(load_bundle("drawn").graph_path("reranker"))).graph
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer if w.name.startswith("cls_head")}
    joined = np.concatenate((stream_0, stream_1), axis=1)
    hidden = np.maximum(joined @ weights["cls_head.0.weight"].T + weights["cls_head.0.bias"], 0)
    return (hidden @ weights["cls_head.2.weight"].T + weights["cls_head.2.bias"])[:, 0]


def test_reranking_reorders_the_first_candidates_alone() -> None:
    order, cosines = np.array([[3, 1, 2, 0]]), np.array([[0.9, 0.8, 0.7, 0.6]], np.float32)
    scores = np.array([[0.1, 0.5, 0.5]], np.float32)

    assert final_rankings("abcd", order, cosines, scores) == [("b", "c", "d", "a")]


def test_retrieval_orders_equal_cosines_by_place() -> None:
    gallery = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    query = Composition(np.array([1, 0], np.float32), np.zeros(0, np.int64), np.zeros((0, 1), np.float32))

    found = retrieve([query], gallery, depth=2)

    assert found.order.tolist() == [[0, 2]]
    assert found.cosines.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("bar", "value", "admits", "text"),
    [
        (Bar("R@100", least=97.0), 97.0, True, "R@100 at least 97 %"),
        (Bar("R@100", least=97.0), 96.9, False, "R@100 at least 97 %"),
        (Bar("R@1", most=70.0), 70.1, False, "R@1 at most 70 %"),
    ],
)
def test_a_bar_admits_its_own_value(bar: Bar, value: float, admits: bool, text: str) -> None:
    assert bar.admits(value) == admits
    assert str(bar) == text


def test_no_training_text_has_an_unseen_template() -> None:
    rng = np.random.default_rng(0)

    texts = [sample_training_edit(rng, negatives=1).text for _ in range(200)]

    assert [text for text in texts if uses_unseen_template(text)] == []
    assert uses_unseen_template("the color of the body is red")


def test_tables_are_those_of_the_evaluation_and_other_parts_go_on_where_they_were(
    evaluated_catalog: Path, tmp_path: Path
) -> None:
    out, docs = tmp_path / "out", tmp_path / "docs"
    catalog, run = evaluated_catalog / "catalog", evaluated_catalog / "run"
    command = ["--catalog", str(catalog), "--run", str(run), "--out", str(out), "--threads", "1", "--docs", str(docs)]

    main([*command, "--only", "ablations"])
    scores = {path: path.stat().st_mtime_ns for path in out.glob("cache/*/ablations/*.npy")}
    main([*command, "--only", "main,k,slices,ablations,precision,encoding"])

    found = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert set(found) == {"main", "parts", "bars", "k", "slices", "ablations", "precision", "encoding"}
    for metric, name in (("R@1", "recall@1"), ("R@10", "recall@10"), ("mAP@10", "map@10")):
        row = found["main"]["data"][metric]
        assert row["stage_one"]["value"] == pytest.approx(report["stage_one"][name]["value"])
        # 60 pictures: the run's depth of 200 and the tables' of 100 see the same candidates
        assert row["reranked"]["value"] == pytest.approx(report["stage_two"][name]["value"])
    control = report["controls"][0]["figures"][0]["interval"]["value"]
    assert found["bars"]["data"]["image-only"]["R@1"]["value"] == pytest.approx(control)
    assert found["ablations"]["data"]["queries"] == 4
    assert abs(found["precision"]["data"]["tokens_float32"]["R@10"]["difference"]["value"]) <= 25
    assert len(found["encoding"]["rows"]) == 4
    exact = found["encoding"]["data"]["int8, references exact, both stages"]["R@10"]
    assert abs(exact["difference"]["value"]) <= 25  # one query of four
    assert len(scores) == len(found["ablations"]["rows"]) - 2
    assert {path: path.stat().st_mtime_ns for path in scores} == scores
    assert "--out OUT --only main" in (docs / "quality.md").read_text(encoding="utf-8")


def test_every_query_gets_the_next_text_by_length_at_its_own_length() -> None:
    texts = [np.array(ids) for ids in ([1, 7, 8, 2], [1, 5, 2], [1, 6, 2])]
    queries = [Composition(np.zeros(1, np.float32), ids, np.zeros((len(ids), 1), np.float32)) for ids in texts]

    others = [query.input_ids for query in next_by_length(queries)]

    assert [other.tolist() for other in others] == [[1, 5, 2], [1, 6, 2], [1, 7, 8, 2]]
    given = [fitted(other, own).tolist() for other, own in zip(others, texts, strict=True)]
    assert given == [[1, 5, 2, 2], [1, 6, 2], [1, 7, 2]]


def test_a_stream_put_to_its_mean_no_longer_tells_candidates_apart(tmp_path: Path) -> None:
    bundle = load_bundle("drawn")
    query, candidates = _some_triplets(count=6)
    session = write_changed(bundle, with_first_states, tmp_path / "first.onnx", threads=1)
    states = session.run(_inputs(query, candidates))
    head = _scores_of_head(states["stream_0"], states["stream_1"])
    mean = states["stream_1"].mean(axis=0)

    alone = open_changed(
        bundle, lambda model: without_stream(model, 1, mean), tmp_path / "alone.onnx", threads=1
    ).score(query, candidates)

    exact = Reranker.open(bundle, Compute("cpu", 1)).score(query, candidates)
    without = _scores_of_head(states["stream_0"], np.repeat(mean[None], 6, axis=0))
    # beside the head's score there is stage one's cosine, which no stream has a part in
    assert np.allclose(alone - without, exact - head, atol=1e-3)
    assert not np.allclose(alone, exact, atol=1e-3)


def test_float_tokens_give_the_scores_of_the_bundles_own(tmp_path: Path) -> None:
    bundle = load_bundle("drawn")
    query, candidates = _some_triplets(count=8)
    exact = Reranker.open(bundle, Compute("cpu", 1)).score(query, candidates)
    read = StoredTokens(
        values=(candidates.values * candidates.scales[..., None]).astype(np.float32),
        scales=np.ones_like(candidates.scales),
    )
    of_floats = open_changed(
        bundle, lambda model: with_codec(model, "float32"), tmp_path / "floats.onnx", threads=1
    ).score(query, read)

    assert np.abs(of_floats - exact).max() < 1e-4 * exact.std() + 1e-5
