"""The pool of drawn pictures that all training stages read.

One group is a training triplet with hard negatives: row 0 the reference, rows 1 and 2 two renderings of the target, the
rest near-duplicates of both. A batch takes whole groups, so that near-duplicates meet in it. The pool is drawn once, by
a process per core, into one memory-mapped array; a stopped run continues at the chunk that it had reached.
"""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal

import numpy as np
from numpy.typing import NDArray

from onnx_export.training.kept import reading
from qdrant_cir.drawn.dataset import sample_training_edit
from qdrant_cir.drawn.draw import draw_scene
from qdrant_cir.drawn.language import describe_edit, describe_scene
from qdrant_cir.drawn.scene import Scene, attributes
from qdrant_cir.drawn.statements import statement

logger = logging.getLogger(__name__)

PICTURES_PER_GROUP = 6
TARGET_ROWS = (1, 2)
CHUNK_GROUPS = 250
PARAPHRASES = 6
STATEMENTS = 4
CLAIMS = 4
CAPTIONS = 3

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts about one drawn picture.

    Attributes:
        attributes: the scene's canonical attributes.
        boxes: part name to (left, top, right, bottom) in fractions of the picture.
        captions: true descriptions.
        statements: sentences about one part each.
        statement_parts: the part each statement is about.
        statement_truths: whether each statement holds for this picture.
        claims: further statements, all true.
        claim_parts: the part each claim is about.
    """

    attributes: dict[str, str]
    boxes: dict[str, Box]
    captions: list[str]
    statements: list[str]
    statement_parts: list[str]
    statement_truths: list[bool]
    claims: list[str]
    claim_parts: list[str]


@dataclass(frozen=True, slots=True)
class Group:
    """One training triplet: paraphrases of its edit, the edit's kind, and its pictures' facts."""

    texts: list[str]
    kind: str
    pictures: list[PictureFacts]


@dataclass(frozen=True, slots=True)
class Pool:
    """All groups; ``pictures`` is uint8 [groups * PICTURES_PER_GROUP, S, S, 3], memory-mapped."""

    groups: list[Group]
    pictures: NDArray[np.uint8]


def open_pool(folder: Path, *, groups: int, size: int, seed: int, workers: int) -> Pool:
    """Open a pool, after drawing what is missing of it.

    Args:
        folder: of the pool.
        groups: how many triplets.
        size: side of a picture in pixels.
        seed: of the whole pool; the same seed gives the same pool.
        workers: drawing processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    is_new = not array.exists()
    if is_new:
        shape = (groups * PICTURES_PER_GROUP, size, size, 3)
        np.lib.format.open_memmap(array, "w+", np.uint8, shape).flush()
    chunks = [range(start, min(start + CHUNK_GROUPS, groups)) for start in range(0, groups, CHUNK_GROUPS)]
    missing = [chunk for chunk in chunks if is_new or not _facts_file(folder, chunk).exists()]
    begin = time.monotonic()
    # Ctrl-C ends the parent, which waits for the chunks in work
    with ProcessPoolExecutor(workers, initializer=signal, initargs=(SIGINT, SIG_IGN)) as executor:
        draw = partial(_draw_chunk, folder, size=size, seed=seed)
        drawn = 0
        for chunk in executor.map(draw, missing):
            drawn += len(chunk)
            rate = drawn * PICTURES_PER_GROUP / (time.monotonic() - begin)
            logger.info("drew %d of %d groups, %.0f pictures/s", drawn, sum(map(len, missing)), rate)
    facts = [_read_facts(_facts_file(folder, chunk), len(chunk)) for chunk in chunks]
    with reading(array, advice=f"Remove {folder}: the pool is drawn again."):
        pictures = np.load(array, mmap_mode="r")
    return Pool([group for chunk in facts for group in chunk], pictures)


def _facts_file(folder: Path, chunk: range) -> Path:
    return folder / f"facts_{chunk.start // CHUNK_GROUPS:04d}.jsonl"


def _draw_chunk(folder: Path, chunk: range, *, size: int, seed: int) -> range:
    with reading(folder / "pictures.npy", advice=f"Remove {folder}: the pool is drawn again."):
        pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    lines = []
    for group in chunk:
        rng = np.random.default_rng((seed, group))
        triplet = sample_training_edit(rng, negatives=PICTURES_PER_GROUP - 2)
        edit, near_misses = triplet.edit, triplet.negatives[1:]  # the first negative is the reference
        scenes = [triplet.reference, edit.target, edit.target, *near_misses]
        facts = []
        for row, scene in enumerate(scenes):
            drawn = draw_scene(scene, rng, size=size)
            pictures[group * PICTURES_PER_GROUP + row] = np.asarray(drawn.image)
            boxes = {name: (b.left, b.top, b.right, b.bottom) for name, b in drawn.boxes.items()}
            facts.append(_describe(scene, boxes, rng))
        texts = [describe_edit(edit, rng, split="train") for _ in range(PARAPHRASES)]
        lines.append(json.dumps(asdict(Group(texts, edit.kind, facts))))
    partial_file = _facts_file(folder, chunk).with_suffix(".part")
    partial_file.write_text("\n".join(lines), encoding="utf-8")
    partial_file.replace(_facts_file(folder, chunk))
    return chunk


def _describe(scene: Scene, boxes: dict[str, Box], rng: np.random.Generator) -> PictureFacts:
    statements = [statement(scene, rng) for _ in range(STATEMENTS)]
    claims = [statement(scene, rng, only_true=True) for _ in range(CLAIMS)]
    return PictureFacts(
        attributes=attributes(scene),
        boxes=boxes,
        captions=[describe_scene(scene, rng) for _ in range(CAPTIONS)],
        statements=[s.text for s in statements],
        statement_parts=[s.part for s in statements],
        statement_truths=[s.is_true for s in statements],
        claims=[c.text for c in claims],
        claim_parts=[c.part for c in claims],
    )


def _read_facts(path: Path, count: int) -> list[Group]:
    groups = []
    with reading(path, advice="Remove it: its part of the pool is drawn again."):
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            pictures = [PictureFacts(**p) for p in values["pictures"]]
            groups.append(Group(values["texts"], values["kind"], pictures))
        if len(groups) != count:
            raise ValueError(f"it holds {len(groups)} groups, expected {count}")
    return groups
