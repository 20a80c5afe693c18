"""``python -m onnx_export convert``: the paper's checkpoints to a bundle, other weights to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from qdrant_cir.model.contracts import TokenCodec

if TYPE_CHECKING:
    from onnx_export.checkpoints.report import ConversionReport
    from onnx_export.models import ModelSizes

convert = typer.Typer(no_args_is_help=True, help="Convert the paper's checkpoints, or other weights to train on.")

ModelOut = Annotated[Path, typer.Option(help="Model folder to write.")]
TokenizerOption = Annotated[Path, typer.Option(help="Folder with tokenizer.json or BERT's vocab.txt.")]
SizesOption = Annotated[Path | None, typer.Option(help="Heads and sizes as JSON, if not the paper's; docs/export.md.")]
CodecOption = Annotated[str, typer.Option(help="Stored form of candidate tokens: int8, float16 or float32.")]
NameOption = Annotated[str | None, typer.Option(help="The bundle's name; the folder's by default.")]
LicenceOption = Annotated[str, typer.Option(help="Licence of the weights.")]


@convert.command("released")
def convert_released_command(
    stage_one: Annotated[Path, typer.Option(help="The paper's stage-one checkpoint (holds BLIP_Retrieval).")],
    stage_two: Annotated[Path, typer.Option(help="The paper's stage-two checkpoint (holds BLIP_NLVR).")],
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    sizes: SizesOption = None,
    codec: CodecOption = "int8",
    name: NameOption = None,
    licence: LicenceOption = "unknown",
    preprocessing: Annotated[
        Literal["upright", "original"],
        typer.Option(help="How pictures become pixels; `original` is the research code's, to evaluate its weights."),
    ] = "upright",
    model_folder: Annotated[Path | None, typer.Option(help="Also write the torch model here, to train on.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write what became of every key here, as JSON.")] = None,
) -> None:
    """Make a bundle of the paper's released checkpoint pair, and verify it against torch."""
    from onnx_export.checkpoints.released import ReleasedFiles, convert_released

    files = ReleasedFiles(stage_one, stage_two, tokenizer, _sizes_of(sizes))
    converted = convert_released(
        files,
        out,
        codec=codec_named(codec),
        name=name,
        licence=licence,
        original_preprocessing=preprocessing == "original",
        model_folder=model_folder,
    )
    _show_report(converted.report, report)
    if model_folder is not None:
        typer.echo(f"wrote {model_folder}")
    typer.echo(f"verified: torch and the bundle agree to {converted.verification.largest:.1e}\nwrote {out}")


@convert.command("blip")
def convert_blip(
    source: Annotated[str, typer.Argument(help="Folder or hub name of a BlipForImageTextRetrieval model.")],
    tokenizer: TokenizerOption,
    out: ModelOut,
    sizes: Annotated[
        Path | None, typer.Option(help="Sizes as JSON that the model's config.json lacks: merge_layers_from.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what became of every key here, as JSON.")] = None,
) -> None:
    """Start both stages from a BLIP model of transformers, to train them."""
    from onnx_export.checkpoints.blip import load_blip, read_blip_sizes, read_sizes
    from onnx_export.export import read_tokenizer
    from onnx_export.model_folder import ModelFolder, save_model_folder

    conversion = load_blip(source, None if sizes is None else read_sizes(sizes, read_blip_sizes(source)))
    save_model_folder(out, ModelFolder(conversion.model, read_tokenizer(tokenizer), {"source": source}))
    _show_report(conversion.report, report)
    typer.echo(f"wrote {out}")


@convert.command("random")
def convert_random(
    out: ModelOut,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of the tokenizer; by default a placeholder.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Make the paper's full-size model with random weights, to try export, verification and speed."""
    from onnx_export.export import read_tokenizer
    from onnx_export.model_folder import ModelFolder, save_model_folder
    from onnx_export.models import BLIP_BASE, build_model
    from onnx_export.training.drawn.tokenizer import build_tokenizer

    words = build_tokenizer() if tokenizer is None else read_tokenizer(tokenizer)
    provenance = {"source": f"random weights, seed {seed}"}
    save_model_folder(out, ModelFolder(build_model(BLIP_BASE, seed=seed), words, {**provenance}))
    typer.echo(f"wrote {out}")


def codec_named(name: str) -> TokenCodec:
    """Return the codec of this name; any other word is a usage error."""
    if name not in get_args(TokenCodec):
        raise typer.BadParameter(f"{name!r} is none of {', '.join(get_args(TokenCodec))}", param_hint="--codec")
    return cast("TokenCodec", name)


def _sizes_of(config: Path | None) -> ModelSizes:
    from onnx_export.checkpoints.blip import read_sizes
    from onnx_export.models import BLIP_BASE

    return BLIP_BASE if config is None else read_sizes(config)


def _show_report(report: ConversionReport, out: Path | None) -> None:
    for source in report.sources:
        typer.echo(f"{source.source}: {len(source.used)} keys used, {len(source.ignored)} ignored")
        for reason in dict.fromkeys(source.ignored.values()):
            keys = [key for key, why in source.ignored.items() if why == reason]
            typer.echo(f"  ignored {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if keys[3:] else ''}: {reason}")
    if report.fresh:
        typer.echo(f"fresh, to be trained: {', '.join(report.fresh)}")
    if report.encoders is not None and report.encoders.equal:
        typer.echo("image encoders: equal, so one graph serves both stages")
    elif report.encoders is not None:
        typer.echo(
            f"image encoders: {len(report.encoders.differing)} tensors differ, by up to "
            f"{report.encoders.largest_difference:.1e}, so the bundle holds a second one for candidates"
        )
    if out is not None:
        out.write_text(json.dumps(report.to_object(), indent=2) + "\n", encoding="utf-8")
        typer.echo(f"wrote {out}")
