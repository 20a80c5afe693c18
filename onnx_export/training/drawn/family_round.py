"""The round of families: image encoder, composer and re-ranker are trained further, on families of near-duplicates.

First the image encoder learns more about every part. A loss keeps its embedding unchanged, because galleries are
searched by it. Then it is frozen again, and composer and re-ranker are trained together: the re-ranker on whole
families, the composer, which costs a hundredth of it, on many more queries.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.errors import TrainingError
from onnx_export.export import BLIP_MEAN, BLIP_STD
from onnx_export.models import CirModel, ModelSizes
from onnx_export.training.attributes import NOT_OF_THIS_KIND
from onnx_export.training.drawn.families import KINDS, PARTS, VARIANTS, Families, open_families
from onnx_export.training.drawn.family_batches import (
    Asked,
    FamilyQueries,
    Gallery,
    family_rows,
    on_device,
    open_gallery,
)
from onnx_export.training.drawn.part_reading import AttributeReader, QuestionReader, box_shares
from onnx_export.training.drawn.rounds import HeldOutGroups, fit_similarity
from onnx_export.training.loop import train
from onnx_export.training.losses import positives_loss
from onnx_export.training.processes import processes
from onnx_export.training.recipes import check_round
from onnx_export.training.seeds import seeded
from onnx_export.training.updates import Schedule
from qdrant_cir.model.cores import available_threads
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

HELD_WEIGHT = 20.0
MISMATCH_WEIGHT = 3.0
_ENCODER_STREAM, _JOINT_STREAM = 5, 6


@dataclass(frozen=True, slots=True)
class FamilyRound:
    """The settings of a round of families.

    Attributes:
        seed: of pictures and batches.
        families: how many are drawn.
        encoder_steps, encoder_batch, encoder_rate: of the image encoder: optimiser steps, pictures of a step, peak
            learning rate.
        encoder_shift: pixels by which pictures are moved at most, in each direction.
        steps, rate: the same for composer and re-ranker together.
        batch: families of a step.
        composed: queries of each family for the composer.
        reranked: those among them for which the re-ranker ranks the whole family, and as many pictures of others.
        mined_depth: how many of stage one's best of other families these are drawn from.
        unseen_groups: groups that nothing is trained on, to fit the weight of stage one's cosine in the final score.

    Raises:
        TrainingError: a number is out of range, or a step needs more families or queries than there are.
    """

    seed: int
    families: int
    encoder_steps: int
    encoder_batch: int
    encoder_rate: float
    encoder_shift: int
    steps: int
    rate: float
    batch: int
    composed: int
    reranked: int
    mined_depth: int
    unseen_groups: int

    def __post_init__(self) -> None:
        check_round(self, from_zero=("seed", "encoder_shift"))
        if self.batch > self.families:
            raise TrainingError(
                f"A step cannot draw {self.batch} of {self.families} families; raise families or lower batch."
            )
        if self.reranked > self.composed:
            raise TrainingError(
                f"reranked is {self.reranked}; give at most {self.composed}, the queries that are composed."
            )


class EncoderStage:
    """The image encoder's losses: read every part's attributes from the tokens in its box, keep the embedding."""

    def __init__(self, model: CirModel, families: Families, held: Tensor, round_: FamilyRound) -> None:
        """Prepare the losses; ``held`` are the embeddings to keep, float32 [P, D]."""
        self.model, self.round_, self.device = model, round_, model.device
        self.pictures = on_device(families.pictures, self.device)
        self.codes, self.boxes = (torch.from_numpy(each).to(self.device) for each in (families.codes, families.boxes))
        self.held, self.size = held, model.sizes.image_size
        self.grid = self.size // model.sizes.patch_size
        with seeded(round_.seed):
            reader = AttributeReader(model.sizes.image_width)
        self.modules = nn.ModuleDict({"image_encoder": model.image_encoder, "reader": reader.to(self.device)})

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        self.model.image_encoder.visual_encoder.patch_embed.eval()  # keeps the statistics of batch normalisation
        rng = np.random.default_rng((self.round_.seed, _ENCODER_STREAM, batch))
        count, most = self.round_.encoder_batch, self.round_.encoder_shift
        rows = torch.from_numpy(rng.integers(len(self.pictures), size=count)).to(self.device)
        moved = torch.from_numpy(rng.integers(-most, most + 1, size=(count, 2))).to(self.device)
        tokens = self.model.image_encoder.visual_encoder(self._pixels(rows, moved))
        vectors = functional.normalize(self.model.image_encoder.vision_proj(tokens[:, 0]).float(), dim=-1)
        held = (1 - (vectors * self.held[rows]).sum(-1)).mean()
        weights = box_shares(self.boxes[rows] - moved.repeat(1, 2)[:, None] / self.size, self.grid)
        states = weights.to(tokens.dtype) @ tokens[:, 1:]
        seen = self.modules["reader"](states, self._seen(rows))
        return {"part": seen, "held": HELD_WEIGHT * held}

    def _pixels(self, rows: Tensor, moved: Tensor) -> Tensor:
        """Return normalised pixels [B, 3, S, S] of pictures, moved left and up by [B, 2]; edge pixels fill the gap."""
        places = torch.arange(self.size, device=self.device)
        across, down = ((places + moved[:, side, None]).clamp(0, self.size - 1) for side in (0, 1))
        where = (rows[:, None, None], down[:, :, None], across[:, None, :])
        pixels = self.pictures[tuple(each.to(self.pictures.device) for each in where)].to(self.device)
        mean, std = (torch.tensor(values, device=self.device) for values in (BLIP_MEAN, BLIP_STD))
        return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _seen(self, rows: Tensor) -> Tensor:
        """Return the codes of the parts that a picture shows; absent parts have no box to be read from."""
        is_shown = (self.boxes[rows].amax(-1) > 0)[..., None]
        return self.codes[rows].masked_fill(~is_shown, NOT_OF_THIS_KIND)


class JointStage:
    """The losses of composer and re-ranker together.

    The re-ranker ranks a query's target first among its whole family and some pictures of others, and tells which
    attributes of every candidate differ from the target's. Both losses reach the composer's fusion states, from which
    the target's attributes must be readable, too. The query vectors stay as they were, also without a reference.
    """

    def __init__(
        self,
        model: CirModel,
        families: Families,
        tokenizer: Tokenizer,
        *,
        before: Gallery,
        gallery: Gallery,
        round_: FamilyRound,
        stage_one: nn.Module,
    ) -> None:
        """Prepare the losses.

        Args:
            model: its composer and re-ranker are trained.
            families: what they learn from.
            tokenizer: of the texts.
            before: features from before this round, which ``stage_one`` reads.
            gallery: features of the image encoder as it is now.
            round_: the settings.
            stage_one: the composer as it was before this round.
        """
        self.model, self.before, self.gallery, self.round_, self.device = model, before, gallery, round_, model.device
        self.stage_one = stage_one
        self.codes = torch.from_numpy(families.codes).to(self.device)
        self.scenes = torch.from_numpy(families.scenes).to(self.device)
        self.queries = FamilyQueries(families, tokenizer, self.device)
        with seeded(round_.seed):
            reader = QuestionReader(model.sizes)
            mismatch = nn.Linear(2 * model.sizes.text_width, len(PARTS) * len(KINDS))
        self.modules = nn.ModuleDict(
            {"composer": model.composer, "reranker": model.reranker, "reader": reader, "mismatch": mismatch}
        ).to(self.device)

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        round_ = self.round_
        rng = np.random.default_rng((round_.seed, _JOINT_STREAM, batch))
        asked = self.queries.draw(rng, families=round_.batch, each=round_.composed)
        ids, mask, references = asked.ids.flatten(0, 1), asked.mask.flatten(0, 1), asked.references.flatten()
        with torch.no_grad():
            held = self.stage_one(ids, mask, self.before.of(references)).query_vectors.float()
        vectors, states = self.model.composer(ids, mask, self.gallery.of(references))
        reranked = round_.reranked
        shape = (round_.batch, round_.composed)
        queries = held.view(*shape, -1)[:, :reranked]
        candidates = torch.cat((family_rows(asked.families), self._others(asked.families, queries, rng)), dim=1)
        features = self._features(
            asked.ids[:, :reranked],
            asked.mask[:, :reranked],
            states.view(*shape, *states.shape[1:])[:, :reranked],
            candidates,
        )
        scores = self.model.reranker.cls_head(features)[..., 0].float()
        targets = asked.targets[:, :reranked]
        right = self.scenes[candidates][:, None] == self.scenes[targets][..., None]
        return {
            "vectors": HELD_WEIGHT * (1 - (vectors * held).sum(-1)).mean(),
            "captions": HELD_WEIGHT * self._described(asked),
            "states": self.modules["reader"](states, mask, self.codes[asked.targets.flatten()]),
            "loss": positives_loss(scores.flatten(0, 1), right.flatten(0, 1)),
            "mismatch": MISMATCH_WEIGHT * self._mismatch(features, candidates, targets),
            "_accuracy": right.gather(2, scores.argmax(2, keepdim=True)).float().mean(),
        }

    def _described(self, asked: Asked) -> Tensor:
        """Return how far the query vectors of texts without a reference have moved."""
        inputs = asked.captions, asked.caption_mask
        each = (len(asked.captions), -1, -1)
        with torch.no_grad():
            held: Tensor = self.stage_one(*inputs, self.before.blank.expand(each)).query_vectors
        vectors: Tensor = self.model.composer(*inputs, self.gallery.blank.expand(each)).query_vectors
        return (1 - (vectors * held).sum(-1)).mean()

    def _others(self, families: Tensor, queries: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw for each query [F, R, D] one of stage one's best pictures of other families: int64 [F, R]."""
        with torch.autocast(self.device.type, enabled=False):
            similarity = queries.flatten(0, 1) @ self.gallery.vectors.T
        own = family_rows(families).repeat_interleave(queries.shape[1], dim=0)
        depth = min(self.round_.mined_depth, similarity.shape[1] - VARIANTS)
        best = similarity.scatter(1, own, -torch.inf).topk(depth).indices
        places = torch.from_numpy(rng.integers(depth, size=(len(best), 1))).to(self.device)
        return best.gather(1, places).view(queries.shape[:2])

    def _features(self, ids: Tensor, mask: Tensor, states: Tensor, candidates: Tensor) -> Tensor:
        """Return the re-ranker's features [F, R, W, 2 H] for candidates int64 [F, W], the same for all R queries."""
        width = candidates.shape[1]

        def pairs(each: Tensor) -> Tensor:
            return each[:, None].expand(-1, width, *each.shape[1:]).flatten(0, 2)

        tokens = self.gallery.of(candidates.flatten())
        features = self.model.reranker.features(pairs(ids), pairs(mask), pairs(states), tokens)
        return features.view(len(candidates), width, ids.shape[1], -1).transpose(1, 2)

    def _mismatch(self, features: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of telling which attributes of each candidate differ from the target's."""
        wanted = self.codes[targets].flatten(2)[:, :, None]
        differs = self.codes[candidates].flatten(2)[:, None] != wanted
        logits = self.modules["mismatch"](features).float()
        loss = functional.binary_cross_entropy_with_logits(logits, differs.float(), reduction="none")
        is_known = (wanted != NOT_OF_THIS_KIND).expand_as(loss)
        return (loss * is_known).sum() / is_known.sum()


def open_round_families(folder: Path, round_: FamilyRound, sizes: ModelSizes, tokenizer: Tokenizer) -> Families:
    """Open a round's families, after drawing those that are missing."""
    with processes().main_process_first():
        return open_families(
            folder / "families",
            families=round_.families,
            size=sizes.image_size,
            seed=round_.seed,
            workers=available_threads(),
            tokenizer=tokenizer,
        )


def train_family_round(folder: Path, model: CirModel, tokenizer: Tokenizer, round_: FamilyRound) -> JsonObject:
    """Train a model, or continue where training stopped, and return the seconds of both stages.

    A folder holds one round. The heads that only training uses start fresh, because no model keeps them.
    """
    families = open_round_families(folder, round_, model.sizes, tokenizer)

    def run(name: str, stage: EncoderStage | JointStage, steps: int, rate: float) -> int:
        stage.modules.train()
        schedule = Schedule(steps, rate, warmup=200)
        seconds = train(name, run_folder=folder, modules=stage.modules, schedule=schedule, batch_losses=stage.step)
        stage.modules.eval()
        logger.info("%s: %.0f s of training in all", name, seconds)
        return round(seconds)

    before = open_gallery(folder / "before", model, families)
    stage_one = copy.deepcopy(model.composer).eval()
    for parameter in stage_one.parameters():
        parameter.requires_grad = False
    encoder = EncoderStage(model, families, before.vectors, round_)
    seconds: JsonObject = {"encoder": run("encoder", encoder, round_.encoder_steps, round_.encoder_rate)}
    del encoder
    after = open_gallery(folder / "after", model, families)
    joint = JointStage(model, families, tokenizer, before=before, gallery=after, round_=round_, stage_one=stage_one)
    seconds["joint"] = run("joint", joint, round_.steps, round_.rate)
    fit_similarity(
        model, tokenizer, HeldOutGroups(folder, round_.seed, round_.unseen_groups), folder / "similarity.json"
    )
    return seconds
