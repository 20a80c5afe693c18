"""Families of near-duplicates to learn from: one product in 31 variants, and queries between them.

Two variants that differ by one or two changes make a query with an exact answer, and all other variants are near misses
of it. So 124,000 pictures make some 900,000 queries, too many to be learnt by heart. Attributes are kept as numbers, so
that a step needs no loop over pictures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnx_export.training.attributes import NOT_OF_THIS_KIND
from onnx_export.training.kept import reading
from onnx_export.training.texts import special_id
from qdrant_cir.drawn.dataset import is_held_out
from qdrant_cir.drawn.draw import Box, draw_scene
from qdrant_cir.drawn.edit import Edit, edit_between
from qdrant_cir.drawn.families import COLORS, FAMILIES
from qdrant_cir.drawn.language import describe_edit, describe_scene
from qdrant_cir.drawn.query_groups import draft_group
from qdrant_cir.drawn.scene import Scene, attributes

logger = logging.getLogger(__name__)

EDITS_PER_FAMILY, NEAR_MISSES_PER_EDIT = 6, 4
VARIANTS = 1 + EDITS_PER_FAMILY * (1 + NEAR_MISSES_PER_EDIT)
TEXTS_PER_QUERY = 2
_FACTS = ("codes", "boxes", "products", "captions", "queries", "ids", "counts")
CHUNK_FAMILIES = 25
_DRAWING_STREAM, _WORDING_STREAM = 1, 2

_SLOTS = [slot for spec in FAMILIES.values() for slot in spec.slots]
PARTS = tuple(sorted({slot.name for slot in _SLOTS}))
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "present": ("no", "yes"),
        "color": (*COLORS, "none"),
        "pattern": (*sorted({pattern for slot in _SLOTS for pattern in slot.patterns}), "none"),
        "pattern_color": (*COLORS, "none"),
        "size": (*sorted({size for slot in _SLOTS for size in slot.sizes}), "none"),
        "count": (*(str(number) for number in sorted({n for slot in _SLOTS for n in slot.counts})), "none"),
    }
)
"""Attributes of a part and their values; ``none`` as in :func:`attributes`."""


@dataclass(frozen=True, slots=True)
class Families:
    """F drawn families; picture ``VARIANTS * f + i`` is variant i of family f.

    Attributes:
        pictures: uint8 [P, S, S, 3], memory-mapped.
        codes: int64 [P, parts, kinds], attributes of every part; -1 where its product has no such attribute.
        boxes: float32 [P, parts, 4], left, top, right, bottom in fractions of the picture; zeros for absent parts.
        scenes: int64 [P]; pictures with the same number answer the same queries.
        references, targets: int64 [Q], pictures of every query, ordered by family, then by length of text.
        ids: int64 [Q, L] of every query's text, padded with 0.
        starts: int64 [F + 1], first query of every family; the last entry is Q.
        captions: int64 [P, M], ids of a text that describes every picture, padded with 0.
    """

    pictures: NDArray[np.uint8]
    codes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scenes: NDArray[np.int64]
    references: NDArray[np.int64]
    targets: NDArray[np.int64]
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    captions: NDArray[np.int64]


def family_scenes(seed: int, number: int) -> list[Scene]:
    """Return the products of one family, all different, most of them edits of the first; none is held out."""
    scenes: list[Scene] = []
    draft_group(
        scenes,
        np.random.default_rng((seed, number)),
        size=EDITS_PER_FAMILY,
        near_misses=NEAR_MISSES_PER_EDIT,
        least=0,
        split="train",
        allow=lambda scene: not is_held_out(scene),
    )
    return scenes


def family_queries(scenes: list[Scene], rng: np.random.Generator) -> list[tuple[int, int, str]]:
    """Return reference, target and text of all queries of one change, and of as many of two changes."""
    edits: dict[int, list[tuple[int, int, Edit]]] = {1: [], 2: []}
    for reference, first in enumerate(scenes):
        for target, second in enumerate(scenes):
            edit = edit_between(first, second)
            if edit is not None:
                edits[len(edit.steps)].append((reference, target, edit))
    of_two = [edits[2][i] for i in rng.permutation(len(edits[2]))[: len(edits[1])].tolist()]
    return [
        (reference, target, _wording(edit, rng))
        for reference, target, edit in edits[1] + of_two
        for _ in range(TEXTS_PER_QUERY)
    ]


def _wording(edit: Edit, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        edit = replace(edit, steps=edit.steps[::-1])
    return describe_edit(edit, rng, split="train")


def scene_codes(scene: Scene) -> NDArray[np.int64]:
    """Return the attributes of a scene's parts as numbers: int64 [parts, kinds]."""
    codes = np.full((len(PARTS), len(KINDS)), NOT_OF_THIS_KIND, np.int64)
    kinds = list(KINDS)
    for key, value in attributes(scene).items():
        part, _, kind = key.partition(".")
        if kind:
            codes[PARTS.index(part), kinds.index(kind)] = KINDS[kind].index(value)
    return codes


def open_families(folder: Path, *, families: int, size: int, seed: int, workers: int, tokenizer: Tokenizer) -> Families:
    """Open families, after drawing those that are missing.

    Args:
        folder: of the pictures.
        families: how many.
        size: side of a picture in pixels.
        seed: the same seed gives the same families, whatever their number.
        workers: drawing processes.
        tokenizer: of the texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    is_new = not array.exists()
    if is_new:
        np.lib.format.open_memmap(array, "w+", np.uint8, (families * VARIANTS, size, size, 3)).flush()
    chunks = [range(first, min(first + CHUNK_FAMILIES, families)) for first in range(0, families, CHUNK_FAMILIES)]
    missing = [chunk for chunk in chunks if is_new or not _facts_file(folder, chunk).exists()]
    begin, drawn = time.monotonic(), 0
    # Ctrl-C ends the parent, which waits for the chunks in work
    with ProcessPoolExecutor(workers, initializer=signal, initargs=(SIGINT, SIG_IGN)) as executor:
        draw = partial(_draw_chunk, folder, size=size, seed=seed, tokenizer=tokenizer.to_str())
        for chunk in executor.map(draw, missing):
            drawn += len(chunk)
            rate = drawn * VARIANTS / (time.monotonic() - begin)
            logger.info("drew %d of %d families, %.0f pictures/s", drawn, sum(map(len, missing)), rate)
    facts = [_read_facts(_facts_file(folder, chunk)) for chunk in chunks]

    def joined(name: str) -> NDArray[np.int64]:
        widest = max(each[name].shape[1] for each in facts)
        return np.concatenate([_widened(each[name], widest) for each in facts]).astype(np.int64)

    codes, queries, numbers = joined("codes"), joined("queries"), dict[bytes, int]()
    keys = np.concatenate((joined("products"), codes.reshape(len(codes), -1)), axis=1)
    with reading(array, advice=f"Remove {folder}: its pictures are drawn again."):
        pictures = np.load(array, mmap_mode="c")
    return Families(
        pictures=pictures,
        codes=codes,
        boxes=np.concatenate([each["boxes"] for each in facts]),
        scenes=np.array([numbers.setdefault(key.tobytes(), len(numbers)) for key in keys]),
        references=queries[:, 0],
        targets=queries[:, 1],
        ids=joined("ids"),
        starts=np.cumsum([0, *joined("counts")[:, 0].tolist()]),
        captions=joined("captions"),
    )


def _read_facts(path: Path) -> dict[str, NDArray[np.int64]]:
    with reading(path, advice="Remove it: its families are drawn again."), np.load(path) as stored:
        return {name: stored[name] for name in _FACTS}


def _widened(array: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Pad [R, c, ...] with zeros to so many columns."""
    return np.pad(array, [(0, 0), (0, columns - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])


def _facts_file(folder: Path, chunk: range) -> Path:
    return folder / f"facts_{chunk.start:05d}.npz"


def _draw_chunk(folder: Path, chunk: range, *, size: int, seed: int, tokenizer: str) -> range:
    with reading(folder / "pictures.npy", advice=f"Remove {folder}: its pictures are drawn again."):
        pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    words = Tokenizer.from_str(tokenizer)
    words.enable_padding()
    codes, boxes, products, captions, queries, texts, counts = [], [], [], [], [], [], []
    for family in chunk:
        scenes, first = family_scenes(seed, family), family * VARIANTS
        rng = np.random.default_rng((seed, family, _WORDING_STREAM))
        for row, scene in zip(range(first, first + VARIANTS), scenes, strict=True):
            drawn = draw_scene(scene, np.random.default_rng((seed, row, _DRAWING_STREAM)), size=size)
            pictures[row] = np.asarray(drawn.image)
            codes.append(scene_codes(scene))
            boxes.append(_box_array(drawn.boxes))
            products.append([list(FAMILIES).index(scene.family)])
            captions.append(describe_scene(scene, rng))
        asked = sorted(family_queries(scenes, rng), key=lambda query: len(query[2].split()))
        queries += [(first + reference, first + target) for reference, target, _ in asked]
        texts += [text for _, _, text in asked]
        counts.append([len(asked)])
    pictures.flush()
    partial_file = _facts_file(folder, chunk).with_suffix(".part.npz")
    np.savez(
        partial_file,
        codes=np.stack(codes).astype(np.int8),
        boxes=np.stack(boxes),
        products=np.array(products, np.int8),
        captions=_encoded(words, captions),
        queries=np.array(queries),
        ids=_encoded(words, texts),
        counts=np.array(counts),
    )
    partial_file.replace(_facts_file(folder, chunk))
    return chunk


def _encoded(words: Tokenizer, texts: list[str]) -> NDArray[np.int16]:
    """Return ids int16 [B, L] of texts, padded with 0 to the longest."""
    ids = np.array([encoding.ids for encoding in words.encode_batch(texts)], np.int16)
    ids[:, 0] = special_id(words, "[ENC]")
    return ids


def _box_array(boxes: Mapping[str, Box]) -> NDArray[np.float32]:
    found = np.zeros((len(PARTS), 4), np.float32)
    for name, box in boxes.items():
        found[PARTS.index(name)] = box.left, box.top, box.right, box.bottom
    return found
