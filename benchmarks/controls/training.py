"""Training of the controls, as stage one is trained: softmax over pictures of the batch and others of the pool."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.controls.heads import VECTOR_SIZE, SingleVector, build_control, head_of
from onnx_export.bundle_weights import load_start
from onnx_export.errors import TrainingError
from onnx_export.models import CATALOG_SMALL
from onnx_export.training.attributes import AttributeVocabulary, head_name, read_attributes
from onnx_export.training.families import FamilyQueries
from onnx_export.training.loop import train
from onnx_export.training.pretrain import encode_texts, positives_loss
from onnx_export.training.recipe import Run, read_recipe
from onnx_export.training.rounds import Round, round_triplets
from onnx_export.training.stages import draw_triplets
from onnx_export.training.tokenizer import build_tokenizer
from onnx_export.training.triplets import Triplet, TripletSet, join_triplets
from onnx_export.training.updates import Schedule

PROBE = "features.npz"
"""Some pictures of the run with their vectors, by which a measurement knows the encoder again."""

ROUNDS = "-rounds"
"""Ends the name of what a control learnt last, from the groups of the run's rounds."""

_PROBED = 8

NEAR_OF_A_FAMILY = 8
"""Near-duplicates that a step draws for each query where a family has many."""


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Queries of a step, and pictures of the whole pool that are ranked beside the batch's own."""

    queries: int
    others: int


BATCHES = {"single_vector": BatchSize(64, 1024), "late_interaction": BatchSize(32, 512)}
ROUND_BATCHES = {"single_vector": BatchSize(32, 512), "late_interaction": BatchSize(16, 256)}
"""Of families, where every query brings near-duplicates of its own."""


class ControlTraining:
    """The losses of one step of a control.

    As in the run's own stages, a query's first state must also tell the attributes of the target; so must the single
    vector of a picture tell its own, as the vectors of the run were taught.
    """

    def __init__(self, kind: str, data: TripletSet, tokenizer: Tokenizer, *, seed: int, batch: BatchSize) -> None:
        self.data, self.tokenizer, self.seed, self.device = data, tokenizer, seed, data.features.vectors.device
        self.queries, self.others = min(batch.queries, len(data.triplets)), batch.others
        self.modules = build_control(kind, seed=seed)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07) if kind == "single_vector" else math.log(5)))
        self.modules["temperature"] = nn.ParameterList([self.log_scale])
        self.vocabulary = AttributeVocabulary(data.attributes or ())
        widths = {"query_attributes": CATALOG_SMALL.text_width}
        if kind == "single_vector":
            widths["picture_attributes"] = VECTOR_SIZE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name, width in widths.items():
                self.modules[name] = nn.ModuleDict(
                    {head_name(key): nn.Linear(width, len(values)) for key, values in self.vocabulary.values.items()}
                )
        self.modules.to(self.device)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Load the text encoder of a model's composer."""
        prefix = "composer.text_encoder."
        started = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        self.modules["text_encoder"].load_state_dict(started)

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, its number) and give its losses."""
        rng, features, head = np.random.default_rng((self.seed, 4, batch)), self.data.features, head_of(self.modules)
        triplets, texts = draw_triplets(self.data.triplets, self.queries, rng)
        ids, mask = encode_texts(self.tokenizer, texts, device=self.device)
        references = features.tokens_of(np.array([triplet.reference for triplet in triplets]))
        states = self.modules["text_encoder"](ids, mask, references)
        own = np.unique([row for triplet in triplets for row in (*triplet.targets, *self._near(triplet, rng))])
        others = rng.integers(len(self.data.scenes), size=min(self.others, len(self.data.scenes)))
        rows = np.concatenate((own, np.setdiff1d(others, own)))
        pictures, queries = head.pictures(features.tokens_of(rows)), head.queries(states, mask)
        with torch.autocast(self.device.type, enabled=False):
            scores = self.log_scale.exp().clamp(max=100) * head.scores(queries, pictures)
        positives = torch.from_numpy(np.stack([self.data.are_right(triplet, rows) for triplet in triplets])).to(
            self.device
        )
        best = scores.argmax(1)
        losses = {
            "loss": positives_loss(scores, positives),
            "_accuracy": positives.gather(1, best[:, None]).float().mean(),
        }
        if self.data.attributes is not None:
            wanted = [self.data.attributes[triplet.targets[0]] for triplet in triplets]
            losses["attributes"] = self._read("query_attributes", states[:, 0], wanted)
            if isinstance(head, SingleVector):
                shown = [self.data.attributes[row] for row in own.tolist()]
                scaled = math.sqrt(VECTOR_SIZE) * pictures[: len(own)]
                losses["picture_attributes"] = self._read("picture_attributes", scaled, shown)
        return losses

    def _near(self, triplet: Triplet, rng: np.random.Generator) -> Sequence[int]:
        if not isinstance(self.data.triplets, FamilyQueries):
            return triplet.near
        others = self.data.triplets.family_of(triplet.reference)
        return [*triplet.near, *rng.choice(np.array(others), NEAR_OF_A_FAMILY, replace=False).tolist()]

    def _read(self, name: str, embedding: Tensor, wanted: Sequence[Mapping[str, str]]) -> Tensor:
        return read_attributes(cast(nn.ModuleDict, self.modules[name]), self.vocabulary, embedding, wanted)


def train_controls(run_folder: Path, out: Path, *, steps: int | None, round_steps: int | None) -> None:
    """Train what is not yet trained of both controls: ``<kind>.ckpt``, then ``<kind>-rounds.ckpt``.

    The second is for runs whose stages went on with further groups (``rounds``): a control that had only the run's
    first pictures would be compared with a re-ranker that had more data, not with one that reads better.

    Args:
        run_folder: of a training run that has finished grounding and encoded its rounds' groups; it is only read.
        out: made when missing.
        steps: of each control; as many as the run's stage one by default.
        round_steps: of each control on the groups of all rounds; as many as stage two's in all rounds by default.
    """
    run = Run(run_folder, read_recipe(run_folder / "recipe.json"))
    numbers = range(2, 2 + len(run.recipe.rounds))
    _check_encoded([run_folder, *(run_folder / f"round-{number}" for number in numbers)])
    model = run.fresh_model()  # encodes nothing, for all is there; no query of these goes without a reference
    data = run.triplets_before(2, model)
    later = join_triplets([run.round_triplets(number, model) for number in numbers]) if numbers else None
    recipe = run.recipe
    asked = {"--steps": steps, "--round-steps": round_steps}
    _describe(out, run.pool().pictures[:_PROBED], data, ["--run", "RUN"], asked)
    grounded = torch.load(run_folder / "grounding.ckpt", map_location="cpu", weights_only=True)["modules"]
    for kind, batch in BATCHES.items():
        control = ControlTraining(kind, data, build_tokenizer(), seed=recipe.seed, batch=batch)
        control.start_from(grounded)
        _train(kind, control, out, Schedule(steps or recipe.stage_one_steps, recipe.stage_one_rate))
        if later is not None:
            control.data = later
            count = round_steps or sum(each.stage_two_steps for each in recipe.rounds)
            _train(kind + ROUNDS, control, out, Schedule(count, recipe.stage_one_rate))


def train_on_round(round_folder: Path, out: Path, *, start: Path | None, steps: int, kinds: Sequence[str]) -> None:
    """Train controls on what a further round of stage two learnt from (``python -m onnx_export train round``).

    They start from the text encoder of the composer that the round started from, which has all of stage one behind it.

    Args:
        round_folder: of the round, its pictures encoded; it is only read.
        out: made when missing.
        start: the model that the round started from; None for the bundled model.
        steps: of each control.
        kinds: which controls.
    """
    settings = json.loads((round_folder / "round.json").read_text(encoding="utf-8"))
    folder, round_ = round_folder / "round", Round(**settings["round_"])
    _check_encoded([folder])
    model = load_start(start).model
    data = round_triplets(model, folder, round_, seed=settings["seed"])
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")[:_PROBED]
    source = ["--round", "ROUND", *(["--start", "BUNDLE"] if start else [])]
    _describe(out, pictures, data, source, {"--steps": steps, "--kinds": " ".join(kinds)})
    for kind in kinds:
        control = ControlTraining(kind, data, build_tokenizer(), seed=settings["seed"], batch=ROUND_BATCHES[kind])
        control.start_from(model.state_dict())
        _train(kind, control, out, Schedule(steps, settings["rate"]))


def _describe(
    out: Path,
    pictures: NDArray[np.uint8],
    data: TripletSet,
    source: Sequence[str],
    asked: Mapping[str, int | str | None],
) -> None:
    """Keep what a measurement needs to know: the encoder's vectors of some pictures, and the command."""
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / PROBE, pictures=pictures, vectors=data.features.vectors[: len(pictures)].cpu().numpy())
    options = [f"{name} {value}" for name, value in asked.items() if value is not None]
    command = " ".join(["python -m benchmarks.controls", *source, "--out CONTROLS", *options])
    (out / "controls.json").write_text(json.dumps({"command": command}) + "\n", encoding="utf-8")


def _train(name: str, control: ControlTraining, out: Path, schedule: Schedule) -> None:
    control.modules.train()
    train(name, run_folder=out, modules=control.modules, schedule=schedule, batch_losses=control.step)


def _check_encoded(folders: Sequence[Path]) -> None:
    missing = next((folder for folder in folders if not (folder / "vectors.npy").exists()), None)
    if missing is not None:
        raise TrainingError(f"{missing} has no features yet; train the run to its end first.")
