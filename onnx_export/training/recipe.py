"""The recipe of the bundled model, from nothing to a model folder; every stage resumes where it was stopped."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import CATALOG_SMALL, CirModel, build_model
from onnx_export.training.features import PictureFeatures, compute_features
from onnx_export.training.grounding import Grounding
from onnx_export.training.loop import train
from onnx_export.training.pool import PICTURES_PER_GROUP, Pool, open_pool
from onnx_export.training.pretrain import Pretraining, normalised_pixels
from onnx_export.training.processes import describe_machine, processes
from onnx_export.training.similarity import fit_similarity_weight, paired_scores
from onnx_export.training.stages import StageOne, StageTwo, start_reranker_from_text_encoder
from onnx_export.training.tokenizer import build_tokenizer
from onnx_export.training.triplets import TripletSet, pool_triplets
from onnx_export.training.updates import BatchLosses, Schedule
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

Stage = Literal["pretrain", "stage-one", "stage-two"]

STARTED_STAGES = ("pretrain", "grounding")
"""The stages that a run's start trains; the later ones begin with the grounded text encoder."""


FRESH_SEED, UNSEEN_SEED = 1, 1_000
"""How far from the recipe's seed those of the groups are that no stage before has learnt from."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out.

    Attributes:
        seed: of pictures, weights and batches.
        groups: training triplets in the pool, six pictures each.
        pretrain_steps, pretrain_groups, pretrain_rate: of the image encoder: optimiser steps, groups per step, peak
            learning rate.
        pretrain_pictures, pretrain_shift: pictures of each group in a step; pixels that they are moved by at most.
        grounding_steps, grounding_groups, grounding_rate: the same for the text encoder.
        stage_one_steps, stage_one_batch, stage_one_rate: the same for the composer, in queries.
        stage_two_steps, stage_two_batch, stage_two_rate: the same for the re-ranker, in queries.
        stage_one_negatives: pictures of the whole pool that stage one ranks beside those of the batch.
        stage_two_near, stage_two_mined, stage_two_others: wrong candidates per query: near-duplicates of its own,
            stage one's best, pictures of the batch's other queries.
        fresh_groups, fresh_steps: groups that are drawn for stage two alone, and the steps for which it goes on with
            them, at a fresh learning rate. Stage one has not learnt them, so its fusion states and its cosines are
            there as they are on new queries; the re-ranker learns there with the cosine beside its score, too.
        accumulation: batches that every process takes per optimiser step, in all stages. A step then learns from
            batch x accumulation x processes; each batch finds its negatives in itself.
        unseen_groups: groups, drawn for this alone, on which stage one's weight in the final score is fitted.
        start: the recipe of an earlier run, which is trained first, up to and with grounding; image encoder and
            grounding go on from its weights at a fresh learning rate, on its pool.
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
    fresh_groups: int = 0
    fresh_steps: int = 0
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
    fresh_groups=24_000,
    fresh_steps=4_200,
    start=Recipe(),
)
"""What the bundled model was made by: a first round of image encoder and grounding, then all phases."""


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe from JSON; fields that are not given keep their defaults. Without a path it is ``BUNDLED``.

    Raises:
        TrainingError: the file cannot be read or has a field that no recipe has.
    """
    if path is None:
        return BUNDLED
    try:
        return _recipe(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as a recipe: {error}") from error
    except TypeError as error:
        names = ", ".join(f.name for f in fields(Recipe))
        raise TrainingError(f"{path} is no recipe ({error}); its fields are {names}.") from error


def _recipe(values: dict[str, Any]) -> Recipe:
    start = values.pop("start", None)
    return Recipe(**values, start=None if start is None else _recipe(start))


class Run:
    """One training run in one folder: ``recipe.json``, ``pool/``, checkpoints, logs, and ``model/`` at the end."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        with processes().main_process_first():
            self._claim()
        self.tokenizer: Tokenizer = build_tokenizer()
        self.start = None if recipe.start is None else Run(folder / "start", recipe.start)

    def _claim(self) -> None:
        """Make the folder this run's, or refuse it when it holds another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.folder / "recipe.json"
        if kept.exists() and read_recipe(kept) != self.recipe:
            raise TrainingError(f"{self.folder} holds a run of another recipe ({kept}); choose another folder.")
        kept.write_text(json.dumps(asdict(self.recipe), indent=2) + "\n", encoding="utf-8")

    def pool(self) -> Pool:
        """Draw or open the pool."""
        if self.start is not None:
            return self.start.pool()
        recipe = self.recipe
        with processes().main_process_first():
            return open_pool(
                self.folder / "pool",
                groups=recipe.groups,
                size=CATALOG_SMALL.image_size,
                seed=recipe.seed,
                workers=len(os.sched_getaffinity(0)),
            )

    def fresh_model(self) -> CirModel:
        """Build the model as it is before any training."""
        return build_model(CATALOG_SMALL, seed=self.recipe.seed)

    def train(self, last: Stage = "stage-two") -> JsonObject:
        """Train up to and with ``last``; stages that are done are loaded, not repeated.

        Returns:
            Seconds of training per stage, those of the start under ``start``.
        """
        seconds: JsonObject = {}
        if self.start is not None:
            seconds["start"] = self.start.train("pretrain")
        pool = self.pool()
        model = self.fresh_model().to(processes().device)
        pretraining, seconds["pretrain"] = self._pretrain(model, pool)
        data = pool_triplets(pool, self._features_of(model, pool, self.folder))
        seconds["grounding"] = self._ground(model, pool, data)
        if last != "pretrain":
            grounded = {k: v.clone() for k, v in model.composer.text_encoder.state_dict().items()}
            seconds["stage-one"] = self._stage_one(model, data, pretraining)
            if last != "stage-one":
                start_reranker_from_text_encoder(model, grounded)
                seconds |= self._rerank(model, data)
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

    def _features_of(self, model: CirModel, pool: Pool, folder: Path) -> PictureFeatures:
        def read(rows: slice) -> Tensor:
            return normalised_pixels(pool.pictures[rows], model.device)

        with processes().main_process_first():
            return compute_features(model.eval(), read, len(pool.pictures), folder)

    def _stage_one(self, model: CirModel, data: TripletSet, pretraining: Pretraining) -> int:
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
        return self._run("stage-one", stage.modules, recipe.stage_one_steps, recipe.stage_one_rate, stage.step)

    def _rerank(self, model: CirModel, data: TripletSet) -> JsonObject:
        """Train the re-ranker on the pool, then on groups that stage one has not learnt; fit the cosine's weight."""
        recipe = self.recipe
        rate, learnt = recipe.stage_two_rate, self._stage_two(model, data)
        seconds: JsonObject = {
            "stage-two": self._run("stage-two", learnt.modules, recipe.stage_two_steps, rate, learnt.step)
        }
        self._fit_similarity(model, "stage-two")
        if recipe.fresh_steps:
            drawn = self._drawn("fresh", recipe.fresh_groups, recipe.seed + FRESH_SEED, model)
            fresh = self._stage_two(model, drawn)
            fresh.modules.load_state_dict(learnt.modules.state_dict())
            name = "stage-two-fresh"
            seconds[name] = self._run(name, fresh.modules, recipe.fresh_steps, rate, fresh.step)
            self._fit_similarity(model, name)
        return seconds

    def _stage_two(self, model: CirModel, data: TripletSet) -> StageTwo:
        recipe = self.recipe
        return StageTwo(
            model,
            data,
            self.tokenizer,
            seed=recipe.seed,
            batch=recipe.stage_two_batch,
            near=recipe.stage_two_near,
            mined=recipe.stage_two_mined,
            others=recipe.stage_two_others,
            similarity_weight=model.sizes.similarity_weight,
        )

    def _drawn(self, name: str, groups: int, seed: int, model: CirModel) -> TripletSet:
        """Draw groups into a folder of their own, and encode them."""
        folder = self.folder / name
        with processes().main_process_first():
            workers = len(os.sched_getaffinity(0))
            pool = open_pool(folder, groups=groups, size=CATALOG_SMALL.image_size, seed=seed, workers=workers)
        return pool_triplets(pool, self._features_of(model, pool, folder))

    def _fit_similarity(self, model: CirModel, after: str) -> None:
        """Fit the weight of stage one's cosine on groups that are drawn for this alone, once after each phase."""
        kept = self.folder / f"{after}.similarity.json"
        with processes().main_process_first():
            if not kept.exists():
                kept.write_text(json.dumps(self._similarity(model, after)) + "\n", encoding="utf-8")
        model.sizes = replace(model.sizes, similarity_weight=float(json.loads(kept.read_text(encoding="utf-8"))))

    def _similarity(self, model: CirModel, after: str) -> float:
        data = self._drawn("unseen", self.recipe.unseen_groups, self.recipe.seed + UNSEEN_SEED, model.eval())
        weight = fit_similarity_weight(*paired_scores(model, data, self.tokenizer))
        logger.info("similarity after %s: stage one's cosine has the weight %.1f", after, weight)
        return weight

    def _run(self, name: str, modules: nn.ModuleDict, steps: int, rate: float, losses: BatchLosses) -> int:
        if self.start is not None and name in STARTED_STAGES:
            trained = torch.load(self.start.folder / f"{name}.ckpt", map_location="cpu", weights_only=True)
            modules.load_state_dict(trained["modules"])
        modules.train()
        schedule = Schedule(steps, rate, accumulation=self.recipe.accumulation)
        seconds = train(name, run_folder=self.folder, modules=modules, schedule=schedule, batch_losses=losses)
        modules.eval()
        logger.info("%s: %.0f s of training in all", name, seconds)
        return round(seconds)

    def _save(self, model: CirModel, seconds: JsonObject) -> None:
        provenance: JsonObject = {
            "training_data": "qdrant_cir.catalog, training split, drawn by this project",
            "recipe": asdict(self.recipe),
            "wall_seconds": seconds,
            "machine": describe_machine(),
        }
        with processes().main_process_first():
            if processes().is_main_process:
                save_model_folder(self.folder / "model", ModelFolder(model, self.tokenizer, provenance))
