"""The processes that train together: one, or those that ``accelerate launch`` started.

All of them take steps. Only the first, the main process, draws and encodes pictures, validates, saves and logs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import (
    GradientAccumulationPlugin,
    broadcast,
    broadcast_object_list,
    is_bf16_available,
    parse_flag_from_env,
)
from torch import nn

from qdrant_cir.model.cores import available_threads

LONGEST_WAIT = timedelta(days=1)
"""How long the others wait for the main process, which may draw or encode pictures for hours."""


def processes() -> PartialState:
    """Return the state of the processes that train together. Each has a device: a GPU where there is one."""
    is_on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(is_on_cpu, timeout=LONGEST_WAIT)


def open_accelerator(accumulation: int) -> Accelerator:
    """Return an accelerator for one stage, in bfloat16 where the device has it.

    The number of batches per update comes from the recipe, never from the launcher's settings. A head whose attribute
    no picture of a batch has takes no part in its losses, hence ``find_unused_parameters``.
    """
    processes()
    return Accelerator(
        mixed_precision="bf16" if _computes_in_bfloat16() else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _computes_in_bfloat16() -> bool:
    """Return whether the device has bfloat16 arithmetic. A CPU without it emulates it, far slower than float32."""
    if processes().device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(is_bf16_available())


def number_of_main(compute: Callable[[], float]) -> float:
    """Compute a number in the main process and return it in all."""
    found = [compute() if processes().is_main_process else 0.0]
    broadcast_object_list(found)
    return found[0]


def share_buffers(modules: nn.Module) -> None:
    """Copy the main process's buffers to all others, whose batch normalisation gathered other statistics."""
    for buffer in modules.buffers():
        broadcast(buffer)


def describe_machine() -> str:
    """Return the machine that trains in one line, for a model's provenance."""
    state = processes()
    device = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else state.device.type
    return (
        f"{platform.machine()}, {available_threads()} cores, torch {torch.__version__}, "
        f"{state.num_processes} x {device}"
    )
