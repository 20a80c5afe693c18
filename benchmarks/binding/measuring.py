"""R@1 of every contestant over catalogues of several seeds, with paired differences to both stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.binding.contestants import BOTH_STAGES, build_contestant
from benchmarks.binding.pictures import BoundPictures
from benchmarks.binding.scenes import ASSIGNMENTS, KINDS
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
    out: Path, start: ModelFolder, catalogs: Sequence[BoundPictures], *, queries: int
) -> list[Mapping[str, Hits]]:
    """Return which queries of each catalogue each contestant answers first, by its name in the table."""
    contestants = {name: _trained(out, name, start) for name in (BOTH_STAGES, *CONTROLS) if _kept(out, name).exists()}
    return [_measure(contestants, start, catalog, queries) for catalog in catalogs]


def _kept(out: Path, name: str) -> Path:
    return out / f"{name}.ckpt"


def _trained(out: Path, name: str, start: ModelFolder) -> nn.ModuleDict:
    modules = build_contestant(name, start)
    modules.load_state_dict(torch.load(_kept(out, name), map_location="cpu", weights_only=True)["modules"])
    return modules.eval()


class Hits:
    """Percent of queries whose first picture is right: one number a query, and what the queries are.

    Attributes:
        values: float64 [Q], 0 or 100.
        families: int64 [Q].
        kinds: of the queries.
    """

    def __init__(self, values: NDArray[np.float64], families: NDArray[np.int64], kinds: Sequence[str]) -> None:
        self.values, self.families, self.kinds = values, families, tuple(kinds)


def _measure(
    contestants: Mapping[str, nn.ModuleDict], start: ModelFolder, catalog: BoundPictures, queries: int
) -> Mapping[str, Hits]:
    asked, features = catalog.queries(queries), catalog.features
    references = np.array([family * _COUNT + query.reference for family, query in asked])
    firsts: dict[str, list[int]] = {}
    every = features.tokens_of(np.arange(len(catalog.families) * _COUNT))
    pictures = {
        name: torch.cat([head_of(modules).pictures(part) for part in every.split(256)])
        for name, modules in contestants.items()
        if name in CONTROLS
    }
    both = contestants.get(BOTH_STAGES)
    for place, (_, query) in enumerate(asked):
        ids, mask = encode_texts(start.tokenizer, [query.text], device=torch.device("cpu"))
        tokens = features.tokens_of(references[place : place + 1])
        alone = features.vectors @ features.vectors[references[place]]
        alone[references[place]] = -torch.inf
        found = {"image only": int(alone.argmax())}
        found |= _both_stages(
            "as shipped: ", start.model.composer, start.model.reranker, ids, mask, tokens, every, features.vectors
        )
        if both is not None:
            blank = both["composer"](ids, mask, features.blank[None]).query_vectors[0]
            found["text only"] = int((features.vectors @ blank).argmax())
            found |= _both_stages("", both["composer"], both["reranker"], ids, mask, tokens, every, features.vectors)
        for name, of_pictures in pictures.items():
            modules = contestants[name]
            head, states = head_of(modules), modules["text_encoder"](ids, mask, tokens)
            asked_for = head.queries(states, mask)
            scores = torch.cat([head.scores(asked_for, part) for part in of_pictures.split(256)], dim=1)
            found[_TITLES[name]] = int(scores.argmax())
        for title, row in found.items():
            firsts.setdefault(title, []).append(row)
    families = np.array([family for family, _ in asked])
    right = [{family * _COUNT + target for target in query.targets} for family, query in asked]
    kinds = [query.kind for _, query in asked]
    return {
        title: Hits(np.array([100.0 * (row in of) for row, of in zip(rows, right, strict=True)]), families, kinds)
        for title, rows in firsts.items()
    }


_TITLES = {"single_vector": "one vector of 1,024", "late_interaction": "MaxSim over tokens"}


def _both_stages(
    prefix: str,
    composer: nn.Module,
    reranker: nn.Module,
    ids: Tensor,
    mask: Tensor,
    reference: Tensor,
    every: Tensor,
    vectors: Tensor,
) -> dict[str, int]:
    """Return the first picture of stage one, and of both stages: the re-ranker's own score of the first candidates."""
    query, states = composer(ids, mask, reference)
    nearest = (vectors @ query[0]).topk(DEPTH).indices
    count = len(nearest)
    scores = reranker(ids.expand(count, -1), mask.expand(count, -1), states.expand(count, -1, -1), every[nearest])
    return {f"{prefix}stage one": int(nearest[0]), f"{prefix}{_BOTH}": int(nearest[scores.argmax()])}


def table(catalogs: Sequence[Mapping[str, Hits]]) -> str:
    """Return a table in Markdown: R@1 over all catalogues with its interval, of each, and what both stages gain."""
    titles = sorted(catalogs[0], key=lambda title: -float(np.mean([hits[title].values.mean() for hits in catalogs])))
    best = _BOTH if _BOTH in titles else titles[0]
    lines = [
        f"| ranked by | R@1 | by catalogue | {best} gain |",
        "| --- | ---: | ---: | ---: |",
        *(_row(catalogs, title, best) for title in titles),
        "",
        f"| R@1, by kind of query | {' | '.join(KINDS)} |",
        "| --- |" + " ---: |" * len(KINDS),
        *(_kinds_row(catalogs, title) for title in titles),
    ]
    return "\n".join(lines)


def _row(catalogs: Sequence[Mapping[str, Hits]], title: str, best: str) -> str:
    parts = [np.stack([hits[title].values, hits[best].values - hits[title].values], axis=1) for hits in catalogs]
    draws = bootstrap_means(parts, [hits[title].families for hits in catalogs], resamples=RESAMPLES, seed=0)
    means = np.mean([part.mean(axis=0) for part in parts], axis=0)
    value, gain = (interval_of(float(mean), draws[:, column]) for column, mean in enumerate(means))
    each = ", ".join(f"{hits[title].values.mean():.1f}" for hits in catalogs)
    return f"| {title} | {in_words(value)} | {each} | {'' if title == best else gain_in_words(gain)} |"


def _kinds_row(catalogs: Sequence[Mapping[str, Hits]], title: str) -> str:
    cells = []
    for kind in KINDS:
        values = [
            v for hits in catalogs for v, k in zip(hits[title].values, hits[title].kinds, strict=True) if k == kind
        ]
        cells.append(f"{np.mean(values):.1f}" if values else "")
    return f"| {title} | {' | '.join(cells)} |"
