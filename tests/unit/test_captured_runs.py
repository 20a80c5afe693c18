"""Runs through kept buffers give what ordinary runs give, whatever the shape, the order and the thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qdrant_cir.model import captured_runs
from qdrant_cir.model.captured_runs import CapturedRuns
from qdrant_cir.model.sessions import Session, open_session

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def composer(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle / "onnx" / "composer.onnx", provider="cpu", threads=1)


def captured(session: Session) -> CapturedRuns:
    return CapturedRuns(onnxruntime, session._session, run_usually=session.run_bound, device="cpu")


def texts(session: Session, length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = next(tensor.shape for tensor in session.inputs if tensor.name == "reference_tokens")
    return {
        "input_ids": rng.integers(5, 16, (1, length)),
        "attention_mask": np.ones((1, length), np.int64),
        "reference_tokens": rng.standard_normal((1, *tokens[1:]), dtype=np.float32),
    }


def test_replayed_runs_give_what_usual_ones_give_for_every_shape(composer: Session) -> None:
    runs = captured(composer)
    for seed, length in enumerate((3, 7, 3, 1, 7, 3)):
        given = texts(composer, length, seed)
        found, expected = runs.run(given), composer.run(given)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_an_answer_is_not_overwritten_by_the_next_run(composer: Session) -> None:
    runs = captured(composer)
    first = texts(composer, 4, seed=1)
    runs.run(first)
    kept = runs.run(first)
    before = kept["query_vectors"].copy()
    runs.run(texts(composer, 4, seed=2))
    np.testing.assert_array_equal(kept["query_vectors"], before)


def test_threads_take_turns(composer: Session) -> None:
    runs = captured(composer)
    given = [texts(composer, 2 + seed % 3, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(runs.run, given))
    for answer, inputs in zip(found, given, strict=True):
        np.testing.assert_array_equal(answer["query_vectors"], composer.run(inputs)["query_vectors"])


def test_shapes_beyond_the_most_are_left_to_usual_runs(composer: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_runs, "MOST_SHAPES", 2)
    replayed: list[int] = []
    replay = CapturedRuns._replay

    def counted(self: CapturedRuns, buffers: object, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        replayed.append(inputs["input_ids"].shape[1])
        return replay(self, buffers, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(CapturedRuns, "_replay", counted)
    runs = captured(composer)
    for length in (1, 2, 3, 1, 3):
        given = texts(composer, length, seed=1)
        np.testing.assert_array_equal(runs.run(given)["query_vectors"], composer.run(given)["query_vectors"])
    assert replayed == [1, 1, 2, 2, 1]  # twice when a shape is recorded, once when it comes again


def test_a_device_whose_recorded_runs_differ_is_left_to_usual_runs(
    composer: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = captured(composer)
    replay = CapturedRuns._replay

    def wrong(self: CapturedRuns, buffers: object, inputs: object) -> dict[str, np.ndarray]:
        return {name: value + 1 for name, value in replay(self, buffers, inputs).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(CapturedRuns, "_replay", wrong)
    given = texts(composer, 3, seed=1)
    first = runs.run(given)
    np.testing.assert_array_equal(first["query_vectors"], composer.run(given)["query_vectors"])
    assert not runs.is_trusted
    np.testing.assert_array_equal(runs.run(given)["query_vectors"], first["query_vectors"])
    assert "CUDA graphs are not used" in caplog.text
