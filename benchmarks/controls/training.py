"""Training of the controls on what a round of families learnt from: softmax over whole families and other pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.controls.heads import VECTOR_SIZE, SingleVector, build_control, head_of
from onnx_export.bundle.weights import load_start
from onnx_export.errors import TrainingError
from onnx_export.models import CirModel
from onnx_export.training.drawn.families import KINDS, PARTS, Families
from onnx_export.training.drawn.family_batches import FamilyQueries, Gallery, family_rows, open_gallery
from onnx_export.training.drawn.family_round import FamilyRound, open_round_families
from onnx_export.training.drawn.part_reading import code_loss
from onnx_export.training.loop import train
from onnx_export.training.losses import positives_loss
from onnx_export.training.processes import processes
from onnx_export.training.updates import Schedule

PROBE = "features.npz"
"""Some pictures of the round with their vectors, by which a measurement knows the encoder again."""

OTHERS: Mapping[str, int] = {"single_vector": 2048, "late_interaction": 256}
"""Pictures of the whole set that a step ranks beside those of its families."""

_PROBED = 8


class ControlTraining:
    """The losses of one step of a control.

    As in the round itself, what a query gives must also tell the attributes of the target; so must the single vector of
    a picture tell its own, as the vectors of the model were taught.
    """

    def __init__(
        self,
        kind: str,
        model: CirModel,
        families: Families,
        tokenizer: Tokenizer,
        gallery: Gallery,
        round_: FamilyRound,
    ) -> None:
        self.gallery, self.round_, self.device, self.others = gallery, round_, model.device, OTHERS[kind]
        self.queries = FamilyQueries(families, tokenizer, self.device)
        self.codes, self.scenes = (torch.from_numpy(each).to(self.device) for each in (families.codes, families.scenes))
        self.modules = build_control(kind, model.sizes, seed=round_.seed)
        self.modules["text_encoder"].load_state_dict(model.composer.text_encoder.state_dict())
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07) if kind == "single_vector" else math.log(5)))
        self.modules["temperature"] = nn.ParameterList([self.log_scale])
        values = len(PARTS) * sum(map(len, KINDS.values()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(round_.seed)
            self.modules["query_attributes"] = nn.Linear(model.sizes.text_width, values)
            if kind == "single_vector":
                self.modules["picture_attributes"] = nn.Linear(VECTOR_SIZE, values)
        self.modules.to(self.device)

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from (seed, its number) and give its losses."""
        rng, head = np.random.default_rng((self.round_.seed, 4, batch)), head_of(self.modules)
        asked = self.queries.draw(rng, families=self.round_.batch, each=self.round_.composed)
        ids, mask, targets = asked.ids.flatten(0, 1), asked.mask.flatten(0, 1), asked.targets.flatten()
        states = self.modules["text_encoder"](ids, mask, self.gallery.of(asked.references.flatten()))
        own = family_rows(asked.families).flatten()
        others = torch.from_numpy(rng.integers(len(self.scenes), size=self.others)).to(self.device)
        rows = torch.cat((own, others))
        pictures, queries = head.pictures(self.gallery.of(rows)), head.queries(states, mask)
        with torch.autocast(self.device.type, enabled=False):
            scores = self.log_scale.exp().clamp(max=100) * head.scores(queries, pictures)
        right = self.scenes[rows] == self.scenes[targets][:, None]
        losses = {
            "loss": positives_loss(scores, right),
            "_accuracy": right.gather(1, scores.argmax(1, keepdim=True)).float().mean(),
            "attributes": self._read("query_attributes", states[:, 0], targets),
        }
        if isinstance(head, SingleVector):
            scaled = math.sqrt(VECTOR_SIZE) * pictures[: len(own)]
            losses["picture_attributes"] = self._read("picture_attributes", scaled, own)
        return losses

    def _read(self, name: str, embedding: Tensor, rows: Tensor) -> Tensor:
        return code_loss(self.modules[name](embedding).unflatten(-1, (len(PARTS), -1)), self.codes[rows])


def train_controls(round_folder: Path, out: Path, *, start: Path | None, steps: int, kinds: Sequence[str]) -> None:
    """Train controls on what a round of families learnt from (``python -m onnx_export train round``).

    They start from the text encoder of the composer that the round started from, which has all of stage one behind it,
    and read the tokens of the image encoder as the round left it.

    Args:
        round_folder: of the round, done; it is only read.
        out: made when missing.
        start: the model that the round started from; None for the bundle `drawn`.
        steps: of each control.
        kinds: which controls.

    Raises:
        TrainingError: the round has not encoded its pictures yet.
    """
    round_ = FamilyRound(**json.loads((round_folder / "round.json").read_text(encoding="utf-8"))["round"])
    if not (round_folder / "after" / "vectors.npy").exists():
        raise TrainingError(f"{round_folder} has no features yet; train the round to its end first.")
    begun = load_start(start or Path("drawn"))
    model = begun.model.to(processes().device)
    families = open_round_families(round_folder, round_, model.sizes, begun.tokenizer)
    gallery = open_gallery(round_folder / "after", model, families)
    _describe(out, families, gallery, ["--start", "BUNDLE"] if start else [], steps, kinds)
    for kind in kinds:
        control = ControlTraining(kind, model, families, begun.tokenizer, gallery, round_)
        control.modules.train()
        schedule = Schedule(steps, round_.rate)
        train(kind, run_folder=out, modules=control.modules, schedule=schedule, batch_losses=control.step)


def _describe(
    out: Path, families: Families, gallery: Gallery, source: Sequence[str], steps: int, kinds: Sequence[str]
) -> None:
    """Keep what a measurement needs to know: the encoder's vectors of some pictures, and the commands."""
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / PROBE, pictures=families.pictures[:_PROBED], vectors=gallery.vectors[:_PROBED].cpu().numpy())
    options = ["--steps", str(steps), "--kinds", *kinds]
    command = " ".join(["python -m benchmarks.controls --round ROUND", *source, "--out CONTROLS", *options])
    kept = out / "controls.json"
    earlier = json.loads(kept.read_text(encoding="utf-8"))["command"].splitlines() if kept.exists() else []
    commands = "\n".join(dict.fromkeys([*earlier, command]))
    kept.write_text(json.dumps({"command": commands}) + "\n", encoding="utf-8")
