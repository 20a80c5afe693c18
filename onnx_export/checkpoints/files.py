"""Files of ``torch.save``, read as data: tensors and plain containers, never code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from onnx_export.errors import CheckpointError

StateDict = dict[str, Tensor]
AllowedGlobal = Callable[..., object] | tuple[Callable[..., object], str]
"""A class or function, or a pair of one and its name in files."""

_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02"
_PICKLE = b"\x80"


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A released checkpoint.

    Attributes:
        path: of the file, which must stay in place while the tensors are in use: they are read on first use.
        state: the model's tensors by name.
        others: names of the file's other content, from training.
    """

    path: Path
    state: StateDict
    others: tuple[str, ...]


def read_checkpoint(path: Path, key: str) -> CheckpointFile:
    """Open a released checkpoint without reading its tensors.

    Args:
        path: the file.
        key: of the model's tensors in the file.

    Raises:
        CheckpointError: as :func:`read_torch_file`, or the file holds something else.
    """
    content = read_torch_file(path)
    if not isinstance(content, Mapping) or key not in content:
        found = ", ".join(sorted(map(str, content))[:5]) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} should hold {key!r}; it holds {found or 'nothing'}. Are the two stages swapped?")
    state = content[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: {key!r} should hold tensors by name, as `model.state_dict()` gives them; it holds "
            f"{type(state).__name__}{_strangers(state)}."
        )
    return CheckpointFile(path, {str(k): v for k, v in state.items()}, tuple(str(k) for k in content if k != key))


def read_torch_file(path: Path, *, allowed: Sequence[AllowedGlobal] = ()) -> object:
    """Read a file of ``torch.save`` with ``weights_only``; its tensors stay on disk until they are used.

    Args:
        path: the file.
        allowed: classes and functions that it may refer to beside torch's own, as
            :func:`torch.serialization.safe_globals` takes them.

    Raises:
        CheckpointError: there is no such file, it is cut off, it is no torch file, or reading it could run code.
    """
    is_zip = _looks_like_zip(path)
    try:
        with torch.serialization.safe_globals(list(allowed)) if allowed else nullcontext():
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain containers, so reading it could run code: refused "
            f"({_first_sentence(error)}). Ask whoever made it for the state dictionary alone."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no file of torch.save: {_first_sentence(error)}. Download it again."
        ) from error
    return content


def _looks_like_zip(path: Path) -> bool:
    """Return whether a file, by its first and last bytes, is in torch's format since 1.6, not the one before.

    Raises:
        CheckpointError: there is no such file, it is cut off, or it is of neither format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
        names = _names_in_zip(path)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if start == _ZIP and names is None:
        raise CheckpointError(
            f"{path} is cut off: its {size:,} bytes begin as a torch checkpoint and do not end as one. "
            "Download it again."
        )
    if start.startswith(_PICKLE) and not start.startswith(_OLD_TORCH):
        raise CheckpointError(
            f"{path} is a plain pickle, no file of torch.save, so reading it could run code: refused. "
            "Ask whoever made it for a file of torch.save."
        )
    if not (start.startswith(_OLD_TORCH) or any(name.endswith("/data.pkl") for name in names or ())):
        raise CheckpointError(
            f"{path} is not a torch checkpoint: expected a file of torch.save; "
            f"found {'another zip archive' if names else f'{size:,} bytes that begin with {start!r}'}. "
            "Give the .pt file itself."
        )
    return start == _ZIP


def _names_in_zip(path: Path) -> list[str] | None:
    """Return the names in an archive; None for a file that is no complete archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return None


def _strangers(state: object) -> str:
    if not isinstance(state, Mapping):
        return ""
    return " with " + ", ".join(f"{k}: {type(v).__name__}" for k, v in state.items() if not isinstance(v, Tensor))[:200]


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of torch's error, without its long advice to unpickle anyway."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unsupported = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), None)
    return (unsupported or (lines[0] if lines else type(error).__name__)).split(". ")[0].rstrip(". ")
