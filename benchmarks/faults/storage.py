"""Faults in what is stored, and in how the stores are called."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

FAULTS: tuple[Fault, ...] = ()
