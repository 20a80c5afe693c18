"""The loop that all training stages share: updates, checkpoints, exact resume, early stopping.

A batch depends on its number alone, so a resumed run sees the same batches as an uninterrupted one. With a
:class:`~onnx_export.training.validation.Validation` the best weights are kept and a stage may end early; its state is
part of the checkpoint.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from onnx_export.training.averaging import AveragedWeights
from onnx_export.training.kept import reading
from onnx_export.training.processes import processes, share_buffers
from onnx_export.training.updates import BatchLosses, Schedule, Updates
from onnx_export.training.validation import Validation

logger = logging.getLogger(__name__)

LOG_SECONDS = 15.0


def train(
    stage: str,
    *,
    run_folder: Path,
    modules: nn.ModuleDict,
    schedule: Schedule,
    batch_losses: BatchLosses,
    validation: Validation | None = None,
) -> float:
    """Run a stage to its end, from its checkpoint where there is one.

    Writes ``<stage>.ckpt`` and ``<stage>.log.jsonl`` into the run folder. On return ``modules`` hold the trained
    weights, the same in every process. Ctrl-C saves a checkpoint first. Only in the middle of an update it does not:
    then the next run goes on from the last checkpoint.

    With ``validation`` the weights are scored before the first step, at its interval and at the end. The stage ends
    when patience runs out, and ``modules`` then hold the best weights.

    Where the schedule averages, the average is what is scored and kept.

    Returns:
        Wall time in seconds over all runs of this stage.
    """
    updates = Updates(modules, schedule, batch_losses)
    record = _Record(run_folder, stage, updates, validation)
    record.resume()
    try:
        while updates.done < schedule.steps and record.goes_on():
            losses = updates.take()
            record.average.add(updates.done)
            record.add(losses)
        if updates.done == schedule.steps:
            record.goes_on(is_last=True)
    finally:
        record.close()
    if validation is not None:
        validation.restore_best(modules)
    elif schedule.averaging:
        modules.load_state_dict(record.average.values)
    share_buffers(modules)
    processes().wait_for_everyone()  # later stages read the checkpoint
    return record.seconds


class _Record:
    """A stage's checkpoint and log, read by every process and written by the main one."""

    def __init__(self, run_folder: Path, stage: str, updates: Updates, validation: Validation | None) -> None:
        self.stage, self.updates, self.validation = stage, updates, validation
        self.checkpoint, self.log = run_folder / f"{stage}.ckpt", run_folder / f"{stage}.log.jsonl"
        self._begin = self._saved_at = self._logged_at = time.monotonic()
        self._spent, self._start, self._logged = 0.0, 0, 0
        self.average = AveragedWeights(updates.modules, updates.schedule.averaging)

    @property
    def seconds(self) -> float:
        """Wall time of the stage so far, over all runs."""
        return self._spent + time.monotonic() - self._begin

    def resume(self) -> None:
        """Load the checkpoint, where there is one."""
        if not self.checkpoint.exists():
            return
        advice = "Restore it, or remove it to train this stage from its beginning."
        with reading(self.checkpoint, advice=advice):
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.updates.modules.load_state_dict(state["modules"])
            self.updates.optimiser.load_state_dict(state["optimiser"])
            self.updates.done = self._start = self._logged = int(state["step"])
            self._spent = float(state["seconds"])
            self.average.values = state.get("averaged", self.average.values)
            if self.validation is not None and "validation" in state:
                self.validation.load_state(state["validation"])
        logger.info("resuming %s at step %d", self.stage, self._start)
        before, count = state.get("processes", 1), processes().num_processes
        if before != count:
            logger.warning("%s ran in %d processes, now in %d: it sees other batches", self.stage, before, count)

    def goes_on(self, *, is_last: bool = False) -> bool:
        """Score the weights when that is due, and return whether training should go on."""
        validation, done = self.validation, self.updates.done
        if validation is None:
            return True
        if validation.is_due(done, is_last=is_last):
            with self.average.in_place():
                score = validation.judge(self.updates.modules, done)
            self._write({"step": done, validation.name: round(score, 4)})
            logger.info("%s %d  %s %.3f  best %.3f", self.stage, done, validation.name, score, validation.best_score)
        return not validation.is_out_of_patience

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count an update, and log and save when that is due."""
        now, done, schedule = time.monotonic(), self.updates.done, self.updates.schedule
        if now - self._logged_at > LOG_SECONDS or done == schedule.steps:
            rate = (done - self._logged) / (now - self._logged_at)
            values = {k.removeprefix("_"): round(float(v.detach()), 4) for k, v in losses.items()}
            self._write({"step": done, **values})
            text, left = "  ".join(f"{k} {v:.3f}" for k, v in values.items()), (schedule.steps - done) / rate
            logger.info("%s %d/%d  %s  %.1f steps/s  %.0f s left", self.stage, done, schedule.steps, text, rate, left)
            self._logged_at, self._logged = now, done
        if now - self._saved_at > schedule.checkpoint_seconds:
            self._save()
            self._saved_at = now

    def close(self) -> None:
        """Save a last checkpoint, unless an update was interrupted: half an update cannot be resumed."""
        if self.updates.done > self._start and self.updates.is_whole:
            self._save()

    def _write(self, values: dict[str, float]) -> None:
        if processes().is_main_process:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def _save(self) -> None:
        if not processes().is_main_process:
            return
        state = {
            "modules": self.updates.modules.state_dict(),
            "optimiser": self.updates.optimiser.state_dict(),
            "step": self.updates.done,
            "seconds": self.seconds,
            "processes": processes().num_processes,
            "averaged": self.average.values,
        }
        if self.validation is not None:
            state["validation"] = self.validation.state()
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
