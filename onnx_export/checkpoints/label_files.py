"""Top-K files of the original code: stage one's first K per query, so that the stages can run separately.

The original's ``validate.py --save-topk`` writes one per FashionIQ category (``fiq_top_200_val_dress.pt``) or for CIRR
(``cirr_top_200_val.pt``), and its stage two reads it: a dictionary with ``sorted_index_names`` (numpy strings [Q, K]),
``target_names``, ``index_names``, ``labels`` (bool [Q, K]), ``split`` and, for FashionIQ, ``dress_types``. Its analysis
files hold the labels alone, a bool tensor [Q, K].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnx_export.checkpoints.files import AllowedGlobal, read_torch_file
from onnx_export.errors import LabelFileError
from qdrant_cir.evaluation.metrics import Recall

__all__ = ["LabelFile", "read_label_file", "recall_of", "write_label_file"]


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Rankings of Q queries, K places each, and which of them are right.

    Attributes:
        labels: bool [Q, K], best place first.
        names: str [Q, K], the images in these places; None where the file holds labels alone.
        target_names: Q right answers; empty where the file holds labels alone.
        index_names: the gallery, in the order of the data set; may be empty, too.
        split: of the data set, such as ``val``; may be empty, too.
        category: FashionIQ's category; empty for a data set without.
        group_labels: bool [Q, 5], labels of CIRR's subsets, in their order; None for a data set without.
    """

    labels: NDArray[np.bool_]
    names: NDArray[np.str_] | None
    target_names: tuple[str, ...]
    index_names: tuple[str, ...]
    split: str
    category: str
    group_labels: NDArray[np.bool_] | None = None


def read_label_file(path: Path) -> LabelFile:
    """Read a Top-K file, or one with labels alone. Nothing in it is executed.

    Raises:
        CheckpointError: the file is cut off, no file of torch.save, or reading it could run code.
        LabelFileError: it holds something else, or names and labels that do not match.
    """
    content = read_torch_file(path, allowed=_numpy_arrays())
    if isinstance(content, Tensor):
        return LabelFile(_labels_of(path, content), None, (), (), "", "")
    if not isinstance(content, Mapping) or not {"sorted_index_names", "labels"} <= content.keys():
        found = ", ".join(sorted(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
        raise LabelFileError(f"{path} should hold sorted_index_names and labels, or a bool tensor; it holds {found}.")
    labels = _labels_of(path, content["labels"])
    names = np.asarray(content["sorted_index_names"], dtype=np.str_)
    targets = tuple(map(str, content.get("target_names", ())))
    if names.shape != labels.shape or (targets and len(targets) != len(labels)):
        raise LabelFileError(
            f"{path}: names {list(names.shape)}, labels {list(labels.shape)} and {len(targets)} targets do not "
            "match; expected [Q, K], [Q, K] and Q."
        )
    if targets and not np.array_equal(names == np.array(targets)[:, None], labels):
        raise LabelFileError(f"{path}: the labels are not where the targets stand among the names. It is damaged.")
    return LabelFile(
        labels,
        names,
        targets,
        tuple(map(str, content.get("index_names", ()))),
        str(content.get("split", "")),
        str(content.get("dress_types", "")),
        _labels_of(path, content["group_labels"]) if "group_labels" in content else None,
    )


def write_label_file(path: Path, content: LabelFile) -> None:
    """Write a file that the original's stage two reads.

    Raises:
        LabelFileError: there are no names, without which the original cannot re-rank.
    """
    if content.names is None:
        raise LabelFileError(f"{path} is not written: there are labels only, and stage two needs the images' names.")
    value: dict[str, object] = {
        "sorted_index_names": content.names,
        "target_names": list(content.target_names),
        "index_names": list(content.index_names),
        "labels": torch.from_numpy(content.labels),
        "split": content.split,
    }
    if content.category:
        value["dress_types"] = content.category
    if content.group_labels is not None:
        value["group_labels"] = torch.from_numpy(content.group_labels)
    torch.save(value, path)


def recall_of(content: LabelFile, ks: Sequence[int]) -> dict[str, float]:
    """Return the recall of a label file at each ``k``, by name (``R@10``), 0 to 1.

    Raises:
        LabelFileError: a ``k`` is below 1 or above K.
    """
    queries, depth = content.labels.shape
    wrong = [k for k in ks if not 1 <= k <= depth]
    if wrong or not queries:
        raise LabelFileError(
            f"R@{wrong[0] if wrong else ''} cannot be read from {queries} queries with {depth} places."
        )
    return {Recall(k).name: float(content.labels[:, :k].any(axis=1).mean()) for k in ks}


def _labels_of(path: Path, labels: object) -> NDArray[np.bool_]:
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool or labels.ndim != 2:
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise LabelFileError(f"{path}: the labels should be bool [Q, K]; they are {found}.")
    array: NDArray[np.bool_] = labels.numpy()
    return array


def _numpy_arrays() -> list[AllowedGlobal]:
    """Return what a pickled array of strings refers to: constructors of numpy, which only make arrays."""
    from numpy._core.multiarray import _reconstruct

    return [
        _reconstruct,
        (_reconstruct, "numpy.core.multiarray._reconstruct"),  # as numpy 1 wrote it
        np.ndarray,
        np.dtype,
        np.dtypes.StrDType,
    ]
