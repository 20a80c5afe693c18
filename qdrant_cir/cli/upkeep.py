"""What ``info`` and ``delete`` do. Neither needs a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_cir.cli.options import StorePlace
from qdrant_cir.storage.collection import Collection, CollectionInfo, list_collections
from qdrant_cir.types import JsonObject

__all__ = ["collection_json", "delete_collection", "delete_images", "describe_collections"]


def describe_collections(place: StorePlace, name: str | None) -> list[CollectionInfo]:
    """Describe one collection, or all that this library made.

    Raises:
        CollectionNotFoundError: there is no store, or no collection of this name.
        StoreError: the store failed.
    """
    with place.opened(creates=False) as store:
        names = list_collections(store) if name is None else [name]
        return [Collection.open(store, each).info() for each in names]


def collection_json(info: CollectionInfo) -> JsonObject:
    """Give a collection's description as JSON."""
    return {
        "collection": info.name,
        "images": info.images,
        "vector_size": info.vector_size,
        "bundle": info.bundle_name,
        "fingerprint": info.fingerprint,
        "token_bytes": info.token_bytes,
        "precisions": list(info.precisions),
        "points": info.points,
        "fields": list(info.fields),
    }


def delete_images(place: StorePlace, name: str, image_ids: Sequence[str]) -> set[str | int]:
    """Delete images and give the ids that were there; errors as above."""
    with place.opened(creates=False) as store:
        return Collection.open(store, name).delete(image_ids)


def delete_collection(place: StorePlace, name: str) -> int:
    """Delete a collection and give how many images it held; errors as above."""
    with place.opened(creates=False) as store:
        gallery = Collection.open(store, name)
        images = gallery.count(None)
        gallery.drop()
        return images
