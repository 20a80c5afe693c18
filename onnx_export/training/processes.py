"""The processes that train together: one alone, or those that ``accelerate launch`` started.

All of them take steps. The first, the main process, alone draws and encodes pictures, judges, saves and logs.
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
"""The others wait while the main process draws or encodes pictures, which takes hours for large sets."""


def processes() -> PartialState:
    """Join the processes that train together, with a device each: a GPU where there is one and it may be used."""
    is_on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(is_on_cpu, timeout=LONGEST_WAIT)


def open_accelerator(accumulation: int) -> Accelerator:
    """Give what spreads a stage over the processes, in bfloat16 where the device has it.

    The number of batches per update comes from the recipe alone, never from the launcher's settings. Heads of
    attributes that no picture of a batch has are left out of its losses, hence ``find_unused_parameters``.
    """
    processes()
    return Accelerator(
        mixed_precision="bf16" if _computes_in_bfloat16() else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _computes_in_bfloat16() -> bool:
    """Whether the device has bfloat16 arithmetic; a CPU without it emulates it, far slower than float32."""
    if processes().device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(is_bf16_available())


def number_of_main(compute: Callable[[], float]) -> float:
    """Compute a number in the main process and give it to all."""
    found = [compute() if processes().is_main_process else 0.0]
    broadcast_object_list(found)
    return found[0]


def share_buffers(modules: nn.Module) -> None:
    """Give every process the main one's buffers: batch normalisation gathers its own in each."""
    for buffer in modules.buffers():
        broadcast(buffer)


def describe_machine() -> str:
    """Say what trains, for a model's provenance."""
    state = processes()
    device = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else state.device.type
    return (
        f"{platform.machine()}, {available_threads()} cores, torch {torch.__version__}, "
        f"{state.num_processes} x {device}"
    )
