"""R@1 of every contestant over catalogues of several seeds, with paired differences to both stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.binding.contestants import BOTH_STAGES, checkpoint_of, load_contestant
from benchmarks.binding.pictures import BoundPictures
from benchmarks.binding.scenes import ASSIGNMENTS, TASKS
from benchmarks.controls.heads import KINDS as CONTROLS
from benchmarks.controls.heads import head_of
from benchmarks.quality.figures import gain_in_words, in_words
from onnx_export.model_folder import ModelFolder
from onnx_export.training.texts import encode_texts
from qdrant_cir.evaluation.report.bootstrap import bootstrap_means, interval_of

DEPTH = 30
"""Candidates that are re-ranked: stage one's best, most of them pictures of the query's own family."""

RESAMPLES = 2000
_COUNT = len(ASSIGNMENTS)
_BOTH = "both stages"


@torch.inference_mode()
def measure(
    run: Path, start: ModelFolder, catalogs: Sequence[BoundPictures], *, task: str, queries: int
) -> list[Mapping[str, Hits]]:
    """Return which queries of each catalogue each contestant answers first, by its name in the table."""
    contestants = {
        name: load_contestant(run, name, start).eval()
        for name in (BOTH_STAGES, *CONTROLS)
        if checkpoint_of(run, name).exists()
    }
    return [_measure(contestants, start, catalog, task, queries) for catalog in catalogs]


@dataclass(frozen=True, slots=True)
class Hits:
    """Percent of queries whose first picture is right: one number a query, and what the queries are.

    Attributes:
        values: float64 [Q], 0 or 100.
        within: likewise, where only pictures of the query's own family are ranked.
        families: int64 [Q].
        kinds: of the queries.
    """

    values: NDArray[np.float64]
    within: NDArray[np.float64]
    families: NDArray[np.int64]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One query as contestants get it.

    Attributes:
        ids, mask: int64 [1, L].
        reference: float32 [1, N, C].
        family: int64 [27], the rows of its family.
    """

    ids: Tensor
    mask: Tensor
    reference: Tensor
    family: Tensor


@dataclass(frozen=True, slots=True)
class _First:
    """Rows of the first picture of the whole catalogue, and of the query's own family."""

    of_all: int
    of_family: int


def _measure(
    contestants: Mapping[str, nn.ModuleDict], start: ModelFolder, catalog: BoundPictures, task: str, queries: int
) -> Mapping[str, Hits]:
    asked, vectors = catalog.queries(task, queries), catalog.features.vectors
    every = catalog.features.tokens_of(np.arange(len(vectors)))
    pictures = {
        name: torch.cat([head_of(modules).pictures(part) for part in every.split(256)])
        for name, modules in contestants.items()
        if name in CONTROLS
    }
    shipped = _Stages(start.model.composer, start.model.reranker, start.model.sizes.similarity_weight)
    both = _stages_of(contestants[BOTH_STAGES]) if BOTH_STAGES in contestants else None
    values: dict[str, list[bool]] = {}
    within: dict[str, list[bool]] = {}
    for family, query in asked:
        ids, mask = encode_texts(start.tokenizer, [query.text], device=torch.device("cpu"))
        rows = torch.arange(family * _COUNT, (family + 1) * _COUNT)
        tokens = catalog.reference_tokens(task, [(family, query)])
        one = _Asked(ids, mask, tokens, rows)
        reference = functional.normalize(start.model.image_encoder.vision_proj(tokens[:, 0]), dim=-1)[0]
        alone = vectors @ reference
        if task == "named":
            alone[rows[query.reference]] = -torch.inf
        whole = {"image only": alone}
        ranked = _ranked_by_stages("`drawn` as it is, ", shipped, one, every, vectors)
        if both is not None:
            whole["text only"] = vectors @ both.composer(ids, mask, catalog.features.blank[None]).query_vectors[0]
            ranked |= _ranked_by_stages("", both, one, every, vectors)
            cosines = both.weight * (vectors @ both.composer(ids, mask, tokens).query_vectors[0])
        for name, of_pictures in pictures.items():
            head, states = head_of(contestants[name]), contestants[name]["text_encoder"](ids, mask, tokens)
            asked_for = head.queries(states, mask)
            parts = [head.scores(asked_for, part)[0] for part in of_pictures.split(256)]
            whole[_TITLES[name]] = _scale_of(contestants[name]) * torch.cat(parts)
            if both is not None:
                whole[f"{_TITLES[name]}, and stage one's cosine"] = whole[_TITLES[name]] + cosines
        ranked |= {title: _First(int(each.argmax()), int(rows[each[rows].argmax()])) for title, each in whole.items()}
        right = {family * _COUNT + target for target in query.targets}
        for title, first in ranked.items():
            values.setdefault(title, []).append(first.of_all in right)
            within.setdefault(title, []).append(first.of_family in right)
    families, kinds = np.array([family for family, _ in asked]), tuple(query.kind for _, query in asked)
    return {
        title: Hits(100.0 * np.array(values[title]), 100.0 * np.array(within[title]), families, kinds)
        for title in values
    }


_TITLES = {"single_vector": "one vector of 1,024", "late_interaction": "MaxSim over tokens"}


@dataclass(frozen=True, slots=True)
class _Stages:
    """Both stages, and the weight of stage one's cosine beside the re-ranker's own score."""

    composer: nn.Module
    reranker: nn.Module
    weight: float


def _scale_of(modules: nn.ModuleDict) -> float:
    """Return the learnt factor that makes a contestant's scores logits, so that two of them can be added."""
    (log_scale,) = modules["temperature"].parameters()
    return float(log_scale.exp().clamp(max=100))


def _stages_of(modules: nn.ModuleDict) -> _Stages:
    return _Stages(modules["composer"], modules["reranker"], _scale_of(modules))


def _ranked_by_stages(prefix: str, stages: _Stages, asked: _Asked, every: Tensor, vectors: Tensor) -> dict[str, _First]:
    """Rank by stage one, by the re-ranker's own score of stage one's first candidates, and by both added."""
    query, states = stages.composer(asked.ids, asked.mask, asked.reference)
    cosines, family = vectors @ query[0], asked.family
    rows = torch.cat((cosines.topk(DEPTH).indices, family))
    count = len(rows)
    texts = asked.ids.expand(count, -1), asked.mask.expand(count, -1), states.expand(count, -1, -1)
    own = stages.reranker(*texts, every[rows])
    added = own + stages.weight * cosines[rows]

    def first(scores: Tensor) -> _First:
        return _First(int(rows[scores[:DEPTH].argmax()]), int(family[scores[DEPTH:].argmax()]))

    return {
        f"{prefix}stage one": first(cosines[rows]),
        f"{prefix}the re-ranker alone": first(own),
        f"{prefix}{_BOTH}": first(added),
    }


def table(catalogs: Sequence[Mapping[str, Hits]]) -> str:
    """Return a table in Markdown: R@1 over all catalogues with its interval, of each, and what both stages gain."""
    titles = sorted(catalogs[0], key=lambda title: -float(np.mean([hits[title].values.mean() for hits in catalogs])))
    best = _BOTH if _BOTH in titles else titles[0]
    kinds = sorted({kind for hits in catalogs for kind in hits[best].kinds}, key=_KINDS.index)
    lines = [
        f"| ranked by | R@1 | by catalogue | {best} gain | of the family's 27 | {best} gain |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(_row(catalogs, title, best) for title in titles),
        "",
        f"| R@1, by kind of query | {' | '.join(kinds)} |",
        "| --- |" + " ---: |" * len(kinds),
        *(_kinds_row(catalogs, title, kinds) for title in titles),
    ]
    return "\n".join(lines)


_KINDS = tuple(kind for task in TASKS.values() for kind in task)


def _row(catalogs: Sequence[Mapping[str, Hits]], title: str, best: str) -> str:
    parts = [
        np.stack(
            [
                hits[title].values,
                hits[best].values - hits[title].values,
                hits[title].within,
                hits[best].within - hits[title].within,
            ],
            axis=1,
        )
        for hits in catalogs
    ]
    draws = bootstrap_means(parts, [hits[title].families for hits in catalogs], resamples=RESAMPLES, seed=0)
    means = np.mean([part.mean(axis=0) for part in parts], axis=0)
    value, gain, within, gained = (interval_of(float(mean), draws[:, column]) for column, mean in enumerate(means))
    each = ", ".join(f"{hits[title].values.mean():.1f}" for hits in catalogs)
    gains = ["" if title == best else gain_in_words(each) for each in (gain, gained)]
    return f"| {title} | {in_words(value)} | {each} | {gains[0]} | {in_words(within)} | {gains[1]} |"


def _kinds_row(catalogs: Sequence[Mapping[str, Hits]], title: str, kinds: Sequence[str]) -> str:
    cells = []
    for kind in kinds:
        values = [
            v for hits in catalogs for v, k in zip(hits[title].values, hits[title].kinds, strict=True) if k == kind
        ]
        cells.append(f"{np.mean(values):.1f}")
    return f"| {title} | {' | '.join(cells)} |"
