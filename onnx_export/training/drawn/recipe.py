"""The recipe of the bundle `drawn`, from nothing to a model folder. Every stage continues where it was stopped."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import DRAWN_SMALL, CirModel, build_model
from onnx_export.training import recipes
from onnx_export.training.drawn.family_round import FamilyRound, train_family_round
from onnx_export.training.drawn.grounding import Grounding
from onnx_export.training.drawn.ordinary_round import OrdinaryRound, train_ordinary_round
from onnx_export.training.drawn.pool import PICTURES_PER_GROUP, Pool, open_pool
from onnx_export.training.drawn.pretrain import Pretraining
from onnx_export.training.drawn.rounds import (
    HeldOutGroups,
    Round,
    drawn_triplets,
    fit_similarity,
    pool_features,
    pool_triplets,
)
from onnx_export.training.drawn.tokenizer import build_tokenizer
from onnx_export.training.kept import make_folder, reading
from onnx_export.training.loop import train
from onnx_export.training.processes import describe_machine, processes
from onnx_export.training.stages import StageOne, StageTwo, start_reranker_from_text_encoder
from onnx_export.training.triplets import TripletSet, join_triplets
from onnx_export.training.updates import BatchLosses, Schedule
from qdrant_cir.model.cores import available_threads
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

Stage = Literal["pretrain", "stage-one", "stage-two", "round", "ordinary"]

_Round = TypeVar("_Round", Round, FamilyRound, OrdinaryRound)

STARTED_STAGES = ("pretrain", "grounding")
"""Stages whose weights a run takes from its start; the later ones begin with the grounded text encoder."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a run.

    Attributes:
        seed: of pictures, weights and batches.
        groups: training triplets in the pool, six pictures each.
        pretrain_steps, pretrain_groups, pretrain_rate: of the image encoder: optimiser steps, groups per step, peak
            learning rate.
        pretrain_pictures, pretrain_shift: pictures of each group in a step; pixels by which they are moved at most.
        grounding_steps, grounding_groups, grounding_rate: the same for the text encoder.
        stage_one_steps, stage_one_batch, stage_one_rate: the same for the composer, in queries.
        stage_two_steps, stage_two_batch, stage_two_rate: the same for the re-ranker, in queries.
        stage_one_negatives: pictures of the whole pool that stage one ranks beside those of a batch.
        stage_two_near, stage_two_mined, stage_two_others: wrong candidates per query: near-duplicates of its own,
            stage one's best, pictures of the batch's other queries.
        rounds: further training of both stages.
        families: the round that ``train round`` ends with.
        ordinary: the round after it, which only ``train ordinary`` trains.
        accumulation: batches of every process per optimiser step, in the stages before the round of families. A step
            learns from batch x accumulation x processes; negatives come from within each batch.
        unseen_groups: groups that nothing is trained on, to fit the weight of stage one's cosine in the final score.
        start: the recipe of an earlier run, which is trained first, up to and including grounding. Pre-training and
            grounding then start from its weights, with a fresh learning rate, on its pool.
    """

    seed: int = 1
    groups: int = 15_000
    pretrain_steps: int = 2_000
    pretrain_groups: int = 8
    pretrain_rate: float = 1.5e-3
    pretrain_pictures: int = PICTURES_PER_GROUP
    pretrain_shift: int = 0
    grounding_steps: int = 1_500
    grounding_groups: int = 8
    grounding_rate: float = 1e-3
    stage_one_steps: int = 2_400
    stage_one_batch: int = 64
    stage_one_rate: float = 5e-4
    stage_one_negatives: int = 8_192
    stage_two_steps: int = 2_000
    stage_two_batch: int = 16
    stage_two_rate: float = 4e-4
    stage_two_near: int = 3
    stage_two_mined: int = 5
    stage_two_others: int = 1
    rounds: tuple[Round, ...] = ()
    families: FamilyRound | None = None
    ordinary: OrdinaryRound | None = None
    accumulation: int = 1
    unseen_groups: int = 500
    start: Recipe | None = None


BUNDLED = Recipe(
    seed=2,
    pretrain_steps=8_500,
    pretrain_groups=16,
    pretrain_rate=1.2e-3,
    pretrain_pictures=3,
    pretrain_shift=6,
    grounding_steps=1_700,
    stage_one_steps=2_000,
    stage_two_steps=2_800,
    rounds=(
        Round(0, 4_200, groups=24_000),
        Round(4_000, 3_600, groups=12_000),
    ),
    families=FamilyRound(
        seed=5,
        families=4_000,
        encoder_steps=3_000,
        encoder_batch=1_024,
        encoder_rate=1e-3,
        encoder_shift=6,
        steps=2_800,
        rate=5e-4,
        batch=24,
        composed=40,
        reranked=8,
        mined_depth=64,
        unseen_groups=500,
    ),
    ordinary=OrdinaryRound(
        seed=9,
        families=400,
        edits=60,
        steps=500,
        rate=2e-4,
        batch=24,
        candidates=16,
        edit_batch=12,
        edit_near=14,
        edit_mined=4,
        share=0.6,
    ),
    start=Recipe(),
)
"""The recipe of the bundle `drawn`: pre-training and grounding twice, then all other stages."""


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe from JSON; missing fields keep their defaults. Without a path, return ``BUNDLED``.

    Raises:
        TrainingError: the file cannot be read or has an unknown field.
    """
    return recipes.read_recipe(path, BUNDLED, made=_recipe)


def family_round(recipe: Recipe) -> FamilyRound:
    """Return the round of families of a recipe.

    Raises:
        TrainingError: the recipe has none.
    """
    if recipe.families is None:
        raise TrainingError("The recipe has no round of families; give it one under `families`, or train stage-two.")
    return recipe.families


def ordinary_round(recipe: Recipe) -> OrdinaryRound:
    """Return the round of ordinary queries of a recipe.

    Raises:
        TrainingError: the recipe has none.
    """
    if recipe.ordinary is None:
        raise TrainingError("The recipe has no round of ordinary queries; give it one under `ordinary`.")
    return recipe.ordinary


def _recipe(values: dict[str, Any]) -> Recipe:
    start, rounds = values.pop("start", None), values.pop("rounds", ())
    families, ordinary = values.pop("families", None), values.pop("ordinary", None)
    return Recipe(
        **values,
        rounds=tuple(_made(Round, "rounds", each) for each in rounds),
        families=None if families is None else _made(FamilyRound, "families", families),
        ordinary=None if ordinary is None else _made(OrdinaryRound, "ordinary", ordinary),
        start=None if start is None else _recipe(start),
    )


def _made(kind: type[_Round], name: str, values: Any) -> _Round:  # noqa: ANN401 - what JSON holds
    """Make a round of what a recipe holds under a name. Raises TrainingError."""
    known = [field.name for field in fields(kind)]
    if not isinstance(values, dict) or set(values) - set(known) or set(known) - set(values):
        raise TrainingError(f"`{name}` of the recipe needs an object with exactly the fields {', '.join(known)}.")
    return kind(**values)


class Run:
    """One training run in one folder: ``recipe.json``, ``pool/``, checkpoints, logs, and ``model/`` at the end."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        with processes().main_process_first():
            self._claim()
        self.tokenizer: Tokenizer = build_tokenizer()
        self.start = None if recipe.start is None else Run(folder / "start", recipe.start)

    def _claim(self) -> None:
        """Write the recipe into the folder; refuse a folder that holds another run."""
        make_folder(self.folder)
        kept = self.folder / "recipe.json"
        if kept.exists() and read_recipe(kept) != self.recipe:
            raise TrainingError(f"{self.folder} holds a run with another recipe ({kept}); choose another folder.")
        kept.write_text(json.dumps(asdict(self.recipe), indent=2) + "\n", encoding="utf-8")

    def pool(self) -> Pool:
        """Open the pool, after drawing what is missing of it."""
        if self.start is not None:
            return self.start.pool()
        recipe = self.recipe
        with processes().main_process_first():
            return open_pool(
                self.folder / "pool",
                groups=recipe.groups,
                size=DRAWN_SMALL.image_size,
                seed=recipe.seed,
                workers=available_threads(),
            )

    def fresh_model(self) -> CirModel:
        """Build the untrained model."""
        return build_model(DRAWN_SMALL, seed=self.recipe.seed)

    def train(self, last: Stage) -> JsonObject:
        """Train up to and including ``last``; finished stages are loaded, not repeated.

        Returns:
            Seconds of training per stage, those of the start under ``start``.

        Raises:
            TrainingError: the recipe lacks a round that ``last`` needs.
        """
        families = family_round(self.recipe) if last in ("round", "ordinary") else None
        ordinary = ordinary_round(self.recipe) if last == "ordinary" else None
        seconds: JsonObject = {}
        if self.start is not None:
            seconds["start"] = self.start.train("pretrain")
        pool = self.pool()
        model = self.fresh_model().to(processes().device)
        pretraining, seconds["pretrain"] = self._pretrain(model, pool)
        data = pool_triplets(pool.groups, pool_features(model, pool, self.folder))
        seconds["grounding"] = self._ground(model, pool, data)
        if last != "pretrain":
            grounded = {k: v.clone() for k, v in model.composer.text_encoder.state_dict().items()}
            composing, seconds["stage-one"] = self._stage_one(model, data, pretraining)
            if last != "stage-one":
                start_reranker_from_text_encoder(model, grounded)
                reranking, seconds["stage-two"] = self._stage_two(model, data)
                for number in self._round_numbers():
                    seconds |= self._round(number, model, composing, reranking)
            if families is not None:
                seconds["families"] = train_family_round(self.folder / "families", model, self.tokenizer, families)
            if ordinary is not None:
                seconds["ordinary"] = train_ordinary_round(self.folder / "ordinary", model, self.tokenizer, ordinary)
        self._save(model.eval(), seconds)
        return seconds

    def _pretrain(self, model: CirModel, pool: Pool) -> tuple[Pretraining, int]:
        recipe = self.recipe
        stage = Pretraining(
            model,
            pool,
            seed=recipe.seed,
            groups_per_step=recipe.pretrain_groups,
            pictures_per_group=recipe.pretrain_pictures,
            shift=recipe.pretrain_shift,
        )
        model.image_encoder.visual_encoder.patch_embed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return stage, self._run("pretrain", stage.modules, recipe.pretrain_steps, recipe.pretrain_rate, stage.step)

    def _ground(self, model: CirModel, pool: Pool, data: TripletSet) -> int:
        recipe = self.recipe
        stage = Grounding(model, pool, data, self.tokenizer, seed=recipe.seed, groups_per_step=recipe.grounding_groups)
        return self._run("grounding", stage.modules, recipe.grounding_steps, recipe.grounding_rate, stage.step)

    def _stage_one(self, model: CirModel, data: TripletSet, pretraining: Pretraining) -> tuple[StageOne, int]:
        recipe = self.recipe
        stage = StageOne(
            model,
            data,
            self.tokenizer,
            seed=recipe.seed,
            batch=recipe.stage_one_batch,
            negatives=recipe.stage_one_negatives,
        )
        stage.read_with(pretraining.attributes, pretraining.heads.whole)
        return stage, self._run("stage-one", stage.modules, recipe.stage_one_steps, recipe.stage_one_rate, stage.step)

    def _stage_two(self, model: CirModel, data: TripletSet) -> tuple[StageTwo, int]:
        recipe = self.recipe
        stage = StageTwo(
            model,
            data,
            self.tokenizer,
            seed=recipe.seed,
            batch=recipe.stage_two_batch,
            near=recipe.stage_two_near,
            mined=recipe.stage_two_mined,
            others=recipe.stage_two_others,
        )
        seconds = self._run("stage-two", stage.modules, recipe.stage_two_steps, recipe.stage_two_rate, stage.step)
        self._fit_similarity(model, "stage-two")
        return stage, seconds

    def _round_numbers(self) -> range:
        return range(2, 2 + len(self.recipe.rounds))

    def _round(self, number: int, model: CirModel, composing: StageOne, reranking: StageTwo) -> JsonObject:
        """Train both stages once more."""
        recipe, seconds = self.recipe, JsonObject()
        round_ = recipe.rounds[number - 2]
        if round_.stage_one_steps:
            name = f"stage-one-{number}"
            composing.data = self.triplets_before(number, model)
            composing.read_states()
            seconds[name] = self._run(
                name, composing.modules, round_.stage_one_steps, recipe.stage_one_rate, composing.step
            )
        name = f"stage-two-{number}"
        data = self.round_triplets(number, model)
        reranking.go_on_with(data, similarity_weight=model.sizes.similarity_weight)
        seconds[name] = self._run(
            name, reranking.modules, round_.stage_two_steps, recipe.stage_two_rate, reranking.step
        )
        self._fit_similarity(model, name)
        return seconds

    def triplets_before(self, number: int, model: CirModel) -> TripletSet:
        """Return the pool's triplets and those of all rounds before one; rounds are numbered from 2."""
        pool = self.pool()
        first = pool_triplets(pool.groups, pool_features(model, pool, self.folder))
        return join_triplets([first, *(self.round_triplets(earlier, model) for earlier in range(2, number))])

    def round_triplets(self, number: int, model: CirModel) -> TripletSet:
        """Return the triplets of one round, drawn and encoded where they are missing."""
        groups, seed = self.recipe.rounds[number - 2].groups, self.recipe.seed + number - 1
        return drawn_triplets(model, self.folder / f"round-{number}", groups=groups, seed=seed)

    def _fit_similarity(self, model: CirModel, after: str) -> None:
        held_out = HeldOutGroups(self.folder, self.recipe.seed, self.recipe.unseen_groups)
        fit_similarity(model, self.tokenizer, held_out, self.folder / f"{after}.similarity.json")

    def _run(self, name: str, modules: nn.ModuleDict, steps: int, rate: float, losses: BatchLosses) -> int:
        if self.start is not None and name in STARTED_STAGES:
            kept = self.start.folder / f"{name}.ckpt"
            with reading(kept, advice="Restore it, or train the start again."):
                trained = torch.load(kept, map_location="cpu", weights_only=True)
                modules.load_state_dict(trained["modules"])
        modules.train()
        schedule = Schedule(steps, rate, accumulation=self.recipe.accumulation)
        seconds = train(name, run_folder=self.folder, modules=modules, schedule=schedule, batch_losses=losses)
        modules.eval()
        logger.info("%s: %.0f s of training in all", name, seconds)
        return round(seconds)

    def _save(self, model: CirModel, seconds: JsonObject) -> None:
        provenance: JsonObject = {
            "training_data": "qdrant_cir.drawn, training split, drawn by this project",
            "recipe": asdict(self.recipe),
            "wall_seconds": seconds,
            "machine": describe_machine(),
        }
        with processes().main_process_first():
            if processes().is_main_process:
                save_model_folder(self.folder / "model", ModelFolder(model, self.tokenizer, provenance))
