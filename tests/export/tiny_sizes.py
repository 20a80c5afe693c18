"""The sizes of a model that tests train and export in seconds."""

from onnx_export.models import ModelSizes

SIZES = ModelSizes(
    image_size=32,
    patch_size=16,
    stem="patch",
    image_width=16,
    image_depth=1,
    image_heads=2,
    text_width=16,
    text_depth=2,
    text_heads=2,
    feed_forward=32,
    vocabulary=512,
    max_positions=64,
    vector_size=8,
    merge_layers_from=1,
)
