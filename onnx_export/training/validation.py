"""Validation during training: keeps the best weights and decides when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

from torch import Tensor, nn

from onnx_export.training.processes import number_of_main


class ValidationState(TypedDict):
    """The state of a validation in a checkpoint."""

    best_score: float
    best_step: int
    judged_at: int
    misses: int
    best: dict[str, Tensor]


class Validation:
    """Scores weights every few steps, keeps the best, and ends training after too many scores without a new best.

    Attributes:
        name: of the score, for logs.
        best_score: the highest so far, minus infinity before the first.
        best_step: optimiser steps after which it was reached; 0 where training never improved on the start.
    """

    def __init__(self, name: str, score: Callable[[], float], *, every: int, patience: int) -> None:
        """Set up a validation.

        Args:
            name: of the score, for logs.
            score: returns the score of the current weights, higher is better, without randomness.
            every: optimiser steps between two scores.
            patience: scores in a row without a new best until training ends.
        """
        self.name, self._score, self._every, self._patience = name, score, every, patience
        self.best_score, self.best_step = -math.inf, 0
        self._judged_at, self._misses = -1, 0
        self._best: dict[str, Tensor] = {}

    @property
    def is_out_of_patience(self) -> bool:
        """Whether patience is used up."""
        return self._misses >= self._patience

    def is_due(self, done: int, *, is_last: bool) -> bool:
        """Return whether the weights after ``done`` steps are still to be scored."""
        return done != self._judged_at and (is_last or done % self._every == 0)

    def judge(self, modules: nn.ModuleDict, done: int) -> float:
        """Score the weights after ``done`` steps, in evaluation mode, and keep them if they are the best so far.

        The main process scores for all, so that all keep the same weights and stop at the same step.
        """
        modules.eval()
        score = number_of_main(self._score)
        modules.train()
        if score > self.best_score:
            best = {name: value.detach().clone() for name, value in modules.state_dict().items()}
            self._best, self.best_score, self.best_step, self._misses = best, score, done, 0
        else:
            self._misses += 1
        self._judged_at = done
        return score

    def restore_best(self, modules: nn.ModuleDict) -> None:
        """Put the best weights back. Without any score, the weights stay."""
        if self._best:
            modules.load_state_dict(self._best)

    def state(self) -> ValidationState:
        """Return the state for a checkpoint."""
        return ValidationState(
            best_score=self.best_score,
            best_step=self.best_step,
            judged_at=self._judged_at,
            misses=self._misses,
            best=self._best,
        )

    def load_state(self, state: ValidationState) -> None:
        """Continue from a checkpoint's state."""
        self.best_score, self.best_step = state["best_score"], state["best_step"]
        self._judged_at, self._misses, self._best = state["judged_at"], state["misses"], state["best"]
