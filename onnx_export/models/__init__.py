"""The model of Liu et al. (TMLR 2024, arXiv 2305.16304) in torch; module names follow the released checkpoints."""

from onnx_export.models.build import CirModel, build_model
from onnx_export.models.sizes import BLIP_BASE, DRAWN_SMALL, PHOTO_SMALL, ModelSizes

__all__ = ["BLIP_BASE", "DRAWN_SMALL", "PHOTO_SMALL", "CirModel", "ModelSizes", "build_model"]
