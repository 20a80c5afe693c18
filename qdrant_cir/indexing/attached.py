"""The pictures of an attached collection: which of its points need to be encoded, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from qdrant_cir.errors import ImageError
from qdrant_cir.indexing.report import Outcome
from qdrant_cir.indexing.sources import WHOLE, ImageRecord, in_part
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import KnownImage
from qdrant_cir.types import ImageSource, PointId

__all__ = ["attached_records"]


def attached_records(
    collection: Collection,
    bundle: Bundle,
    open_picture: Callable[[str], ImageSource],
    *,
    count: Callable[[Outcome], None],
    verify: bool = False,
    part: tuple[int, int] = WHOLE,
) -> Iterator[ImageRecord]:
    """Yield the pictures of points whose vector or tokens are missing, or of another picture than the point names now.

    Args:
        collection: an attached one.
        bundle: whose tokens count.
        open_picture: opens what the payload names.
        count: called with points that need nothing, and points without a picture.
        verify: yield all other pictures too, so that their content is read and compared.
        part: the points to look at, as (1, 3) for the first third.
    """
    layout = collection.layout
    fields = [path.field for path in (layout.picture, layout.version) if path is not None]
    taken: set[PointId] = set()
    # those with a vector first: what this run writes to the others is not met again
    for has_vector in (True, False):
        for page in collection.pages(has_vector=has_vector, fields=list(dict.fromkeys(fields))):
            known = [image for record in page if (image := layout.known(record)) is not None]
            images = [image for image in known if in_part(image.image_id, part)]
            named = [image for image in images if image.views]
            digests = collection.up_to_date(named, bundle) if has_vector else {}
            todo = [image for image in named if verify or image.point_id not in digests]
            unchanged = sum(len(image.views) for image in named) - sum(len(image.views) for image in todo)
            count(Outcome(unchanged=unchanged, without_picture=len(images) - len(named)))
            # one that lost its vector since it was taken is left to the next run
            fresh = [image for image in todo if image.point_id not in taken]
            taken.update(image.point_id for image in fresh)
            for image in fresh:
                yield from _records(image, open_picture, digests.get(image.point_id))


def _records(
    image: KnownImage, open_picture: Callable[[str], ImageSource], digests: tuple[str, ...] | None
) -> Iterator[ImageRecord]:
    is_many = len(image.views) > 1
    for place, view in enumerate(image.views):
        yield ImageRecord(
            image_id=f"{image.image_id} {view}" if is_many else image.image_id,
            image=view,
            payload=image.payload,
            source=view,
            point_id=image.point_id,
            views=len(image.views),
            # with several pictures all are written together, so one that changed takes the others along
            open=partial(_opened, open_picture, view),
            known_sha256=None if digests is None or is_many else digests[place],
        )


def _opened(open_picture: Callable[[str], ImageSource], value: str) -> ImageSource:
    """Open a picture; whatever a function of the user's raises is a failure of this picture alone."""
    try:
        return open_picture(value)
    except MemoryError:
        raise
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{value!r} cannot be opened: {type(error).__name__}: {error}") from error
