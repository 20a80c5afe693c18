"""The gallery of a part as a collection: exactly its images, and the names of those that cannot be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.datasets.benchmark import EvaluationPart, PartTruth
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.report import FailedImage, IndexProgress
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.collection import Collection
from qdrant_cir.types import Encoder, GalleryImage

__all__ = ["PartGallery", "index_gallery", "open_gallery"]

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class PartGallery:
    """The images that a part's queries are searched in.

    Attributes:
        size: images that are in the collection.
        wanted: images that the data set asks for; equal to ``size`` where none is missing.
        missing: images that could not be read, and why; those that only queries or answers name count too.
        present: image ids in the collection: all of them, or of a collection that existed before those that queries and
            answers name.
        sha256: digest of the ids and contents of these images.
        index_recall: how many of the exactly nearest images the index finds at the depth in use, as a share; None where
            that was not looked at.
    """

    size: int
    wanted: int
    missing: tuple[FailedImage, ...]
    present: frozenset[str]
    sha256: str
    index_recall: float | None = None


def index_gallery(
    part: EvaluationPart,
    gallery: Sequence[ImageRecord],
    truth: PartTruth,
    *,
    collection: Collection,
    encoder: Encoder,
    bundle: Bundle,
    progress: Callable[[IndexProgress], None] | None = None,
) -> PartGallery:
    """Bring a collection to exactly the gallery's readable images.

    Images that are there with the same content are not encoded again. One that can no longer be read is
    removed.

    Raises:
        EvaluationError: no image could be read, or the collection holds images of something else.
        IndexingError, ProviderError, StoreError: as :meth:`Indexer.index`.
    """
    report = Indexer(collection, encoder, bundle).index(gallery, progress=progress)
    failed = {image.image_id: image for image in report.failed}
    if failed:
        collection.delete(list(failed))
    contents = _contents(collection, [record.image_id for record in gallery])
    count = collection.count(None)
    if count != len(contents):
        raise EvaluationError(
            f"The collection {collection.name!r} holds {count} images, of which {len(contents)} are of the "
            f"gallery {part.name!r}. The others would be ranked too. Give another output folder."
        )
    if not contents:
        first = next(iter(failed.values()))
        raise EvaluationError(
            f"Not one of {len(gallery)} images of the gallery {part.name!r} could be read; the first, "
            f"{first.image_id}: {first.reason}. Give the folder of the pictures."
        )
    missing = [*failed.values(), *_unlisted(part, truth, contents.keys() | failed.keys())]
    return PartGallery(
        size=len(contents),
        wanted=len({record.image_id for record in gallery}),
        missing=tuple(missing),
        present=frozenset(contents),
        sha256=_digest(sorted(contents.items())),
    )


def open_gallery(part: EvaluationPart, truth: PartTruth, *, collection: Collection) -> PartGallery:
    """Look up which images that queries and answers name are in a collection that exists."""
    named = sorted(_named(part, truth))
    contents = _contents(collection, named)
    count = collection.count(None)
    return PartGallery(
        size=count,
        wanted=count,
        missing=tuple(_unlisted(part, truth, contents.keys())),
        present=frozenset(contents),
        sha256=_digest([collection.name, count, sorted(contents.items())]),
    )


def _named(part: EvaluationPart, truth: PartTruth) -> set[str]:
    names = {image_id for query in part.queries for image_id in query.subset}
    names |= {str(q.reference.image_id) for q in part.queries if isinstance(q.reference, GalleryImage)}
    for query in part.queries:
        if query.query_id in truth:
            names |= truth[query.query_id].targets
    return names


def _unlisted(part: EvaluationPart, truth: PartTruth, known: Iterable[str]) -> list[FailedImage]:
    """List images that queries or answers name and the gallery lacks."""
    return [
        FailedImage(image_id, "the gallery has no image of this id")
        for image_id in sorted(_named(part, truth) - set(known))
    ]


def _contents(collection: Collection, image_ids: Sequence[str]) -> dict[str, str]:
    contents: dict[str, str] = {}
    for start in range(0, len(image_ids), _BATCH):
        known = collection.known(image_ids[start : start + _BATCH])
        contents.update((image_id, str(image.sha256)) for image_id, image in known.items())
    return contents


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
