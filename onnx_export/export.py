"""Export of a torch model to a bundle folder: three graphs, tokenizer, manifest."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from onnx_export.bundle.half_constants import halve_constants
from onnx_export.bundle.weighted import add_weighted
from onnx_export.errors import ExportError
from onnx_export.graphs import graph_modules
from onnx_export.models import CirModel
from onnx_export.models import ModelSizes as TorchSizes
from onnx_export.models.vit import VisionTransformer
from qdrant_cir.model.bundle import (
    ORIGINAL_PREPROCESSING,
    PREPROCESSING_VERSION,
    REQUIRED_GRAPHS,
    SIZES_KEY,
    Bundle,
    GraphEntry,
    GraphName,
    Manifest,
    ModelSizes,
    PreprocessingSpec,
    TokenCodec,
    TokenizerSpec,
    contract_tensors,
    graph_entry,
    load_bundle,
    sha256_of,
    write_manifest,
)
from qdrant_cir.types import JsonObject

logger = logging.getLogger(__name__)

OPSET = 20
BLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
BLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PAD_RATIO = 1.25
IMAGENET_MEAN = (127 / 255, 127 / 255, 127 / 255)
IMAGENET_STD = (128 / 255, 128 / 255, 128 / 255)
"""What the trunk of ``efficientnet-lite0`` was trained with."""

# Pairwise different and at least 2: an example of size 1 on a dynamic axis is silently frozen into the graph.
_EXAMPLE_AXES = {"batch": 3, "length": 7, "candidates": 5}


@dataclass(frozen=True, slots=True)
class BundleDescription:
    """Name, licence and origin of a bundle.

    Attributes:
        name: shown by ``qdrant-cir info``.
        licence: of the weights, as an SPDX expression where there is one.
        provenance: source checkpoint, training data, seeds, measured quality: free JSON.
    """

    name: str
    licence: str
    provenance: JsonObject


def export_bundle(
    model: CirModel,
    tokenizer: Tokenizer,
    out: Path,
    *,
    codec: TokenCodec,
    description: BundleDescription,
    candidate_encoder: VisionTransformer | None = None,
    original_preprocessing: bool = False,
    check: Callable[[Bundle], None] | None = None,
) -> Path:
    """Write a bundle folder. It appears complete or not at all.

    Args:
        model: in evaluation mode.
        tokenizer: with [CLS] ... [SEP] around a text, and an [ENC] token.
        out: the folder to write; an existing bundle there is replaced.
        codec: the form in which candidate tokens are stored and read by the re-ranker's graph.
        description: name, licence and origin for the manifest.
        candidate_encoder: stage two's image encoder, where it differs from the model's.
        original_preprocessing: pictures become pixels as in the research code, to evaluate released weights.
        check: called with the finished bundle before ``out`` is replaced; if it raises, ``out`` stays as it was.

    Raises:
        ExportError: the tokenizer lacks [ENC], or does not fit the word embedding, or ``out`` is no bundle folder.
    """
    first_token = _first_token_checked(model, tokenizer, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "bundle"
        (folder / "onnx").mkdir(parents=True)
        sizes = runtime_sizes(model, codec)
        graphs = graph_modules(model)
        modules: dict[GraphName, nn.Module] = {name: graphs[name] for name in REQUIRED_GRAPHS}
        if candidate_encoder is not None:
            modules["candidate_encoder"] = candidate_encoder
        halved = {"image_encoder"} if model.sizes.stem == "efficientnet-lite0" else set()
        entries = {
            name: graph_entry(
                folder, name, export_graph(name, module, folder, sizes, halves_constants=name in halved), sizes
            )
            for name, module in modules.items()
        }
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
        text = TokenizerSpec(
            "tokenizer.json", sha256_of(folder / "tokenizer.json"), model.sizes.max_positions, first_token
        )
        described = replace(description, provenance={**description.provenance, SIZES_KEY: asdict(model.sizes)})
        pixels = preprocessing_of(model.sizes)
        if original_preprocessing:
            pixels = replace(pixels, version=ORIGINAL_PREPROCESSING)
        write_manifest(folder, _manifest(sizes, pixels, entries, text, described))
        add_weighted(folder)
        if check is not None:
            check(load_bundle(folder))
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return out


def _first_token_checked(model: CirModel, tokenizer: Tokenizer, out: Path) -> int:
    """Check the arguments before the work begins, and return the id of [ENC]."""
    if out.exists() and not (out / "cir_config.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is no bundle folder; give a new folder.")
    first_token = tokenizer.token_to_id("[ENC]")
    if first_token is None or tokenizer.get_vocab_size() > model.sizes.vocabulary:
        raise ExportError(
            f"The tokenizer must hold [ENC] and at most {model.sizes.vocabulary} tokens (rows of the word embedding); "
            f"it holds {tokenizer.get_vocab_size()}{'' if first_token is not None else ', without [ENC]'}."
        )
    return int(first_token)


def _manifest(
    sizes: ModelSizes,
    preprocessing: PreprocessingSpec,
    graphs: Mapping[GraphName, GraphEntry],
    text: TokenizerSpec,
    description: BundleDescription,
) -> Manifest:
    return Manifest(
        name=description.name,
        licence=description.licence,
        graphs=graphs,
        preprocessing=preprocessing,
        tokenizer=text,
        vector_size=sizes.vector_size,
        token_rows=sizes.token_rows,
        token_dims=sizes.token_dims,
        fusion_dims=sizes.fusion_dims,
        token_codec=sizes.token_codec,
        provenance={**description.provenance, "tools": tool_versions()},
    )


def preprocessing_of(sizes: TorchSizes) -> PreprocessingSpec:
    """Return how a model of these sizes wants its pictures: as BLIP does, or as its trunk was trained."""
    if sizes.stem == "efficientnet-lite0":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    else:
        mean, std = BLIP_MEAN, BLIP_STD
    return PreprocessingSpec(sizes.image_size, PAD_RATIO, mean, std, version=PREPROCESSING_VERSION)


def runtime_sizes(model: CirModel, codec: TokenCodec) -> ModelSizes:
    """Return a model's sizes in the runtime's terms."""
    return ModelSizes(
        image_size=model.sizes.image_size,
        token_rows=model.sizes.token_rows,
        token_dims=model.sizes.image_width,
        vector_size=model.sizes.vector_size,
        fusion_dims=model.sizes.text_width,
        token_codec=codec,
    )


def export_graph(
    name: GraphName, module: nn.Module, folder: Path, sizes: ModelSizes, *, halves_constants: bool = False
) -> list[str]:
    """Trace one graph into ``folder/onnx`` and return the files written, the ONNX file first.

    With ``halves_constants`` weights that are float16 values are stored as such.
    """
    contract = contract_tensors(name, sizes)
    example = {
        spec.name: _example(spec.dtype, [a if isinstance(a, int) else _EXAMPLE_AXES[a] for a in spec.shape])
        for spec in contract.inputs
    }
    dynamic = {
        spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in contract.inputs
    }
    file = f"onnx/{name}.onnx"
    logger.info("tracing %s", name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            kwargs=example,
            input_names=list(example),
            output_names=[spec.name for spec in contract.outputs],
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch.onnx.export gave no program for {name}.")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # drops the stack traces, two thirds of the file
    program.save(str(folder / file), external_data=True)
    if halves_constants:
        halve_constants(folder / file)
    data = f"{file}.data"
    return [file, data] if (folder / data).exists() else [file]


def _example(dtype: str, shape: list[int]) -> Tensor:
    if dtype == "int64":
        return torch.ones(shape, dtype=torch.int64)
    if dtype == "int8":
        return torch.ones(shape, dtype=torch.int8)
    return torch.full(shape, 0.5, dtype={"float32": torch.float32, "float16": torch.float16}[dtype])


def tool_versions() -> JsonObject:
    """Return the versions of the libraries that made a bundle."""
    return {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript", "qdrant-cir")}


def read_tokenizer(source: Path) -> Tokenizer:
    """Read a tokenizer from a ``tokenizer.json``, or a folder with one or with BERT's ``vocab.txt``.

    [DEC] and [ENC] are appended where they are missing, in this order, as BLIP does.

    Raises:
        ExportError: there is no such file, or it is not a tokenizer.
    """
    folder = source if source.is_dir() else source.parent
    try:
        if source.is_file() and source.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(source))
        elif (folder / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = _bert_tokenizer(folder / "vocab.txt")
    except Exception as error:  # tokenizers raises plain Exception
        raise ExportError(f"{source} holds no tokenizer.json and no vocab.txt that can be read: {error}") from error
    missing = [t for t in ("[DEC]", "[ENC]") if tokenizer.token_to_id(t) is None]
    if missing and tokenizer.token_to_id("[ENC]") is None:
        tokenizer.add_special_tokens(missing)
    return tokenizer


def _bert_tokenizer(vocabulary: Path) -> Tokenizer:
    from tokenizers.implementations import BertWordPieceTokenizer

    return Tokenizer.from_str(BertWordPieceTokenizer(str(vocabulary), lowercase=True).to_str())
