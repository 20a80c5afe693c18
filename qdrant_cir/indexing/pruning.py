"""The images of a gallery that are gone from their source."""

from __future__ import annotations

from collections.abc import Iterable

from qdrant_cir.arguments import shown
from qdrant_cir.errors import InputError
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow

__all__ = ["MOST_PRUNED", "check_share", "prunable"]

MOST_PRUNED = 0.2
"""The share of images that may be deleted at once: more looks like a folder that is not mounted."""


def check_share(most: float) -> None:
    """Refuse what is no share of the images. Raises InputError."""
    if isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1:
        raise InputError(f"{shown(most)} is not a share of the images. Give a number from 0 to 1, such as 0.2.")


def prunable(
    image_ids: Iterable[str], records: Iterable[ImageRecord | RejectedRow], *, prefix: str, most: float
) -> list[str]:
    """Return the ids that no record has, sorted, of those that begin with a prefix.

    Raises:
        InputError: they are more than a share ``most`` of the ids, or a record names no picture.
    """
    check_share(most)
    there: set[str] = set()
    for record in records:
        if isinstance(record, RejectedRow):
            raise InputError(
                f"Nothing was deleted: {record.place} names no picture ({record.reason}), so its image is not known. "
                "Correct it first."
            )
        there.add(str(record.image_id))
    ours = [image_id for image_id in image_ids if image_id.startswith(prefix)]
    gone = sorted(image_id for image_id in ours if image_id not in there)
    if len(gone) > most * len(ours):
        raise InputError(
            f"Nothing was deleted: {len(gone)} of {len(ours)} images are not in the source, and at most "
            f"{most:.0%} may be deleted. Check that the source is complete, or raise the limit (--prune-limit)."
        )
    return gone
