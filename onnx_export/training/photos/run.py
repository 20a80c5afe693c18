"""From a folder of labelled photographs to a model folder: pools, encoder, composer, re-ranker."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import PHOTO_SMALL, CirModel, build_model
from onnx_export.models.efficientnet_lite import EfficientNetLite
from onnx_export.training.kept import read_kept
from onnx_export.training.loop import train
from onnx_export.training.photos.pool import PhotoPool, open_pool
from onnx_export.training.photos.stages import (
    BatchSizes,
    ComposerStage,
    EncoderStage,
    RerankerStage,
    encode_pool,
    standardise,
    stem_of,
)
from onnx_export.training.photos.tokenizer import build_tokenizer
from onnx_export.training.photos.trunk import TRUNK_SHA256
from onnx_export.training.photos.validation import PhotoValidation
from onnx_export.training.processes import describe_machine
from onnx_export.training.stages import start_reranker_from_text_encoder
from onnx_export.training.updates import Schedule
from onnx_export.training.validation import Validation
from qdrant_cir.photographs.labels import Photograph, split_of
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

FEWEST_OF_A_SPLIT = 2


@dataclass(frozen=True, slots=True)
class PhotoRecipe:
    """Everything that decides what training makes of photographs.

    Attributes:
        seed: of pools, weights and batches.
        steps_encoder, rate_encoder: of projection, block, embedding and composer together.
        steps_one, rate_one: of the composer alone over frozen tokens; 0 leaves that out, for it made nothing better.
        steps_two, rate_two: of the re-ranker.
        garments: families in a batch.
        singles: further garments in a batch, each as it was photographed; ``singles_one`` and ``singles_two`` of the
            later stages, for which pictures cost next to nothing.
        exact, labelled: queries in a batch for one garment in one look, and for a kind in a colour.
        queries_two: queries of a batch of the re-ranker, half of each.
        candidates: that the re-ranker orders for a query.
        evaluate_every: steps between two validations.
        patience: validations in a row without a new best after which a stage ends.
        warmup: steps of linear warm-up.
        averaging: share of the newest weights in the average that is validated and kept.
    """

    seed: int = 1
    steps_encoder: int = 4500
    rate_encoder: float = 8e-4
    steps_one: int = 0
    rate_one: float = 2e-4
    steps_two: int = 240
    rate_two: float = 3e-4
    garments: int = 14
    singles: int = 64
    singles_one: int = 600
    singles_two: int = 100
    exact: int = 24
    labelled: int = 36
    queries_two: int = 16
    candidates: int = 9
    evaluate_every: int = 250
    patience: int = 20
    warmup: int = 50
    averaging: float = 0.002


class PhotoRun:
    """One training in one folder: pools, checkpoints, logs, and ``model/`` at the end."""

    def __init__(
        self,
        folder: Path,
        recipe: PhotoRecipe,
        *,
        photographs: tuple[Photograph, ...],
        trunk: EfficientNetLite,
        workers: int | None = None,
    ) -> None:
        """Check what is given.

        Args:
            folder: made where missing.
            recipe: how to train.
            photographs: of all senders; those that are held out for a test are never looked at.
            trunk: the frozen trunk, with its published weights.
            workers: processes that draw the pool; as many as there are cores by default.

        Raises:
            TrainingError: a split has too few photographs, or the folder holds another run.
        """
        self.folder, self.recipe = folder, recipe
        self.workers = workers or len(os.sched_getaffinity(0))
        self.trunk = trunk
        self.training = tuple(p for p in photographs if split_of(p.sender) == "training")
        self.validating = tuple(p for p in photographs if split_of(p.sender) == "validation")
        for name, found in (("train on", self.training), ("validate on", self.validating)):
            if len(found) < FEWEST_OF_A_SPLIT:
                raise TrainingError(
                    f"{len(found)} photographs are left to {name}, expected at least {FEWEST_OF_A_SPLIT}: of "
                    f"{len(photographs)}, each sender's fall into one split. Give photographs of more senders, or no "
                    "column `sender`."
                )
        folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        self.tokenizer = build_tokenizer()

    def train(self) -> Path:
        """Train, or go on where it was stopped; returns the model folder."""
        model = build_model(PHOTO_SMALL, seed=self.recipe.seed)
        stem_of(model).trunk.load_state_dict(self.trunk.state_dict())
        pool, held_out = self._pool("pool", self.training, 0), self._pool("validation", self.validating, 1)
        standardise(model, pool)
        blank = self._blank(model)
        validation = PhotoValidation(model, held_out, self.tokenizer, blank, seed=self.recipe.seed)
        results: JsonObject = {
            "encoder": self._encoder(model, pool, blank, validation),
        }
        encoded = encode_pool(model, pool, blank)
        validation.freeze_encoder()
        recipe = self.recipe
        one = ComposerStage(
            model,
            pool,
            encoded,
            self.tokenizer,
            seed=recipe.seed,
            sizes=BatchSizes(recipe.garments, recipe.singles_one, recipe.exact, recipe.labelled),
        )
        one.log_scale.data.copy_(self._scale)
        if recipe.steps_one:
            results["stage-one"] = self._run(
                "stage-one",
                one.modules,
                one.step,
                recipe.steps_one,
                recipe.rate_one,
                "found",
                validation.score,
                validation,
            )
        model.sizes = replace(
            model.sizes, similarity_weight=round(float(one.log_scale.detach().exp().clamp(max=60)), 2)
        )
        start_reranker_from_text_encoder(model, model.composer.text_encoder.state_dict())
        head = model.reranker.cls_head[2]
        if isinstance(head, nn.Linear):
            nn.init.zeros_(head.weight)
        two = RerankerStage(
            model,
            pool,
            encoded,
            self.tokenizer,
            seed=recipe.seed,
            sizes=BatchSizes(
                recipe.garments,
                recipe.singles_two,
                recipe.queries_two // 2,
                recipe.queries_two - recipe.queries_two // 2,
            ),
            candidates=recipe.candidates,
        )
        results["stage-two"] = self._run(
            "stage-two",
            two.modules,
            two.step,
            recipe.steps_two,
            recipe.rate_two,
            "reranked_found",
            validation.reranked_score,
            validation,
        )
        return self._save(model, pool, results)

    def _encoder(self, model: CirModel, pool: PhotoPool, blank: Tensor, validation: PhotoValidation) -> JsonObject:
        recipe = self.recipe
        stage = EncoderStage(
            model,
            pool,
            self.tokenizer,
            blank,
            seed=recipe.seed,
            sizes=BatchSizes(recipe.garments, recipe.singles, recipe.exact, recipe.labelled),
        )
        found = self._run(
            "encoder",
            stage.modules,
            stage.step,
            recipe.steps_encoder,
            recipe.rate_encoder,
            "found",
            validation.score,
            validation,
        )
        self._scale = stage.log_scale.detach().clone()
        return found

    def _run(
        self,
        name: str,
        modules: nn.ModuleDict,
        step: Callable[[int], dict[str, Tensor]],
        steps: int,
        rate: float,
        score_name: str,
        score: Callable[[], float],
        judged: PhotoValidation,
    ) -> JsonObject:
        recipe = self.recipe
        validation = Validation(score_name, score, every=recipe.evaluate_every, patience=recipe.patience)
        modules.train()
        seconds = train(
            name,
            run_folder=self.folder,
            modules=modules,
            schedule=Schedule(steps, rate, recipe.warmup, averaging=recipe.averaging),
            batch_losses=step,
            validation=validation,
        )
        modules.eval()
        shares = judged.shares(is_reranked=name == "stage-two")
        logger.info("%s: best %.3f at step %d, %s", name, validation.best_score, validation.best_step, shares)
        if validation.best_step == 0 and name != "encoder":
            logger.warning("%s: no step was better than its start, whose weights are kept", name)
        return {
            "wall_seconds": round(seconds),
            score_name: round(validation.best_score, 4),
            "best_step": validation.best_step,
            "shares": {key: round(value, 4) for key, value in shares.items()},
        }

    def _pool(self, name: str, photographs: tuple[Photograph, ...], number: int) -> PhotoPool:
        return open_pool(
            self.folder / name,
            photographs,
            self.trunk,
            size=PHOTO_SMALL.image_size,
            seed=self.recipe.seed + number,
            workers=self.workers,
        )

    @torch.no_grad()
    def _blank(self, model: CirModel) -> Tensor:
        """What the trunk sees in no picture, [444, cells]."""
        size = model.sizes.image_size
        return stem_of(model).features(torch.zeros(1, 3, size, size)).flatten(2)[0]

    def _claim(self) -> None:
        """Make the folder this run's, or refuse it when it holds another."""
        listed = json.dumps([(p.image_id, p.kind.label, p.sender) for p in (*self.training, *self.validating)])
        record = {"recipe": asdict(self.recipe), "photographs": hashlib.sha256(listed.encode()).hexdigest()}
        kept = self.folder / "run.json"
        if kept.exists():
            found = read_kept(kept, advice="Restore it, or choose another folder.")
            differing = [name for name, value in record.items() if found.get(name) != value]
            if differing:
                raise TrainingError(
                    f"{self.folder} holds a run with another {' and other '.join(differing)}; choose another folder."
                )
        kept.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _save(self, model: CirModel, pool: PhotoPool, results: JsonObject) -> Path:
        provenance: JsonObject = {
            "training_data": f"{len(self.training)} photographs, {len(pool)} pictures of them edited by this project",
            "validation_photographs": len(self.validating),
            "trunk": {"name": "EfficientNet-Lite0 (Google, Apache-2.0), trained on ImageNet", "sha256": TRUNK_SHA256},
            "usable_edits": dict(pool.usable),
            "without_mask": pool.skipped,
            "recipe": asdict(self.recipe),
            "stages": results,
            "machine": describe_machine(),
        }
        out = self.folder / "model"
        save_model_folder(out, ModelFolder(model.eval(), self.tokenizer, provenance))
        return out
