"""Weights from elsewhere into :class:`~onnx_export.models.CirModel`: strict, and every key is accounted for.

Two sources: the paper's released checkpoint pair (``BLIP_Retrieval`` and ``BLIP_NLVR`` state dictionaries written by
``torch.save``), whose names our modules keep; and a BLIP image-text-retrieval folder of transformers, from which both
stages start fresh. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from onnx_export.errors import CheckpointError
from onnx_export.models import CirModel, ModelSizes, build_model

StateDict = dict[str, Tensor]

# Carried by released files and not part of the model: the learnt temperature of stage one's loss, BERT's position
# counter, and BLIP's image-text-matching head and momentum copies.
_UNUSED = re.compile(
    r"temp|text_encoder\.embeddings\.position_ids|itm_head\..*|.*_m\..*|(image|text|idx)_queue|(ptr_)?queue(_ptr)?"
)


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What became of every key.

    Attributes:
        used: keys whose tensors are in the model.
        unused: keys that the model has no place for, on purpose (see ``_UNUSED``).
        fresh: parameters of the model that no key filled and that start from random weights.
        image_encoders_equal: whether both stages carry the same image encoder; None where only one was given.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    fresh: tuple[str, ...]
    image_encoders_equal: bool | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """A model in evaluation mode, and the report of how it was filled."""

    model: CirModel
    report: ConversionReport


def load_released(stage_one: Path, stage_two: Path, sizes: ModelSizes) -> Conversion:
    """Read the paper's checkpoint pair.

    Args:
        stage_one: file with ``BLIP_Retrieval``.
        stage_two: file with ``BLIP_NLVR``.
        sizes: what the files hold; :func:`read_sizes` reads it from a configuration.

    Raises:
        CheckpointError: a file is damaged or holds code, a key is missing or unexpected, a shape is wrong, or the two
            image encoders differ.
    """
    one, two = _read_state(stage_one, "BLIP_Retrieval"), _read_state(stage_two, "BLIP_NLVR")
    differing = _differing_encoder_keys(one, two)
    if differing:
        raise CheckpointError(
            f"The two stages carry different image encoders ({len(differing)} tensors differ, first {differing[0]}). "
            "A bundle holds one encoder for both; train both stages over the same frozen encoder."
        )
    model = build_model(sizes)
    encoder = {k: v for k, v in one.items() if k.startswith(("visual_encoder.", "vision_proj."))}
    composer = {k: v for k, v in one.items() if k not in encoder}
    reranker = {k: v for k, v in two.items() if not k.startswith("visual_encoder.")}
    unused = [
        *_fill(model.image_encoder, encoder, stage_one),
        *_fill(model.composer, composer, stage_one),
        *_fill(model.reranker, reranker, stage_two),
    ]
    used = tuple(k for k in (*one, *two) if k not in set(unused))
    return Conversion(model, ConversionReport(used, tuple(unused), (), image_encoders_equal=True))


def load_blip(folder: str | Path, sizes: ModelSizes) -> Conversion:
    """Start both stages from a ``BlipForImageTextRetrieval`` folder (or hub name) of transformers.

    Every attention weight of the text encoder goes into the composer and into both streams of the re-ranker;
    ``merge_layer`` and ``cls_head`` start fresh (paper, section 4.1).

    Raises:
        CheckpointError: the folder cannot be read, or its shapes are not those of ``sizes``.
    """
    from transformers import BlipForImageTextRetrieval

    try:
        blip = BlipForImageTextRetrieval.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be read as a BLIP image-text-retrieval model: {error}") from error
    source: StateDict = dict(blip.state_dict())
    where = Path(folder)
    model = build_model(sizes)
    vision = {_vision_name(k): v for k, v in source.items() if k.startswith(("vision_model.", "vision_proj."))}
    text = {k: v for k, v in source.items() if k.startswith(("text_encoder.", "text_proj.", "itm_head."))}
    unused = _fill(model.image_encoder, vision, where)
    unused += _fill(model.composer, text, where)
    streams = {name: v for k, v in text.items() if k.startswith("text_encoder.") for name in stream_names(k)}
    fresh = [name for name in model.reranker.state_dict() if name.startswith("cls_head.") or ".merge_layer." in name]
    streams |= {name: model.reranker.state_dict()[name] for name in fresh}
    _fill(model.reranker, streams, where)
    used = tuple(k for k in source if k not in set(unused))
    return Conversion(model, ConversionReport(used, tuple(unused), tuple(fresh), image_encoders_equal=None))


def read_sizes(config: Path) -> ModelSizes:
    """Read model sizes from a BERT-style configuration with the vision fields beside it.

    Raises:
        CheckpointError: the file cannot be read or lacks a field.
    """
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        return ModelSizes(
            image_size=values["image_size"],
            patch_size=values["patch_size"],
            stem="patch",
            image_width=values["encoder_width"],
            image_depth=values["vision_depth"],
            image_heads=values["vision_heads"],
            text_width=values["hidden_size"],
            text_depth=values["num_hidden_layers"],
            text_heads=values["num_attention_heads"],
            feed_forward=values["intermediate_size"],
            vocabulary=values["vocab_size"],
            max_positions=values["max_position_embeddings"],
            vector_size=values["embed_dim"],
            merge_layers_from=values.get("merge_layers_from", 6),
        )
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{config} cannot be read as a model configuration: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{config} lacks the field {error}; see docs/export.md for all of them.") from error


def _read_state(path: Path, key: str) -> StateDict:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain containers, so reading it could run code: refused ({error})."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a torch checkpoint: {error}") from error
    if not isinstance(content, Mapping) or key not in content:
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} should hold {key!r}; it holds {found}. Are the two stages swapped?")
    return dict(content[key])


def _fill(module: nn.Module, tensors: StateDict, source: Path) -> list[str]:
    """Copy tensors into a module, strictly; gives the keys that are left out on purpose."""
    expected = module.state_dict()
    unused = [key for key in tensors if key not in expected and _UNUSED.fullmatch(key)]
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys() - set(unused))
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: missing {_some(missing)}; unexpected {_some(unexpected)}."
        )
    wrong = [
        f"{key} is {list(tensors[key].shape)}, expected {list(value.shape)}"
        for key, value in expected.items()
        if tensors[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(f"{source} has other sizes than the configuration says: {_some(wrong)}.")
    module.load_state_dict({key: tensors[key].float() for key in expected})
    return unused


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _differing_encoder_keys(one: StateDict, two: StateDict) -> list[str]:
    keys = sorted(k for k in {*one, *two} if k.startswith("visual_encoder."))
    return [k for k in keys if k not in one or k not in two or not torch.equal(one[k], two[k])]


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
    """Give the one or two names under which the re-ranker holds a text-encoder weight."""
    if ".attention." not in key and ".crossattention." not in key:
        return () if _UNUSED.fullmatch(key) else (key,)
    for name, streams in ((".self.", (".self0.", ".self1.")), (".dense.", (".dense0.", ".dense1."))):
        if name in key:
            return tuple(key.replace(name, stream) for stream in streams)
    return tuple(key.replace(".LayerNorm.", stream) for stream in (".LayerNormA.", ".LayerNormB."))
