"""One query of the command line, from the options to the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_cir.cli.options import StorePlace
from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet
from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import default_bundle_path
from qdrant_cir.model.compute import ExecutionProvider
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.effort import Effort, EffortCalibration
from qdrant_cir.search.query_model import references_of
from qdrant_cir.types import GalleryImage, ImageSource, Precision, Query, SearchResult

if TYPE_CHECKING:
    from PIL.Image import Image
    from qdrant_client import models

__all__ = ["SearchRequest", "answer", "read_effort", "save_picture"]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A query and how it is to be searched; the meaning of each is with :meth:`Retriever.search`."""

    query: Query
    limit: int
    rerank_depth: int
    filter: models.Filter | None
    exclude_reference: bool
    effort: Effort


def read_effort(confidence: float | None, calibration: Path | None, time_budget: float | None) -> Effort:
    """Join the options that say how much to re-rank. Raises InputError for a calibration that cannot be read."""
    if calibration is not None and confidence is None:
        raise InputError("--calibration was given without --confidence, which it is for. Give both, or neither.")
    return Effort(confidence, time_budget, None if calibration is None else EffortCalibration.read(calibration))


def answer(
    request: SearchRequest,
    *,
    place: StorePlace,
    collection: str,
    bundle: Path | None,
    provider: ExecutionProvider,
    precision: Precision,
    save: Path | None,
) -> SearchResult:
    """Search once, and draw the answer where ``save`` names a picture file.

    Raises:
        CirError: as :meth:`Retriever.open` and :meth:`Retriever.search`; InputError where the file cannot be
            written.
    """
    query, limit = request.query, request.limit
    # the sheet shows stage one's best too, wherever re-ranking has put them
    depth = limit if save is None else max(limit, request.rerank_depth)
    with (
        place.opened(creates=False) as store,
        Retriever.open(
            collection, store=store, bundle=bundle or default_bundle_path(), provider=provider, precision=precision
        ) as retriever,
    ):
        result = retriever.search(
            query,
            # a limit that is wrong is to be refused as it was given
            limit=depth if limit >= 1 else limit,
            rerank_depth=request.rerank_depth,
            filter=request.filter,
            exclude_reference=request.exclude_reference,
            effort=request.effort,
        )
        if save is not None:
            reference = _picture_of(query, retriever)
            save_picture(draw_contact_sheet([SheetRow(reference, query.modification_text, result)]), save)
    return replace(result, candidates=result.candidates[:limit])


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


def _picture_of(query: Query, retriever: Retriever) -> ImageSource | None:
    """Return the picture of the first reference; the path that a gallery image was indexed from may be gone."""
    reference, _ = references_of(query)[0]
    if not isinstance(reference, GalleryImage):
        return reference
    image_id = reference.image_id
    return retriever.collection.stored([image_id])[image_id].image.source
