"""HTTP statuses: one per kind of error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qdrant_cir import errors
from qdrant_cir.types import JsonObject

__all__ = ["STATUSES", "NotHereError", "error_object", "status_of"]


class NotHereError(errors.InputError):
    """What a request names is not here: a picture, an upload that has expired."""


STATUSES: Mapping[type[errors.CirError], int] = MappingProxyType(
    {
        errors.CirError: 500,
        errors.InputError: 400,
        errors.ImageError: 400,
        errors.BundleError: 500,
        errors.ProviderError: 500,
        errors.CollectionError: 409,
        errors.CollectionNotFoundError: 404,
        errors.CollectionMismatchError: 409,
        errors.StoreError: 503,
        errors.StoreLockedError: 503,
        errors.StoreUnavailableError: 503,
        errors.TooLargeError: 500,
        errors.TokensError: 409,
        errors.BusyError: 429,
        errors.IndexingError: 500,
        errors.EvaluationError: 500,
        errors.MissingExtraError: 501,
        NotHereError: 404,
    }
)
"""Every error class has an entry of its own; a test demands it."""


def status_of(error: errors.CirError) -> int:
    """Return the status of an error: that of its class, or of the nearest class above it."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def error_object(kind: str, message: str) -> JsonObject:
    """Return the body of an answer that is an error."""
    return {"error": {"type": kind, "message": message}}
