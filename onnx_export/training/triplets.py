"""Training triplets over frozen features, which stage one and stage two learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_export.errors import TrainingError
from onnx_export.training.features import PictureFeatures, join_features


@dataclass(frozen=True, slots=True)
class Triplet:
    """One query with its right answers; all pictures are rows of the features.

    Attributes:
        reference: row of the reference picture.
        targets: rows of the pictures that answer it, at least one.
        near: rows of near misses, with the reference where it is wrong.
        texts: paraphrases of the modification text, at least one.
        descriptions: texts that describe a target without a reference; may be empty.
    """

    reference: int
    targets: tuple[int, ...]
    near: tuple[int, ...]
    texts: tuple[str, ...]
    descriptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TripletSet:
    """Triplets, their pictures, and what is known about the pictures.

    Attributes:
        triplets: the queries.
        features: frozen features of every picture.
        scenes: int64 [P]; pictures with the same number answer the same queries.
        attributes: attributes of every picture where they are known, for auxiliary losses.
        candidates: features that stage two reads; None for ``features``.
    """

    triplets: Sequence[Triplet]
    features: PictureFeatures
    scenes: NDArray[np.int64]
    attributes: Sequence[Mapping[str, str]] | None = None
    candidates: PictureFeatures | None = None

    def are_right(self, triplet: Triplet, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some pictures [R] answer a query: bool [R]."""
        right: NDArray[np.bool_] = np.isin(self.scenes[rows], self.scenes[list(triplet.targets)])
        return right


def number_scenes(attributes: Sequence[Mapping[str, str]]) -> NDArray[np.int64]:
    """Number pictures so that those with the same attributes have the same number: int64 [P]."""
    keys = [tuple(sorted(picture.items())) for picture in attributes]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def join_triplets(sets: Sequence[TripletSet]) -> TripletSet:
    """Join sets whose attributes are known; pictures with the same attributes answer the same queries.

    Raises:
        TrainingError: the attributes of a set are not known.
    """
    triplets: list[Triplet] = []
    attributes: list[Mapping[str, str]] = []
    for data in sets:
        if data.attributes is None:
            raise TrainingError("Triplets can only be joined where the attributes of their pictures are known.")
        first = len(attributes)
        triplets += [_moved(triplet, first) for triplet in data.triplets]
        attributes += data.attributes
    return TripletSet(triplets, join_features([data.features for data in sets]), number_scenes(attributes), attributes)


def _moved(triplet: Triplet, by: int) -> Triplet:
    return replace(
        triplet,
        reference=triplet.reference + by,
        targets=tuple(row + by for row in triplet.targets),
        near=tuple(row + by for row in triplet.near),
    )
