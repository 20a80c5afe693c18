"""A torch model on disk, as conversion and training write it: weights, sizes, tokenizer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from onnx_export.errors import CheckpointError
from onnx_export.models import CirModel, ModelSizes
from qdrant_cir.types import JsonObject

WEIGHTS_FILE, SIZES_FILE, TOKENIZER_FILE = "model.safetensors", "sizes.json", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model in evaluation mode, its tokenizer, and where it comes from (free JSON)."""

    model: CirModel
    tokenizer: Tokenizer
    provenance: JsonObject


def save_model_folder(folder: Path, content: ModelFolder) -> None:
    """Write a model folder, replacing what stands there under the three names."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in content.model.state_dict().items()}, folder / WEIGHTS_FILE)
    content.tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
    about = {"sizes": asdict(content.model.sizes), "provenance": content.provenance}
    (folder / SIZES_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def load_model_folder(folder: Path) -> ModelFolder:
    """Read a model folder.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights do not have the sizes it says.
    """
    try:
        about = json.loads((folder / SIZES_FILE).read_text(encoding="utf-8"))
        model = CirModel(ModelSizes(**about["sizes"]))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except OSError as error:
        raise CheckpointError(f"{folder} is no model folder: {error}. `convert` and `train` write one.") from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged or of another version: {error}") from error
    return ModelFolder(model.eval(), tokenizer, about["provenance"])
