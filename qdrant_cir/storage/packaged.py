"""Which packaged bundle a collection was made with, where the caller names none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from typing import TypeVar

from qdrant_cir.errors import CollectionMismatchError, InputError
from qdrant_cir.model.bundle import DEFAULT_BUNDLE, PACKAGED_BUNDLES, Bundle, load_bundle
from qdrant_cir.storage.schema import OtherVersionError

__all__ = ["given_bundle", "with_bundle"]

_Result = TypeVar("_Result")


def given_bundle(bundle: str | PathLike[str] | None) -> Bundle | None:
    """Load the bundle that the caller names, before anything else is opened; None where none is named.

    Raises:
        InputError: it is no path.
        BundleError: as :func:`load_bundle`.
        InputError: it is neither a name nor a path.
    """
    if bundle is not None and not isinstance(bundle, str | PathLike):
        raise InputError(f"bundle is a {type(bundle).__name__}; expected a folder, or a packaged model's name.")
    return None if bundle is None else load_bundle(bundle)


def with_bundle(given: Bundle | None, use: Callable[[Bundle], _Result]) -> _Result:
    """Open something with the bundle that was given, or with the packaged one that made it.

    Args:
        given: None for the packaged bundle that made the collection, and for a new collection the default.
        use: opens or makes a collection; raises CollectionMismatchError where another bundle made it.

    Raises:
        CollectionMismatchError: no packaged bundle made it; said of one of the same name, else of the default one.
        BundleError: as :func:`load_bundle`, and whatever ``use`` raises.
    """
    refusal: CollectionMismatchError | None = None
    for candidate in _candidates(given):
        try:
            return use(candidate)
        except CollectionMismatchError as error:
            if refusal is None or isinstance(error, OtherVersionError):
                refusal = error
    raise refusal or CollectionMismatchError("There is no packaged bundle to open the collection with.")


def _candidates(given: Bundle | None) -> Iterator[Bundle]:
    if given is not None:
        yield given
        return
    yield load_bundle()
    yield from (load_bundle(name) for name in PACKAGED_BUNDLES if name != DEFAULT_BUNDLE)
