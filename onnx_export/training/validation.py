"""Judging weights while they are trained: which were best, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

from torch import Tensor, nn

from onnx_export.training.processes import number_of_main


class ValidationState(TypedDict):
    """What a checkpoint keeps of a validation."""

    best_score: float
    best_step: int
    judged_at: int
    misses: int
    best: dict[str, Tensor]


class Validation:
    """Scores weights every few steps, keeps the best, and runs out of patience.

    Attributes:
        name: of the score, for logs.
        best_score: the highest so far, minus infinity before the first.
        best_step: optimiser steps after which it was reached; 0 where no step made it better.
    """

    def __init__(self, name: str, score: Callable[[], float], *, every: int, patience: int) -> None:
        """Set up a validation.

        Args:
            name: of the score, for logs.
            score: gives the score of the weights as they are, higher is better; it draws nothing random.
            every: optimiser steps between two scores.
            patience: scores in a row without a new best after which training ends.
        """
        self.name, self._score, self._every, self._patience = name, score, every, patience
        self.best_score, self.best_step = -math.inf, 0
        self._judged_at, self._misses = -1, 0
        self._best: dict[str, Tensor] = {}

    @property
    def is_out_of_patience(self) -> bool:
        """Whether too many scores in a row were no new best."""
        return self._misses >= self._patience

    def is_due(self, done: int, *, is_last: bool) -> bool:
        """Whether the weights after ``done`` steps are to be judged and were not yet."""
        return done != self._judged_at and (is_last or done % self._every == 0)

    def judge(self, modules: nn.ModuleDict, done: int) -> float:
        """Score the weights after ``done`` steps, in evaluation mode, and keep them where they are the best.

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
        """Put the best weights back; without a score there are none, and the weights stay."""
        if self._best:
            modules.load_state_dict(self._best)

    def state(self) -> ValidationState:
        """Give what a checkpoint must keep."""
        return ValidationState(
            best_score=self.best_score,
            best_step=self.best_step,
            judged_at=self._judged_at,
            misses=self._misses,
            best=self._best,
        )

    def load_state(self, state: ValidationState) -> None:
        """Go on from what a checkpoint kept."""
        self.best_score, self.best_step = state["best_score"], state["best_step"]
        self._judged_at, self._misses, self._best = state["judged_at"], state["misses"], state["best"]
