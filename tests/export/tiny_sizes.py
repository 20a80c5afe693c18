"""The sizes of a model that tests train and export in seconds, and of a round."""

from onnx_export.models import ModelSizes
from onnx_export.training.drawn.family_round import FamilyRound
from onnx_export.training.drawn.ordinary_round import OrdinaryRound

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

TINY_ROUND = FamilyRound(
    seed=5,
    families=2,
    encoder_steps=1,
    encoder_batch=4,
    encoder_rate=1e-4,
    encoder_shift=2,
    steps=2,
    rate=1e-4,
    batch=2,
    composed=4,
    reranked=2,
    mined_depth=8,
    unseen_groups=12,
)

TINY_ORDINARY = OrdinaryRound(
    seed=5,
    families=4,
    edits=5,
    steps=2,
    rate=1e-3,
    batch=4,
    candidates=6,
    edit_batch=3,
    edit_near=3,
    edit_mined=2,
    share=0.5,
)
