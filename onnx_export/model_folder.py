"""A torch model on disk, as conversion and training write it: weights, sizes, tokenizer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from onnx_export.errors import CheckpointError
from onnx_export.models import CirModel, ModelSizes
from onnx_export.models.vit import VisionTransformer
from qdrant_cir.types import JsonObject

WEIGHTS_FILE, SIZES_FILE, TOKENIZER_FILE = "model.safetensors", "sizes.json", "tokenizer.json"
CANDIDATE_ENCODER_FILE = "candidate_encoder.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model with what a bundle needs beside it.

    Attributes:
        model: in evaluation mode.
        tokenizer: of its texts.
        provenance: its origin, free JSON.
        candidate_encoder: stage two's image encoder, where it differs from the model's.
    """

    model: CirModel
    tokenizer: Tokenizer
    provenance: JsonObject
    candidate_encoder: VisionTransformer | None = None


def save_model_folder(folder: Path, content: ModelFolder) -> None:
    """Write a model folder, replacing files of the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(content.model, folder / WEIGHTS_FILE)
    (folder / CANDIDATE_ENCODER_FILE).unlink(missing_ok=True)
    if content.candidate_encoder is not None:
        _save_weights(content.candidate_encoder, folder / CANDIDATE_ENCODER_FILE)
    content.tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
    about = {"sizes": asdict(content.model.sizes), "provenance": content.provenance}
    (folder / SIZES_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def load_model_folder(folder: Path) -> ModelFolder:
    """Read a model folder.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights do not fit the sizes.
    """
    try:
        about = json.loads((folder / SIZES_FILE).read_text(encoding="utf-8"))
        model = CirModel(ModelSizes(**about["sizes"]))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        candidate_encoder = None
        if (folder / CANDIDATE_ENCODER_FILE).exists():
            candidate_encoder = VisionTransformer(model.sizes)
            candidate_encoder.load_state_dict(load_file(folder / CANDIDATE_ENCODER_FILE))
            candidate_encoder.eval()
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        provenance = dict(about["provenance"])
    except OSError as error:
        raise CheckpointError(f"{folder} is no model folder: {error}. `convert` and `train` write one.") from error
    except MemoryError:
        raise
    # sizes that do not fit together stop the model in many ways, and a tokenizer raises bare Exception
    except Exception as error:
        raise CheckpointError(
            f"{folder} is damaged or of another version ({type(error).__name__}: {str(error)[:200]}). Restore it, or "
            "write it again with `convert` or `train`."
        ) from error
    return ModelFolder(model.eval(), tokenizer, provenance, candidate_encoder)


def _save_weights(module: nn.Module, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
