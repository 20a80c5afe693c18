"""Is it a match at all? The probability that the first place of an answer is what was asked for.

A logistic regression over a few numbers of the answer: the first place's score, how far it stands above the places
behind it, its cosine, and its place in stage one. ``qdrant-cir calibrate-match`` fits it on queries with known answers,
each of which counts twice: with its answers in the gallery, and without them. It is kept with the gallery, beside its
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, isfinite, log1p

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.errors import InputError
from qdrant_cir.types import Candidate, JsonObject, JsonValue

__all__ = ["METADATA_KEY", "MatchCalibration", "MatchExample", "fit_match", "match_features"]

METADATA_KEY = "_cir_match"
"""Where the companion's metadata holds the calibration."""

FORMAT_VERSION = 1
LEAST_QUERIES = 50
_FOLDS = 5
_BINS = 10
_MOST_MARKED = 0.085
"""Share of the answerable queries that the calibration's own threshold marks; held-out ones may be a few more."""
_RIDGE = 1.0
_ROUNDS = 50
_BEHIND = (1, 4, 9)
"""Places behind the first whose distance counts."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MatchExample:
    """One answer to learn from.

    Attributes:
        query: number of the query, the same for both of its answers.
        features: of the answer, as :func:`match_features` returns them.
        is_right: whether the first place is what was asked for.
        is_answerable: whether the gallery held an answer.
    """

    query: int
    features: tuple[float, ...]
    is_right: bool
    is_answerable: bool


@dataclass(frozen=True, slots=True)
class MatchCalibration:
    """The probability of a match, learnt from queries with known answers, and how good it is on queries left out.

    Attributes:
        fingerprint: of the bundle.
        rerank_depth: candidates that were scored for every query.
        queries: how many it was learnt from.
        bias: of the regression.
        weights: one per feature, of features as they are.
        min_match: the threshold of its own: below it an answer counts as no good match.
        error: expected calibration error in ten bins of equal size, 0 to 1, cross-validated as are the next two.
        marked_without: share of the answers marked as no good match where the gallery lacked the right one.
        marked_with: the same where it had it.
    """

    fingerprint: str
    rerank_depth: int
    queries: int
    bias: float
    weights: tuple[float, ...]
    min_match: float
    error: float
    marked_without: float
    marked_with: float

    @classmethod
    def of_object(cls, value: JsonValue) -> MatchCalibration | None:
        """Read the result of :meth:`to_object`; None for what this version does not read."""
        if not isinstance(value, dict) or value.get("format_version") != FORMAT_VERSION:
            return None
        weights, numbers = value.get("weights"), [value.get(name) for name in _NUMBERS]
        if not isinstance(weights, list) or len(weights) != _FEATURES or not all(map(_is_number, [*weights, *numbers])):
            return None
        bias, min_match, error, marked_without, marked_with = (float(number) for number in numbers)  # type: ignore[arg-type]
        return cls(
            fingerprint=str(value.get("bundle")),
            rerank_depth=int(value.get("rerank_depth") or 0),  # type: ignore[arg-type]
            queries=int(value.get("queries") or 0),  # type: ignore[arg-type]
            bias=bias,
            weights=tuple(float(weight) for weight in weights),  # type: ignore[arg-type]
            min_match=min_match,
            error=error,
            marked_without=marked_without,
            marked_with=marked_with,
        )

    def to_object(self) -> JsonObject:
        """Return the calibration as JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "bundle": self.fingerprint,
            "rerank_depth": self.rerank_depth,
            "queries": self.queries,
            "bias": self.bias,
            "weights": list(self.weights),
            "min_match": self.min_match,
            "error": self.error,
            "marked_without": self.marked_without,
            "marked_with": self.marked_with,
        }

    def probability(self, candidates: Sequence[Candidate]) -> float | None:
        """Return the probability that the first candidate is what was asked for; None where nothing was re-ranked."""
        features = match_features(candidates)
        if features is None:
            return None
        logit = self.bias + sum(weight * value for weight, value in zip(self.weights, features, strict=True))
        return 1 / (1 + exp(-min(max(logit, -500.0), 500.0)))


def match_features(candidates: Sequence[Candidate]) -> tuple[float, ...] | None:
    """Return what an answer says of its first place: numbers that depend little on how many were re-ranked.

    Args:
        candidates: all of an answer in final order, or all but some that are taken out.

    Returns:
        The first score, its distance to the places behind it, its cosine, how far that is below the best cosine, and
        the logarithm of its place in stage one. None where the first place was not re-ranked.
    """
    if not candidates or candidates[0].rerank_score is None:
        return None
    first = candidates[0]
    scores = [each.rerank_score for each in candidates if each.rerank_score is not None]
    best = max(each.retrieval_score for each in candidates)
    before = sum(each.retrieval_rank < first.retrieval_rank for each in candidates)
    behind = [scores[0] - scores[min(place, len(scores) - 1)] for place in _BEHIND]
    return (scores[0], *behind, first.retrieval_score, best - first.retrieval_score, log1p(before))


def fit_match(examples: Sequence[MatchExample], *, fingerprint: str, rerank_depth: int) -> MatchCalibration:
    """Learn the probability of a match.

    Raises:
        InputError: there are too few queries, or their first places are all right, or all wrong.
    """
    queries = sorted({example.query for example in examples})
    if len(queries) < LEAST_QUERIES:
        raise InputError(f"There are {len(queries)} queries; a calibration of matches needs at least {LEAST_QUERIES}.")
    features = np.array([example.features for example in examples], dtype=np.float64)
    right = np.array([example.is_right for example in examples], dtype=np.float64)
    answerable = np.array([example.is_answerable for example in examples])
    if right.all() or not right.any() or not answerable.any() or answerable.all():
        raise InputError(
            "A calibration of matches needs queries whose first place is right and queries whose first place is not; "
            f"of {len(queries)} queries {int(right.sum())} have a right first place."
        )
    # a query is wholly inside or outside of a fold
    folds = np.array([example.query for example in examples]) % _FOLDS
    held_out = np.zeros(len(examples))
    for fold in range(_FOLDS):
        inside = folds == fold
        if inside.any() and right[~inside].any() and not right[~inside].all():
            held_out[inside] = _fitted(features[~inside], right[~inside])(features[inside])
        else:
            held_out[inside] = right.mean()
    min_match = float(np.quantile(held_out[answerable], _MOST_MARKED))
    bias, weights = _regression(features, right)
    return MatchCalibration(
        fingerprint=fingerprint,
        rerank_depth=rerank_depth,
        queries=len(queries),
        bias=bias,
        weights=tuple(weights.tolist()),
        min_match=min_match,
        error=calibration_error(held_out, right),
        marked_without=float((held_out[~answerable] < min_match).mean()),
        marked_with=float((held_out[answerable] < min_match).mean()),
    )


def calibration_error(probabilities: Float64, right: Float64, *, bins: int = _BINS) -> float:
    """Return the expected calibration error: in bins of equal size, how far the mean probability is off the share."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(float(probabilities[part].mean() - right[part].mean())) * len(part) for part in parts]
    return sum(gaps) / len(order)


def _fitted(features: Float64, right: Float64) -> Callable[[Float64], Float64]:
    bias, weights = _regression(features, right)
    return lambda given: 1 / (1 + np.exp(-np.clip(given @ weights + bias, -500, 500)))


def _regression(features: Float64, right: Float64) -> tuple[float, Float64]:
    """Fit a logistic regression with a ridge by Newton's method; return bias and weights of features as they are."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1
    columns = np.column_stack([np.ones(len(features)), (features - mean) / spread])
    ridge = np.eye(columns.shape[1]) * _RIDGE
    ridge[0, 0] = 0
    found = np.zeros(columns.shape[1])
    for _ in range(_ROUNDS):
        share = 1 / (1 + np.exp(-np.clip(columns @ found, -500, 500)))
        curvature = columns.T @ (columns * (share * (1 - share))[:, None]) + ridge + 1e-9 * np.eye(len(found))
        step = np.linalg.solve(curvature, columns.T @ (share - right) + ridge @ found)
        found -= step
        if np.abs(step).max() < 1e-9:
            break
    weights = found[1:] / spread
    return float(found[0] - weights @ mean), weights


_NUMBERS = ("bias", "min_match", "error", "marked_without", "marked_with")
_FEATURES = len(_BEHIND) + 4


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
