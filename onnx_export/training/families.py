"""Families of near-duplicates to learn from: one product in some thirty variants, any two of which make a query.

Two variants that one change or two take into each other are a query with an exact answer, and all the others are near
misses of it. So some forty thousand pictures give some million queries, each with words of its own: what is learnt
there can hardly be the queries themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onnx_export.training.features import PictureFeatures
from onnx_export.training.pretrain import normalised_pixels
from onnx_export.training.triplets import Triplet, TripletSet, number_scenes
from qdrant_cir.catalog.dataset import is_held_out
from qdrant_cir.catalog.draw import draw_scene
from qdrant_cir.catalog.edit import Edit, edit_between
from qdrant_cir.catalog.language import describe_edit
from qdrant_cir.catalog.query_groups import draft_group
from qdrant_cir.catalog.scene import Scene, attributes

logger = logging.getLogger(__name__)

EDITS_PER_FAMILY, NEAR_MISSES_PER_EDIT = 6, 4
CHUNK_PICTURES = 1_000
TEXTS_PER_QUERY = 2
_DRAWING_STREAM, _WORDING_STREAM, _CHOOSING_STREAM = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Families:
    """Drawn families.

    Attributes:
        scenes: of every picture, family after family.
        starts: first picture of every family, and behind the last one their number: int64 [F + 1].
        pictures: uint8 [P, S, S, 3], memory-mapped.
        seed: of scenes, pictures, queries and words.
    """

    scenes: list[Scene]
    starts: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    seed: int

    def read(self, rows: slice) -> Tensor:
        """Read the pixels float32 [B, 3, S, S] of some pictures, normalised."""
        return normalised_pixels(self.pictures[rows])

    def triplets(self, features: PictureFeatures) -> TripletSet:
        """Give every query of one change, and as many of two, as triplets; near misses are met as stage one's best."""
        known = [attributes(scene) for scene in self.scenes]
        queries = FamilyQueries(self.scenes, self.starts, seed=self.seed)
        logger.info("%d queries between pictures of %d families", len(queries), len(self.starts) - 1)
        return TripletSet(queries, features, number_scenes(known), known)


class FamilyQueries(Sequence[Triplet]):
    """The queries between pictures of the same family; the words of each are found when it is asked for."""

    def __init__(self, scenes: Sequence[Scene], starts: NDArray[np.int64], *, seed: int) -> None:
        self._scenes, self._starts, self._seed = scenes, starts, seed
        rng = np.random.default_rng((seed, _CHOOSING_STREAM))
        chosen: list[tuple[int, int]] = []
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            pairs: dict[int, list[tuple[int, int]]] = {1: [], 2: []}
            for reference in range(start, end):
                for target in range(start, end):
                    edit = edit_between(scenes[reference], scenes[target])
                    if edit is not None:
                        pairs[len(edit.steps)].append((reference, target))
            chosen += pairs[1]
            chosen += [pairs[2][i] for i in rng.permutation(len(pairs[2]))[: len(pairs[1])].tolist()]
        self._pairs = np.array(chosen, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._pairs)

    def family_of(self, row: int) -> range:
        """Give the pictures of a picture's family, itself among them."""
        family = int(np.searchsorted(self._starts, row, side="right")) - 1
        return range(int(self._starts[family]), int(self._starts[family + 1]))

    @overload
    def __getitem__(self, number: int) -> Triplet: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Triplet]: ...
    def __getitem__(self, number: int | slice) -> Triplet | Sequence[Triplet]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        reference, target = self._pairs[number].tolist()
        edit = edit_between(self._scenes[reference], self._scenes[target])
        if edit is None:
            raise IndexError(number)
        rng = np.random.default_rng((self._seed, _WORDING_STREAM, number % len(self)))
        return Triplet(
            reference=reference,
            targets=(target,),
            near=(reference,),
            texts=tuple(_wording(edit, rng) for _ in range(TEXTS_PER_QUERY)),
        )


def _wording(edit: Edit, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        edit = replace(edit, steps=edit.steps[::-1])
    return describe_edit(edit, rng, split="train")


def family_scenes(seed: int, number: int) -> list[Scene]:
    """Give the products of one family, all different, the first edited into most of the others; none is held out."""
    scenes: list[Scene] = []
    draft_group(
        scenes,
        np.random.default_rng((seed, number)),
        size=EDITS_PER_FAMILY,
        own=NEAR_MISSES_PER_EDIT,
        least=0,
        split="train",
        allow=lambda scene: not is_held_out(scene),
    )
    return scenes


def open_families(folder: Path, *, families: int, size: int, seed: int, workers: int) -> Families:
    """Draw what is missing of some families, and open them.

    Args:
        folder: where the pictures lie or are to lie.
        families: how many.
        size: side of a picture in pixels.
        seed: the same seed gives the same families, whatever their number.
        workers: drawing processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = [family_scenes(seed, number) for number in range(families)]
    scenes = [scene for family in each for scene in family]
    array = folder / "pictures.npy"
    if not array.exists():
        np.lib.format.open_memmap(array, "w+", np.uint8, (len(scenes), size, size, 3)).flush()
    chunks = [range(start, min(start + CHUNK_PICTURES, len(scenes))) for start in range(0, len(scenes), CHUNK_PICTURES)]
    missing = [chunk for chunk in chunks if not _mark(folder, chunk).exists()]
    begin, drawn = time.monotonic(), 0
    with ProcessPoolExecutor(workers) as executor:
        draw = partial(_draw_chunk, folder, size=size, seed=seed)
        for chunk in executor.map(draw, missing, [scenes[chunk.start : chunk.stop] for chunk in missing]):
            drawn += len(chunk)
            rate = drawn / (time.monotonic() - begin)
            logger.info("drew %d of %d pictures, %.0f pictures/s", drawn, sum(map(len, missing)), rate)
    starts = np.cumsum([0, *map(len, each)])
    return Families(scenes, starts, np.load(array, mmap_mode="r"), seed)


def _mark(folder: Path, chunk: range) -> Path:
    return folder / f"drawn_{chunk.start:06d}"


def _draw_chunk(folder: Path, chunk: range, scenes: list[Scene], *, size: int, seed: int) -> range:
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    for row, scene in zip(chunk, scenes, strict=True):
        rng = np.random.default_rng((seed, row, _DRAWING_STREAM))
        pictures[row] = np.asarray(draw_scene(scene, rng, size=size).image)
    pictures.flush()
    _mark(folder, chunk).touch()
    return chunk
