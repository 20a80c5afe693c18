"""Drawn families with their frozen features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.binding.scenes import ASSIGNMENTS, SCHEMES, BoundFamily, BoundQuery, sample_family, sample_query
from onnx_export.models import CirModel
from onnx_export.training.drawn.pretrain import normalised_pixels
from onnx_export.training.features import PictureFeatures, compute_features
from qdrant_cir.drawn.draw import draw_scene
from qdrant_cir.drawn.scene import Scene, pick

SMALLEST = 0.65
"""Side of the smallest product as a share of the picture's; the bundle's encoder reads still smaller ones badly."""

_BOARDS = ((236, 236, 232), (210, 222, 230), (206, 190, 172), (128, 132, 138))
FAMILY_STREAM, DRAWING_STREAM, QUERY_STREAM, REFERENCE_STREAM = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class BoundPictures:
    """F families; picture ``len(ASSIGNMENTS) * f + a`` is assignment a of family f.

    Attributes:
        seed: of everything that is drawn.
        families: the families.
        features: of the pictures, from the frozen image encoder.
        references: likewise, of the references; reference ``len(SCHEMES) * f + s`` is scheme s of family f.
    """

    seed: int
    families: tuple[BoundFamily, ...]
    features: PictureFeatures
    references: PictureFeatures

    def reference_tokens(self, task: str, asked: Sequence[tuple[int, BoundQuery]]) -> Tensor:
        """Read the tokens of the references of queries, each with the number of its family: float32 [Q, N, C]."""
        held, count = (self.features, len(ASSIGNMENTS)) if task == "named" else (self.references, len(SCHEMES))
        return held.tokens_of(np.array([family * count + query.reference for family, query in asked]))

    def queries(self, task: str, count: int) -> list[tuple[int, BoundQuery]]:
        """Draw queries, each with the number of its family; families take turns."""
        rng = np.random.default_rng((self.seed, QUERY_STREAM))
        numbers = [number % len(self.families) for number in range(count)]
        return [(number, sample_query(self.families[number], task, rng)) for number in numbers]


def draw_anywhere(scene: Scene, rng: np.random.Generator, *, size: int) -> Image.Image:
    """Draw a picture whose product is of any size and at any place, so that no part has a place of its own.

    Args:
        scene: what is drawn.
        rng: source of size, place and all that ``draw_scene`` draws; the same state and size give the same pixels.
        size: side of the picture in pixels.
    """
    board = Image.new("RGB", (size, size), pick(rng, _BOARDS))
    side = round(size * rng.uniform(SMALLEST, 1.0))
    left, top = rng.integers(size - side + 1, size=2).tolist()
    board.paste(draw_scene(scene, rng, size=side).image, (left, top))
    return board


def _draw_in_place(scene: Scene, rng: np.random.Generator, *, size: int) -> Image.Image:
    return draw_scene(scene, rng, size=size).image


PLACES: Mapping[str, Callable[..., Image.Image]] = {"fixed": _draw_in_place, "free": draw_anywhere}
"""How pictures are drawn: parts where they always lie, or anywhere."""


def open_pictures(folder: Path, model: CirModel, *, places: str, seed: int, families: int) -> BoundPictures:
    """Draw and encode families, and keep their features in ``folder``; open them where they exist."""
    rng = np.random.default_rng((seed, FAMILY_STREAM))
    drawn = tuple(sample_family(rng) for _ in range(families))
    size = model.sizes.image_size

    def encode(name: str, stream: int, scenes: Sequence[Scene]) -> PictureFeatures:
        def read(rows: slice) -> Tensor:
            numbers = range(*rows.indices(len(scenes)))
            sources = [np.random.default_rng((seed, number, stream)) for number in numbers]
            drawn = [
                PLACES[places](scenes[number], own, size=size) for number, own in zip(numbers, sources, strict=True)
            ]
            return normalised_pixels(np.stack([np.asarray(image) for image in drawn]), model.device)

        place = folder / f"{name}_{places}_{seed}_{families}"
        place.mkdir(parents=True, exist_ok=True)
        return compute_features(model.eval(), read, len(scenes), place)

    pictures = [family.scene(assignment) for family in drawn for assignment in ASSIGNMENTS]
    references = [family.reference(scheme) for family in drawn for scheme in SCHEMES]
    return BoundPictures(
        seed,
        drawn,
        encode("pictures", DRAWING_STREAM, pictures),
        encode("references", REFERENCE_STREAM, references),
    )
