"""Loaded graphs. The only module that imports onnxruntime, and only when a graph is opened."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.errors import BundleError, InputError, MissingExtraError, ProviderError
from qdrant_cir.model.bundle import Bundle, GraphContract, GraphName, TensorSpec, contract_tensors
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.cores import available_threads

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Session", "open_graph", "open_session", "open_weighted"]

logger = logging.getLogger(__name__)

_DTYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int64)": "int64",
}
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


class Session:
    """One loaded graph. :meth:`run` may be called from several threads at once."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession, *, shrinks_arena: bool) -> None:
        """Wrap an open onnxruntime session; use :func:`open_session`."""
        import onnxruntime

        self._path = path
        self._process = os.getpid()
        self._session = session
        self._options = onnxruntime.RunOptions()
        self.provider: Literal["cpu", "cuda"] = "cuda" if _CUDA in session.get_providers() else "cpu"
        self.inputs = tuple(_described(tensor) for tensor in session.get_inputs())
        self.outputs = tuple(_described(tensor) for tensor in session.get_outputs())
        self._output_names = [tensor.name for tensor in self.outputs]
        if shrinks_arena and self.provider == "cpu":
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs.

        Args:
            inputs: an array for every input of the graph, of its element type.

        Returns:
            Every output by name, on the CPU.

        Raises:
            InputError: an input is missing, unknown, or has a shape or element type that the graph refuses.
            ProviderError: the computation itself failed, for instance because memory ran out, or this process was
                forked after the graph was loaded.
        """
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        self.check_process()
        try:
            if self.provider == "cuda":
                return self.run_bound(inputs)
            values = self._session.run(self._output_names, dict(inputs), self._options)
        # onnxruntime raises ValueError for missing names before it starts, and its own classes after.
        except (states.InvalidArgument, ValueError) as error:
            given = tuple(TensorSpec(name, str(value.dtype), value.shape) for name, value in inputs.items())
            raise InputError(
                f"{self._path.name} refused its inputs: {_first_line(error)}. "
                f"Expected {_tensors(self.inputs)}; got {_tensors(given)}."
            ) from error
        except (states.Fail, states.RuntimeException, states.EPFail, RuntimeError) as error:
            raise ProviderError(
                f"{self._path.name} failed on {self.provider}: {_first_line(error)}. "
                "If memory ran out, use smaller batches or provider='cpu'."
            ) from error
        return dict(zip(self._output_names, values, strict=True))

    def check_process(self) -> None:
        """Check that this process loaded the graph itself. Raises ProviderError in a fork, which lacks its threads."""
        if self._process != os.getpid():
            raise ProviderError(
                f"{self._path.name} was loaded by process {self._process}, from which this one (pid {os.getpid()}) was "
                "forked. Open the model in the worker that uses it, after the fork."
            )

    def run_bound(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs through io binding: one copy of each array to the device, one back."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in self._output_names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, self._options)
        return dict(zip(self._output_names, binding.copy_outputs_to_cpu(), strict=True))


def open_session(path: Path, compute: Compute, *, shrinks_arena: bool = False) -> Session:
    """Load an ONNX file.

    Args:
        path: the file, whose checksum the caller has checked.
        compute: provider and threads; ``path`` already decides the precision.
        shrinks_arena: give memory back after every run; for graphs whose runs differ much in size.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ProviderError: CUDA was asked for but is not available, or two onnxruntime distributions are installed.
        BundleError: the file is missing, or onnxruntime cannot load it.
    """
    ort = _onnxruntime()
    if not path.is_file():
        raise BundleError(f"There is no graph {path}. Export the bundle again.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_threads() if compute.threads is None else compute.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Spinning pools of several sessions in one process take the cores from each other: 2.3 times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    cuda_is_built_in = _CUDA in ort.get_available_providers()
    if compute.provider == "cuda" and not cuda_is_built_in:
        raise ProviderError(
            "CUDA was asked for, but the installed onnxruntime has no CUDA provider (it has "
            f"{', '.join(ort.get_available_providers())}). Uninstall onnxruntime, then "
            'pip install "qdrant-cir[gpu]", or use provider="cpu".'
        )
    uses_cuda = compute.provider != "cpu" and cuda_is_built_in
    if uses_cuda and hasattr(ort, "preload_dlls"):
        _preload_cuda(ort)
    loaded = _loaded(ort, path, options, [_CUDA, _CPU] if uses_cuda else [_CPU])
    session = Session(path, loaded, shrinks_arena=shrinks_arena)
    if compute.provider == "cuda" and session.provider != "cuda":
        raise ProviderError(
            "CUDA was asked for, but onnxruntime could not start it and offers the CPU only. Check "
            '`nvidia-smi` and that CUDA and cuDNN are installed (pip install "qdrant-cir[gpu]" brings both), '
            'or use provider="cpu".'
        )
    if compute.provider == "auto":
        logger.info("%s runs on %s (provider=auto)", path.name, session.provider)
    return session


def open_graph(bundle: Bundle, name: GraphName, compute: Compute, *, shrinks_arena: bool = False) -> Session:
    """Load a graph of a bundle and check its actual inputs and outputs; arguments as :func:`open_session`.

    Raises:
        BundleError: the graph's own inputs or outputs differ from the runtime's contract, or the bundle does not
            have it in that precision.
        MissingExtraError, ProviderError: as :func:`open_session`.
    """
    path = bundle.graph_path(name, compute.precision)
    session = open_session(path, compute, shrinks_arena=shrinks_arena)
    _check_contract(path, session, contract_tensors(name, bundle.manifest.sizes))
    return session


def open_weighted(bundle: Bundle, compute: Compute) -> Session:
    """Load the re-ranker with a weight per token; errors as :func:`open_graph`."""
    path = bundle.weighted_reranker_path
    if path is None:
        raise BundleError(
            f"The bundle {bundle.folder} has no re-ranker with weights. Add it with "
            f"`python -m onnx_export add-weighted {bundle.folder}`."
        )
    session = open_session(path, compute)
    _check_contract(path, session, contract_tensors("reranker", bundle.manifest.sizes, weighted=True))
    return session


def _check_contract(path: Path, session: Session, expected: GraphContract) -> None:
    for side, wanted, found in (
        ("inputs", expected.inputs, session.inputs),
        ("outputs", expected.outputs, session.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in found}
        if set(by_name) != {tensor.name for tensor in wanted} or not all(
            _fits(tensor, by_name[tensor.name]) for tensor in wanted
        ):
            raise BundleError(
                f"The {side} of {path} are not what its manifest says. Expected {_tensors(wanted)}; "
                f"the graph has {_tensors(found)}. Export the bundle again."
            )


def _onnxruntime() -> ModuleType:
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        raise ProviderError(
            f"Both {' and '.join(installed)} are installed; they overwrite each other's files. Run "
            "`pip uninstall onnxruntime onnxruntime-gpu`, then install one of "
            'pip install "qdrant-cir[cpu]" and pip install "qdrant-cir[gpu]".'
        )
    # Otherwise it stores an identifier of the machine and a usage database below HOME.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({_first_line(error)}). Install it with "
            'pip install "qdrant-cir[cpu]", or pip install "qdrant-cir[gpu]" on a machine with CUDA.'
        ) from error


@cache
def _preload_cuda(ort: ModuleType) -> None:
    """Load CUDA and cuDNN from where pip installs them; once, because it prints what is missing."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.info("onnxruntime: %s", line)


def _is_installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _loaded(
    ort: ModuleType, path: Path, options: onnxruntime.SessionOptions, providers: list[str]
) -> onnxruntime.InferenceSession:
    try:
        # Without enable_fallback=0 onnxruntime prints to stdout when CUDA fails; our caller sees it instead.
        return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    # Its errors share no base class below Exception.
    except Exception as error:
        if len(providers) > 1:
            logger.warning("%s: CUDA could not be started (%s)", path.name, _first_line(error))
            return _loaded(ort, path, options, [_CPU])
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load {path}: {_first_line(error)}. "
            "Export the bundle again, or install a newer onnxruntime."
        ) from error


def _described(tensor: onnxruntime.NodeArg) -> TensorSpec:
    axes = tuple(axis if isinstance(axis, int) else str(axis or "?") for axis in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), axes)


def _fits(wanted: TensorSpec, found: TensorSpec) -> bool:
    """Return whether types and axes agree. A dynamic axis must be dynamic; a fixed one may be undeclared."""
    return (
        wanted.dtype == found.dtype
        and len(wanted.shape) == len(found.shape)
        and all(isinstance(axis, str) or axis == goal for goal, axis in zip(wanted.shape, found.shape, strict=True))
    )


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype} [{','.join(map(str, t.shape))}]" for t in tensors)


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n", 1)[0] or type(error).__name__).rstrip(". ")
