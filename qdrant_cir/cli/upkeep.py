"""``qdrant-cir info`` and ``delete``. Neither loads a model, but for ``info --measure-int8``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    DEFAULT_PATH,
    BundleOption,
    CollectionOption,
    JsonOption,
    ShardKeyOption,
    StoreOptions,
    StorePlace,
    VectorOption,
    open_bundle,
    packaged_bundle,
    packaged_names,
    shard_key_named,
    with_options,
)
from qdrant_cir.errors import CirError, CollectionError, InputError, StoreError
from qdrant_cir.model.cores import available_threads, int8_dot_products

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.storage.collection import Collection, CollectionInfo
    from qdrant_cir.storage.stores.protocol import Store
    from qdrant_cir.types import JsonObject

__all__ = ["collection_json", "delete", "info"]


@with_options({"store": StoreOptions})
def info(
    *,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="One collection; all by default.", show_default=False),
    ] = None,
    vector: VectorOption = None,
    index_depth: Annotated[
        int | None,
        typer.Option(
            "--index-recall",
            metavar="DEPTH",
            min=1,
            help="Also search exactly, and say how many of the nearest DEPTH images the index finds; needs -c.",
            show_default=False,
        ),
    ] = None,
    bundle: BundleOption = None,
    depth: Annotated[
        int, typer.Option("--rerank-depth", "-k", min=0, help="Candidates that a search re-ranks, for its memory.")
    ] = 100,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads that a search uses, for its memory; all that may be used.", show_default=False
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure-int8", help="Measure how fast re-ranking in int8 is here: some seconds.")
    ] = False,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Show the collections of a store: how many images they hold, which bundle made them, and what is attached.

    Of a packaged bundle, and of the one that --bundle names, also how much memory a search takes at most. With --bundle
    there need be no store.
    """
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.search.demands import expected_memory, int8_speed

    place, compute = store.place, Compute("cpu", threads)
    given = None if bundle is None else open_bundle(bundle)
    if index_depth is not None and collection is None:
        raise InputError("--index-recall looks at one collection. Name it with --collection.")
    notes: list[str] = []
    recall: float | None = None
    rows: list[CollectionInfo] = []
    is_of_bundle = given is not None and collection is None and not store.is_named
    if not is_of_bundle or DEFAULT_PATH.is_dir():
        with place.opened(creates=False) as opened:
            rows = _describe(opened, collection, vector, notes)
            if index_depth is not None and collection is not None:
                from qdrant_cir.storage.collection import Collection

                recall = Collection.find(opened, collection, vector=vector).index_recall(index_depth)
    bundles = {(row.bundle_name, row.fingerprint): _bundle_of(row.fingerprint, given) for row in rows}
    if given is not None:
        bundles.setdefault((given.manifest.name, given.vectors_fingerprint), given)
    speeds = {key: int8_speed(each) for key, each in bundles.items() if each is not None} if measure else {}
    for note in notes:
        printing.print_note(note)
    if as_json:
        printing.print_json(
            {
                "store": place.label,
                "images": sum(row.images for row in rows),
                "collections": [collection_json(row) for row in rows],
                "bundles": [
                    {
                        "name": name,
                        "fingerprint": fingerprint,
                        "training_data": None if found is None else printing.bundle_training_data(found),
                        "expected_memory": None
                        if found is None
                        else expected_memory(found, compute, rerank_depth=depth),
                        "int8_speed": speeds.get((name, fingerprint)),
                    }
                    for (name, fingerprint), found in bundles.items()
                ],
                "notes": [*notes],
                "index_recall": recall,
                "int8_dot_products": int8_dot_products(),
            }
        )
        return
    for (name, fingerprint), found in bundles.items():
        printing.print_text(_unpackaged(name, fingerprint) if found is None else printing.bundle_text(found))
        if found is not None and (text := _memory_text(found, compute, depth)) is not None:
            printing.print_text(text)
        if found is not None and measure:
            printing.print_text(_speed_text(found, speeds[name, fingerprint]))
    if not rows:
        printing.print_text(
            f"There is no gallery in {place.label}. `qdrant-cir index` makes one, and `qdrant-cir attach` joins a "
            "collection that exists."
        )
        return
    has_attached = any(row.attachment is not None for row in rows)
    headings = ("collection", "images", "vector size", "bundle", "precision")
    printing.print_table(
        (*headings, "points", "attached vector", "picture") if has_attached else headings,
        [_cells(row, has_attached=has_attached) for row in rows],
        title=place.label,
    )
    if recall is not None:
        printing.print_text(f"The index finds {recall:.1%} of the exactly nearest {index_depth} images.")
    if (has_products := int8_dot_products()) is not None:
        printing.print_text(
            f"This processor has {'' if has_products else 'no '}8-bit dot products: precision int8 "
            f"{'is faster' if has_products else 'may gain nothing'} here, where a bundle holds it. "
            "`qdrant-cir info --measure-int8 --bundle BUNDLE` measures it."
        )


def _bundle_of(fingerprint: str, given: Bundle | None) -> Bundle | None:
    """Return the bundle of a fingerprint: the given one, a packaged one, or None."""
    if given is not None and fingerprint in (given.fingerprint, given.vectors_fingerprint):
        return given
    return packaged_bundle(fingerprint)


def _memory_text(bundle: Bundle, compute: Compute, depth: int) -> str | None:
    from qdrant_cir.search.demands import expected_memory

    expected = expected_memory(bundle, compute, rerank_depth=depth)
    if expected is None:
        return None
    threads = compute.threads or available_threads()
    return (
        f"A process that searches with it takes at most {expected / 1e6:.0f} MB for it, on {threads} "
        f"thread{'s' if threads > 1 else ''}, re-ranking {depth} in float32."
    )


def _speed_text(bundle: Bundle, speed: float | None) -> str:
    from qdrant_cir.search.demands import INT8_IS_WORTH

    if speed is None:
        return f"It has no int8 re-ranker. `python -m onnx_export add-precision {bundle.folder}` adds and measures one."
    advice = "use --precision int8" if speed > INT8_IS_WORTH else "that is not worth what it loses: stay with float32"
    return f"Re-ranking in int8 is {speed:.2f} times as fast as in float32 here: {advice}."


def _unpackaged(name: str, fingerprint: str) -> str:
    if name not in packaged_names():
        return f"Bundle {name}"
    return f"Bundle {name} ({fingerprint[:12]}), another version than the packaged one"


@with_options({"store": StoreOptions})
def delete(
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Images to delete, by id.", show_default=False),
    ] = None,
    collection: CollectionOption,
    vector: VectorOption = None,
    image_ids: Annotated[
        list[str] | None,
        typer.Option("--image-id", help="The same as an option; may be repeated.", show_default=False),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Delete the collection itself.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    shard_key: ShardKeyOption = None,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Delete images from a collection, or a collection with everything in it.

    Of an attached collection no point is deleted: the points lose our vector and their tokens, and --all is refused;
    `detach` removes what was attached.
    """
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.storage.stores.opening import with_shard_key

    place, key = store.place, shard_key_named(shard_key)
    wanted = list(dict.fromkeys([*(ids or []), *(image_ids or [])]))
    if whole == bool(wanted):
        raise InputError("Name what to delete: the ids of images, or --all.")
    unknown: list[str] = []
    found: int | None
    keeps_points = False
    with place.opened(creates=False) as plain:
        opened = with_shard_key(plain, key)
        if whole and vector is None and (damaged := _damaged(opened, collection)):
            _confirm(f"Delete the collection {collection} in {place.label}, which cannot be opened?", yes=yes)
            found = None
            for each in damaged:
                opened.drop(each)
        elif whole and vector is None and (half := _half_deleted(opened, collection)):
            _confirm(f"Delete what is left of the collection {collection} in {place.label}?", yes=yes)
            found = 0 if half.endswith("__tokens") else opened.count(half, None)
            opened.drop(half)
        else:
            gallery = Collection.find(opened, collection, vector=vector)
            if whole:
                if gallery.attachment is not None:
                    raise InputError(
                        f"{gallery.name!r} is attached, and its points are not qdrant-cir's to delete. Run "
                        f"`qdrant-cir detach -c {collection} --vector {gallery.layout.vector}` to leave it as it was."
                    )
                _confirm(f"Delete the collection {collection} in {place.label}?", yes=yes)
                found = _count(gallery)
                gallery.drop()
            else:
                _confirm(_question(gallery, wanted, place), yes=yes)
                known = gallery.delete(wanted)
                found, unknown = len(known), [each for each in wanted if each not in known]
                keeps_points = gallery.attachment is not None
    if as_json:
        printing.print_json({"collection": collection, "deleted": found, "unknown": [*unknown]})
        return
    printing.print_text(
        f"Removed the vector and the tokens of {found} points; the points stay. The next `index` brings them back "
        "where their payload still names a picture."
        if keeps_points
        else f"Deleted {'the collection' if found is None else f'{found} images'}."
    )
    if unknown:
        printing.print_note(f"Not in the collection: {', '.join(unknown)}")


def collection_json(info: CollectionInfo) -> JsonObject:
    """Return a collection's description as JSON."""
    from qdrant_cir.types import AddressLimits

    attachment = info.attachment
    return {
        "collection": info.name,
        "images": info.images,
        "is_approximate": info.is_approximate,
        "vector_size": info.vector_size,
        "bundle": info.bundle_name,
        "fingerprint": info.fingerprint,
        "token_bytes": info.token_bytes,
        "precisions": list(info.precisions),
        "points": info.points,
        "fields": list(info.fields),
        "attached": None
        if attachment is None
        else {
            "vector": attachment.vector,
            "picture": attachment.picture,
            "version": attachment.version,
            "made_vector": attachment.made_vector,
            "root": attachment.root,
            "private_addresses": attachment.private_addresses,
            "address_limits": asdict(attachment.address_limits or AddressLimits()),
        },
    }


def _describe(store: Store, name: str | None, vector: str | None, notes: list[str]) -> list[CollectionInfo]:
    """Describe one collection with all that is attached to it, or all collections; note what cannot be opened.

    Raises:
        CollectionError: there is no collection of this name, or it cannot be opened.
        StoreError: the store failed.
    """
    from qdrant_cir.storage.attachment import list_attachments
    from qdrant_cir.storage.collection import Collection, list_collections

    resolved = None if name is None else store.resolve(name)
    attached = [
        each
        for each in list_attachments(store)
        if resolved in (None, each.collection) and vector in (None, each.vector)
    ]
    if name is not None and (not attached or vector is not None):
        return [Collection.find(store, name, vector=vector).info()]
    rows: list[CollectionInfo] = []
    for own in list_collections(store) if name is None else []:
        try:
            rows.append(Collection.open(store, own).info())
        except (CollectionError, StoreError) as error:
            notes.append(_noted(store, error))
    for each in attached:
        try:
            rows.append(Collection.open_attached(store, each.collection, each.vector).info())
        except (CollectionError, StoreError) as error:
            _noted(store, error)
            advice = f"Run `qdrant-cir detach -c {each.collection} --vector {each.vector}` to remove its tokens."
            notes.append(f"{error} {advice}")
    return rows


def _cells(info: CollectionInfo, *, has_attached: bool) -> tuple[str, ...]:
    rough = info.is_approximate
    images, points = (printing.count_text(count, is_approximate=rough) for count in (info.images, info.points))
    cells = (info.name, images, str(info.vector_size), info.bundle_name, ", ".join(info.precisions))
    attachment = info.attachment
    if not has_attached:
        return cells
    if attachment is None:
        return (*cells, points, "-", "-")
    return (*cells, points, attachment.vector, attachment.picture)


def _noted(store: Store, error: CirError) -> str:
    """Return what is wrong with one collection; where it is the server that failed, raise that."""
    from qdrant_cir.storage.stores.edge import EdgeStore

    if isinstance(error, StoreError) and not isinstance(store, EdgeStore):
        raise error
    return str(error)


def _count(gallery: Collection) -> int | None:
    """Count the images of a gallery; None where it cannot be opened."""
    from qdrant_cir.storage.stores.edge import EdgeStore

    try:
        return gallery.count()
    except StoreError:
        if not isinstance(gallery.store, EdgeStore):
            raise
        return None


def _damaged(store: Store, name: str) -> list[str]:
    """List the halves of an embedded gallery whose description is damaged, tokens first; none where it is not.

    A shard that another program made is not qdrant-cir's to delete, damaged or not.
    """
    from qdrant_cir.storage.schema import tokens_name
    from qdrant_cir.storage.stores.edge import EdgeStore

    if not isinstance(store, EdgeStore) or store.is_foreign(name):
        return []
    halves = [tokens_name(name), name]
    try:
        for half in halves:
            store.describe(half)
    except StoreError:
        return halves
    return []


def _half_deleted(store: Store, name: str) -> str | None:
    """Return the half of a gallery of our own that a killed ``delete --all`` has left alone, or None."""
    from qdrant_cir.storage.points import RESERVED
    from qdrant_cir.storage.schema import tokens_name

    resolved = store.resolve(name)
    companion = tokens_name(resolved)
    halves = {resolved: "gallery", companion: "tokens"}
    found = {half: described for half in halves if (described := store.describe(half)) is not None}
    if len(found) != 1:
        return None
    ((half, described),) = found.items()
    ours = described.metadata.get(RESERVED)
    return half if isinstance(ours, dict) and ours.get("role") == halves[half] else None


def _question(gallery: Collection, ids: Sequence[str], place: StorePlace) -> str:
    if gallery.attachment is None:
        return f"Delete {len(ids)} images of {gallery.name} in {place.label}?"
    return f"Remove the vector and the tokens of {len(ids)} points of {gallery.name} in {place.label}?"


def _confirm(question: str, *, yes: bool) -> None:
    """Ask, and end the command where the answer is no; ``yes`` asks nothing."""
    if not yes:
        typer.confirm(question, abort=True, err=True)
