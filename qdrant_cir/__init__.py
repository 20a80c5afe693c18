"""Composed image retrieval for Qdrant: a reference image plus a modification text, retrieved and re-ranked.

The names below are the public ones. Each is loaded when it is first used, so that importing the package costs
nothing and reading an error class needs no model library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet, draw_explanation
    from qdrant_cir.errors import (
        BundleError,
        BusyError,
        CirError,
        CollectionError,
        CollectionMismatchError,
        CollectionNotFoundError,
        EvaluationError,
        ImageError,
        IndexingError,
        InputError,
        MissingExtraError,
        ProviderError,
        StoreError,
        StoreLockedError,
        StoreUnavailableError,
        TokensError,
        TooLargeError,
    )
    from qdrant_cir.gallery import AsyncGallery, Gallery, attach, attach_async
    from qdrant_cir.indexer import Indexer
    from qdrant_cir.indexing.checking import CheckReport, Finding
    from qdrant_cir.indexing.report import FailedImage, IndexProgress, IndexReport
    from qdrant_cir.indexing.sources import ImageRecord, read_folder, read_images, read_manifest
    from qdrant_cir.model.bundle import Bundle, default_bundle_path, load_bundle
    from qdrant_cir.retriever import AsyncRetriever, Retriever
    from qdrant_cir.search.effort import Effort, EffortCalibration
    from qdrant_cir.search.explanation import CellEffects, Explanation, WordEffect
    from qdrant_cir.search.query_model import ComposedQuery
    from qdrant_cir.storage.collection import CollectionInfo
    from qdrant_cir.storage.collection_options import CollectionOptions
    from qdrant_cir.storage.stores.connection import connect, connect_async
    from qdrant_cir.types import (
        AddressLimits,
        Candidate,
        GalleryImage,
        PictureLimits,
        Query,
        SearchProgress,
        SearchResult,
        Timings,
    )

__version__ = "0.1.0"

_MODULES = {
    "model.bundle": ("Bundle", "default_bundle_path", "load_bundle"),
    "contact_sheet": ("SheetRow", "draw_contact_sheet", "draw_explanation"),
    "search.effort": ("Effort", "EffortCalibration"),
    "errors": (
        "BundleError",
        "BusyError",
        "CirError",
        "CollectionError",
        "CollectionMismatchError",
        "CollectionNotFoundError",
        "EvaluationError",
        "ImageError",
        "IndexingError",
        "InputError",
        "MissingExtraError",
        "ProviderError",
        "StoreError",
        "StoreLockedError",
        "StoreUnavailableError",
        "TokensError",
        "TooLargeError",
    ),
    "indexing.sources": ("ImageRecord", "read_folder", "read_images", "read_manifest"),
    "indexing.checking": ("CheckReport", "Finding"),
    "indexing.report": ("FailedImage", "IndexProgress", "IndexReport"),
    "gallery": ("AsyncGallery", "Gallery", "attach", "attach_async"),
    "indexer": ("Indexer",),
    "search.explanation": ("CellEffects", "Explanation", "WordEffect"),
    "search.query_model": ("ComposedQuery",),
    "storage.collection": ("CollectionInfo",),
    "storage.collection_options": ("CollectionOptions",),
    "storage.stores.connection": ("connect", "connect_async"),
    "retriever": ("AsyncRetriever", "Retriever"),
    "types": (
        "AddressLimits",
        "Candidate",
        "GalleryImage",
        "PictureLimits",
        "Query",
        "SearchProgress",
        "SearchResult",
        "Timings",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Gallery",
    "AsyncGallery",
    "attach",
    "attach_async",
    "connect",
    "connect_async",
    "Retriever",
    "AsyncRetriever",
    "Indexer",
    "Query",
    "GalleryImage",
    "ComposedQuery",
    "SearchResult",
    "SearchProgress",
    "Candidate",
    "Timings",
    "Effort",
    "EffortCalibration",
    "Explanation",
    "WordEffect",
    "CellEffects",
    "ImageRecord",
    "AddressLimits",
    "PictureLimits",
    "read_folder",
    "read_images",
    "read_manifest",
    "IndexProgress",
    "IndexReport",
    "FailedImage",
    "CheckReport",
    "Finding",
    "CollectionInfo",
    "CollectionOptions",
    "Bundle",
    "default_bundle_path",
    "load_bundle",
    "SheetRow",
    "draw_contact_sheet",
    "draw_explanation",
    "CirError",
    "InputError",
    "ImageError",
    "MissingExtraError",
    "BundleError",
    "ProviderError",
    "CollectionError",
    "CollectionNotFoundError",
    "CollectionMismatchError",
    "StoreError",
    "StoreLockedError",
    "StoreUnavailableError",
    "TokensError",
    "TooLargeError",
    "BusyError",
    "IndexingError",
    "EvaluationError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
