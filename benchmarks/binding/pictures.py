"""Drawn families with their frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.binding.scenes import ASSIGNMENTS, BoundFamily, BoundQuery, sample_family, sample_query
from onnx_export.models import CirModel
from onnx_export.training.drawn.pretrain import normalised_pixels
from onnx_export.training.features import PictureFeatures, compute_features
from qdrant_cir.drawn.draw import draw_scene

FAMILY_STREAM, DRAWING_STREAM, QUERY_STREAM = 1, 2, 3


@dataclass(frozen=True, slots=True)
class BoundPictures:
    """F families; picture ``len(ASSIGNMENTS) * f + a`` is assignment a of family f.

    Attributes:
        seed: of everything that is drawn.
        families: the families.
        features: of the pictures, from the frozen image encoder.
    """

    seed: int
    families: tuple[BoundFamily, ...]
    features: PictureFeatures

    def queries(self, count: int) -> list[tuple[int, BoundQuery]]:
        """Draw queries, each with the number of its family; families take turns."""
        rng = np.random.default_rng((self.seed, QUERY_STREAM))
        numbers = [number % len(self.families) for number in range(count)]
        return [(number, sample_query(self.families[number], rng)) for number in numbers]


def open_pictures(folder: Path, model: CirModel, *, seed: int, families: int) -> BoundPictures:
    """Draw and encode families, and keep their features in ``folder``; open them where they exist."""
    rng = np.random.default_rng((seed, FAMILY_STREAM))
    drawn = tuple(sample_family(rng) for _ in range(families))
    count, size = len(ASSIGNMENTS), model.sizes.image_size

    def read(rows: slice) -> Tensor:
        pictures = []
        for row in range(*rows.indices(families * count)):
            scene = drawn[row // count].scene(ASSIGNMENTS[row % count])
            own = np.random.default_rng((seed, row, DRAWING_STREAM))
            pictures.append(np.asarray(draw_scene(scene, own, size=size).image))
        return normalised_pixels(np.stack(pictures), model.device)

    place = folder / f"pictures_{seed}_{families}"
    place.mkdir(parents=True, exist_ok=True)
    return BoundPictures(seed, drawn, compute_features(model.eval(), read, families * count, place))
