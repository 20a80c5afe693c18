"""The pool: every family's pictures as the frozen trunk sees them, drawn once and read by all stages."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onnx_export.errors import TrainingError
from onnx_export.models.efficientnet_lite import CELL, FEATURE_CHANNELS, EfficientNetLite, PhotoStem
from onnx_export.training.kept import read_kept, reading
from onnx_export.training.photos.families import FAMILY_SIZE, Family, draw_family
from qdrant_cir.errors import ImageError
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.photographs.colours import lab_of_rgb
from qdrant_cir.photographs.edits import Graphic, Pattern
from qdrant_cir.photographs.labels import KINDS, Photograph
from qdrant_cir.photographs.masks import GarmentMask, find_mask
from qdrant_cir.photographs.rendering import floor_of
from qdrant_cir.photographs.wording import Shade
from qdrant_cir.types import Float32

logger = logging.getLogger(__name__)

PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
FLOOR_SIDE = 96
_LOG_EVERY = 200
_LARGEST_SIDE = 320
_PATTERNS: tuple[Pattern, ...] = ("unknown", "plain", "stripes", "checks", "dots", "flowers")
_GRAPHICS: tuple[Graphic, ...] = ("unknown", "none", "picture", "letters")
_SHADES: tuple[Shade | str, ...] = ("", "lighter", "darker", "brighter", "duller")
KIND_NAMES = tuple(KINDS)
COLUMNS = ("garment", "kind", "colour", "basic", "pattern", "graphic", "second", "shade", "base", "edited")
"""What is known of each picture, as numbers; -1 where it is not known."""


@dataclass(frozen=True, slots=True)
class PhotoPool:
    """Pictures of P variants of G garments.

    Attributes:
        features: float16 [P, 444, 49], what the frozen trunk sees, memory-mapped.
        facts: int64 [P] by column name: ``garment`` counts photographs from 0, ``kind`` is a place in ``KIND_NAMES``,
            ``colour`` and ``second`` in ``COLOURS``, ``basic`` in ``BASIC_COLOURS``, ``pattern``, ``graphic`` and
            ``shade`` in the tuples below; ``base`` is the row that a shade is of.
        usable: share of edits that could be made, by kind of edit.
        skipped: photographs that have no usable mask; they are in the pool as they are, without a family.
    """

    features: NDArray[np.float16]
    facts: dict[str, NDArray[np.int64]]
    usable: dict[str, float]
    skipped: int

    def __len__(self) -> int:
        return len(self.features)

    def pattern(self, row: int) -> Pattern:
        """Name a picture's pattern."""
        return _PATTERNS[int(self.facts["pattern"][row])]

    def graphic(self, row: int) -> Graphic:
        """Name what is printed on a picture's garment."""
        return _GRAPHICS[int(self.facts["graphic"][row])]

    def shade(self, row: int) -> str:
        """Name what shade a picture is of its base; empty for none."""
        return str(_SHADES[int(self.facts["shade"][row])])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a worker makes of one photograph."""

    features: NDArray[np.float16]
    rows: NDArray[np.int64]
    tried: dict[str, int]
    refused: dict[str, int]
    has_mask: bool


class _Drawer:
    """A worker's state: the trunk and the floors."""

    def __init__(self, weights: dict[str, torch.Tensor], floors: Path, size: int, seed: int) -> None:
        torch.set_num_threads(1)
        self.stem = PhotoStem(1)
        self.stem.trunk.load_state_dict(weights)
        self.stem.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.floors: NDArray[np.uint8] = np.load(floors, mmap_mode="r")
        self.size, self.seed = size, seed

    def draw(self, number: int, photograph: Photograph) -> _Drawn:
        rng = np.random.default_rng((self.seed, 7, number))
        rgb, lab, mask = read_garment(photograph)
        if mask is None:
            # as it is, twice: it takes part as a picture that may be found
            whole = GarmentMask(np.ones(lab.shape[:2], np.float32), np.zeros(3, np.float32), 1.0, 99.0)
            from qdrant_cir.photographs.rendering import photographed

            pictures = [photographed(rgb, whole, "own", None, size=self.size, rng=rng) for _ in range(2)]
            rows = np.full((2, len(COLUMNS)), -1, np.int64)
            rows[:, 0], rows[:, 1] = number, KIND_NAMES.index(photograph.kind.label.lower())
            rows[:, 4], rows[:, 5], rows[:, 7], rows[:, 9] = 0, 0, 0, 0
            return _Drawn(self._look(pictures), rows, {}, {}, has_mask=False)
        family = draw_family(rgb, lab, mask, photograph.kind, floors=self.floors, size=self.size, rng=rng)
        return _Drawn(
            self._look([member.picture for member in family.members]),
            _rows(number, photograph, family),
            family.tried,
            family.refused,
            has_mask=True,
        )

    @torch.inference_mode()
    def _look(self, pictures: Sequence[object]) -> NDArray[np.float16]:
        pixels = np.stack([np.asarray(picture, np.float32) for picture in pictures])
        batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - PIXEL_MEAN) / PIXEL_SCALE
        found = self.stem.features(batch.contiguous(memory_format=torch.channels_last))
        return found.flatten(2).half().numpy()


def _rows(number: int, photograph: Photograph, family: Family) -> NDArray[np.int64]:
    kind = KIND_NAMES.index(photograph.kind.label.lower())
    return np.array(
        [
            (
                number,
                kind,
                v.colour,
                v.basic,
                _PATTERNS.index(v.look.pattern),
                _GRAPHICS.index(v.look.graphic),
                v.second,
                _SHADES.index(v.shade),
                v.base,
                int(v.edit != "own"),
            )
            for v in (member.variant for member in family.members)
        ],
        np.int64,
    )


def read_garment(photograph: Photograph) -> tuple[NDArray[np.uint8], Float32, GarmentMask | None]:
    """Read a photograph, at most 320 pixels on its longer side, and find its garment.

    Raises:
        ImageError: the file is no picture.
    """
    picture = load_image(photograph.path)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    rgb = np.array(picture)
    lab = lab_of_rgb(rgb)
    return rgb, lab, find_mask(picture, lab)


_drawer: _Drawer | None = None


def _start(weights: dict[str, NDArray[np.float32]], floors: Path, size: int, seed: int) -> None:
    global _drawer
    _drawer = _Drawer({name: torch.from_numpy(value) for name, value in weights.items()}, floors, size, seed)


def _draw(job: tuple[int, Photograph]) -> _Drawn:
    if _drawer is None:
        raise TrainingError("A worker was asked to draw before it was started.")
    return _drawer.draw(*job)


def survey(photograph: Photograph) -> tuple[str, NDArray[np.uint8] | None]:
    """Whether a photograph can be read, with the reason where not, and a square of what lies around its garment."""
    try:
        rgb, _, mask = read_garment(photograph)
    except ImageError as error:
        return str(error), None
    floor = None if mask is None else floor_of(rgb, mask)
    if floor is None:
        return "", None
    height, width = floor.shape[:2]
    rows, columns = (np.arange(FLOOR_SIDE) % (2 * length) for length in (height, width))
    rows, columns = (
        np.where(rows < height, rows, 2 * height - 1 - rows),
        np.where(columns < width, columns, 2 * width - 1 - columns),
    )
    return "", floor[rows[:, None], columns[None]]


def open_pool(
    folder: Path, photographs: Sequence[Photograph], trunk: EfficientNetLite, *, size: int, seed: int, workers: int
) -> PhotoPool:
    """Draw the pool of some photographs into a folder, or open what an earlier call drew there.

    Raises:
        TrainingError: no photograph has a usable mask, or what was drawn there is damaged.
    """
    if not (folder / "facts.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _draw_pool(folder, photographs, trunk, size=size, seed=seed, workers=workers)
    advice = f"Remove {folder}: the pool is drawn again."
    with reading(folder / "facts.npz", advice=advice), np.load(folder / "facts.npz") as stored:
        facts = {name: stored[name] for name in COLUMNS}
    about = read_kept(folder / "about.json", advice=advice)
    with reading(folder / "about.json", advice=advice):
        usable, skipped = dict(about["usable"]), int(about["skipped"])
    with reading(folder / "features.npy", advice=advice):
        features = np.load(folder / "features.npy", mmap_mode="r")[: len(facts["garment"])]
    return PhotoPool(features, facts, usable, skipped)


def _draw_pool(
    folder: Path, photographs: Sequence[Photograph], trunk: EfficientNetLite, *, size: int, seed: int, workers: int
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        surveyed = list(pool.map(survey, photographs, chunksize=16))
    for photograph, (reason, _) in zip(photographs, surveyed, strict=True):
        if reason:
            logger.warning("left out %s: %s", photograph.image_id, reason)
    readable = [photograph for photograph, (reason, _) in zip(photographs, surveyed, strict=True) if not reason]
    floors = [floor for _, floor in surveyed if floor is not None]
    if not floors:
        raise TrainingError(
            f"None of {len(photographs)} photographs shows a garment that stands out from what lies around it; "
            "expected one garment a picture, on a floor, a wall or a hanger."
        )
    np.save(folder / "floors.npy", np.stack(floors))
    cells = (size // CELL) ** 2
    features = np.lib.format.open_memmap(
        folder / "features.npy", "w+", np.float16, (len(readable) * FAMILY_SIZE, FEATURE_CHANNELS, cells)
    )
    weights = {name: value.numpy() for name, value in trunk.state_dict().items()}
    rows: list[NDArray[np.int64]] = []
    tried: dict[str, int] = {}
    refused: dict[str, int] = {}
    count, skipped, begin = 0, 0, time.monotonic()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(weights, folder / "floors.npy", size, seed)
    ) as pool:
        for number, drawn in enumerate(pool.map(_draw, enumerate(readable), chunksize=4)):
            features[count : count + len(drawn.rows)] = drawn.features
            own = drawn.rows.copy()
            own[:, COLUMNS.index("base")] += np.where(own[:, COLUMNS.index("base")] >= 0, count, 0)
            rows.append(own)
            count += len(own)
            skipped += not drawn.has_mask
            for total, more in ((tried, drawn.tried), (refused, drawn.refused)):
                for edit, times in more.items():
                    total[edit] = total.get(edit, 0) + times
            if number % _LOG_EVERY == 0:
                logger.info("drew %d of %d photographs, %.0f s", number, len(readable), time.monotonic() - begin)
    features.flush()
    table = np.concatenate(rows)
    usable = {edit: round(1 - refused.get(edit, 0) / times, 4) for edit, times in tried.items()}
    if skipped:
        logger.warning("%d of %d photographs have no usable mask; they have no edits", skipped, len(readable))
    (folder / "about.json").write_text(json.dumps({"usable": usable, "skipped": skipped}) + "\n", encoding="utf-8")
    columns = {name: table[:, place] for place, name in enumerate(COLUMNS)}
    # the facts say that all is there
    np.savez(folder / "facts.part.npz", **columns)  # type: ignore[arg-type]
    (folder / "facts.part.npz").replace(folder / "facts.npz")
