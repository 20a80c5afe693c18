"""The number of candidates that are re-ranked: all, or fewer by a rule that was measured on held-out queries.

Candidates are scored in stage one's order, step by step. Their *lead* after a step is how far the
worst score that would be returned stands above the mean of the last step, in standard deviations of all scores so
far: if it is large, the remaining candidates are unlikely to reach the first ``limit`` places.
:class:`EffortCalibration` holds how large it must be;
:func:`qdrant_cir.search.effort_calibration.calibrate_effort` measures it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, sqrt
from numbers import Real
from os import PathLike
from statistics import fmean
from typing import TypeVar

from qdrant_cir.arguments import checked_path, shown
from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.types import JsonObject, JsonValue

__all__ = ["EXACT", "PROVENANCE_KEY", "Effort", "EffortCalibration", "LeadBound", "StopRule", "lead_of"]

FORMAT_VERSION = 1
PROVENANCE_KEY = "effort"
"""Where a bundle's manifest holds its calibration, in ``provenance``."""

STEP = 8
"""Candidates that are scored between two checks of the clock or reports of progress; a calibration has its own step."""

_Json = TypeVar("_Json", bound="str | int | float | list[JsonValue]")


@dataclass(frozen=True, slots=True)
class LeadBound:
    """The lead at which re-ranking may stop; ``inf`` where it may not, written to JSON as null.

    Attributes:
        limit: results that are returned.
        confidence: the share of them, on average over queries, that exact re-ranking would return too.
        lead: in standard deviations.
    """

    limit: int
    confidence: float
    lead: float


@dataclass(frozen=True, slots=True)
class EffortCalibration:
    """Rules for stopping early, measured on held-out queries with one bundle.

    Attributes:
        fingerprint: of the bundle.
        rerank_depth: candidates that were scored for every query: the rule holds up to this depth.
        step: candidates between two decisions.
        queries: how many were measured.
        bounds: one for every limit and confidence that was measured.
    """

    fingerprint: str
    rerank_depth: int
    step: int
    queries: int
    bounds: tuple[LeadBound, ...]

    @classmethod
    def read(cls, path: str | PathLike[str]) -> EffortCalibration:
        """Read a file of ``qdrant-cir calibrate``. Raises InputError if it is not one."""
        try:
            value = json.loads(checked_path(path, name="path").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"The calibration {path} cannot be read: {error}. Make one with `qdrant-cir calibrate`."
            ) from error
        return cls.of_object(value, place=str(path))

    @classmethod
    def of_object(cls, value: JsonValue, *, place: str) -> EffortCalibration:
        """Read the result of :meth:`to_object`; ``place`` is for messages. Raises InputError."""
        version = _field(value, "format_version", int, place)
        if version != FORMAT_VERSION:
            raise InputError(f"{place} has format version {version}; this version reads {FORMAT_VERSION}.")
        return cls(
            fingerprint=_field(value, "bundle", str, place),
            rerank_depth=_field(value, "rerank_depth", int, place),
            step=max(1, _field(value, "step", int, place)),
            queries=_field(value, "queries", int, place),
            bounds=tuple(_bound(bound, place) for bound in _field(value, "bounds", list, place)),
        )

    def to_object(self) -> JsonObject:
        """Return the calibration as JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "bundle": self.fingerprint,
            "rerank_depth": self.rerank_depth,
            "step": self.step,
            "queries": self.queries,
            "bounds": [
                {
                    "limit": bound.limit,
                    "confidence": bound.confidence,
                    "lead": bound.lead if isfinite(bound.lead) else None,
                }
                for bound in self.bounds
            ],
        }

    def lead(self, *, limit: int, confidence: float) -> float:
        """Return the lead to stop at: that of the next higher measured limit and confidence; ``inf`` for none."""
        limits = sorted({bound.limit for bound in self.bounds if bound.limit >= limit})
        fitting = [b for b in self.bounds if limits and b.limit == limits[0] and b.confidence >= confidence]
        return min(fitting, key=lambda bound: bound.confidence).lead if fitting else inf


_STEPS_READ = 3
"""Steps that are read at once: most queries end within them; any other costs one more round trip."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """The rule by which the re-ranking of one query ends before its last candidate.

    Attributes:
        limit: results that are returned.
        step: candidates between two decisions; None for all at once.
        lead: it may stop at this lead, in standard deviations.
        time_budget: seconds, None for no limit.
    """

    limit: int
    step: int | None = None
    lead: float = inf
    time_budget: float | None = None

    @property
    def first_read(self) -> int | None:
        """The number of candidates whose tokens are read before the first decision; None for all of them."""
        return None if self.step is None else _STEPS_READ * self.step

    def is_settled(self, steps: Sequence[Sequence[float]]) -> bool:
        """Return whether the first ``limit`` places are unlikely to change; ``steps`` holds the scores of each step."""
        return isfinite(self.lead) and lead_of(steps, limit=self.limit) >= self.lead


@dataclass(frozen=True, slots=True)
class Effort:
    """The amount of re-ranking to do; by default all of it.

    Attributes:
        confidence: stop early once this share of the first ``limit`` results is expected to match full
            re-ranking, e.g. 0.9; an average over queries like those of the calibration. Between 0 and 1.
            None scores every candidate.
        time_budget: seconds from the search in the store to the last score; encoding and composing do not
            count. A step that would not end in time is not started. None for no limit.
        calibration: None for the one that the bundle holds.
    """

    confidence: float | None = None
    time_budget: float | None = None
    calibration: EffortCalibration | None = field(default=None, repr=False)

    def check(self) -> None:
        """Check the numbers. Raises InputError where one is out of range."""
        for name, value in (("confidence", self.confidence), ("time budget", self.time_budget)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise InputError(f"The {name} is {shown(value)}; it must be a number, or None.")
        if self.calibration is not None and not isinstance(self.calibration, EffortCalibration):
            raise InputError("The calibration of the effort is no EffortCalibration. Read one with its read().")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InputError(
                f"The confidence is {self.confidence}; it must be above 0 and below 1, or None for every candidate."
            )
        if self.time_budget is not None and not self.time_budget > 0:
            raise InputError(f"The time budget is {self.time_budget} s; it must be above 0, or None for no limit.")

    def stop_rule(self, bundle: Bundle, *, limit: int, rerank_depth: int) -> StopRule:
        """Make the rule for one search.

        Raises:
            InputError: a number is out of range, or there is a confidence but no calibration for this bundle and
                depth.
        """
        self.check()
        if self.confidence is None:
            return StopRule(limit, None if self.time_budget is None else STEP, inf, self.time_budget)
        calibration = self.calibration or _of_bundle(bundle)
        if calibration.fingerprint != bundle.fingerprint:
            raise InputError(
                f"The calibration is of the bundle {calibration.fingerprint[:12]}, not of {bundle.fingerprint[:12]}. "
                "Run `qdrant-cir calibrate` with this bundle."
            )
        if rerank_depth > calibration.rerank_depth:
            raise InputError(
                f"rerank_depth is {rerank_depth}, but the calibration holds up to {calibration.rerank_depth}. "
                f"Run `qdrant-cir calibrate --rerank-depth {rerank_depth}`, or lower the depth."
            )
        lead = calibration.lead(limit=limit, confidence=self.confidence)
        return StopRule(limit, calibration.step, lead, self.time_budget)


EXACT = Effort()
"""Every candidate is scored."""


def lead_of(steps: Sequence[Sequence[float]], *, limit: int) -> float:
    """Measure how far the ``limit``-th best score stands above the mean of the last step.

    Args:
        steps: scores by step, in stage one's order; a step may be empty.
        limit: at least 1.

    Returns:
        Standard deviations of all scores; ``-inf`` where there are too few scores, or all are equal.
    """
    scores = sorted((score for step in steps for score in step), reverse=True)
    if len(scores) < limit or not steps or not steps[-1]:
        return -inf
    mean = fmean(scores)
    spread = sqrt(fmean([(score - mean) ** 2 for score in scores]))
    return (scores[limit - 1] - fmean(steps[-1])) / spread if spread else -inf


def _of_bundle(bundle: Bundle) -> EffortCalibration:
    value = bundle.manifest.provenance.get(PROVENANCE_KEY)
    if value is None:
        raise InputError(
            f"The bundle {bundle.manifest.name!r} holds no calibration, so no confidence can be promised. Make one "
            "with `qdrant-cir calibrate` and give it, or leave the confidence out."
        )
    return EffortCalibration.of_object(value, place=f"The calibration in the bundle {bundle.manifest.name!r}")


def _bound(value: JsonValue, place: str) -> LeadBound:
    lead = value.get("lead") if isinstance(value, dict) else None
    return LeadBound(
        limit=_field(value, "limit", int, place),
        confidence=float(_field(value, "confidence", float, place)),
        lead=inf if lead is None else float(_field(value, "lead", float, place)),
    )


def _field(source: JsonValue, key: str, kind: type[_Json], place: str) -> _Json:
    value = source.get(key) if isinstance(source, dict) else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{place} is not a calibration: {key} must be {kind.__name__}, but is {value!r:.80}.")
    return value
