"""Rounds: both stages go on with pictures that they have not learnt, and the cosine's weight is fitted again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.drawn.pool import PICTURES_PER_GROUP, TARGET_ROWS, Group, Pool, open_pool
from onnx_export.training.drawn.pretrain import normalised_pixels
from onnx_export.training.features import PictureFeatures, compute_features
from onnx_export.training.processes import processes
from onnx_export.training.similarity import fit_similarity_weight, paired_scores
from onnx_export.training.triplets import Triplet, TripletSet, number_scenes
from qdrant_cir.model.cores import available_threads

logger = logging.getLogger(__name__)

HELD_OUT_SEED = 1_000
"""How far from the recipe's seed that of the groups is that serve to fit the cosine's weight."""


@dataclass(frozen=True, slots=True)
class Round:
    """Both stages once more, at fresh learning rates.

    Stage one goes on with all that was drawn before this round, and learns to hold a target's attributes in its fusion
    states. Stage two then goes on with what is drawn for this round: stage one has not learnt it, so its fusion states
    and its cosines are there as they are on new queries. The re-ranker learns there with the cosine beside its score,
    too.

    Attributes:
        stage_one_steps, stage_two_steps: optimiser steps; 0 leaves the composer as it is.
        groups: triplets with six pictures each, drawn for this round.
    """

    stage_one_steps: int
    stage_two_steps: int
    groups: int


@dataclass(frozen=True, slots=True)
class HeldOutGroups:
    """Groups that nothing learns from: where they are kept, the run's seed, how many."""

    folder: Path
    seed: int
    groups: int

    def triplets(self, model: CirModel) -> TripletSet:
        """Open, or draw and encode them."""
        return drawn_triplets(model, self.folder / "held_out", groups=self.groups, seed=self.seed + HELD_OUT_SEED)


def drawn_triplets(model: CirModel, folder: Path, *, groups: int, seed: int) -> TripletSet:
    """Open, or draw and encode by the model, groups in a folder of their own."""
    with processes().main_process_first():
        pool = open_pool(folder, groups=groups, size=model.sizes.image_size, seed=seed, workers=available_threads())
    return pool_triplets(pool.groups, pool_features(model, pool, folder))


def pool_triplets(groups: Sequence[Group], features: PictureFeatures) -> TripletSet:
    """The triplets of the groups of a drawn pool, or of several; ``features`` are of all their pictures, in order."""
    attributes = [picture.attributes for group in groups for picture in group.pictures]
    scenes = number_scenes(attributes)
    triplets = []
    for number, group in enumerate(groups):
        rows = np.arange(number * PICTURES_PER_GROUP, (number + 1) * PICTURES_PER_GROUP)
        is_target = scenes[rows] == scenes[rows[TARGET_ROWS[0]]]
        triplets.append(
            Triplet(
                reference=int(rows[0]),
                targets=tuple(rows[is_target].tolist()),
                near=tuple(rows[~is_target].tolist()),
                texts=tuple(group.texts),
                descriptions=tuple(group.pictures[TARGET_ROWS[0]].captions),
            )
        )
    return TripletSet(triplets, features, scenes, attributes)


def pool_features(model: CirModel, pool: Pool, folder: Path) -> PictureFeatures:
    """Open, or encode by the model, the pictures of a pool; features are kept in ``folder``."""

    def read(rows: slice) -> Tensor:
        return normalised_pixels(pool.pictures[rows], model.device)

    with processes().main_process_first():
        return compute_features(model.eval(), read, len(pool.pictures), folder)


def fit_similarity(model: CirModel, tokenizer: Tokenizer, held_out: HeldOutGroups, kept: Path) -> None:
    """Fit the weight of stage one's cosine on groups that are drawn for this alone, once; ``kept`` remembers it."""
    with processes().main_process_first():
        if not kept.exists():
            weight = fit_similarity_weight(*paired_scores(model, held_out.triplets(model), tokenizer))
            logger.info("%s: stage one's cosine has the weight %.1f", kept.stem, weight)
            kept.write_text(json.dumps(weight) + "\n", encoding="utf-8")
    model.sizes = replace(model.sizes, similarity_weight=float(json.loads(kept.read_text(encoding="utf-8"))))
