"""What is trained: both stages together, or a control of ``benchmarks/controls``, on the same queries."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.binding.pictures import BoundPictures
from benchmarks.binding.scenes import ASSIGNMENTS, sample_query
from benchmarks.controls.heads import KINDS as CONTROLS
from benchmarks.controls.heads import build_control, head_of
from onnx_export.model_folder import ModelFolder
from onnx_export.training.loop import train
from onnx_export.training.losses import positives_loss, similarities
from onnx_export.training.texts import encode_texts
from onnx_export.training.updates import Schedule

logger = logging.getLogger(__name__)

BOTH_STAGES = "both_stages"
CONTESTANTS = (BOTH_STAGES, *CONTROLS)
SEED, WARMUP = 20, 50
FAMILIES, QUERIES = 8, 3
"""Families of a step, and queries of each; stage one and the controls rank all pictures of all families of the step."""

CANDIDATES, FOREIGN = 7, 2
"""What the re-ranker ranks for the queries of a family: pictures of it, and stage one's best of the other families."""
_TEMPERATURE = 0.07
_COUNT = len(ASSIGNMENTS)


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries of a step: F families, C queries of each, in order of the families.

    Attributes:
        ids, mask: int64 [F * C, L].
        references: float32 [F * C, N, C], their tokens.
        rows: int64 [F, 27], the families' pictures.
        right: bool [F, C, 27], which answer.
    """

    ids: Tensor
    mask: Tensor
    references: Tensor
    rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    right: Tensor


def draw_batch(pictures: BoundPictures, task: str, tokenizer: Tokenizer, number: int) -> Batch:
    """Draw the queries of a step from its number alone: every contestant sees the same."""
    rng = np.random.default_rng((SEED, number))
    chosen = rng.choice(len(pictures.families), FAMILIES, replace=False)
    asked = [
        (family, sample_query(pictures.families[family], task, rng))
        for family in chosen.tolist()
        for _ in range(QUERIES)
    ]
    ids, mask = encode_texts(tokenizer, [query.text for _, query in asked], device=torch.device("cpu"))
    right = torch.zeros(len(asked), _COUNT, dtype=torch.bool)
    for place, (_, query) in enumerate(asked):
        right[place, list(query.targets)] = True
    rows = chosen[:, None] * _COUNT + np.arange(_COUNT)
    return Batch(ids, mask, pictures.reference_tokens(task, asked), rows, right.view(FAMILIES, QUERIES, _COUNT))


def build_contestant(name: str, start: ModelFolder) -> nn.ModuleDict:
    """Build a contestant: both stages as the start has them, or its text encoder with a fresh head."""
    encoder = start.model.composer.text_encoder.state_dict()
    scale = nn.ParameterList([nn.Parameter(torch.tensor(math.log(1 / _TEMPERATURE)))])
    if name == BOTH_STAGES:
        composer, reranker = copy.deepcopy(start.model.composer), copy.deepcopy(start.model.reranker)
        return nn.ModuleDict({"composer": composer, "reranker": reranker, "temperature": scale})
    modules = build_control(name, start.model.sizes, seed=SEED)
    modules["text_encoder"].load_state_dict(encoder)
    if name == "late_interaction":
        scale = nn.ParameterList([nn.Parameter(torch.tensor(math.log(5.0)))])
    modules["temperature"] = scale
    return modules


def checkpoint_of(run: Path, name: str) -> Path:
    """Return where a run keeps a contestant."""
    return run / f"{name}.ckpt"


def load_contestant(run: Path, name: str, start: ModelFolder) -> nn.ModuleDict:
    """Load a contestant as a run left it."""
    modules = build_contestant(name, start)
    kept = torch.load(checkpoint_of(run, name), map_location="cpu", weights_only=True)
    modules.load_state_dict(kept["modules"])
    return modules


def train_contestants(
    run: Path,
    start: ModelFolder,
    pictures: BoundPictures,
    *,
    task: str,
    after: Path | None,
    steps: int,
    rate: float,
    names: Sequence[str],
) -> None:
    """Train contestants for a task, each from its checkpoint in the run where there is one.

    Args:
        run: folder of checkpoints and logs.
        start: the bundle that contestants are built from.
        pictures: to train on.
        task: a key of ``TASKS``.
        after: the run that they go on from; None for the bundle.
        steps: of each contestant.
        rate: peak of the learning rate.
        names: which contestants.
    """
    for name in names:
        modules = build_contestant(name, start) if after is None else load_contestant(after, name, start)
        modules.train()
        losses = _LOSSES.get(name, _control_losses)

        def step(number: int, *, losses: _Losses = losses, modules: nn.ModuleDict = modules) -> dict[str, Tensor]:
            batch = draw_batch(pictures, task, start.tokenizer, number)
            with torch.autocast("cpu", torch.bfloat16):
                return dict(losses(modules, pictures, batch, number))

        begun, schedule = time.process_time(), Schedule(steps, rate, warmup=WARMUP)
        run.mkdir(parents=True, exist_ok=True)
        wall = train(name, run_folder=run, modules=modules, schedule=schedule, batch_losses=step)
        used = time.process_time() - begun
        logger.info("%s: %d steps, %.0f s, of which the processor worked %.0f s in this run", name, steps, wall, used)


_Losses = Callable[[nn.ModuleDict, BoundPictures, Batch, int], Mapping[str, Tensor]]


def _both_stages_losses(
    modules: nn.ModuleDict, pictures: BoundPictures, batch: Batch, number: int
) -> dict[str, Tensor]:
    vectors, states = modules["composer"](batch.ids, batch.mask, batch.references)
    rows = torch.from_numpy(batch.rows.flatten())
    scores = similarities(vectors, pictures.features.vectors[rows], modules["temperature"][0].exp().clamp(max=100))
    right = _among_all(batch.right)
    picked = _candidates(batch.right, np.random.default_rng((SEED, number, 1)))  # [F, W]
    own = torch.from_numpy(np.take_along_axis(batch.rows, picked, 1))
    shown = torch.cat((own, rows[_foreign(scores)]), dim=1)
    tokens = pictures.features.tokens_of(shown.flatten().numpy())
    reranked = rank_family(modules["reranker"], batch, states, tokens, width=shown.shape[1])
    places = torch.from_numpy(picked)[:, None].expand(-1, QUERIES, -1)
    is_right = functional.pad(batch.right.gather(2, places), (0, FOREIGN))
    return {
        "retrieval": positives_loss(scores, right),
        "loss": positives_loss(reranked.flatten(0, 1), is_right.flatten(0, 1)),
        "_retrieved": right.gather(1, scores.argmax(1, keepdim=True)).float().mean(),
        "_accuracy": is_right.gather(2, reranked.argmax(2, keepdim=True)).float().mean(),
    }


def _foreign(scores: Tensor) -> Tensor:
    """Find stage one's best pictures of other families in its scores [F * C, F * 27]: places, int64 [F, FOREIGN]."""
    best = scores.detach().view(FAMILIES, QUERIES, -1).amax(1)
    is_own = torch.eye(FAMILIES, dtype=torch.bool).repeat_interleave(_COUNT, dim=1)
    return best.masked_fill(is_own, -torch.inf).topk(FOREIGN).indices


def rank_family(reranker: nn.Module, batch: Batch, states: Tensor, tokens: Tensor, *, width: int) -> Tensor:
    """Score float32 [F, C, W]: the queries of each family against its W candidates, tokens [F * W, N, C]."""

    def pairs(each: Tensor) -> Tensor:
        # [F * C, ...] to [F, W, C, ...]: the pairs of a candidate lie side by side
        own = each.view(-1, 1, QUERIES, *each.shape[1:])
        return own.expand(-1, width, *(-1 for _ in own.shape[2:])).flatten(0, 2)

    scores: Tensor = reranker(pairs(batch.ids), pairs(batch.mask), pairs(states), tokens)
    return scores.float().view(-1, width, QUERIES).transpose(1, 2)


def _candidates(right: Tensor, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Draw pictures of each family, int64 [F, W]: an answer of every query first, then others."""
    chosen = []
    for answers in right.numpy():
        first = [int(rng.choice(np.flatnonzero(answer))) for answer in answers]
        others = rng.permutation(np.setdiff1d(np.arange(_COUNT), first))
        chosen.append(np.array(list(dict.fromkeys([*first, *others.tolist()]))[:CANDIDATES]))
    return np.stack(chosen)


def _control_losses(modules: nn.ModuleDict, pictures: BoundPictures, batch: Batch, number: int) -> dict[str, Tensor]:
    head = head_of(modules)
    states = modules["text_encoder"](batch.ids, batch.mask, batch.references)
    tokens = pictures.features.tokens_of(batch.rows.flatten())
    found, asked = head.pictures(tokens), head.queries(states, batch.mask)
    with torch.autocast("cpu", enabled=False):
        scores = modules["temperature"][0].exp().clamp(max=100) * head.scores(asked.float(), found.float())
    right = _among_all(batch.right)
    return {
        "loss": positives_loss(scores, right),
        "_accuracy": right.gather(1, scores.argmax(1, keepdim=True)).float().mean(),
    }


def _among_all(right: Tensor) -> Tensor:
    """Return which of all pictures of the step answer each query: bool [F * C, F * 27]."""
    families, queries, count = right.shape
    spread = torch.zeros(families, queries, families, count, dtype=torch.bool)
    for place in range(families):
        spread[place, :, place] = right[place]
    return spread.view(families * queries, families * count)


_LOSSES: Mapping[str, _Losses] = {BOTH_STAGES: _both_stages_losses}
