"""The quality benchmark, from nothing to its documents, on a tiny catalogue with the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.quality.__main__ import main
from benchmarks.quality.answers import rerank, retrieve
from benchmarks.quality.templates import uses_unseen_template
from qdrant_cir.catalog.dataset import sample_training_edit


def test_reranking_reorders_the_first_candidates_alone() -> None:
    order = np.array([[7, 3, 9, 5]])
    scores = np.array([[0.1, 0.5, 0.5, 2.0]], np.float32)

    assert rerank(order, scores, depth=3).tolist() == [[3, 9, 7, 5]]


def test_retrieval_orders_equal_scores_by_place_and_leaves_the_excluded_out() -> None:
    gallery = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    query = np.array([[1, 0]], np.float32)

    assert retrieve(query, gallery, depth=3).tolist() == [[0, 2, 1]]
    assert retrieve(query, gallery, depth=3, excluded=[0]).tolist() == [[2, 1]]


def test_no_training_text_has_an_unseen_template() -> None:
    rng = np.random.default_rng(0)

    texts = [sample_training_edit(rng, negatives=1).text for _ in range(200)]

    assert [text for text in texts if uses_unseen_template(text)] == []
    assert uses_unseen_template("the color of the body is red")


def test_a_run_writes_its_documents_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out, docs = tmp_path / "out", tmp_path / "docs"
    command = ["--out", str(out), "--products", "60", "--queries", "4", "--threads", "1", "--docs", str(docs)]

    main([*command, "--only", "main"])
    scores = next(out.glob("cache/*/scores.npy"))
    written = scores.stat().st_mtime_ns
    main([*command, "--only", "slices"])

    found = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    assert set(found) == {"main", "credibility", "agreement", "slices"}
    assert found["agreement"]["data"]["same_order"] == 4
    assert scores.stat().st_mtime_ns == written
    assert "--products 60 --queries 4 --only main" in (docs / "quality.md").read_text(encoding="utf-8")
