"""What the re-ranker's benchmark says of a busy machine, and of another order."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
from benchmarks.machine import alternate_timings
from benchmarks.rerank import Row, clock_counts, kendall


def row(seconds: float | None) -> str:
    return str(Row("int8", 10, 12, 8, 0.2, 3.5, seconds, seconds and 3.4, 80.0, 0.8, 12.0, 1e-3, 0.9, True, 1.5))


@pytest.mark.parametrize(
    ("others", "threads", "counts"), [(0.0, 2, True), (0.9, 1, True), (1.2, 1, False), (0.5, 2, False)]
)
def test_the_clock_counts_only_while_every_thread_has_a_core(others: float, threads: int, counts: bool) -> None:
    assert clock_counts(others, threads, cores=2) is counts


def test_a_row_without_a_free_core_has_processor_time_alone() -> None:
    assert "clock 200 ms, 3.40x" in row(0.2)
    assert "clock: refused" in row(None)
    assert "processor     200.0 ms/query   20.000 ms/candidate   3.50x" in row(None)


def test_the_loss_counts_pairs_in_another_order() -> None:
    exact = np.array([4, 3, 2, 1], np.float32)
    assert kendall(exact, exact * 7) == 1
    # one of six pairs is turned round
    assert kendall(exact, np.array([3, 4, 2, 1], np.float32)) == pytest.approx(4 / 6)


def test_waiting_takes_time_on_the_clock_and_none_of_the_processor() -> None:
    import time

    (timing,) = alternate_timings({"sleep": lambda: time.sleep(0.05)}, rounds=1)["sleep"]
    assert timing.wall > 0.04
    assert timing.processor < 0.03
