"""The commands of ``qdrant-cir``. What takes time to load is imported by the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.calibrate import calibrate
from qdrant_cir.cli.catalog import catalog_app
from qdrant_cir.cli.evaluate import evaluation_app
from qdrant_cir.cli.exit_codes import describe_exit_codes
from qdrant_cir.cli.fit_codec import fit_codec
from qdrant_cir.cli.options import (
    ApiKeyOption,
    BundleOption,
    CollectionOption,
    EncoderPrecisionOption,
    JsonOption,
    PathOption,
    ProviderOption,
    UrlOption,
    open_bundle,
    place_of_store,
    precision_named,
    provider_named,
)
from qdrant_cir.cli.reporting import ReportingGroup, show_debugging
from qdrant_cir.cli.search import search
from qdrant_cir.errors import IndexingError, InputError

__all__ = ["app", "main"]

app = typer.Typer(
    cls=ReportingGroup,
    help=(
        "Composed image retrieval on Qdrant: search with a reference image and a text that says what should "
        f"be different.\n\nExit codes:\n\n{describe_exit_codes()}"
    ),
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(catalog_app, name="catalog")
app.add_typer(evaluation_app, name="evaluate")


def main() -> None:
    """Run the command line; the entry point of ``qdrant-cir``."""
    app(prog_name="qdrant-cir")


@app.callback()
def settings(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the log, and where an error comes from.")] = False,
) -> None:
    """Take the options that stand before the command."""
    show_debugging(context, debug=debug)


@app.command()
def index(
    context: typer.Context,
    *,
    source: Annotated[Path, typer.Argument(help="A folder of images, or a manifest: CSV, JSONL or Parquet.")],
    collection: CollectionOption,
    path: PathOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    precision: EncoderPrecisionOption = "float32",
    max_megapixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, help="Pictures of more millions of pixels are not decoded.")
    ] = 64,
    max_side: Annotated[
        int, typer.Option("--max-side", min=1, help="Pictures of which one side has more pixels are not decoded.")
    ] = 20_000,
    as_json: JsonOption = False,
) -> None:
    """Index images into a collection, which is made where there is none.

    What is already there is not encoded again: after Ctrl-C or a crash, the same command goes on from there.
    Images that cannot be read are reported by name and reason, and the others indexed.
    """
    from qdrant_cir.indexer import Indexer
    from qdrant_cir.indexing.sources import read_images
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.model.image_encoder import ImageEncoder
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.types import PictureLimits

    place = place_of_store(context, path=path, url=url, api_key=api_key)
    limits = PictureLimits(pixels=max_megapixels * 1_000_000, side=max_side)
    records = read_images(source)
    model = open_bundle(bundle)
    encoder = ImageEncoder.open(model, Compute(provider_named(provider), precision=precision_named(precision)))
    with (
        place.opened(creates=True) as store,
        printing.show_progress(f"indexing into {collection}") as progress,
    ):
        gallery = Collection.create(store, collection, model)
        report = Indexer(gallery, encoder, model, limits=limits).index(records, progress=progress)
        images = gallery.count(None)
    if as_json:
        printing.print_json(printing.index_report_json(collection, report, images=images))
    else:
        typer.echo(printing.index_report_text(collection, report, images=images))
    if report.failed and not report.indexed + report.updated + report.unchanged:
        raise IndexingError(
            f"Not one of {len(report.failed)} images could be indexed; the first, "
            f"{report.failed[0].image_id}: {report.failed[0].reason}"
        )


app.command()(search)
app.command()(calibrate)
app.command("fit-codec")(fit_codec)


@app.command()
def info(
    context: typer.Context,
    *,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="One collection; all by default.", show_default=False),
    ] = None,
    path: PathOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the collections of a store: how many images they hold and which bundle made them."""
    from qdrant_cir.cli.upkeep import collection_json, describe_collections

    place = place_of_store(context, path=path, url=url, api_key=api_key)
    rows = describe_collections(place, collection)
    total = sum(row.images for row in rows)
    if as_json:
        printing.print_json(
            {"store": place.label, "images": total, "collections": [collection_json(row) for row in rows]}
        )
    elif rows:
        printing.print_table(
            ("collection", "images", "vector size", "bundle", "precision"),
            [
                (row.name, str(row.images), str(row.vector_size), row.bundle_name, ", ".join(row.precisions))
                for row in rows
            ],
            title=place.label,
        )
    else:
        typer.echo(f"There is no collection in {place.label}.")


@app.command()
def delete(
    context: typer.Context,
    *,
    collection: CollectionOption,
    image_ids: Annotated[
        list[str] | None,
        typer.Option("--image-id", help="An image to delete; may be repeated.", show_default=False),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Delete the collection itself.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    path: PathOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete images from a collection, or a collection with everything in it."""
    from qdrant_cir.cli.upkeep import delete_collection, delete_images

    if whole == bool(image_ids):
        raise InputError("Say what to delete: --image-id ID (may be repeated), or --all.")
    place = place_of_store(context, path=path, url=url, api_key=api_key)
    what = f"the collection {collection}" if whole else f"{len(image_ids or [])} images of {collection}"
    if not yes:
        typer.confirm(f"Delete {what} in {place.label}?", abort=True, err=True)
    if whole:
        deleted, unknown = delete_collection(place, collection), []
    else:
        found = delete_images(place, collection, image_ids or [])
        deleted, unknown = len(found), sorted(set(image_ids or []) - found)
    if as_json:
        printing.print_json({"collection": collection, "deleted": deleted, "unknown": [*unknown]})
        return
    typer.echo(f"Deleted {deleted} images.")
    if unknown:
        printing.print_note(f"Not in the collection: {', '.join(unknown)}")


@app.command()
def demo(
    *,
    folder: Annotated[Path, typer.Option("--out", help="Where everything is written.")] = Path("demo"),
    products: Annotated[int, typer.Option("--products", help="Products to draw and index.")] = 2000,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw a catalogue, index it into the embedded store, answer its queries and show six of them.

    Run again, it keeps what is there. The contact sheet shows what re-ranking moved.
    """
    from qdrant_cir.cli.demo import run_demo

    told = run_demo(
        folder,
        open_bundle(bundle),
        products=products,
        provider=provider_named(provider),
        prints_tables=not as_json,
    )
    if as_json:
        printing.print_json(told)
    else:
        typer.echo(f"The contact sheet: {told['sheet']}")
