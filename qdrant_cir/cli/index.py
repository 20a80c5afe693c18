"""``qdrant-cir index`` and ``index-field``: fill a gallery of our own or an attached one, and index its fields."""

from __future__ import annotations

from dataclasses import dataclass
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
    StoreOptions,
    VectorOption,
    open_bundle,
    precision_named,
    provider_named,
    with_options,
)
from qdrant_cir.errors import IndexingError, InputError, shortened

if TYPE_CHECKING:
    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.storage.collection import Collection
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
    from qdrant_cir.indexing.sources import read_images
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.model.image_encoder import ImageEncoder
    from qdrant_cir.storage.packaged import with_bundle
    from qdrant_cir.types import PictureLimits

    limits = PictureLimits(pixels=max_megapixels * 1_000_000, side=max_side)
    place = store.place
    fields = [_field_index(text) for text in filterable or []]
    # what cannot be read or computed is refused before a collection is made
    records = None if source is None else read_images(source)
    given = None if bundle is None else open_bundle(bundle)
    compute = Compute(provider_named(provider), precision=precision_named(precision))
    with place.opened(creates=source is not None) as opened:

        def joined(made: Bundle) -> Gallery:
            encoder = ImageEncoder.open(made, compute)
            stored = _collection_for(opened, collection, vector, made, has_source=source is not None)
            return Gallery(stored, made, compute=compute, encoder=encoder)

        gallery = with_bundle(given, joined)
        stored, model = gallery.collection, gallery.bundle
        if stored.attachment is None or records is None:
            (printing.print_note if as_json else printing.print_text)(printing.bundle_text(model))
        with printing.show_progress(f"indexing into {collection}") as progress:
            for field in fields:
                gallery.create_payload_index(field.field, field.kind)
            report = gallery.index(records, progress=progress, limits=limits)
            images = gallery.count()
            is_approximate = not stored.counts_exactly
    if as_json:
        document = printing.index_report_json(collection, report, images=images, is_approximate=is_approximate)
        printing.print_json({**document, "bundle": printing.bundle_json(model)})
    else:
        printing.print_text(
            printing.index_report_text(collection, report, images=images, is_approximate=is_approximate)
        )
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


def _field_index(text: str) -> _FieldIndex:
    """Read FIELD:KIND. Raises InputError."""
    from qdrant_cir.storage.stores.checks import check_index

    field, colon, kind = (each.strip() for each in text.rpartition(":"))
    if not field or not colon:
        raise InputError(f"{text!r} is not FIELD:KIND. Expected one such as color:keyword; kinds are {_KINDS}.")
    check_index(field, kind)
    return _FieldIndex(field, kind)


def _collection_for(store: Store, name: str, vector: str | None, bundle: Bundle, *, has_source: bool) -> Collection:
    """Open what a source, or the collection's own points, are indexed into; make a gallery of our own for a source.

    Raises:
        CollectionError: there is none, and none is to be made, or it is of another bundle.
        InputError: several vectors are attached, and none was named.
    """
    from qdrant_cir.storage.attachment import attached_vectors
    from qdrant_cir.storage.collection import Collection

    if has_source and vector is None and not attached_vectors(store, store.resolve(name)):
        return Collection.create(store, name, bundle)
    return Collection.find(store, name, vector=vector, bundle=bundle)
