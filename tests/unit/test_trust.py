"""A short, seeded part of ``benchmarks/trust``: what comes in broken raises nothing but named errors."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.trust import bundles, calls, pictures, rows


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
    assert outcomes["worked"] > 30
    assert longest < 20
