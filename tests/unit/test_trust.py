"""A short, seeded part of ``benchmarks/trust``: what comes in broken raises nothing but named errors."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.trust import bundles, calls, full_disks, kills, pictures, queries, rows, soak


def test_damaged_pictures_are_read_or_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, raw, longest = pictures.count_outcomes(1_200, seed=11)
    assert dict(raw) == {}
    assert min(outcomes["read"], outcomes["refused"]) > 100
    assert longest < 10


def test_damaged_rows_are_read_or_refused() -> None:
    outcomes, raw, longest = rows.count_outcomes(300, seed=11)
    assert dict(raw) == {}
    assert outcomes["read"] > 30
    assert longest < 10


def test_damaged_bundles_load_or_are_refused(tiny_bundle: Path) -> None:
    outcomes, raw, longest = bundles.count_outcomes(400, seed=11, bundle=tiny_bundle)
    assert dict(raw) == {}
    assert outcomes["refused"] > 200
    assert outcomes["loaded"] > 10
    assert longest < 10


def test_public_calls_with_wrong_arguments_work_or_are_refused(tiny_bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, raw, longest = calls.count_outcomes(600, 11, str(tiny_bundle))
    assert dict(raw) == {}
    assert outcomes["worked"] > 10
    assert longest < 20


def test_odd_texts_and_filters_are_answered_or_refused(tiny_bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, raw, longest = queries.count_outcomes(300, 11, str(tiny_bundle))
    assert dict(raw) == {}
    assert min(outcomes["answered"], outcomes["refused"]) > 30
    assert longest < 10


def test_kills_lose_nothing_and_the_next_run_makes_it_whole(tiny_bundle: Path) -> None:
    outcomes = kills.count_outcomes(4, 11, str(tiny_bundle), pictures=40)
    assert (outcomes["lost"], outcomes["back"], outcomes["not whole"]) == (0, 0, 0)


def test_full_disks_end_no_command_by_a_signal() -> None:
    if not full_disks.can_mount():
        pytest.skip("this process may not mount file systems")
    endings, sentences = full_disks.count_endings([36], 20, Path(__file__).parents[2])
    assert not [ending for ending in endings if "signal" in ending]
    assert endings["index refused"] == 2
    assert all("nearly full" in sentence for sentence in sentences if "disk" in sentence)


def test_a_few_seconds_of_everything_work(tiny_bundle: Path) -> None:
    memory, done = soak.soak(3, str(tiny_bundle))
    assert min(memory) > 0
    assert min(done[each] for each in ("indexed", "found", "filtered", "refused", "deleted", "checked")) > 0
