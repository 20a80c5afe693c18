"""Conversion of the paper's files to a bundle, which is verified against torch before it appears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx_export.checkpoints.blip import load_released
from onnx_export.checkpoints.report import ConversionReport
from onnx_export.export import BundleDescription, export_bundle, read_tokenizer
from onnx_export.model_folder import ModelFolder, save_model_folder
from onnx_export.models import BLIP_BASE, ModelSizes
from onnx_export.verify import CANDIDATES, Verification, verify_bundle
from qdrant_cir.model.bundle import Bundle, TokenCodec, sha256_of
from qdrant_cir.types import JsonObject


@dataclass(frozen=True, slots=True)
class ReleasedFiles:
    """The files that make a released model.

    Attributes:
        stage_one: checkpoint with ``BLIP_Retrieval``.
        stage_two: checkpoint with ``BLIP_NLVR``.
        tokenizer: folder with ``tokenizer.json`` or BERT's ``vocab.txt``.
        sizes: of the checkpoints, which do not hold them.
    """

    stage_one: Path
    stage_two: Path
    tokenizer: Path
    sizes: ModelSizes = BLIP_BASE


@dataclass(frozen=True, slots=True)
class ConvertedBundle:
    """Result of a conversion: what became of every key, and the differences between torch and the bundle."""

    report: ConversionReport
    verification: Verification


def convert_released(
    files: ReleasedFiles,
    out: Path,
    *,
    codec: TokenCodec = "int8",
    name: str | None = None,
    licence: str = "unknown",
    original_preprocessing: bool = False,
    model_folder: Path | None = None,
    candidates: tuple[int, ...] = CANDIDATES,
) -> ConvertedBundle:
    """Make a bundle of the paper's released files. It appears complete and verified, or not at all.

    Args:
        files: what to read.
        out: the bundle's folder; an existing bundle there is replaced.
        codec: the form in which candidate tokens are stored.
        name: of the bundle; by default the folder's.
        licence: of the weights.
        original_preprocessing: as :func:`onnx_export.export.export_bundle`.
        model_folder: where to write the torch model, too, to train on or to verify again.
        candidates: values of K that the verification compares.

    Raises:
        CheckpointError: as :func:`onnx_export.checkpoints.blip.load_released`.
        ExportError: as :func:`onnx_export.export.export_bundle`.
        VerificationError: the graphs do not give what torch gives.
    """
    conversion = load_released(files.stage_one, files.stage_two, files.sizes)
    provenance: JsonObject = {
        "source": "released checkpoints",
        "stage_one": {"file": files.stage_one.name, "sha256": sha256_of(files.stage_one)},
        "stage_two": {"file": files.stage_two.name, "sha256": sha256_of(files.stage_two)},
        "image_encoders": "one per stage" if conversion.candidate_encoder else "one for both stages",
    }
    folder = ModelFolder(conversion.model, read_tokenizer(files.tokenizer), provenance, conversion.candidate_encoder)
    verified: list[Verification] = []

    def check(bundle: Bundle) -> None:
        verified.append(verify_bundle(bundle, folder, candidates=candidates))

    export_bundle(
        folder.model,
        folder.tokenizer,
        out,
        codec=codec,
        description=BundleDescription(name or out.name, licence, provenance),
        candidate_encoder=folder.candidate_encoder,
        original_preprocessing=original_preprocessing,
        check=check,
    )
    if model_folder is not None:
        save_model_folder(model_folder, folder)
    return ConvertedBundle(conversion.report, verified[0])
