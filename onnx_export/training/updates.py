"""Updates of a stage's weights, from one or several batches in one or several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from onnx_export.errors import TrainingError
from onnx_export.training.processes import open_accelerator

BatchLosses = Callable[[int], dict[str, Tensor]]
"""Function from a batch number to named losses, whose sum is minimised; names with a leading ``_`` are only logged."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: updates of the weights in all.
        learning_rate: the peak, reached after ``warmup`` steps; a cosine leads down to a twentieth of it.
        warmup: steps of linear warm-up.
        weight_decay: of AdamW, on matrices only.
        checkpoint_seconds: time between checkpoints.
        accumulation: batches per step in every process; the gradients of all batches of a step are averaged.
        averaging: share of the newest weights in the average that is scored and kept; 0 keeps the weights themselves.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    checkpoint_seconds: float = 120.0
    accumulation: int = 1
    averaging: float = 0.0

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise TrainingError(f"accumulation is {self.accumulation}; give at least 1 batch per step.")

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


class Updates:
    """The updates of one stage.

    Step ``s`` takes the batches ``s * b`` to ``s * b + b - 1``, where ``b`` is the number of processes times the
    accumulation. So two processes see the batches that one process sees with an accumulation of two.

    Attributes:
        modules: what is trained; never wrapped.
        done: updates so far.
        is_whole: False during an update, when the weights cannot be resumed from.
    """

    def __init__(self, modules: nn.ModuleDict, schedule: Schedule, batch_losses: BatchLosses) -> None:
        self.modules, self.schedule = modules, schedule
        self.done, self.is_whole = 0, True
        self._accelerator = open_accelerator(schedule.accumulation)
        modules.to(self._accelerator.device)
        groups = _groups(modules.parameters(), schedule)
        optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), fused=True)
        self._losses, self.optimiser = self._accelerator.prepare(_Losses(modules, batch_losses), optimiser)

    def take(self) -> dict[str, Tensor]:
        """Update the weights once and return the losses of this process's last batch."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.done)
        losses: dict[str, Tensor] = {}
        for batch in self._batches():
            with self._accelerator.accumulate(self._losses):
                with _attention(self._accelerator.device):
                    losses = self._losses(batch)
                total = torch.stack([v.float() for k, v in losses.items() if not k.startswith("_")]).sum()
                self._accelerator.backward(total)
        self._accelerator.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.is_whole = False
        self.optimiser.step()
        self.done += 1
        self.is_whole = True
        self.optimiser.zero_grad()
        return losses

    def _batches(self) -> range:
        """Return the numbers of this process's batches of the next step."""
        count, rank = self._accelerator.num_processes, self._accelerator.process_index
        per_step = count * self.schedule.accumulation
        return range(self.done * per_step + rank, (self.done + 1) * per_step, count)


class _Losses(nn.Module):
    """A stage as one module, from batch number to losses: accelerate averages the gradients of a module."""

    def __init__(self, trained: nn.ModuleDict, batch_losses: BatchLosses) -> None:
        super().__init__()
        self.trained = trained
        self._batch_losses = batch_losses

    def forward(self, batch: int) -> dict[str, Tensor]:
        return self._batch_losses(batch)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Choose the kernels of attention.

    On a CPU, and on texts this short, the backward pass of the flash kernel is slower than plain products.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _groups(parameters: Iterable[Tensor], schedule: Schedule) -> list[dict[str, object]]:
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
