"""Other projects' weights into :class:`~onnx_export.models.CirModel`. Every key is accounted for.

Two sources: the paper's released checkpoint pair (``BLIP_Retrieval`` and ``BLIP_NLVR`` state dictionaries written by
``torch.save``), whose names our modules keep; and a BLIP image-text-retrieval folder of transformers, from which both
stages start. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn

from onnx_export.checkpoints.files import CheckpointFile, StateDict, read_checkpoint
from onnx_export.checkpoints.report import ConversionReport, EncoderComparison, SourceReport
from onnx_export.errors import CheckpointError
from onnx_export.models import BLIP_BASE, CirModel, ModelSizes, build_model
from onnx_export.models.vit import VisionTransformer

logger = logging.getLogger(__name__)

_ENCODER = "visual_encoder."

_IGNORED = (
    (r"temp", "the learnt temperature of stage one's loss"),
    (r"text_encoder\.embeddings\.position_ids", "BERT's position counter"),
    (r"itm_head\..*", "BLIP's image-text-matching head"),
    (r".*_m\..*", "BLIP's momentum copy"),
    (r"(image|text|idx)_queue|(ptr_)?queue(_ptr)?", "BLIP's queue of negatives"),
)
"""Keys of released files that the model does not need, and why."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted model.

    Attributes:
        model: in evaluation mode.
        candidate_encoder: stage two's image encoder where it differs from stage one's, which is the model's.
        report: what became of every key.
    """

    model: CirModel
    candidate_encoder: VisionTransformer | None
    report: ConversionReport


def load_released(stage_one: Path, stage_two: Path, sizes: ModelSizes) -> Conversion:
    """Read the paper's checkpoint pair.

    The weights are memory-mapped from the files, so that a pair of several gigabytes needs little memory. The files
    must stay in place while the model is in use.

    Args:
        stage_one: file with ``BLIP_Retrieval``.
        stage_two: file with ``BLIP_NLVR``.
        sizes: of the files; :func:`read_sizes` reads them from a configuration.

    Raises:
        CheckpointError: a file is damaged or holds code, a key is missing or unexpected, a shape is wrong, or a number
            is not finite.
    """
    one, two = read_checkpoint(stage_one, "BLIP_Retrieval"), read_checkpoint(stage_two, "BLIP_NLVR")
    with torch.device("meta"):
        model = CirModel(sizes)
    encoder = {k: v for k, v in one.state.items() if k.startswith((_ENCODER, "vision_proj."))}
    composer = {k: v for k, v in one.state.items() if k not in encoder}
    reranker = {k: v for k, v in two.state.items() if not k.startswith(_ENCODER)}
    _fill(model.image_encoder, encoder, stage_one)
    _fill(model.composer, composer, stage_one)
    _fill(model.reranker, reranker, stage_two)
    comparison = compare_encoders(one.state, two.state)
    second = None if comparison.equal else _encoder_of(two, sizes)
    reports = (_report(one, {}), _report(two, {} if second else dict.fromkeys(_encoder_keys(two.state), _SHARED)))
    return Conversion(model.eval(), second, ConversionReport(reports, (), comparison))


_SHARED = "equal to stage one's image encoder, which serves both"


def compare_encoders(one: StateDict, two: StateDict) -> EncoderComparison:
    """Compare the image encoders of two checkpoints, tensor by tensor."""
    differing: list[str] = []
    largest = 0.0
    for key in sorted({*_encoder_keys(one), *_encoder_keys(two)}):
        if key not in one or key not in two or one[key].shape != two[key].shape:
            differing.append(key)
        elif not torch.equal(one[key], two[key]):
            differing.append(key)
            largest = max(largest, float((one[key].double() - two[key].double()).abs().max()))
    return EncoderComparison(tuple(differing), largest)


def _encoder_keys(state: StateDict) -> list[str]:
    return [key for key in state if key.startswith(_ENCODER)]


def _encoder_of(checkpoint: CheckpointFile, sizes: ModelSizes) -> VisionTransformer:
    with torch.device("meta"):
        encoder = VisionTransformer(sizes)
    _fill(encoder, {key: checkpoint.state[key] for key in _encoder_keys(checkpoint.state)}, checkpoint.path, _ENCODER)
    return encoder.eval()


def _report(checkpoint: CheckpointFile, shared: Mapping[str, str]) -> SourceReport:
    reasons = {key: reason for key in checkpoint.state if (reason := _why_ignored(key) or shared.get(key))}
    training = dict.fromkeys(checkpoint.others, "state of the training, not of the model")
    used = tuple(key for key in checkpoint.state if key not in reasons)
    return SourceReport(str(checkpoint.path), used, {**training, **reasons})


def read_blip_sizes(folder: str | Path) -> ModelSizes:
    """Read model sizes from the ``config.json`` of a BLIP folder (or hub name) of transformers.

    The re-ranker, which BLIP lacks, merges its streams by a learnt projection in the second half of its layers, as in
    the paper.

    Raises:
        CheckpointError: the configuration cannot be read, is no BLIP's, or of a model that this project's cannot be.
    """
    from transformers import AutoConfig, BlipConfig

    with _reading(folder):
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, BlipConfig):
            raise CheckpointError(f"{folder} holds a model of type {config.model_type!r}; expected 'blip'.")
    text, vision = config.text_config, config.vision_config
    for what, act in (("text_config", text.hidden_act), ("vision_config", vision.hidden_act)):
        if act != "gelu":
            raise CheckpointError(
                f"{folder}: hidden_act of {what} is {act!r}; this project's models have 'gelu' alone."
            )
    if vision.intermediate_size != 4 * vision.hidden_size:
        raise CheckpointError(
            f"{folder}: intermediate_size of vision_config is {vision.intermediate_size}; this project's models have "
            f"four times hidden_size, {4 * vision.hidden_size}."
        )
    sizes = ModelSizes(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        stem="patch",
        image_width=vision.hidden_size,
        image_depth=vision.num_hidden_layers,
        image_heads=vision.num_attention_heads,
        text_width=text.hidden_size,
        text_depth=text.num_hidden_layers,
        text_heads=text.num_attention_heads,
        feed_forward=text.intermediate_size,
        vocabulary=text.vocab_size,
        max_positions=text.max_position_embeddings,
        vector_size=config.image_text_hidden_size,
        merge_layers_from=text.num_hidden_layers // 2,
        image_norm_eps=vision.layer_norm_eps,
        text_norm_eps=text.layer_norm_eps,
    )
    _check_sizes(sizes, f"{folder}: config.json")
    return sizes


def load_blip(folder: str | Path, sizes: ModelSizes | None = None) -> Conversion:
    """Start both stages from a ``BlipForImageTextRetrieval`` folder (or hub name) of transformers.

    Every attention weight of the text encoder goes into the composer and into both streams of the re-ranker;
    ``merge_layer`` and ``cls_head`` start fresh (paper, section 4.1).

    Args:
        folder: what to read.
        sizes: for what the folder's configuration does not hold: ``merge_layers_from`` and ``similarity_weight``. The
            others must be the configuration's. By default those of :func:`read_blip_sizes`.

    Raises:
        CheckpointError: the folder cannot be read, lacks weights, or its configuration says other sizes.
    """
    own = read_blip_sizes(folder)
    sizes = own if sizes is None else _agreed(own, sizes, folder)
    source, unread = _read_blip(folder)
    where = Path(folder)
    model = build_model(sizes)
    vision = {_vision_name(k): v for k, v in source.items() if k.startswith(("vision_model.", "vision_proj."))}
    text = {k: v for k, v in source.items() if k.startswith(("text_encoder.", "text_proj.", "itm_head."))}
    _fill(model.image_encoder, vision, where)
    _fill(model.composer, text, where)
    streams = {name: v.clone() for k, v in text.items() if k.startswith("text_encoder.") for name in stream_names(k)}
    fresh = [name for name in model.reranker.state_dict() if name.startswith("cls_head.") or ".merge_layer." in name]
    streams |= {name: model.reranker.state_dict()[name] for name in fresh}
    _fill(model.reranker, streams, where)
    ignored = {key: reason for key in source if (reason := _why_ignored(key))}
    ignored |= {key: _why_ignored(key) or "no weight of BlipForImageTextRetrieval" for key in unread}
    report = SourceReport(str(folder), tuple(k for k in source if k not in ignored), ignored)
    return Conversion(model.eval(), None, ConversionReport((report,), tuple(fresh), None))


def _read_blip(folder: str | Path) -> tuple[StateDict, list[str]]:
    """Read the weights, and the names of those that transformers does not read.

    None may be missing: transformers would fill it with random numbers.
    """
    from transformers import BlipForImageTextRetrieval

    with _reading(folder):
        # shapes that differ would end it without their names
        blip, info = BlipForImageTextRetrieval.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True
        )
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(key[0]) for key in info["mismatched_keys"])
    failed = [str(message) for message in info["error_msgs"]]
    if missing or wrong or failed:
        raise CheckpointError(
            f"{folder} does not hold a whole BlipForImageTextRetrieval: missing {_some(missing)}; of another shape "
            f"{_some(wrong + failed)}. Give a model for image-text retrieval, such as Salesforce/blip-itm-base-coco."
        )
    return dict(blip.state_dict()), sorted(info["unexpected_keys"])


@contextmanager
def _reading(folder: str | Path) -> Iterator[None]:
    """Turn what transformers raises for a folder into CheckpointError; its errors share no class below Exception."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be read as a BLIP image-text-retrieval model: {error}") from error


_FREE = ("merge_layers_from", "similarity_weight", "image_norm_eps", "text_norm_eps")
"""Sizes that a BLIP folder does not hold, and those that it alone tells."""


def _agreed(own: ModelSizes, wanted: ModelSizes, folder: str | Path) -> ModelSizes:
    """Return the wanted sizes with the folder's, where both say the same."""
    differing = [
        f"{field.name} is {getattr(own, field.name)} there and {getattr(wanted, field.name)} in the sizes given"
        for field in fields(ModelSizes)
        if field.name not in _FREE and getattr(own, field.name) != getattr(wanted, field.name)
    ]
    if differing:
        raise CheckpointError(
            f"{folder} says other sizes in its config.json: {_some(differing)}. Leave --sizes out, or name only what "
            "the folder does not: merge_layers_from."
        )
    agreed = replace(wanted, image_norm_eps=own.image_norm_eps, text_norm_eps=own.text_norm_eps)
    _check_sizes(agreed, str(folder))
    return agreed


_SIZE_FIELDS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "encoder_width": "image_width",
    "vision_depth": "image_depth",
    "vision_heads": "image_heads",
    "hidden_size": "text_width",
    "num_hidden_layers": "text_depth",
    "num_attention_heads": "text_heads",
    "intermediate_size": "feed_forward",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "max_positions",
    "embed_dim": "vector_size",
    "merge_layers_from": "merge_layers_from",
}
"""Names of our sizes in BERT's configuration, and in its vision fields."""


def read_sizes(config: Path, base: ModelSizes = BLIP_BASE) -> ModelSizes:
    """Read model sizes from a BERT-style configuration.

    Args:
        config: the file.
        base: for fields that it lacks; by default the paper's.

    Raises:
        CheckpointError: the file cannot be read, holds no size, or sizes that do not fit together.
    """
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config} cannot be read as a model configuration: {error}") from error
    given = values if isinstance(values, dict) else {}
    found = {ours: given[field] for field, ours in _SIZE_FIELDS.items() if field in given}
    if not found:
        raise CheckpointError(f"{config} names no size of a model; expected some of {', '.join(_SIZE_FIELDS)}.")
    for field, ours in _SIZE_FIELDS.items():
        value = found.get(ours, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < (ours != "merge_layers_from"):
            raise CheckpointError(f"{config}: {field} is {value!r}; expected a whole number above 0.")
    sizes = replace(base, **found)
    _check_sizes(sizes, str(config))
    return sizes


def _check_sizes(sizes: ModelSizes, source: str) -> None:
    """Refuse sizes that make no model."""
    for name in _SIZE_FIELDS.values():
        value = getattr(sizes, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < (name != "merge_layers_from"):
            raise CheckpointError(f"{source}: {name} is {value!r}; expected a whole number above 0.")
    for name in ("image_norm_eps", "text_norm_eps"):
        value = getattr(sizes, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise CheckpointError(f"{source}: {name} is {value!r}; expected a number between 0 and 1.")
    for what, whole, part in (
        ("vision_heads do not divide encoder_width", sizes.image_width, sizes.image_heads),
        ("num_attention_heads do not divide hidden_size", sizes.text_width, sizes.text_heads),
        ("patch_size does not divide image_size", sizes.image_size, sizes.patch_size),
    ):
        if whole % part:
            raise CheckpointError(f"{source}: {what} ({whole} / {part}); fields that are not given are the paper's.")


def _why_ignored(key: str) -> str | None:
    return next((reason for pattern, reason in _IGNORED if re.fullmatch(pattern, key)), None)


def _fill(module: nn.Module, tensors: StateDict, source: Path, prefix: str = "") -> None:
    """Load tensors into a module, all of them and no others; their names have a prefix."""
    expected = {prefix + name: value for name, value in module.state_dict().items()}
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(key for key in tensors.keys() - expected.keys() if not _why_ignored(key))
    for what, keys in (("missing", missing), ("unexpected", unexpected)):
        for key in keys:
            logger.info("%s: %s %s", source, what, key)
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: missing {_some(missing)}; unexpected {_some(unexpected)}. "
            "Check that it is the stage it is given as, and the sizes (--sizes)."
        )
    wrong = [
        f"{key} is {list(tensors[key].shape)}, expected {list(value.shape)}"
        for key, value in expected.items()
        if tensors[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source} has other sizes than the configuration says: {_some(wrong)}. Give the right ones (--sizes)."
        )
    broken = [key for key in expected if not tensors[key].isfinite().all()]
    if broken:
        raise CheckpointError(f"{source} holds numbers that are not finite, in {_some(broken)}: it is damaged.")
    module.load_state_dict({key.removeprefix(prefix): tensors[key].float() for key in expected}, assign=True)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


_VISION_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.post_layernorm\.", "visual_encoder.norm."),
    (r"^vision_model\.encoder\.layers\.", "visual_encoder.blocks."),
    (r"\.self_attn\.projection\.", ".attn.proj."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
    (r"\.layer_norm([12])\.", r".norm\1."),
)


def _vision_name(key: str) -> str:
    for pattern, replacement in _VISION_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def stream_names(key: str) -> tuple[str, ...]:
    """Return the one or two names that a text-encoder weight has in the re-ranker."""
    if ".attention." not in key and ".crossattention." not in key:
        return () if _why_ignored(key) else (key,)
    for name, streams in ((".self.", (".self0.", ".self1.")), (".dense.", (".dense0.", ".dense1."))):
        if name in key:
            return tuple(key.replace(name, stream) for stream in streams)
    return tuple(key.replace(".LayerNorm.", stream) for stream in (".LayerNormA.", ".LayerNormB."))
