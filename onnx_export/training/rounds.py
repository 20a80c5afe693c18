"""Rounds: both stages go on with pictures that they have not learnt, and the cosine's weight is fitted again."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import CirModel
from onnx_export.training.families import open_families
from onnx_export.training.features import PictureFeatures, compute_features
from onnx_export.training.loop import train
from onnx_export.training.pool import Pool, open_pool
from onnx_export.training.pretrain import normalised_pixels
from onnx_export.training.processes import describe_machine, processes
from onnx_export.training.similarity import fit_similarity_weight, paired_scores
from onnx_export.training.stages import MINED_DEPTH, StageTwo
from onnx_export.training.triplets import TripletSet, pool_triplets
from onnx_export.training.updates import Schedule
from qdrant_cir.types import JsonObject, JsonValue

logger = logging.getLogger(__name__)

UNSEEN_SEED = 1_000
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
        groups: triplets with six pictures each, drawn for this round where there are no families.
        families: families of some thirty variants each, drawn for this round; any two variants are a query.
        trains_composer: whether the composer learns from stage two's loss, its query vectors held where they are.
        mined_depth: how many of stage one's best the mined candidates are drawn from.
    """

    stage_one_steps: int
    stage_two_steps: int
    groups: int = 0
    families: int = 0
    trains_composer: bool = False
    mined_depth: int = MINED_DEPTH


@dataclass(frozen=True, slots=True)
class Unseen:
    """Groups that nothing learns from: where they are kept, the run's seed, how many."""

    folder: Path
    seed: int
    groups: int

    def triplets(self, model: CirModel) -> TripletSet:
        """Open, or draw and encode them."""
        return drawn_triplets(model, self.folder / "unseen", groups=self.groups, seed=self.seed + UNSEEN_SEED)


def drawn_triplets(model: CirModel, folder: Path, *, groups: int, seed: int) -> TripletSet:
    """Open, or draw and encode by the model, groups in a folder of their own."""
    with processes().main_process_first():
        workers = len(os.sched_getaffinity(0))
        pool = open_pool(folder, groups=groups, size=model.sizes.image_size, seed=seed, workers=workers)
    return pool_triplets(pool.groups, pool_features(model, pool, folder))


def pool_features(model: CirModel, pool: Pool, folder: Path) -> PictureFeatures:
    """Open, or encode by the model, the pictures of a pool; features are kept in ``folder``."""

    def read(rows: slice) -> Tensor:
        return normalised_pixels(pool.pictures[rows], model.device)

    with processes().main_process_first():
        return compute_features(model.eval(), read, len(pool.pictures), folder)


def round_triplets(model: CirModel, folder: Path, round_: Round, *, seed: int) -> TripletSet:
    """Open, or draw and encode, what is drawn for a round."""
    if not round_.families:
        return drawn_triplets(model, folder, groups=round_.groups, seed=seed)
    workers = len(os.sched_getaffinity(0))
    with processes().main_process_first():
        drawn = open_families(folder, families=round_.families, size=model.sizes.image_size, seed=seed, workers=workers)
        features = compute_features(model.eval(), drawn.read, len(drawn.scenes), folder)
    return drawn.triplets(features)


def fit_similarity(model: CirModel, tokenizer: Tokenizer, unseen: Unseen, kept: Path) -> None:
    """Fit the weight of stage one's cosine on groups that are drawn for this alone, once; ``kept`` remembers it."""
    with processes().main_process_first():
        if not kept.exists():
            weight = fit_similarity_weight(*paired_scores(model, unseen.triplets(model), tokenizer))
            logger.info("%s: stage one's cosine has the weight %.1f", kept.stem, weight)
            kept.write_text(json.dumps(weight) + "\n", encoding="utf-8")
    model.sizes = replace(model.sizes, similarity_weight=float(json.loads(kept.read_text(encoding="utf-8"))))


@dataclass(frozen=True, slots=True)
class FurtherRound:
    """A round of stage two alone from a finished model, as the last round of a recipe is.

    Attributes:
        round_: what is drawn and for how long.
        seed: of pictures and batches.
        rate: peak learning rate.
        batch, near, mined, others: as of ``StageTwo``.
        unseen_groups: on which the cosine's weight is fitted.
    """

    round_: Round
    seed: int
    rate: float
    batch: int
    near: int
    mined: int
    others: int
    unseen_groups: int


def train_further_round(folder: Path, start: ModelFolder, further: FurtherRound) -> Path:
    """Train one round more from a model, or go on where it was stopped; gives the model folder.

    Heads that serve training alone start fresh, since no model keeps them.

    Raises:
        TrainingError: the folder holds another round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, record = folder / "round.json", json.dumps(asdict(further), indent=2) + "\n"
    if kept.exists() and kept.read_text(encoding="utf-8") != record:
        raise TrainingError(f"{folder} holds a round of other settings ({kept}); choose another folder.")
    kept.write_text(record, encoding="utf-8")
    model = start.model.to(processes().device)
    data = round_triplets(model, folder / "round", further.round_, seed=further.seed)
    stage = StageTwo(
        model,
        data,
        start.tokenizer,
        seed=further.seed,
        batch=further.batch,
        near=further.near,
        mined=further.mined,
        others=further.others,
    )
    stage.go_on_with(
        data,
        similarity_weight=model.sizes.similarity_weight,
        trains_composer=further.round_.trains_composer,
        mined_depth=further.round_.mined_depth,
    )
    stage.modules.train()
    schedule = Schedule(further.round_.stage_two_steps, further.rate)
    seconds = train("stage-two", run_folder=folder, modules=stage.modules, schedule=schedule, batch_losses=stage.step)
    stage.modules.eval()
    unseen = Unseen(folder, further.seed, further.unseen_groups)
    fit_similarity(model, start.tokenizer, unseen, folder / "stage-two.similarity.json")
    earlier = cast(list[JsonValue], start.provenance.get("further_rounds", []))
    rounds: list[JsonValue] = [*earlier, {**asdict(further), "wall_seconds": round(seconds)}]
    measured = {"quality", "effort"}
    provenance: JsonObject = {name: value for name, value in start.provenance.items() if name not in measured}
    provenance |= {"further_rounds": rounds, "machine": describe_machine()}
    out = folder / "model"
    with processes().main_process_first(), torch.no_grad():
        if processes().is_main_process:
            save_model_folder(out, ModelFolder(model.eval(), start.tokenizer, provenance, start.candidate_encoder))
    return out
