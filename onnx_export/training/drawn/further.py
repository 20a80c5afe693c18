"""One round alone, from a finished model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.training.drawn.family_round import FamilyRound, train_family_round
from onnx_export.training.drawn.ordinary_round import OrdinaryRound, train_ordinary_round
from onnx_export.training.kept import make_folder, weights_key
from onnx_export.training.processes import describe_machine, processes
from qdrant_cir.types import JsonObject, JsonValue


def train_round_from(folder: Path, start: ModelFolder, round_: FamilyRound | OrdinaryRound) -> Path:
    """Train one round alone, from a finished model, and return the new model folder.

    Raises:
        TrainingError: the folder holds another round, or the model has a second image encoder for candidates.
    """
    if start.candidate_encoder is not None:
        raise TrainingError("A round reads one image encoder's tokens; this model has a second one for candidates.")
    make_folder(folder)
    kept, begun = folder / "round.json", {"start": weights_key(start.model), "tokenizer": start.tokenizer.to_str()}
    record = json.dumps({"round": asdict(round_), **begun}, indent=2) + "\n"
    if kept.exists() and kept.read_bytes() != record.encode():
        raise TrainingError(
            f"{folder} holds a round with other settings or from another start ({kept}); choose another folder."
        )
    kept.write_text(record, encoding="utf-8")
    model = start.model.to(processes().device)
    if isinstance(round_, FamilyRound):
        seconds = train_family_round(folder, model, start.tokenizer, round_)
    else:
        seconds = train_ordinary_round(folder, model, start.tokenizer, round_)
    earlier = cast(list[JsonValue], start.provenance.get("further_rounds", []))
    rounds: list[JsonValue] = [*earlier, {**asdict(round_), "wall_seconds": seconds, "machine": describe_machine()}]
    measured = {"quality", "effort"}
    provenance: JsonObject = {name: value for name, value in start.provenance.items() if name not in measured}
    provenance["further_rounds"] = rounds
    out = folder / "model"
    with processes().main_process_first(), torch.no_grad():
        if processes().is_main_process:
            save_model_folder(out, ModelFolder(model.eval(), start.tokenizer, provenance))
    return out
