"""``python -m onnx_export``: convert, train, export, verify."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from onnx_export.errors import ExportError
from qdrant_cir.errors import CirError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="From checkpoints or training to a bundle.")
convert = typer.Typer(no_args_is_help=True, help="Weights from elsewhere into a model folder.")
train = typer.Typer(no_args_is_help=True, help="Train the small model on drawn products.")
app.add_typer(convert, name="convert")
app.add_typer(train, name="train")

Out = Annotated[Path, typer.Option(help="Folder to write.")]
TokenizerOption = Annotated[Path, typer.Option(help="Folder with tokenizer.json or BERT's vocab.txt.")]


@convert.command("released")
def convert_released(
    stage_one: Annotated[Path, typer.Option(help="The paper's stage-one checkpoint (holds BLIP_Retrieval).")],
    stage_two: Annotated[Path, typer.Option(help="The paper's stage-two checkpoint (holds BLIP_NLVR).")],
    tokenizer: TokenizerOption,
    out: Out,
    config: Annotated[Path | None, typer.Option(help="Sizes, if not the paper's; see docs/export.md.")] = None,
) -> None:
    """Read the paper's released checkpoint pair."""
    from onnx_export.checkpoints import load_released, read_sizes
    from onnx_export.models import BLIP_BASE

    sizes = BLIP_BASE if config is None else read_sizes(config)
    conversion = load_released(stage_one, stage_two, sizes)
    _write_converted(conversion, tokenizer, out, source=f"{stage_one.name}, {stage_two.name}")


@convert.command("blip")
def convert_blip(
    source: Annotated[str, typer.Argument(help="Folder or hub name of a BlipForImageTextRetrieval model.")],
    tokenizer: TokenizerOption,
    out: Out,
    config: Annotated[Path | None, typer.Option(help="Sizes, if not BLIP base's; see docs/export.md.")] = None,
) -> None:
    """Start both stages from a BLIP model of transformers."""
    from onnx_export.checkpoints import load_blip, read_sizes
    from onnx_export.models import BLIP_BASE

    sizes = BLIP_BASE if config is None else read_sizes(config)
    _write_converted(load_blip(source, sizes), tokenizer, out, source=source)


@convert.command("random")
def convert_random(
    out: Out,
    tokenizer: Annotated[Path | None, typer.Option(help="As for the others; without one, a placeholder.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
) -> None:
    """Make the paper's full-size model with random weights, to try export, verification and speed."""
    from onnx_export.export import read_tokenizer
    from onnx_export.model_folder import ModelFolder, save_model_folder
    from onnx_export.models import BLIP_BASE, build_model
    from onnx_export.training.tokenizer import build_tokenizer

    words = build_tokenizer() if tokenizer is None else read_tokenizer(tokenizer)
    provenance = {"source": f"random weights, seed {seed}"}
    save_model_folder(out, ModelFolder(build_model(BLIP_BASE, seed=seed), words, {**provenance}))
    typer.echo(f"wrote {out}")


@app.command("export")
def export_command(
    model: Annotated[Path, typer.Argument(help="Model folder, from `convert` or `train`.")],
    out: Out,
    codec: Annotated[str, typer.Option(help="Stored form of candidate tokens: int8, float16 or float32.")] = "int8",
    name: Annotated[str | None, typer.Option(help="The bundle's name; the folder's by default.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
) -> None:
    """Trace the three graphs and write a bundle."""
    from typing import cast, get_args

    from onnx_export.export import BundleDescription, export_bundle
    from onnx_export.model_folder import load_model_folder
    from qdrant_cir.bundle import TokenCodec

    if codec not in get_args(TokenCodec):
        raise typer.BadParameter(f"{codec!r} is none of {', '.join(get_args(TokenCodec))}", param_hint="--codec")
    folder = load_model_folder(model)
    description = BundleDescription(name or out.name, licence, folder.provenance)
    export_bundle(folder.model, folder.tokenizer, out, codec=cast(TokenCodec, codec), description=description)
    typer.echo(f"wrote {out}")


@app.command("verify")
def verify_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check.")],
    model: Annotated[Path, typer.Option(help="The model folder it was exported from.")],
    tolerance: Annotated[float, typer.Option(help="Largest absolute difference allowed.")] = 1e-4,
    candidates: Annotated[list[int] | None, typer.Option(help="Values of K; 1, 2 and 50 by default.")] = None,
) -> None:
    """Compare a bundle with its torch model: names, axes, shapes, values, order."""
    from dataclasses import asdict

    from onnx_export.model_folder import load_model_folder
    from onnx_export.verify import CANDIDATES, verify_bundle
    from qdrant_cir.bundle import load_bundle

    result = verify_bundle(
        load_bundle(bundle),
        load_model_folder(model),
        tolerance=tolerance,
        candidates=candidates or CANDIDATES,
    )
    for what, value in asdict(result).items():
        typer.echo(f"{what:14} {value:.2e}" if isinstance(value, float) else f"{what:14} {value} compared, equal")
    typer.echo("verified: torch and the bundle agree")


Run = Annotated[Path, typer.Option("--run", help="Run folder: pool, checkpoints, logs, model.")]
RecipeOption = Annotated[Path | None, typer.Option(help="Recipe as JSON; the bundled model's without one.")]


@train.command("pretrain")
def train_pretrain(run: Run, recipe: RecipeOption = None) -> None:
    """Draw the pool, then train the image encoder and a grounded text encoder."""
    _train(run, recipe, "pretrain")


@train.command("stage-one")
def train_stage_one(run: Run, recipe: RecipeOption = None) -> None:
    """The same, then the composer."""
    _train(run, recipe, "stage-one")


@train.command("stage-two")
def train_stage_two(run: Run, recipe: RecipeOption = None) -> None:
    """The same, then the re-ranker: from nothing to RUN/model in one command."""
    _train(run, recipe, "stage-two")


def _train(run: Path, recipe: Path | None, last: Literal["pretrain", "stage-one", "stage-two"]) -> None:
    from onnx_export.training.recipe import Run, read_recipe

    Run(run, read_recipe(recipe)).train(last)
    typer.echo(f"wrote {run / 'model'}")


def _write_converted(conversion: object, tokenizer: Path, out: Path, *, source: str) -> None:
    from onnx_export.checkpoints import Conversion
    from onnx_export.export import read_tokenizer
    from onnx_export.model_folder import ModelFolder, save_model_folder

    if not isinstance(conversion, Conversion):
        raise TypeError(type(conversion).__name__)
    report = conversion.report
    save_model_folder(out, ModelFolder(conversion.model, read_tokenizer(tokenizer), {"source": source}))
    typer.echo(f"used {len(report.used)} keys, left out {sorted(set(report.unused))}, fresh {list(report.fresh)}")
    typer.echo(f"wrote {out}")


def main() -> None:
    """Run the command line; known errors become one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("onnxscript", "onnx_ir", "torch.onnx", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app()
    except (ExportError, CirError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
