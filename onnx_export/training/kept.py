"""Files that a run keeps in its folder: one that is damaged is named, with what to do."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from onnx_export.errors import TrainingError

__all__ = ["make_folder", "read_kept", "reading", "weights_key"]

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What json, numpy and torch raise for files that were cut, changed or written by another program."""


@contextmanager
def reading(path: Path, *, advice: str) -> Iterator[None]:
    """Turn what a damaged file makes of its reading into one sentence.

    Args:
        path: of the file.
        advice: what to do then.

    Raises:
        TrainingError: the file cannot be read, or holds something else.
    """
    try:
        yield
    except TrainingError:
        raise
    except _DAMAGE as error:
        raise TrainingError(
            f"{path} is damaged or cannot be read ({type(error).__name__}: {str(error)[:200]}). {advice}"
        ) from error


def read_kept(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a JSON object that a run keeps. Raises TrainingError as :func:`reading`."""
    with reading(path, advice=advice):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError(f"expected an object, got {type(found).__name__}")
    return found


def make_folder(folder: Path) -> None:
    """Make the folder of a run where it is missing. Raises TrainingError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be the folder of a run: {error.strerror}. Choose another one.") from error


def weights_key(module: nn.Module) -> str:
    """Return a hash of the names, shapes and values of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
