"""The loop that all training stages share: AdamW, warm-up and cosine, checkpoints, exact resume.

A step draws everything random from ``(seed, step)``, so a resumed run sees what an uninterrupted one would have seen.
With a :class:`~onnx_export.training.validation.Validation` the best weights are kept and a stage may end early; this,
too, goes on where it was stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from onnx_export.training.validation import Validation

logger = logging.getLogger(__name__)

StepFunction = Callable[[int], dict[str, Tensor]]
"""Step number to named losses; their sum is minimised. Names that start with ``_`` are only logged."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: the peak, reached after ``warmup`` steps; a cosine leads down to a twentieth of it.
        warmup: steps of linear warm-up.
        weight_decay: of AdamW, on matrices only.
        checkpoint_seconds: time between checkpoints.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    checkpoint_seconds: float = 120.0

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    stage: str,
    *,
    run_folder: Path,
    modules: nn.ModuleDict,
    schedule: Schedule,
    step_losses: StepFunction,
    validation: Validation | None = None,
) -> float:
    """Run a stage to its end, resuming from its checkpoint where there is one.

    Writes ``<stage>.ckpt`` (resumable) and ``<stage>.log.jsonl`` into the run folder; the trained weights are in
    ``modules`` when it returns. Ctrl-C saves a checkpoint first, unless it falls into the
    update itself: then the last checkpoint stands, and what came after it is repeated.

    With ``validation`` the weights are judged before the first step, as often as it says and at the end; the stage
    ends when its patience does, and ``modules`` hold the best weights when it returns.

    Returns:
        Wall time in seconds over all runs of this stage.
    """
    checkpoint = run_folder / f"{stage}.ckpt"
    groups = _groups(modules.parameters(), schedule)
    optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), fused=True)
    start, spent = _resume(checkpoint, modules, optimiser, validation)
    begin = last_saved = last_logged = time.monotonic()
    done = logged = start
    is_between_updates = True
    try:
        for step in range(start, schedule.steps):
            if validation is not None and not _goes_on(validation, stage, run_folder, modules, step):
                break
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            # The flash kernel's backward pass takes a third of a step on texts this short; plain products do not.
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                losses = step_losses(step)
            total = torch.stack([v.float() for k, v in losses.items() if not k.startswith("_")]).sum()
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
            is_between_updates = False
            optimiser.step()
            done = step + 1
            is_between_updates = True
            now = time.monotonic()
            if now - last_logged > 15 or done == schedule.steps:
                rate = (done - logged) / (now - last_logged)
                _log(run_folder / f"{stage}.log.jsonl", stage, step, schedule, losses, rate)
                last_logged, logged = now, done
            if now - last_saved > schedule.checkpoint_seconds:
                _save(checkpoint, modules, optimiser, done, spent + now - begin, validation)
                last_saved = now
        if validation is not None and done == schedule.steps:
            _goes_on(validation, stage, run_folder, modules, done, is_last=True)
    finally:
        spent += time.monotonic() - begin
        if done > start and is_between_updates:  # half an update is no place to go on from
            _save(checkpoint, modules, optimiser, done, spent, validation)
    if validation is not None:
        validation.restore_best(modules)
    return spent


def _goes_on(
    validation: Validation, stage: str, run_folder: Path, modules: nn.ModuleDict, done: int, *, is_last: bool = False
) -> bool:
    """Judge the weights where it is time to; whether training should go on."""
    if validation.is_due(done, is_last=is_last):
        score = validation.judge(modules, done)
        with (run_folder / f"{stage}.log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": done, validation.name: round(score, 4)}) + "\n")
        logger.info("%s %d  %s %.3f  best %.3f", stage, done, validation.name, score, validation.best_score)
    return not validation.is_out_of_patience


def _groups(parameters: Iterable[Tensor], schedule: Schedule) -> list[dict[str, object]]:
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def _resume(
    checkpoint: Path, modules: nn.ModuleDict, optimiser: torch.optim.Optimizer, validation: Validation | None
) -> tuple[int, float]:
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True)
    modules.load_state_dict(state["modules"])
    optimiser.load_state_dict(state["optimiser"])
    if validation is not None and "validation" in state:
        validation.load_state(state["validation"])
    logger.info("resuming %s at step %d", checkpoint.stem, state["step"])
    return int(state["step"]), float(state["seconds"])


def _save(
    checkpoint: Path,
    modules: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    step: int,
    seconds: float,
    validation: Validation | None,
) -> None:
    partial = checkpoint.with_suffix(".part")
    state = {
        "modules": modules.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    if validation is not None:
        state["validation"] = validation.state()
    torch.save(state, partial)
    partial.replace(checkpoint)


def _log(
    path: Path, stage: str, step: int, schedule: Schedule, losses: dict[str, Tensor], steps_per_second: float
) -> None:
    values = {k.removeprefix("_"): round(float(v.detach()), 4) for k, v in losses.items()}
    remaining = (schedule.steps - step - 1) / steps_per_second
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step + 1, **values}) + "\n")
    text = "  ".join(f"{k} {v:.3f}" for k, v in values.items())
    logger.info(
        "%s %d/%d  %s  %.1f steps/s  %.0f s left",
        stage,
        step + 1,
        schedule.steps,
        text,
        steps_per_second,
        remaining,
    )
