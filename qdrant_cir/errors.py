"""Every error that qdrant-cir raises on purpose.

::

    CirError
    ├── InputError                   a query, argument or manifest row is wrong; the caller can correct it
    │   └── ImageError               an image cannot be read; the indexer reports it and continues
    ├── MissingExtraError            an optional library is not installed
    ├── BundleError                  a model folder is missing, damaged or not as its manifest says
    ├── ProviderError                the execution provider asked for is not available
    ├── CollectionError              a collection is not usable as it is
    │   ├── CollectionNotFoundError  there is no such collection
    │   └── CollectionMismatchError  it was made with another bundle
    ├── StoreError                   Qdrant cannot be reached, or refused a call
    │   ├── StoreLockedError         another process holds the store directory
    │   ├── StoreUnavailableError    it may work again in a while
    │   └── TooLargeError            one point is larger than a server, or a proxy before it, takes
    ├── TokensError                  stored candidate tokens are missing, damaged or stale
    ├── BusyError                    as many queries wait as may; ask again later
    ├── IndexingError                an indexing run could not continue
    └── EvaluationError              an evaluation cannot give an honest number

A class exists where some caller treats it differently: the indexer, the command line's exit codes, the
service's status codes. Messages say what happened, what was expected against what was found, and what to do.
"""

from uuid import UUID

__all__ = [
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
    "printable",
]


class CirError(Exception):
    """The root: ``except CirError`` catches everything this library raises on purpose."""


class InputError(CirError):
    """A query, argument or manifest row is wrong; the caller can correct it."""


class ImageError(InputError):
    """An image cannot be read or is refused (truncated, too large, not an image)."""


class MissingExtraError(CirError):
    """An optional library is not installed; the message holds the command that installs it."""


class BundleError(CirError):
    """A model folder is missing, damaged, unsafe or not what its manifest says."""


class ProviderError(CirError):
    """The onnxruntime execution provider that was asked for is not available."""


class CollectionError(CirError):
    """A collection is not usable as it is."""


class CollectionNotFoundError(CollectionError):
    """There is no collection of this name."""


class CollectionMismatchError(CollectionError):
    """The collection was made with another bundle or another schema."""


class StoreError(CirError):
    """Qdrant cannot be reached, or refused a call."""


class StoreLockedError(StoreError):
    """Another process holds the store directory."""


class StoreUnavailableError(StoreError):
    """Qdrant cannot be reached, is overloaded or fails; the same call may work in a while."""


class TooLargeError(StoreError):
    """A point is larger than a server, or a proxy before it, takes in one call.

    Attributes:
        point_ids: the points; all others of the call are written.
    """

    def __init__(self, message: str, point_ids: tuple[int | UUID, ...] = ()) -> None:
        """Keep the points beside the message."""
        super().__init__(message)
        self.point_ids = point_ids


class TokensError(CirError):
    """Stored candidate tokens are missing, damaged or stale."""


class BusyError(CirError):
    """As many queries wait as may; ask again later."""


class IndexingError(CirError):
    """An indexing run could not continue."""


class EvaluationError(CirError):
    """An evaluation cannot give an honest number."""


def printable(text: str) -> str:
    """Return a text as it stands where a terminal shows every character of it, else in quotes and escaped.

    For names that others gave: a file's name may hold commands for a terminal, or half of a surrogate pair.
    """
    return text if text.isprintable() else repr(text)


def shortened(text: str, *, most: int = 300) -> str:
    """Return a text of at most ``most`` characters: what is too long loses its middle."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 2]} ... {text[3 - half :]}"
