"""The running average of a stage's weights, which generalises better than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential average of weights, of all steps alike at the beginning."""

    def __init__(self, modules: nn.Module, share: float) -> None:
        """Start from the weights as they are.

        Args:
            modules: what is trained.
            share: of the newest weights in the average, once there were ``1 / share`` steps; 0 averages nothing.
        """
        self.modules, self.share = modules, share
        self.values = _copy(modules) if share else {}

    @torch.no_grad()
    def add(self, done: int) -> None:
        """Add the weights after ``done`` steps."""
        share = max(self.share, 1 / (done + 1))
        for name, value in self.modules.state_dict().items():
            if name in self.values and value.is_floating_point():
                self.values[name].lerp_(value, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the modules hold the average."""
        if not self.share:
            yield
            return
        trained = _copy(self.modules)
        self.modules.load_state_dict(self.values)
        try:
            yield
        finally:
            self.modules.load_state_dict(trained)


def _copy(modules: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in modules.state_dict().items()}
