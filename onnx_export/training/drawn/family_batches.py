"""What a step over families reads: queries of a few families, and the frozen features of all pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.drawn.families import VARIANTS, Families
from onnx_export.training.drawn.pretrain import normalised_pixels
from onnx_export.training.features import compute_features
from onnx_export.training.processes import processes
from onnx_export.training.texts import special_id
from qdrant_cir.drawn.wording import attribute_words, part_words

WINDOW = 2
"""Queries of a family are drawn from a window of so many times their number, of similar length."""
REPLACED_SHARE, REPLACED_WORDS = 0.5, 0.15
"""In so many texts, so many of the words without which it can be understood become words that training never sees."""
_KEPT = frozenset(
    {"[PAD]", "[CLS]", "[SEP]", "[ENC]", "no", "not", "without", "more", "fewer", "less", "instead", "than"}
)


class Asked(NamedTuple):
    """Queries of a step: F families, C queries of each.

    Attributes:
        families: int64 [F].
        references, targets: int64 [F, C].
        ids, mask: int64 [F, C, L].
        captions, caption_mask: int64 [F, M], which describe a picture of every family.
    """

    families: Tensor
    references: Tensor
    targets: Tensor
    ids: Tensor
    mask: Tensor
    captions: Tensor
    caption_mask: Tensor


class FamilyQueries:
    """Draws queries: those of a step are of similar length, and some words of theirs are replaced."""

    def __init__(self, families: Families, tokenizer: Tokenizer, device: torch.device) -> None:
        self.device, self.starts = device, families.starts
        self._arrays, self._captions = (families.references, families.targets, families.ids), families.captions
        words = tokenizer.get_vocab()
        known = np.zeros(max(words.values()) + 1, np.bool_)
        known[families.ids], known[families.captions] = True, True
        known[special_id(tokenizer, "[UNK]")] = False
        self._unknown = np.flatnonzero(~known)
        kept = attribute_words() | part_words() | _KEPT
        self._can_replace = known.copy()
        self._can_replace[[number for word, number in words.items() if word in kept]] = False

    def draw(self, rng: np.random.Generator, *, families: int, each: int) -> Asked:
        """Draw ``each`` queries of some families."""
        chosen = rng.choice(len(self.starts) - 1, families, replace=False)
        first, number = self.starts[chosen], np.diff(self.starts)[chosen]
        window = np.minimum(WINDOW * each, number)
        begin = first + (rng.random() * (number - window)).astype(np.int64)
        places = np.stack([rng.choice(width, each, replace=width < each) for width in window.tolist()])
        rows = begin[:, None] + places
        references, targets, ids = (array[rows] for array in self._arrays)
        ids = _cut(ids)
        is_drawn = (rng.random(ids.shape) < REPLACED_WORDS) & (rng.random(ids.shape[:2]) < REPLACED_SHARE)[..., None]
        unknown = self._unknown[rng.integers(len(self._unknown), size=ids.shape)]
        asked = np.where(is_drawn & self._can_replace[ids], unknown, ids)
        captions = _cut(self._captions[chosen * VARIANTS + rng.integers(VARIANTS, size=families)])
        masks = ((each != 0).astype(np.int64) for each in (ids, captions))
        arrays = chosen, references, targets, asked, next(masks), captions, next(masks)
        return Asked(*(torch.from_numpy(array).to(self.device, non_blocking=True) for array in arrays))


def _cut(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out of ids [..., L] the columns behind the longest text, up to a multiple of 8."""
    longest = -(-int((ids != 0).sum(-1).max()) // 8) * 8
    return ids[..., :longest]


class Gallery(NamedTuple):
    """Frozen features, where the model is: tokens float16 [P, N, C] and vectors float32 [P, D] of all pictures.

    ``blank`` are those of the blank picture, float32 [N, C].
    """

    tokens: Tensor
    vectors: Tensor
    blank: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """Tokens float32 [..., N, C] of pictures [...]."""
        return self.tokens[rows.to(self.tokens.device)].to(rows.device).float()


def open_gallery(folder: Path, model: CirModel, families: Families) -> Gallery:
    """Open, or encode by the model, the pictures of families; features are kept in ``folder``."""

    def read(rows: slice) -> Tensor:
        return normalised_pixels(families.pictures[rows], model.device)

    folder.mkdir(exist_ok=True)
    with processes().main_process_first():
        features = compute_features(model.eval(), read, len(families.pictures), folder)
    return Gallery(
        on_device(cast(NDArray[np.float16], features.tokens), model.device), features.vectors, features.blank
    )


def family_rows(families: Tensor) -> Tensor:
    """Give all pictures of some families [F]: int64 [F, VARIANTS]."""
    return families[:, None] * VARIANTS + torch.arange(VARIANTS, device=families.device)


def on_device(array: NDArray[np.uint8] | NDArray[np.float16], device: torch.device) -> Tensor:
    """Give a memory-mapped array as a tensor: on a GPU all of it, on a CPU as it is."""
    found = torch.from_numpy(array)
    return found if device.type == "cpu" else found.to(device)
