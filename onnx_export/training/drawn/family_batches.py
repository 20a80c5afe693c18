"""Input of a step over families: queries of a few families, and frozen features of all pictures."""

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
"""A step draws a family's queries from a window of similar lengths, this many times their number."""
REPLACED_SHARE, REPLACED_WORDS = 0.5, 0.15
"""Share of texts in which words are replaced by words that training never sees, and share of such words there.

Only words without which the text can still be understood are replaced.
"""
_KEPT = frozenset(
    {"[PAD]", "[CLS]", "[SEP]", "[ENC]", "no", "not", "without", "more", "fewer", "less", "instead", "than"}
)


class Asked(NamedTuple):
    """Queries of a step: F families, C queries of each.

    Attributes:
        families: int64 [F].
        references, targets: int64 [F, C].
        ids, mask: int64 [F, C, L].
        captions, caption_mask: int64 [F, M], a description of one picture of every family.
    """

    families: Tensor
    references: Tensor
    targets: Tensor
    ids: Tensor
    mask: Tensor
    captions: Tensor
    caption_mask: Tensor


class FamilyQueries:
    """Draws the queries of a step, of similar length and with some words replaced."""

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
    """Cut ids [..., L] behind the longest text, at a multiple of 8."""
    longest = -(-int((ids != 0).sum(-1).max()) // 8) * 8
    return ids[..., :longest]


class Gallery(NamedTuple):
    """Frozen features of all pictures, on the model's device.

    Attributes:
        tokens: float16 [P, N, C].
        vectors: float32 [P, D].
        blank: float32 [N, C], tokens of the blank picture.
    """

    tokens: Tensor
    vectors: Tensor
    blank: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """Return tokens float32 [..., N, C] of pictures [...]."""
        return self.tokens[rows.to(self.tokens.device)].to(rows.device).float()


def open_gallery(folder: Path, model: CirModel, families: Families) -> Gallery:
    """Encode the pictures of families and keep the features in ``folder``; open them where they exist."""

    def read(rows: slice) -> Tensor:
        return normalised_pixels(families.pictures[rows], model.device)

    folder.mkdir(exist_ok=True)
    with processes().main_process_first():
        features = compute_features(model.eval(), read, len(families.pictures), folder)
    return Gallery(
        on_device(cast(NDArray[np.float16], features.tokens), model.device), features.vectors, features.blank
    )


def family_rows(families: Tensor) -> Tensor:
    """Return the rows of all pictures of some families [F]: int64 [F, VARIANTS]."""
    return families[:, None] * VARIANTS + torch.arange(VARIANTS, device=families.device)


def on_device(array: NDArray[np.uint8] | NDArray[np.float16], device: torch.device) -> Tensor:
    """Return a memory-mapped array as a tensor, copied to a GPU as a whole; on a CPU it stays memory-mapped."""
    found = torch.from_numpy(array)
    return found if device.type == "cpu" else found.to(device)
