"""Fine-tuning on the user's triplets: the composer, then the re-ranker, over the frozen image encoder.

On request the image encoder is trained first, and words that the model does not know get rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from onnx_export.bundle.weights import load_start
from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import CirModel
from onnx_export.training.custom.data import CustomData, NamedTriplet, is_held_out, triplet_set
from onnx_export.training.custom.encoder import EncoderStage, HeldOutAnew
from onnx_export.training.custom.pictures import candidate_features, custom_features, find_unreadable
from onnx_export.training.custom.validation import HeldOut
from onnx_export.training.custom.vocabulary import extend_vocabulary, unknown_words
from onnx_export.training.kept import make_folder, read_kept, reading, weights_key
from onnx_export.training.loop import train
from onnx_export.training.processes import describe_machine, processes
from onnx_export.training.stages import StageOne, StageTwo
from onnx_export.training.triplets import TripletSet
from onnx_export.training.updates import Schedule
from onnx_export.training.validation import Validation
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

Stages = Literal["both", "one", "two"]
NAMED_PICTURES = 20


@dataclass(frozen=True, slots=True)
class CustomRecipe:
    """The settings of a fine-tuning.

    Attributes:
        seed: of batches.
        steps_one, batch_one, rate_one: of the composer: optimiser steps, queries per step, peak learning rate.
        steps_two, batch_two, rate_two: the same for the re-ranker.
        extend_vocabulary: words of the texts that the model does not know get rows.
        train_encoder: the image encoder is trained together with the composer, before the two stages.
        steps_encoder, batch_encoder, rate_encoder: of that training.
        alike: wrong pictures per query of that training which the starting model finds like the target.
        negatives: pictures that stage one ranks beside those of a batch.
        near, mined, others: wrong candidates per query of stage two: near misses, stage one's best, other queries'.
        held_out: share of references whose triplets validate; with 0 there is no validation and no early stopping.
        validation_queries: triplets that validate, at most.
        evaluate_every: steps between two validations.
        patience: validations in a row without a new best until a stage ends.
        warmup: steps of linear warm-up.
        accumulation: batches of every process per optimiser step. A step learns from batch x accumulation x
            processes; negatives come from within each batch and, in stage one, from ``negatives``.
    """

    seed: int = 1
    steps_one: int = 2_000
    batch_one: int = 64
    rate_one: float = 5e-5
    steps_two: int = 2_000
    batch_two: int = 16
    rate_two: float = 5e-5
    extend_vocabulary: bool = False
    train_encoder: bool = False
    steps_encoder: int = 1_000
    batch_encoder: int = 16
    rate_encoder: float = 1e-4
    alike: int = 3
    negatives: int = 8_192
    near: int = 3
    mined: int = 5
    others: int = 1
    held_out: float = 0.1
    validation_queries: int = 500
    evaluate_every: int = 100
    patience: int = 5
    warmup: int = 50
    accumulation: int = 1


class CustomRun:
    """One fine-tuning in one folder: ``run.json``, features, checkpoints, logs, and ``model/`` at the end."""

    def __init__(self, folder: Path, recipe: CustomRecipe, *, start: Path | None, data: CustomData) -> None:
        """Check pictures and triplets.

        Args:
            folder: made where missing.
            recipe: how to train.
            start: the model folder or bundle to start from; None for the packaged default.
            data: pictures and triplets; pictures that cannot be read are left out and logged.

        Raises:
            TrainingError: too few triplets are left, or the folder holds another run.
            CheckpointError: ``start`` is neither, or is a bundle that cannot be read back into torch.
        """
        make_folder(folder)
        self.folder, self.recipe = folder, recipe
        self.start: ModelFolder = load_start(start)
        with processes().main_process_first():
            self.data = _readable(data, folder)
            self.training, self.held_out = _split(self.data, recipe)
            self._claim()
        self.new_words: tuple[str, ...] = ()
        if recipe.train_encoder and self.start.candidate_encoder is not None:
            raise TrainingError(
                "This model reads candidates through a second image encoder, which would not fit a trained first one. "
                "Leave out --train-encoder, or start from another model."
            )
        if recipe.extend_vocabulary:
            self.new_words = unknown_words(
                self.start.tokenizer, [text for triplet in self.training for text in triplet.texts]
            )
            self.start = extend_vocabulary(self.start, self.new_words, seed=recipe.seed)
            logger.info("%d new words: %s", len(self.new_words), ", ".join(self.new_words))
        self.tokenizer = Tokenizer.from_str(self.start.tokenizer.to_str())
        self.tokenizer.enable_truncation(self.start.model.sizes.max_positions)
        _warn_of_unknown_words(self.tokenizer, self.training)

    def train(self, stages: Stages = "both") -> Path:
        """Fine-tune, or continue where it was stopped, and return the model folder."""
        model = self.start.model.to(processes().device)
        results: JsonObject = {}
        if self.recipe.train_encoder:
            results["encoder"] = self._encoder(model)
        data = self._triplets(model, self.training, reads_candidates=stages != "one")
        if stages != "two":
            results["stage-one"] = self._stage_one(model, data)
        if stages != "one":
            results["stage-two"] = self._stage_two(model, data)
        provenance: JsonObject = {
            "training_data": f"{len(self.training)} custom triplets over {len(self.data.pictures)} pictures",
            "validation_triplets": len(self.held_out),
            "new_words": list(self.new_words),
            "recipe": asdict(self.recipe),
            "stages": results,
            "machine": describe_machine(),
            "started_from": self.start.provenance,
        }
        out = self.folder / "model"
        content = ModelFolder(model.eval(), self.start.tokenizer, provenance, self.start.candidate_encoder)
        with processes().main_process_first():
            if processes().is_main_process:
                save_model_folder(out, content)
        return out

    def _claim(self) -> None:
        """Write what the run is into the folder; refuse a folder that holds another."""
        triplets = json.dumps([asdict(triplet) for triplet in self.data.triplets]).encode()
        record = {
            "recipe": asdict(self.recipe),
            "start": weights_key(self.start.model),
            "triplets": hashlib.sha256(triplets).hexdigest(),
        }
        kept = self.folder / "run.json"
        if kept.exists():
            advice = "Restore it, or choose another folder."
            found = read_kept(kept, advice=advice)
            with reading(kept, advice=advice):
                found["recipe"] = {**asdict(CustomRecipe()), **found["recipe"]}  # older runs lack newer fields
            differing = [name for name, value in record.items() if found.get(name) != value]
            if differing:
                raise TrainingError(
                    f"{self.folder} holds a run with another {' and '.join(differing)}; choose another folder."
                )
        kept.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _triplets(self, model: CirModel, triplets: tuple[NamedTriplet, ...], *, reads_candidates: bool) -> TripletSet:
        with processes().main_process_first():
            features = custom_features(model, self.data.pictures, self.folder / "features")
        found = triplet_set(self.data, features, triplets)
        encoder = self.start.candidate_encoder
        if encoder is None or not reads_candidates:
            return found
        encoder, folder = encoder.to(model.device), self.folder / "candidate_features"
        with processes().main_process_first():
            candidates = candidate_features(model, encoder, self.data.pictures, folder)
        return TripletSet(found.triplets, features, found.scenes, candidates=candidates)

    def _encoder(self, model: CirModel) -> JsonObject:
        recipe = self.recipe
        with processes().main_process_first():
            features = custom_features(model, self.data.pictures, self.folder / "start_features")
        stage = EncoderStage(
            model,
            triplet_set(self.data, features, self.training),
            tuple(self.data.pictures.values()),
            self.tokenizer,
            seed=recipe.seed,
            batch=recipe.batch_encoder,
            alike=recipe.alike,
        )
        validation = None
        if self.held_out:
            held_out = HeldOutAnew(model, self.data, self.held_out, self.tokenizer, seed=recipe.seed)
            validation = self._validation("reciprocal_rank", held_out.score)
        return self._run("encoder", stage, recipe.steps_encoder, recipe.rate_encoder, validation)

    def _held_out(self, model: CirModel, data: TripletSet) -> HeldOut:
        held_out = triplet_set(self.data, data.features, self.held_out)
        judged = TripletSet(held_out.triplets, data.features, data.scenes, candidates=data.candidates)
        return HeldOut(model, judged, self.tokenizer, excludes_reference=self.data.excludes_reference)

    def _stage_one(self, model: CirModel, data: TripletSet) -> JsonObject:
        recipe = self.recipe
        stage = StageOne(
            model, data, self.tokenizer, seed=recipe.seed, batch=recipe.batch_one, negatives=recipe.negatives
        )
        if not self.held_out:
            return self._run("stage-one", stage, recipe.steps_one, recipe.rate_one, None)
        held_out = self._held_out(model, data)
        validation = self._validation("reciprocal_rank", held_out.reciprocal_rank)
        result = self._run("stage-one", stage, recipe.steps_one, recipe.rate_one, validation)
        return result | _rounded(held_out.recalls(is_reranked=False))

    def _stage_two(self, model: CirModel, data: TripletSet) -> JsonObject:
        recipe = self.recipe
        stage = StageTwo(
            model,
            data,
            self.tokenizer,
            seed=recipe.seed,
            batch=recipe.batch_two,
            near=recipe.near,
            mined=recipe.mined,
            others=recipe.others,
        )
        if not self.held_out:
            return self._run("stage-two", stage, recipe.steps_two, recipe.rate_two, None)
        held_out = self._held_out(model, data)
        held_out.retrieve()
        validation = self._validation("reranked_reciprocal_rank", held_out.reranked_reciprocal_rank)
        result = self._run("stage-two", stage, recipe.steps_two, recipe.rate_two, validation)
        return result | _rounded(held_out.recalls(is_reranked=True))

    def _validation(self, name: str, score: Callable[[], float]) -> Validation:
        return Validation(name, score, every=self.recipe.evaluate_every, patience=self.recipe.patience)

    def _run(
        self,
        name: str,
        stage: EncoderStage | StageOne | StageTwo,
        steps: int,
        rate: float,
        validation: Validation | None,
    ) -> JsonObject:
        stage.modules.train()
        seconds = train(
            name,
            run_folder=self.folder,
            modules=stage.modules,
            schedule=Schedule(steps, rate, self.recipe.warmup, accumulation=self.recipe.accumulation),
            batch_losses=stage.step,
            validation=validation,
        )
        stage.modules.eval()
        result: JsonObject = {"wall_seconds": round(seconds)}
        if validation is not None:
            result |= {validation.name: round(validation.best_score, 4), "best_step": validation.best_step}
            logger.info("%s: %s %.3f, at step %d", name, validation.name, validation.best_score, validation.best_step)
            if validation.best_step == 0:
                logger.warning("%s: no step was better than its start, whose weights are kept", name)
        return result


def _rounded(shares: dict[str, float]) -> JsonObject:
    return {name: round(value, 4) for name, value in shares.items()}


def _readable(data: CustomData, folder: Path) -> CustomData:
    unreadable = find_unreadable(data.pictures, folder)
    kept = data.without(unreadable)
    for image_id, reason in list(unreadable.items())[:NAMED_PICTURES]:
        logger.warning("left out %s: %s", image_id, reason)
    if unreadable:
        logger.warning(
            "%d of %d pictures cannot be read (all are named in %s); %d of %d triplets are left out with them",
            len(unreadable),
            len(data.pictures),
            folder / "unreadable.json",
            len(data.triplets) - len(kept.triplets),
            len(data.triplets),
        )
    return kept


def _split(data: CustomData, recipe: CustomRecipe) -> tuple[tuple[NamedTriplet, ...], tuple[NamedTriplet, ...]]:
    held_out = tuple(triplet for triplet in data.triplets if is_held_out(triplet, recipe.held_out))
    training = tuple(triplet for triplet in data.triplets if not is_held_out(triplet, recipe.held_out))
    if min(len(training), recipe.batch_one, recipe.batch_two) < 2:
        raise TrainingError(
            f"{len(training)} triplets are left to train on, in batches of {recipe.batch_one} and {recipe.batch_two}; "
            "expected at least 2 of each. Give more triplets, or hold out fewer."
        )
    if recipe.held_out > 0 and not held_out:
        raise TrainingError(
            f"None of {len(data.triplets)} triplets falls into the held-out share of {recipe.held_out}. Hold out more, "
            "or 0 to train without validation."
        )
    logger.info("%d triplets to train on, %d held out", len(training), len(held_out))
    return training, held_out[: recipe.validation_queries]


def _warn_of_unknown_words(tokenizer: Tokenizer, triplets: tuple[NamedTriplet, ...]) -> None:
    """Log how many words the model has no token for: it cannot learn what they mean."""
    unknown = tokenizer.token_to_id("[UNK]")
    ids = [number for e in tokenizer.encode_batch([t.texts[0] for t in triplets]) for number in e.ids]
    count = sum(number == unknown for number in ids)
    if count:
        logger.warning(
            "%d of %d tokens of the texts (%.0f %%) are words that the model's tokenizer does not know",
            count,
            len(ids),
            100 * count / len(ids),
        )
