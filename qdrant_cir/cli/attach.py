"""``qdrant-cir attach`` and ``detach``: join a collection that exists, and leave it as it was."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    CollectionOption,
    JsonOption,
    ShardKeyOption,
    StoreOptions,
    VectorOption,
    open_bundle,
    shard_key_named,
    with_options,
)
from qdrant_cir.errors import CollectionError, CollectionNotFoundError, InputError

if TYPE_CHECKING:
    from qdrant_cir.storage.stores.protocol import Store
    from qdrant_cir.types import AddressLimits

__all__ = ["attach", "detach"]


@with_options({"store": StoreOptions})
def attach(
    *,
    collection: CollectionOption,
    picture: Annotated[
        str,
        typer.Option(
            "--picture",
            help="Payload field that names the picture: image_url, media.main, images[0].url; images[].url takes all "
            "pictures of a point, of which the best one counts.",
            show_default=False,
        ),
    ],
    vector: Annotated[str, typer.Option("--vector", help="Name of the vector to add to the points.")] = "cir",
    version_field: Annotated[
        str | None,
        typer.Option(
            "--version-field",
            help="Payload field that changes when the picture under the same name does.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="Folder that pictures must lie below; paths are relative to it.", show_default=False
        ),
    ] = None,
    private_addresses: Annotated[
        bool, typer.Option("--private-addresses", help="Allow pictures from addresses of a private network.")
    ] = False,
    max_megabytes: Annotated[
        float | None,
        typer.Option(
            "--max-megabytes",
            min=0.001,
            max=1e6,
            help="Pictures from addresses that send more millions of bytes are not read; 50 by default.",
            show_default=False,
        ),
    ] = None,
    address_seconds: Annotated[
        float | None,
        typer.Option(
            "--address-seconds",
            min=0.001,
            max=1e6,
            help="How long one address may take, redirects included; 20 by default.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Fill a vector that already holds values of somebody else.")
    ] = False,
    shard_key: ShardKeyOption = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Add a vector for composed search to a collection that exists; `index` fills it and `detach` removes it.

    Payload, ids and other vectors of the collection are not touched, and no point is ever deleted. The tokens for
    re-ranking lie in a second collection, COLLECTION__VECTOR.
    """
    from qdrant_cir.gallery import attach as attach_gallery
    from qdrant_cir.storage.collection import Collection

    place = store.place
    given = None if bundle is None else open_bundle(bundle).folder
    with place.opened(creates=False) as opened:
        gallery = attach_gallery(
            opened,
            collection,
            picture=picture,
            vector=vector,
            version=version_field,
            bundle=given,
            # the command that indexes may run in another folder
            root=None if root is None else root.resolve(),
            private_addresses=private_addresses,
            address_limits=_limits(opened, collection, vector, megabytes=max_megabytes, seconds=address_seconds),
            overwrite=overwrite,
            shard_key=shard_key_named(shard_key),
        )
        info, model = gallery.info(), gallery.bundle
        # what the next command opens: what was said when it was attached first
        attachment = Collection.open_attached(opened, collection, vector).attachment
    if as_json:
        from qdrant_cir.cli.upkeep import collection_json

        printing.print_json({**collection_json(info), "bundle": printing.bundle_json(model)})
        return
    printing.print_text(printing.bundle_text(model))
    printing.print_text(
        f"Attached to {info.name}: {info.images} of {info.points} points have the vector {vector}. "
        f"Run `qdrant-cir index -c {collection} --vector {vector}` to fill it."
    )
    wanted = (None if root is None else str(root.resolve()), private_addresses)
    if attachment is not None and (attachment.root, attachment.private_addresses) != wanted:
        printing.print_note(
            f"It was attached before with --root {attachment.root or '(none)'} and private addresses "
            f"{'allowed' if attachment.private_addresses else 'refused'}, which stays. To change it, detach first."
        )


def _limits(
    store: Store, collection: str, vector: str, *, megabytes: float | None, seconds: float | None
) -> AddressLimits | None:
    """Return the limits of addresses, of which one that is not given stays; None where none is. Raises InputError."""
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.types import AddressLimits

    if megabytes is None and seconds is None:
        return None
    kept = AddressLimits()
    with suppress(CollectionError):
        attachment = Collection.open_attached(store, collection, vector).attachment
        kept = attachment.address_limits or kept if attachment is not None else kept
    return AddressLimits(
        max_bytes=kept.max_bytes if megabytes is None else round(megabytes * 1e6),
        seconds=kept.seconds if seconds is None else seconds,
    )


@with_options({"store": StoreOptions})
def detach(
    *,
    collection: CollectionOption,
    vector: VectorOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Leave an attached collection as it was: remove our vector and the tokens. Stopped half-way, run it again."""
    from qdrant_cir.storage.attachment import detach_collection, list_attachments

    place = store.place
    with place.opened(creates=False) as opened:
        # from the companions, so that one is found whose vector or collection is gone already
        resolved = opened.resolve(collection)
        found = [each for each in list_attachments(opened) if each.collection == resolved]
        chosen = [each for each in found if vector in (None, each.vector)]
        names = ", ".join(each.vector for each in found)
        if not found and opened.describe(resolved) is None:
            raise CollectionNotFoundError(f"There is no collection {collection!r} in {place.label}.")
        if not chosen:
            raise CollectionNotFoundError(
                f"Nothing is attached to {collection!r}{'' if vector is None else f' under the vector {vector!r}'}."
                + (f" Attached: {names}." if names else " A collection that `index` made is removed by `delete --all`.")
            )
        if len(chosen) > 1:
            raise InputError(f"{collection!r} has {len(chosen)} attached vectors: {names}. Name one with --vector.")
        (attachment,) = chosen
        what = f"the vector {attachment.vector}" if attachment.made_vector else f"our values of {attachment.vector}"
        if not yes:
            typer.confirm(f"Remove {what} of {resolved} and its tokens in {place.label}?", abort=True, err=True)
        is_gone = detach_collection(opened, attachment)
    if as_json:
        printing.print_json({"collection": resolved, "vector": attachment.vector, "detached": True})
    else:
        removed = f"{what} and the tokens are" if is_gone else "the tokens are"
        printing.print_text(f"Detached from {resolved}: {removed} removed, all points stay.")
