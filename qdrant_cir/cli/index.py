"""``qdrant-cir index`` and ``index-field``: fill a gallery of our own or an attached one, and index its fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    CollectionOption,
    EncoderPrecisionOption,
    JsonOption,
    ProviderOption,
    ShardKeyOption,
    StoreOptions,
    VectorOption,
    open_bundle,
    precision_named,
    provider_named,
    shard_key_named,
    with_options,
)
from qdrant_cir.errors import IndexingError, InputError, printable, shortened

if TYPE_CHECKING:
    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.storage.collection_options import CollectionOptions
    from qdrant_cir.storage.stores.protocol import Store

__all__ = ["index", "index_field"]

_KINDS = "keyword, integer, float, bool, datetime, text, uuid or geo"


@dataclass(frozen=True, slots=True)
class _FieldIndex:
    """A payload field to index, and by which kind."""

    field: str
    kind: str


@with_options({"store": StoreOptions})
def index(
    *,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of images, or a manifest: CSV, JSONL or Parquet. Nothing for an attached collection, whose "
            "own points are indexed.",
            show_default=False,
        ),
    ] = None,
    collection: CollectionOption,
    vector: VectorOption = None,
    filterable: Annotated[
        list[str] | None,
        typer.Option(
            "--filterable",
            help=f"FIELD:KIND, a payload field to index for filters, as in color:keyword; {_KINDS}. May be repeated.",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, help="Shards of a new collection on a server.", show_default=False),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, help="Copies of every shard of a new collection.", show_default=False),
    ] = None,
    options_file: Annotated[
        Path | None,
        typer.Option(
            "--options",
            help="JSON file with options of a new collection on a server, named as in Qdrant's API, such as "
            "quantization_config.",
            show_default=False,
        ),
    ] = None,
    shard_key: ShardKeyOption = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            help="Stands before every image id, to keep folders apart in which files have the same names.",
            show_default=False,
        ),
    ] = "",
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            help="Index a part alone, as in 1/3, counted from 1: several processes with a part each share the work on "
            "one collection of a server.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Then delete the images that are not in SOURCE any more, with --prefix its own."),
    ] = False,
    prune_limit: Annotated[
        float,
        typer.Option("--prune-limit", help="The largest share of the images that --prune may delete."),
    ] = 0.2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --prune: index and delete nothing, and list what would be deleted.")
    ] = False,
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
    store: StoreOptions,
) -> None:
    """Index images into a collection, which is made where there is none, or fill an attached one.

    What is already there is not encoded again: after Ctrl-C or a crash, run the same command to continue.
    Images that cannot be read are reported by name and reason, and the others are indexed. Of more than 100 the first
    are listed, with --json all.
    """
    from qdrant_cir.gallery import Gallery
    from qdrant_cir.indexing.pruning import check_share
    from qdrant_cir.indexing.sources import WHOLE, read_images
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.model.image_encoder import ImageEncoder
    from qdrant_cir.storage.collection_options import CollectionOptions
    from qdrant_cir.storage.packaged import with_bundle
    from qdrant_cir.storage.stores.opening import with_shard_key
    from qdrant_cir.types import PictureLimits

    limits = PictureLimits(pixels=max_megapixels * 1_000_000, side=max_side)
    place = store.place
    fields = [_field_index(text) for text in filterable or []]
    options = CollectionOptions() if options_file is None else CollectionOptions.read(options_file)
    if shards is not None:
        options = replace(options, shard_number=shards)
    if replicas is not None:
        options = replace(options, replication_factor=replicas)
    wanted = WHOLE if part is None else _part(part)
    check_share(prune_limit)
    _check_prune(prune=prune, dry_run=dry_run, has_source=source is not None, is_whole=part is None)
    # what cannot be read or computed is refused before a collection is made
    records = None if source is None else read_images(source, prefix=prefix)
    given = None if bundle is None else open_bundle(bundle)
    compute = Compute(provider_named(provider), precision=precision_named(precision))
    with place.opened(creates=source is not None and not dry_run) as plain:
        opened = with_shard_key(plain, shard_key_named(shard_key))

        def joined(made: Bundle) -> Gallery:
            encoder = ImageEncoder.open(made, compute)
            makes = source is not None and not dry_run
            stored = _collection_for(opened, collection, vector, made, options, has_source=makes)
            if stored.attachment is not None and options.given:
                raise InputError(
                    f"{collection!r} is attached, and options are for a new collection. Leave out --shards, "
                    "--replicas and --options."
                )
            return Gallery(stored, made, compute=compute, encoder=encoder)

        gallery = with_bundle(given, joined)
        stored, model = gallery.collection, gallery.bundle
        if stored.attachment is None or records is None:
            (printing.print_note if as_json else printing.print_text)(printing.bundle_text(model))
        if dry_run and records is not None:
            _print_gone(collection, gallery.prune(records, prefix=prefix, most=prune_limit, dry_run=True), as_json)
            return
        with printing.show_progress(f"indexing into {collection}") as progress:
            for field in fields:
                gallery.create_payload_index(field.field, field.kind)
            report = gallery.index(records, progress=progress, limits=limits, part=wanted)
            pruned = gallery.prune(records, prefix=prefix, most=prune_limit) if prune and records is not None else []
            images = gallery.count()
            is_approximate = not stored.counts_exactly
    if as_json:
        document = printing.index_report_json(collection, report, images=images, is_approximate=is_approximate)
        printing.print_json({**document, "pruned": [*pruned], "bundle": printing.bundle_json(model)})
    else:
        printing.print_text(
            printing.index_report_text(collection, report, images=images, is_approximate=is_approximate)
        )
        if prune:
            printing.print_text(f"Deleted {len(pruned)} images that are not in {source} any more.")
    if report.failed and not report.indexed + report.updated + report.unchanged:
        raise IndexingError(
            f"Not one of {len(report.failed)} images could be indexed; the first, "
            f"{shortened(report.failed[0].image_id)}: {shortened(report.failed[0].reason)}"
        )


@with_options({"store": StoreOptions})
def index_field(
    *,
    fields: Annotated[
        list[str],
        typer.Argument(metavar="FIELD:KIND...", help=f"Payload fields, as in color:keyword; {_KINDS}."),
    ],
    collection: CollectionOption,
    vector: VectorOption = None,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Index payload fields of a collection, so that filters on them are fast and allowed in strict mode."""
    from qdrant_cir.storage.collection import Collection

    place = store.place
    wanted = [_field_index(text) for text in fields]
    with place.opened(creates=False) as opened:
        stored = Collection.find(opened, collection, vector=vector)
        for each in wanted:
            stored.create_payload_index(each.field, each.kind)
    if as_json:
        printing.print_json({"collection": collection, "fields": {each.field: each.kind for each in wanted}})
        return
    for each in wanted:
        printing.print_text(f"{collection}: {each.field} is indexed as {each.kind}.")


def _part(text: str) -> tuple[int, int]:
    """Read a part such as 1/3. Raises InputError."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"{text!r} is not a part. Expected one such as 1/3, counted from 1.")
    return int(number), int(count)


def _check_prune(*, prune: bool, dry_run: bool, has_source: bool, is_whole: bool) -> None:
    """Refuse options that do not go together. Raises InputError."""
    if dry_run and not prune:
        raise InputError("--dry-run was given without --prune, which it is for. Give both, or neither.")
    if prune and not has_source:
        raise InputError(
            "--prune needs a source to compare with. The points of an attached collection are not qdrant-cir's to "
            "delete; `detach` leaves the collection as it was."
        )
    if prune and not is_whole:
        raise InputError(
            "--prune and --part do not go together. Prune in a run of its own, when all parts are indexed."
        )


def _print_gone(collection: str, gone: list[str], as_json: bool) -> None:  # noqa: FBT001 - of one caller
    if as_json:
        printing.print_json({"collection": collection, "prunable": [*gone]})
        return
    printing.print_text(f"{len(gone)} images of {collection} are not in the source any more; nothing was changed.")
    for image_id in gone:
        printing.print_text(f"  {printable(image_id)}")


def _field_index(text: str) -> _FieldIndex:
    """Read FIELD:KIND. Raises InputError."""
    from qdrant_cir.storage.stores.checks import check_index

    field, colon, kind = (each.strip() for each in text.rpartition(":"))
    if not field or not colon:
        raise InputError(f"{text!r} is not FIELD:KIND. Expected one such as color:keyword; kinds are {_KINDS}.")
    check_index(field, kind)
    return _FieldIndex(field, kind)


def _collection_for(
    store: Store, name: str, vector: str | None, bundle: Bundle, options: CollectionOptions, *, has_source: bool
) -> Collection:
    """Open what a source, or the collection's own points, are indexed into; make a gallery of our own for a source.

    Raises:
        CollectionError: there is none, and none is to be made, or it is of another bundle.
        InputError: several vectors are attached, and none was named.
    """
    from qdrant_cir.storage.attachment import attached_vectors
    from qdrant_cir.storage.collection import Collection

    if has_source and vector is None and not attached_vectors(store, store.resolve(name)):
        return Collection.create(store, name, bundle, options)
    return Collection.find(store, name, vector=vector, bundle=bundle)
