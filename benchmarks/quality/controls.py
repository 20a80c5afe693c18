"""The re-ranker against one long vector and late interaction on the same frozen features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.figures import (
    R1,
    R10,
    compare,
    gain_in_words,
    in_words,
    interval_json,
    intervals,
)
from benchmarks.quality.sections import Section
from qdrant_cir.errors import InputError
from qdrant_cir.model.preprocess import preprocess
from qdrant_cir.types import Float32, JsonObject

_TITLES = {"single_vector": "one vector of 1,024", "late_interaction": "MaxSim over tokens"}
_LEAST_COSINE = 0.99
_SHARES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""How far stage one's cosine spreads over a query's candidates, for each unit that the control's score does."""


def control_sections(bench: Bench) -> list[Section]:
    """Rank with each control over the whole gallery, and within stage one's first candidates.

    Raises:
        InputError: no controls were given, or they were trained on features of another encoder.
    """
    folder = bench.settings.controls
    if folder is None:
        raise InputError("No controls were given. Give --controls FOLDER, as python -m benchmarks.controls made it.")
    _check_features(bench, folder)
    depth = min(RERANK_DEPTH, bench.order.shape[1])
    tables = {"stage one": bench.retrieved}
    for kind, title in _TITLES.items():
        if not (folder / f"{kind}.ckpt").exists():
            continue
        tables |= {f"{title}, {way}": table for way, table in _rankings(bench, folder, kind, depth).items()}
    rows = [_row(bench, title, table) for title, table in tables.items()]
    own = intervals(bench.reranked, bench.clusters)
    rows.append((f"the re-ranker, K = {RERANK_DEPTH}", in_words(own[R1]), "", "", in_words(own[R10]), ""))
    best = max(list(tables)[1:], key=lambda title: float(tables[title][:, R1].mean()))
    gain = compare(tables[best], bench.reranked, bench.clusters)
    return [
        Section(
            name="controls",
            title="The gain over the best control",
            command=f"{_command(folder)}\n{bench.settings.command_of('controls')} --controls CONTROLS",
            columns=("ranked by", "R@1", "over stage one", "re-ranker gains", "R@10", "re-ranker gains"),
            rows=tuple(rows),
            notes=(
                f"The best control is {best}; the re-ranker is {gain_in_words(gain[R1].gain)} points of R@1 and "
                f"{gain_in_words(gain[R10].gain)} of R@10 above it, paired. Controls see the frozen tokens that both "
                "stages see, start from a text encoder that both stages went through, and are trained with the batch's "
                "near-duplicates and random pictures as negatives. The weight of stage one's cosine beside a control's "
                "score is the best of six for these queries.",
            ),
            data={title: _data(bench, table) for title, table in tables.items()},
        )
    ]


def _row(bench: Bench, title: str, table: NDArray[np.float64]) -> tuple[str, ...]:
    over_stage_one = compare(bench.retrieved, table, bench.clusters)
    behind = compare(table, bench.reranked, bench.clusters)
    return (
        title,
        in_words(behind[R1].before),
        gain_in_words(over_stage_one[R1].gain) if table is not bench.retrieved else "",
        gain_in_words(behind[R1].gain),
        in_words(behind[R10].before),
        gain_in_words(behind[R10].gain),
    )


def _data(bench: Bench, table: NDArray[np.float64]) -> JsonObject:
    over_stage_one = compare(bench.retrieved, table, bench.clusters)
    behind = compare(table, bench.reranked, bench.clusters)
    return {
        behind[column].name: {
            "value": interval_json(behind[column].before),
            "over_stage_one": interval_json(over_stage_one[column].gain),
            "reranker_gains": interval_json(behind[column].gain),
        }
        for column in (R1, R10)
    }


def _rankings(bench: Bench, folder: Path, kind: str, depth: int) -> dict[str, NDArray[np.float64]]:
    """Score a control over the whole gallery, and over stage one's candidates."""
    scores = _scores(bench, folder, kind)
    whole = np.argsort(-scores, axis=1, kind="stable")[:, : bench.order.shape[1]]
    within = np.take_along_axis(scores, bench.order[:, :depth], axis=1)
    return {
        "whole gallery": bench.score([[bench.image_ids[row] for row in rows] for rows in whole.tolist()]),
        f"re-ranks {depth}": bench.rescored(within),
        f"re-ranks {depth} with stage one's cosine": _summed(bench, within),
    }


def _summed(bench: Bench, scores: Float32) -> NDArray[np.float64]:
    """Add to scores [Q, K] the share of stage one's cosine that serves these very queries best.

    The bundle's own score holds the cosine too, at a weight that was fitted on other data; this favours the control.
    """
    cosines = bench.cosines[:, : scores.shape[1]]
    spread = float(scores.std(axis=1).mean() / cosines.std(axis=1).mean())
    shares = (np.array(_SHARES) * spread).astype(np.float32)
    tables = [bench.rescored(scores + share * cosines) for share in shares]
    return max(tables, key=lambda table: float(table[:, R1].mean()))


def _scores(bench: Bench, folder: Path, kind: str) -> Float32:
    # imported here, for the rest of the benchmark needs no torch
    import torch

    from benchmarks.controls.ranking import load_control, score_gallery

    torch.set_num_threads(bench.settings.threads)
    gallery = bench.gallery
    return score_gallery(load_control(folder, kind), kind, gallery.tokens, gallery.reference_tokens, bench.texts)


def _check_features(bench: Bench, folder: Path) -> None:
    probe = np.load(folder / "features.npz")
    spec = bench.bundle.manifest.preprocessing
    ours = bench.encoder.encode(
        np.stack([preprocess(Image.fromarray(picture), spec) for picture in probe["pictures"]])
    ).vectors
    cosine = float((ours * probe["vectors"]).sum(axis=1).min())
    if cosine < _LEAST_COSINE:
        raise InputError(
            f"{folder} was trained on features of another image encoder than the bundle's: vectors of the same picture "
            f"have a cosine of {cosine:.3f}. Train controls on the run that the bundle was exported from."
        )


def _command(folder: Path) -> str:
    return str(json.loads((folder / "controls.json").read_text(encoding="utf-8"))["command"])
