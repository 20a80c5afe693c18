"""Families of near-duplicates to learn from: a drawn catalogue as tests have it, of what training may show.

The groups of a pool have six pictures each. In a gallery there are some eighty variants of one product, and many
queries about it; a re-ranker that has not met so many variants at once has not learnt to choose among them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from onnx_export.training.features import PictureFeatures
from onnx_export.training.pretrain import normalised_pixels
from onnx_export.training.triplets import Triplet, TripletSet, number_scenes
from qdrant_cir.catalog.dataset import Catalog, sample_catalog
from qdrant_cir.catalog.files import picture_path, write_catalog
from qdrant_cir.catalog.scene import attributes
from qdrant_cir.preprocess import load_image

logger = logging.getLogger(__name__)

QUERIES_PER_FAMILY, PICTURES_PER_FAMILY = 20, 90
"""Queries about one reference, and pictures for each reference: its variants and one in ten that is of no family."""

_SECONDS_BETWEEN_LINES = 15.0


@dataclass(frozen=True, slots=True)
class Families:
    """A drawn catalogue and the folder of its pictures."""

    catalog: Catalog
    folder: Path

    def read(self, rows: slice) -> Tensor:
        """Read the pixels float32 [B, 3, S, S] of some pictures, normalised."""
        paths = [picture_path(self.folder, item.image_id) for item in self.catalog.items[rows]]
        return normalised_pixels(np.stack([np.asarray(load_image(path)) for path in paths]))

    def triplets(self, features: PictureFeatures) -> TripletSet:
        """Give its queries as triplets; near-duplicates are met as what stage one ranks high."""
        row_of = {item.image_id: row for row, item in enumerate(self.catalog.items)}
        known = [attributes(item.scene) for item in self.catalog.items]
        triplets = [
            Triplet(
                reference=row_of[query.reference_id],
                targets=tuple(row_of[target] for target in query.target_ids),
                near=(row_of[query.reference_id],),
                texts=(query.modification_text, query.paraphrase),
            )
            for query in self.catalog.queries
        ]
        return TripletSet(triplets, features, number_scenes(known), known)


def open_families(folder: Path, *, families: int, size: int, seed: int) -> Families:
    """Draw what is missing of some families, and open them.

    Args:
        folder: where the pictures lie or are to lie.
        families: how many references.
        size: side of a picture in pixels.
        seed: the same seed and number give the same families.
    """
    catalog = sample_catalog(
        seed, products=families * PICTURES_PER_FAMILY, queries=families * QUERIES_PER_FAMILY, split="train"
    )
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES or done == total:
            last = time.monotonic()
            logger.info("drew %d of %d pictures", done, total)

    write_catalog(catalog, folder, size=size, progress=show)
    return Families(catalog, folder)
