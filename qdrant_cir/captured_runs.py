"""Runs of one graph through buffers that stay where they are, one set for every shape: what CUDA graphs ask for.

A small graph on a GPU spends most of its time on launching kernels. CUDA records the launches of a first run and
replays them as one, provided that inputs and outputs lie at the same addresses every time. The first run of every
shape is therefore done twice, once as usual and once recorded, and the two are compared: where they differ, nothing is
recorded any more and the answers are those of usual runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.graph_contracts import TensorSpec

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["CapturedRuns"]

logger = logging.getLogger(__name__)

MOST_SHAPES = 64
"""Shapes that are recorded; each keeps its buffers and its graph on the device. Later ones run as usual."""

_TOLERANCE = 1e-3
_GRAPH_ID, _NOT_CAPTURED = "gpu_graph_id", "-1"

Arrays = Mapping[str, NDArray[Any]]


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
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        device: Literal["cuda", "cpu"],
    ) -> None:
        """Prepare for runs; nothing is allocated before the first.

        Args:
            ort: the onnxruntime module.
            session: on CUDA with ``enable_cuda_graph``; on the CPU the buffers alone are kept, for tests.
            inputs: of the graph.
            outputs: of the graph; their dynamic axes are named like those of the inputs.
            device: where the buffers lie.
        """
        self._ort, self._session, self._device = ort, session, device
        self._inputs, self._outputs = inputs, outputs
        self._by_shape: dict[tuple[tuple[int, ...], ...], _Buffers] = {}
        self._lock = Lock()
        self.is_trusted = True
        """Whether recorded runs have given what usual ones give."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]] | None:
        """Compute all outputs; None where this shape is not recorded, and an ordinary run has to be made.

        Args:
            inputs: an array for every input of the graph, of its element type.
        """
        if not self.is_trusted or set(inputs) != {tensor.name for tensor in self._inputs}:
            return None
        shape = tuple(inputs[tensor.name].shape for tensor in self._inputs)
        with self._lock:
            buffers = self._by_shape.get(shape)
            if buffers is not None:
                return self._replay(buffers, inputs)
            if len(self._by_shape) == MOST_SHAPES:
                return None
            usual = self.run_usually(inputs)
            buffers = self._allocate(inputs, usual, number=len(self._by_shape) + 1)
            recorded = [self._replay(buffers, inputs) for _ in range(2)]  # is recorded, and replayed
            if any(_differ(usual[name], found[name]) for found in recorded for name in usual):
                logger.warning("recorded runs differ from usual ones on this device: CUDA graphs are not used")
                self.is_trusted = False
                self._by_shape.clear()
            else:
                self._by_shape[shape] = buffers
            return usual

    def run_usually(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Compute all outputs without recording."""
        options = self._ort.RunOptions()
        if self._device == "cuda":
            options.add_run_config_entry(_GRAPH_ID, _NOT_CAPTURED)
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        names = [tensor.name for tensor in self._outputs]
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        return dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))

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
