"""The user's pictures: which can be read, and their frozen features, encoded once and kept in the run folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnx_export.export import preprocessing_of
from onnx_export.models import CirModel
from onnx_export.models.vit import VisionTransformer
from onnx_export.training.features import PictureFeatures, compute_features
from onnx_export.training.kept import read_kept, reading, weights_key
from qdrant_cir.errors import ImageError
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.preprocess import load_image, read_pixels

logger = logging.getLogger(__name__)

KEY_FILE = "key.txt"


def find_unreadable(pictures: Mapping[str, ImageRecord], run_folder: Path) -> dict[str, str]:
    """Return the pictures that cannot be read, with the reason; the result is kept in the run folder."""
    kept, key = run_folder / "unreadable.json", pictures_key(pictures)
    if kept.exists():
        advice = "Remove it: the pictures are looked at again."
        found = read_kept(kept, advice=advice)
        with reading(kept, advice=advice):
            if found["pictures"] == key:
                return {str(name): str(reason) for name, reason in found["unreadable"].items()}
    unreadable = {}
    for image_id, record in pictures.items():
        try:
            load_image(record.image)
        except ImageError as error:
            unreadable[image_id] = str(error)
    kept.write_text(json.dumps({"pictures": key, "unreadable": unreadable}, indent=2) + "\n", encoding="utf-8")
    return unreadable


def pictures_key(pictures: Mapping[str, ImageRecord]) -> str:
    """Return a hash of ids in order, and of the path, size and modification time of every file."""
    digest = hashlib.sha256()
    for image_id, record in pictures.items():
        digest.update(json.dumps([image_id, *_identity(record)]).encode())
    return digest.hexdigest()


def custom_features(model: CirModel, pictures: Mapping[str, ImageRecord], folder: Path) -> PictureFeatures:
    """Encode pictures in order, or open the features where the same ones were encoded before."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = preprocessing_of(model.sizes)
    key = f"{weights_key(model.image_encoder)} {pictures_key(pictures)} preprocessing {spec.version}"
    kept = folder / KEY_FILE
    if kept.exists() and kept.read_bytes() != key.encode():
        logger.info("the image encoder or the pictures changed: %d pictures are encoded again", len(pictures))
        (folder / "vectors.npy").unlink(missing_ok=True)
    kept.write_text(key, encoding="utf-8")
    records = list(pictures.values())

    def read(rows: slice) -> Tensor:
        return torch.from_numpy(np.stack([read_pixels(record.image, spec) for record in records[rows]]))

    return compute_features(model.eval(), read, len(records), folder)


def candidate_features(
    model: CirModel, encoder: VisionTransformer, pictures: Mapping[str, ImageRecord], folder: Path
) -> PictureFeatures:
    """Encode pictures with the second encoder, for stage two's candidates; the vectors have no meaning."""
    own_encoder = model.image_encoder.visual_encoder
    model.image_encoder.visual_encoder = encoder
    try:
        return custom_features(model, pictures, folder)
    finally:
        model.image_encoder.visual_encoder = own_encoder


def _identity(record: ImageRecord) -> list[str]:
    if isinstance(record.image, bytes):
        return [hashlib.sha256(record.image).hexdigest()]
    path = Path(str(record.image))
    if not path.is_file():
        return [str(path)]
    about = path.stat()
    return [str(path), str(about.st_size), str(about.st_mtime_ns)]
