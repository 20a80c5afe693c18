"""Runs of one graph through buffers that stay where they are, one set for every shape: what CUDA graphs ask for.

A small graph on a GPU spends most of its time on launching kernels. CUDA records the launches of a first run and
replays them as one, provided that inputs and outputs lie at the same addresses every time. The first run of every
shape is therefore done twice, once as usual and once recorded, and the two are compared: where they differ, nothing is
recorded any more and the answers are those of usual runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["NOT_RECORDED", "CapturedRuns"]

logger = logging.getLogger(__name__)

MOST_SHAPES = 64
"""Shapes that are recorded; each keeps its buffers and its graph on the device. Later ones run as usual."""

_TOLERANCE = 1e-3
_GRAPH_ID = "gpu_graph_id"
NOT_RECORDED = (_GRAPH_ID, "-1")
"""The run option that leaves one run of such a session unrecorded."""

Arrays = Mapping[str, NDArray[Any]]
_Shape = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Inputs and outputs on the device, bound to one recorded graph."""

    inputs: dict[str, onnxruntime.OrtValue]
    outputs: dict[str, onnxruntime.OrtValue]
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class CapturedRuns:
    """Replays runs of a session that was opened with CUDA graphs. One run at a time; others wait."""

    def __init__(
        self,
        ort: ModuleType,
        session: onnxruntime.InferenceSession,
        *,
        run_usually: Callable[[Arrays], dict[str, NDArray[Any]]],
        device: Literal["cuda", "cpu"],
    ) -> None:
        """Prepare for runs; nothing is allocated before the first.

        Args:
            ort: the onnxruntime module.
            session: on CUDA with ``enable_cuda_graph``; on the CPU the buffers alone are kept, for tests.
            run_usually: a run of the session that is not recorded (``NOT_RECORDED`` among its options).
            device: where the buffers lie.
        """
        self._ort, self._session, self._device, self._run_usually = ort, session, device, run_usually
        self._by_shape: dict[_Shape, _Buffers] = {}
        self._lock = Lock()
        self.is_trusted = True
        """Whether recorded runs have given what usual ones give."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Compute all outputs; arguments and errors are those of a usual run."""
        shape = tuple((name, value.shape) for name, value in sorted(inputs.items()))
        with self._lock:
            buffers = self._by_shape.get(shape)
            if buffers is not None:
                return self._replay(buffers, inputs)
            usual = self._run_usually(inputs)
            if self.is_trusted and len(self._by_shape) < MOST_SHAPES:
                self._record(shape, inputs, usual)
            return usual

    def _record(self, shape: _Shape, inputs: Arrays, usual: Arrays) -> None:
        buffers = self._allocate(inputs, usual, number=len(self._by_shape) + 1)
        recorded = [self._replay(buffers, inputs) for _ in range(2)]  # is recorded, and replayed
        if any(_differ(usual[name], found[name]) for found in recorded for name in usual):
            logger.warning("recorded runs differ from usual ones on this device: CUDA graphs are not used")
            self.is_trusted = False
            self._by_shape.clear()
        else:
            self._by_shape[shape] = buffers

    def _allocate(self, inputs: Arrays, outputs: Arrays, *, number: int) -> _Buffers:
        create, binding, options = self._ort.OrtValue, self._session.io_binding(), self._ort.RunOptions()
        if self._device == "cuda":
            options.add_run_config_entry(_GRAPH_ID, str(number))
        values = {name: create.ortvalue_from_numpy(np.array(value), self._device, 0) for name, value in inputs.items()}
        results = {
            name: create.ortvalue_from_shape_and_type(value.shape, value.dtype, self._device, 0)
            for name, value in outputs.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in results.items():
            binding.bind_ortvalue_output(name, value)
        return _Buffers(values, results, binding, options)

    def _replay(self, buffers: _Buffers, inputs: Arrays) -> dict[str, NDArray[Any]]:
        for name, value in inputs.items():
            buffers.inputs[name].update_inplace(np.ascontiguousarray(value))
        self._session.run_with_iobinding(buffers.binding, buffers.options)
        return {name: np.array(value.numpy()) for name, value in buffers.outputs.items()}


def _differ(usual: NDArray[Any], recorded: NDArray[Any]) -> bool:
    return not np.allclose(usual, recorded, rtol=_TOLERANCE, atol=_TOLERANCE)
