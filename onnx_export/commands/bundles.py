"""Commands that write, check or extend a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from onnx_export.commands.convert import CodecOption, LicenceOption, NameOption, codec_named

bundles = typer.Typer(no_args_is_help=True)


@bundles.command("export")
def export_command(
    model: Annotated[Path, typer.Argument(help="Model folder, from `convert` or `train`, or a bundle to trace again.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    codec: CodecOption = "int8",
    name: NameOption = None,
    licence: LicenceOption = "unknown",
) -> None:
    """Trace the graphs and write a bundle."""
    from onnx_export.bundle.weights import load_start
    from onnx_export.export import BundleDescription, export_bundle

    folder = load_start(model)
    description = BundleDescription(name or out.name, licence, folder.provenance)
    export_bundle(
        folder.model,
        folder.tokenizer,
        out,
        codec=codec_named(codec),
        description=description,
        candidate_encoder=folder.candidate_encoder,
    )
    typer.echo(f"wrote {out}")


@bundles.command("verify")
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
    from qdrant_cir.model.bundle import load_bundle

    result = verify_bundle(
        load_bundle(bundle),
        load_model_folder(model),
        tolerance=tolerance,
        candidates=candidates or CANDIDATES,
    )
    for what, value in asdict(result).items():
        typer.echo(f"{what:14} {value:.2e}" if isinstance(value, float) else f"{what:14} {value} compared, equal")
    typer.echo("verified: torch and the bundle agree")


@bundles.command("add-precision")
def add_precision_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to add to.")],
    precision: Annotated[Literal["int8", "float16"], typer.Option(help="int8 for CPUs, float16 for GPUs.")] = "int8",
    graph: Annotated[
        Literal["reranker", "image_encoder", "candidate_encoder"], typer.Option(help="Graph to add.")
    ] = "reranker",
    pictures: Annotated[
        Path | None,
        typer.Option(help="Pictures like the gallery's, to calibrate int8 on: a folder or manifest; drawn by default."),
    ] = None,
) -> None:
    """Add a faster, slightly less exact re-ranker or image encoder to a bundle. The exact one stays the default."""
    from onnx_export.bundle.precisions import add_precision
    from qdrant_cir.search.demands import INT8_IS_WORTH

    added = add_precision(bundle, precision, graph, pictures=pictures)
    what = "scores" if graph == "reranker" else "tokens"
    on = "drawn products" if pictures is None else f"pictures of {pictures}"
    typer.echo(
        f"wrote {bundle / added.file}; on {on} {what} differ by {added.deviation:.1%} of their standard deviation, "
        f"at most {added.largest:.1%}.\n"
        f"On this machine it is {added.speed:.2f} times as fast as the exact graph, by processor time. "
        + (
            f"Use it with precision={precision!r}."
            if added.speed > INT8_IS_WORTH
            else "That is not worth what it loses: use the exact one here."
        )
    )


@bundles.command("add-weighted")
def add_weighted_command(bundle: Annotated[Path, typer.Argument(help="The bundle to add to.")]) -> None:
    """Add the re-ranker that can leave single tokens out, for `explain`. Exports since write it at once."""
    from onnx_export.bundle.weighted import add_weighted

    added = add_weighted(bundle)
    typer.echo(
        f"wrote {bundle / added.file}; on random tokens it differs by {added.ones:.1e} from the exact re-ranker with "
        f"weights of 1, and by {added.removed:.1e} from it on fewer tokens where the others have weight 0"
    )


@bundles.command("fit-codec")
def fit_codec_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle that stores all tokens.")],
    gallery: Annotated[Path, typer.Option(help="Pictures like the gallery's: a folder, or a manifest as for index.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    rows: Annotated[int | None, typer.Option(help="Rows to store; a third by default, a sixth if large.")] = None,
    dims: Annotated[int | None, typer.Option(help="Dimensions to store; half by default, 5/16 if large.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures to fit on, spread over the gallery.")] = 500,
) -> None:
    """Make a bundle that stores candidate tokens compressed, fitted on pictures of a gallery."""
    from onnx_export.bundle.fitted_codec import fit_codec
    from qdrant_cir.indexing.sources import sample_images

    chosen = sample_images(gallery, pictures)
    with typer.progressbar(length=len(chosen), label="encoding pictures") as bar:
        fit = fit_codec(bundle, chosen, out, rows=rows, dims=dims, encoded=bar.update)
    for name, reason in fit.skipped.items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(
        f"wrote {out}: {fit.rows} rows of {fit.dims} dimensions, {fit.bytes_after / 1000:.1f} KB per image instead of "
        f"{fit.bytes_before / 1000:.1f}, fitted on {fit.pictures} pictures\n"
        f"lost of what the score reads of tokens: {fit.lost:.1%}; scores of the graph and of torch agree to "
        f"{fit.difference:.1e}\nIndex the gallery again with it: qdrant-cir index ... --bundle {out}"
    )


@bundles.command("record")
def record_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle that was measured.")],
    file: Annotated[Path, typer.Argument(help="report.json of `qdrant-cir evaluate`, or what `calibrate` wrote.")],
) -> None:
    """Write measured quality, or a calibration of early stopping, into the bundle's manifest."""
    from onnx_export.bundle.record import record_measurement

    record_measurement(bundle, file)
    typer.echo(f"recorded in {bundle}")
