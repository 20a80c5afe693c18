"""Files that a run keeps in its folder: one that is damaged is named, with what to do."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx_export.errors import TrainingError

__all__ = ["read_kept", "reading"]

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
