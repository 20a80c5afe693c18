"""The round of ordinary queries: the re-ranker learns to keep the reference's kind where a text names a look alone.

"in navy" asks for any product of the reference's kind in navy. The re-ranker was trained mostly on near-duplicates of
one product, which are all of the right kind. Here it ranks against what stage one ranks high, of any kind. On
queries of families it is trained on, too, and must keep the scores that it had. What is kept is a mean of the weights
before and after, which is nearly as good on both sorts of queries as either is on its own (Wortsman et al., CVPR 2022).
Composer and image encoder stay as they are, and so do stored vectors and tokens and the weight of stage one's cosine.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from onnx_export.errors import TrainingError
from onnx_export.models import CirModel
from onnx_export.training.drawn.families import VARIANTS, family_queries, family_scenes, open_families
from onnx_export.training.drawn.pretrain import normalised_pixels
from onnx_export.training.features import compute_features
from onnx_export.training.loop import train
from onnx_export.training.processes import processes
from onnx_export.training.recipes import check_round
from onnx_export.training.stages import StageTwo
from onnx_export.training.triplets import Triplet, TripletSet
from onnx_export.training.updates import Schedule
from qdrant_cir.drawn.ordinary import ordinary_queries
from qdrant_cir.drawn.scene import Scene
from qdrant_cir.model.cores import available_threads
from qdrant_cir.types import JsonObject

_EDIT_STREAM, _ORDINARY_STREAM = 7, 8
_OTHERS, _LEAST_CANDIDATES = 2, 4


@dataclass(frozen=True, slots=True)
class OrdinaryRound:
    """The settings of a round of ordinary queries.

    Attributes:
        seed: of pictures and batches.
        families: how many are drawn.
        edits: queries of each family.
        steps, rate: optimiser steps, peak learning rate.
        batch: ordinary queries of a step.
        candidates: pictures that each of them ranks: one right, most of the others from stage one's best.
        edit_batch: queries of families of a step.
        edit_near, edit_mined: wrong candidates of each of those: of its family, and from stage one's best.
        share: of the trained weights in those that are kept; the rest are the weights from before the round.

    Raises:
        TrainingError: a number is out of range.
    """

    seed: int
    families: int
    edits: int
    steps: int
    rate: float
    batch: int
    candidates: int
    edit_batch: int
    edit_near: int
    edit_mined: int
    share: float

    def __post_init__(self) -> None:
        check_round(self, from_zero=("seed", "edit_near", "edit_mined"))
        if self.candidates < _LEAST_CANDIDATES:
            raise TrainingError(f"candidates is {self.candidates}; give at least {_LEAST_CANDIDATES}.")
        if self.share > 1:
            raise TrainingError(f"share is {self.share}; give a number from 0 to 1.")


class RetrievedTargets(StageTwo):
    """Stage two where a query has many right answers: the target is one of those that stage one ranks high."""

    def _target(self, triplet: Triplet, best: NDArray[np.int64], rng: np.random.Generator) -> int:
        found = best[np.isin(best, triplet.targets)]
        if not len(found):
            return super()._target(triplet, best, rng)
        return int(found[int(len(found) ** rng.random()) - 1])


class OrdinaryStage:
    """The re-ranker's losses on ordinary queries and on those of families."""

    def __init__(
        self, model: CirModel, edits: TripletSet, ordinary: TripletSet, tokenizer: Tokenizer, round_: OrdinaryRound
    ) -> None:
        self.edits = StageTwo(
            model,
            edits,
            tokenizer,
            seed=round_.seed + _EDIT_STREAM,
            batch=round_.edit_batch,
            near=round_.edit_near,
            mined=round_.edit_mined,
            others=1,
        )
        self.edits.hold(copy.deepcopy(model.reranker))
        self.ordinary = RetrievedTargets(
            model,
            ordinary,
            tokenizer,
            seed=round_.seed + _ORDINARY_STREAM,
            batch=round_.batch,
            near=0,
            mined=round_.candidates - 1 - _OTHERS,
            others=_OTHERS,
        )
        for stage in (self.edits, self.ordinary):
            stage.similarity_weight = model.sizes.similarity_weight
        self.modules = nn.ModuleDict({"reranker": model.reranker})

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        found = self.edits.step(batch)
        for name, value in self.ordinary.step(batch).items():
            found[f"_ordinary{name}" if name.startswith("_") else f"ordinary_{name}"] = value
        return found


def edit_triplets(scenes: Sequence[Scene], numbers: NDArray[np.int64], seed: int, each: int) -> list[Triplet]:
    """Return ``each`` queries of every family of ``VARIANTS`` products; ``numbers`` as ``TripletSet.scenes``."""
    triplets = []
    for first in range(0, len(scenes), VARIANTS):
        rng = np.random.default_rng((seed, first, _EDIT_STREAM))
        asked: dict[tuple[int, int], list[str]] = {}
        for reference, target, text in family_queries(list(scenes[first : first + VARIANTS]), rng):
            asked.setdefault((reference, target), []).append(text)
        pairs = list(asked)
        rows = np.arange(first, first + VARIANTS)
        for place in rng.permutation(len(pairs))[:each].tolist():
            reference, target = pairs[place]
            is_right = numbers[rows] == numbers[first + target]
            triplets.append(
                Triplet(
                    reference=first + reference,
                    targets=tuple(rows[is_right].tolist()),
                    near=tuple(rows[~is_right].tolist()),
                    texts=tuple(asked[pairs[place]]),
                )
            )
    return triplets


def ordinary_triplets(scenes: Sequence[Scene], seed: int) -> list[Triplet]:
    """Return ordinary queries over some products."""
    asked = ordinary_queries(scenes, np.random.default_rng((seed, _ORDINARY_STREAM)))
    return [Triplet(query.reference, query.targets, (), query.texts) for query in asked]


def open_ordinary(
    folder: Path, model: CirModel, tokenizer: Tokenizer, round_: OrdinaryRound
) -> tuple[TripletSet, TripletSet]:
    """Return the queries of families and the ordinary ones, after drawing and encoding what is missing."""
    with processes().main_process_first():
        families = open_families(
            folder / "families",
            families=round_.families,
            size=model.sizes.image_size,
            seed=round_.seed,
            workers=available_threads(),
            tokenizer=tokenizer,
        )

    def read(rows: slice) -> Tensor:
        return normalised_pixels(families.pictures[rows], model.device)

    kept = folder / "features"
    kept.mkdir(exist_ok=True)
    with processes().main_process_first():
        features = compute_features(model.eval(), read, len(families.pictures), kept)
    scenes = [scene for number in range(round_.families) for scene in family_scenes(round_.seed, number)]
    edits = edit_triplets(scenes, families.scenes, round_.seed, round_.edits)
    return (
        TripletSet(edits, features, families.scenes),
        TripletSet(ordinary_triplets(scenes, round_.seed), features, families.scenes),
    )


def train_ordinary_round(folder: Path, model: CirModel, tokenizer: Tokenizer, round_: OrdinaryRound) -> JsonObject:
    """Train a model's re-ranker, or continue where training stopped, and return the seconds."""
    edits, ordinary = open_ordinary(folder, model, tokenizer, round_)
    before = copy.deepcopy(model.reranker)
    stage = OrdinaryStage(model, edits, ordinary, tokenizer, round_)
    stage.modules.train()
    schedule = Schedule(round_.steps, round_.rate, warmup=30)
    seconds = train("ordinary", run_folder=folder, modules=stage.modules, schedule=schedule, batch_losses=stage.step)
    stage.modules.eval()
    with torch.no_grad():
        for trained, old in zip(model.reranker.parameters(), before.parameters(), strict=True):
            trained.lerp_(old, 1 - round_.share)
    return {"ordinary": round(seconds)}
