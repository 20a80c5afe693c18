"""One query of the command line, from the options to the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_cir.cli.filters import parse_filters
from qdrant_cir.cli.options import StorePlace, open_bundle
from qdrant_cir.cli.query_options import QueryOptions
from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet, draw_explanation
from qdrant_cir.errors import InputError
from qdrant_cir.gallery import Gallery
from qdrant_cir.model.compute import Compute
from qdrant_cir.retriever import DEFAULT_GROUP_SIZE
from qdrant_cir.search.effort import Effort, EffortCalibration
from qdrant_cir.search.explanation import Explanation
from qdrant_cir.search.query_model import references_of
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.packaged import with_bundle
from qdrant_cir.storage.schema import SAMPLE, field_names
from qdrant_cir.types import GalleryImage, ImageSource, Query, SearchResult

if TYPE_CHECKING:
    from PIL.Image import Image
    from qdrant_client import models

    from qdrant_cir.indexing.opening import PictureOpener

__all__ = ["answer", "explained", "opened_gallery", "opener_of", "read_effort", "save_picture"]


def read_effort(confidence: float | None, calibration: Path | None, time_budget: float | None) -> Effort:
    """Join the options that say how much to re-rank. Raises InputError for a calibration that cannot be read."""
    if calibration is not None and confidence is None:
        raise InputError("--calibration was given without --confidence, which it is for. Give both, or neither.")
    return Effort(confidence, time_budget, None if calibration is None else EffortCalibration.read(calibration))


def answer(
    asked: QueryOptions, place: StorePlace, *, limit: int, effort: Effort, min_match: float | None
) -> SearchResult:
    """Search once, and draw the answer where a picture file is named.

    Raises:
        CirError: as :meth:`Gallery.open` and :meth:`Gallery.search`; InputError where the file cannot be written.
    """
    query, filters = asked.query, asked.filters or []
    # an expression that cannot be read is refused before anything is opened
    parse_filters(filters)
    # the sheet shows stage one's best too, wherever re-ranking has put them
    depth = limit if asked.save is None else max(limit, asked.rerank_depth)
    with opened_gallery(place, asked.collection, asked.vector, asked.bundle, asked.compute) as gallery:
        result = gallery.search(
            query.reference,
            query.modification_text,
            must_not=query.must_not or None,
            weights=query.weights,
            must_not_weight=query.must_not_weight,
            # a limit that is wrong is to be refused as it was given
            limit=depth if limit >= 1 else limit,
            rerank_depth=asked.rerank_depth,
            filter=parse_filters(filters, fields=lambda: _fields_of(gallery)),
            exclude_reference=asked.exclude_reference,
            effort=effort,
            group_by=asked.group_by,
            group_size=DEFAULT_GROUP_SIZE if asked.group_size is None else asked.group_size,
            min_match=min_match,
            params=_exact_params() if asked.exact else None,
        )
        if asked.save is not None:
            row = SheetRow(_picture_of(query, gallery), query.modification_text, _with_files(result, gallery))
            save_picture(draw_contact_sheet([row]), asked.save)
    return replace(result, candidates=result.candidates[:limit])


def explained(asked: QueryOptions, place: StorePlace, candidate: str) -> Explanation:
    """Search once and explain one result, and draw the explanation where a picture file is named.

    Raises:
        CirError: as :meth:`Gallery.open` and :meth:`Gallery.explain`; InputError where the file cannot be written.
    """
    query, filters = asked.query, asked.filters or []
    # an expression that cannot be read is refused before anything is opened
    parse_filters(filters)
    with opened_gallery(place, asked.collection, asked.vector, asked.bundle, asked.compute) as gallery:
        why = gallery.explain(
            query.reference,
            query.modification_text,
            candidate,
            must_not=query.must_not or None,
            weights=query.weights,
            must_not_weight=query.must_not_weight,
            rerank_depth=asked.rerank_depth,
            filter=parse_filters(filters, fields=lambda: _fields_of(gallery)),
            exclude_reference=asked.exclude_reference,
            group_by=asked.group_by,
            group_size=DEFAULT_GROUP_SIZE if asked.group_size is None else asked.group_size,
            params=_exact_params() if asked.exact else None,
        )
        if asked.save is not None:
            source = why.candidate.view or why.candidate.source
            opener = opener_of(gallery)
            picture = source if source is None or opener is None else opener(source)
            save_picture(draw_explanation(why, picture), asked.save)
    return why


@contextmanager
def opened_gallery(
    place: StorePlace, collection: str, vector: str | None, bundle: Path | None, compute: Compute
) -> Iterator[Gallery]:
    """Open a gallery for the duration of a command. Raises CirError as :meth:`Gallery.open`."""
    given = None if bundle is None else open_bundle(bundle)
    with place.opened(creates=False) as store:
        yield with_bundle(
            given,
            lambda made: Gallery(Collection.find(store, collection, vector=vector, bundle=made), made, compute=compute),
        )


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format of its file name.

    Raises:
        InputError: the name has no suffix of a picture format, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The picture cannot be written to {path}: {error}. Give a path that ends in .png or .jpg."
        ) from error


def _exact_params() -> models.SearchParams:
    from qdrant_client import models

    return models.SearchParams(exact=True)


def _fields_of(gallery: Gallery) -> tuple[str, ...]:
    """List the top-level payload fields of a sample of a gallery."""
    collection = gallery.collection
    return field_names(collection.store.scroll(collection.name, filter=None, limit=SAMPLE, after=None))


def _picture_of(query: Query, gallery: Gallery) -> ImageSource | None:
    """Return the picture of the first reference; the path that a gallery image was indexed from may be gone."""
    reference, _ = references_of(query)[0]
    if not isinstance(reference, GalleryImage):
        return reference
    source = gallery.collection.stored([reference.image_id])[reference.image_id].image.source
    opener = opener_of(gallery)
    return source if source is None or opener is None else opener(source)


def _with_files(result: SearchResult, gallery: Gallery) -> SearchResult:
    """Replace the sources of an attached gallery's candidates by the files below its root, for drawing."""
    opener = opener_of(gallery)
    if opener is None:
        return result

    def file_of(source: str | None) -> str | None:
        if source is None or "://" in source:
            return source
        try:
            opened = opener(source)
        except InputError:
            return source
        return str(opened) if isinstance(opened, str | Path) else source

    candidates = tuple(replace(each, source=file_of(each.view or each.source)) for each in result.candidates)
    return replace(result, candidates=candidates)


def opener_of(gallery: Gallery) -> PictureOpener | None:
    """Return what opens the pictures of an attached gallery; None where they are files."""
    attachment = gallery.collection.attachment
    if attachment is None:
        return None
    from qdrant_cir.indexing.opening import PictureOpener

    return PictureOpener.of_attached(attachment)
