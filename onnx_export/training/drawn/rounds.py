"""Rounds: both stages are trained further on new pictures, and the cosine's weight is fitted again."""

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
from onnx_export.training.kept import reading
from onnx_export.training.processes import processes
from onnx_export.training.recipes import check_round
from onnx_export.training.similarity import fit_similarity_weight, paired_scores
from onnx_export.training.triplets import Triplet, TripletSet, number_scenes
from qdrant_cir.model.cores import available_threads

logger = logging.getLogger(__name__)

HELD_OUT_SEED = 1_000
"""Added to a recipe's seed for the groups on which the cosine's weight is fitted."""


@dataclass(frozen=True, slots=True)
class Round:
    """Further training of both stages, at fresh learning rates.

    Stage one is trained on all pictures drawn before this round, and with the attribute loss of its fusion states.
    Stage two is trained on the pictures drawn for this round: stage one was not trained on them, so that its fusion
    states and cosines are as good, and as wrong, as on any new query. The sum of score and cosine is trained, too.

    Attributes:
        stage_one_steps, stage_two_steps: optimiser steps; with 0 the composer stays as it is.
        groups: triplets with six pictures each, drawn for this round.

    Raises:
        TrainingError: a number is out of range.
    """

    stage_one_steps: int
    stage_two_steps: int
    groups: int

    def __post_init__(self) -> None:
        check_round(self, from_zero=("stage_one_steps",))


@dataclass(frozen=True, slots=True)
class HeldOutGroups:
    """Groups that nothing is trained on: the run's folder and seed, and how many."""

    folder: Path
    seed: int
    groups: int

    def triplets(self, model: CirModel) -> TripletSet:
        """Return their triplets, drawn and encoded where they are missing."""
        return drawn_triplets(model, self.folder / "held_out", groups=self.groups, seed=self.seed + HELD_OUT_SEED)


def drawn_triplets(model: CirModel, folder: Path, *, groups: int, seed: int) -> TripletSet:
    """Return the triplets of groups in a folder, drawn and encoded where they are missing."""
    with processes().main_process_first():
        pool = open_pool(folder, groups=groups, size=model.sizes.image_size, seed=seed, workers=available_threads())
    return pool_triplets(pool.groups, pool_features(model, pool, folder))


def pool_triplets(groups: Sequence[Group], features: PictureFeatures) -> TripletSet:
    """Return the triplets of drawn groups; ``features`` are of all their pictures, in order."""
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
    """Encode the pictures of a pool and keep the features in ``folder``; open them where they exist."""

    def read(rows: slice) -> Tensor:
        return normalised_pixels(pool.pictures[rows], model.device)

    with processes().main_process_first():
        return compute_features(model.eval(), read, len(pool.pictures), folder)


def fit_similarity(model: CirModel, tokenizer: Tokenizer, held_out: HeldOutGroups, kept: Path) -> None:
    """Fit the weight of stage one's cosine on held-out groups once, and keep it in the file ``kept``."""
    with processes().main_process_first():
        if not kept.exists():
            weight = fit_similarity_weight(*paired_scores(model, held_out.triplets(model), tokenizer))
            logger.info("%s: stage one's cosine has the weight %.1f", kept.stem, weight)
            kept.write_text(json.dumps(weight) + "\n", encoding="utf-8")
    with reading(kept, advice="Remove it: it is fitted again."):
        weight = float(json.loads(kept.read_text(encoding="utf-8")))
    model.sizes = replace(model.sizes, similarity_weight=weight)
