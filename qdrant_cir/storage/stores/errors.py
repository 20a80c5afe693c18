"""Translation of qdrant-client's errors, over REST, gRPC and in memory, to :mod:`qdrant_cir.errors`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from qdrant_cir.errors import (
    CirError,
    CollectionError,
    CollectionNotFoundError,
    InputError,
    StoreError,
    StoreUnavailableError,
    TooLargeError,
)
from qdrant_cir.storage.stores.checks import needs_index
from qdrant_cir.storage.stores.protocol import INDEX_KINDS

__all__ = [
    "CLIENT_ERRORS",
    "NotAppliedError",
    "detail_of",
    "has_answer",
    "is_transient",
    "most_results",
    "retry_after",
    "says_exists",
    "says_status",
    "translated",
]

CLIENT_ERRORS = (
    ApiException,
    QdrantException,
    grpc.RpcError,
    grpc.aio.UsageError,
    httpx.HTTPError,
    httpx.InvalidURL,
    OSError,
    RuntimeError,
    ValueError,
)
"""Errors that the client raises, its own and those of its libraries, over REST, gRPC and in memory."""

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # what is status 500 over REST, such as a shard of which no copy answers
        grpc.StatusCode.INTERNAL,
    }
)
_HTTP_STATUS_OF = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
}


_NO_INDEX = re.compile(r'Index required but not found for \\?"(.+?)\\?"(?: of one of the following types: \[(\w+))?')
_OVER_LIMIT = re.compile(r'Limit exceeded (\d+) > (\d+) for \\?"([^"\\]+)')
"""What a server in strict mode says of a call that it forbids."""


class NotAppliedError(RuntimeError):
    """A server took a write but has not applied it, so that it may still be lost."""


@contextmanager
def translated(
    place: str, *, name: str | None, is_companion: bool = False, worded: Callable[[str], str] = str
) -> Iterator[None]:
    """Turn an error of the client into one of this library that says where it happened and what to do.

    Args:
        place: the server, for the message.
        name: of the collection that the call was about, None for none.
        is_companion: whether it was about the companion of that collection.
        worded: makes the server's own words plain.

    Raises:
        CollectionNotFoundError: there is no such collection.
        CollectionError: it exists already.
        InputError: Qdrant finds the call itself wrong.
        TooLargeError: the call is larger than the server, or a proxy before it, takes.
        StoreUnavailableError: the failure is likely to pass.
        StoreError: anything else.
    """
    try:
        yield
    except CirError:
        raise
    except CLIENT_ERRORS as error:
        raise _translate(error, worded(detail_of(error)), place=place, name=name, is_companion=is_companion) from error


def is_transient(error: Exception) -> bool:
    """Return whether a failure is likely to pass, so that the call may be made again."""
    if _is_too_large(error):
        return False
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TRANSIENT_STATUS
    if isinstance(error, ResponseHandlingException):
        # no connection, one that broke, or no answer in time; an answer that cannot be read stays so
        lasting = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        return isinstance(error.source, httpx.TransportError | OSError) and not isinstance(error.source, lasting)
    if isinstance(error, grpc.RpcError):
        return _code_of(error) in _TRANSIENT_CODES
    return isinstance(error, ResourceExhaustedResponse | NotAppliedError) or _unread_date(error) is not None


def has_answer(error: Exception) -> bool:
    """Return whether a failure shows that a server is there."""
    if isinstance(error, grpc.RpcError):
        return _code_of(error) not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if isinstance(error, ResponseHandlingException):
        return not isinstance(error.source, httpx.ConnectError | httpx.ConnectTimeout)
    return isinstance(error, UnexpectedResponse | QdrantException | NotAppliedError)


def retry_after(error: Exception) -> float:
    """Return the seconds that a server asks to wait, by ``Retry-After`` as a number or a date; 0 for none."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    asked = error.headers.get("Retry-After") if isinstance(error, UnexpectedResponse) else _unread_date(error)
    if not asked:
        return 0.0
    try:
        if asked.strip().isdigit():
            return float(asked)
        moment = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return 0.0
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())


def _unread_date(error: Exception) -> str | None:
    """Return the date in the client's error about a ``Retry-After`` of a 429 that is not a number."""
    if type(error) is not QdrantException:
        return None
    found = re.fullmatch(r"Retry-After header value is not a valid integer: (.*)", str(error))
    return None if found is None else found[1]


def _translate(error: Exception, detail: str, *, place: str, name: str | None, is_companion: bool) -> CirError:
    status = _status_of(error)
    subject = "" if name is None else f" about {'the tokens of ' if is_companion else ''}the collection {name!r}"
    if _is_too_large(error):
        return TooLargeError(f"{place} does not take a call{subject} of this size: {detail}. Write less at once.")
    if _is_foreign(error):
        # a proxy's page is not the user's mistake, and says nothing about collections
        return (StoreUnavailableError if is_transient(error) else StoreError)(
            f"{place} answered a call{subject} with status {status} and text that is not a Qdrant server's: {detail}. "
            "Check the address, and any proxy in front of the server."
        )
    if status == HTTPStatus.NOT_FOUND and is_companion:
        return CollectionNotFoundError(
            f"The tokens of the collection {name!r} are gone from {place}. Index again, or attach again and index."
        )
    if status == HTTPStatus.NOT_FOUND and name is not None:
        return CollectionNotFoundError(f"There is no collection {name!r} in {place}. Index images into it first.")
    if status == HTTPStatus.CONFLICT:
        return CollectionError(
            f"There is already a collection {name!r} in {place}{', or one of tokens for it' if is_companion else ''}. "
            "Drop it first, or use another name."
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return StoreError(f"{place} refused the API key{subject}: {detail}. Give a key that may do this.")
    if (no_index := _NO_INDEX.search(detail)) is not None and name is not None:
        kind_of_index = no_index[2] if no_index[2] in INDEX_KINDS else "keyword"
        return needs_index(name, no_index[1], kind_of_index, why="this call in strict mode")
    if (most := most_results(error)) is not None:
        return InputError(
            f"{place} gives at most {most} results of the collection {name!r} at once (strict mode). Lower limit and "
            f"rerank_depth to {most}, or to less with exclude_reference."
        )
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return InputError(f"{place} rejected a call{subject}: {detail}")
    kind = StoreUnavailableError if is_transient(error) else StoreError
    if status is None:
        return kind(
            f"{place} cannot be reached{subject}: {detail}. Check the address, and that Qdrant runs there and answers."
        )
    if (asked := retry_after(error)) > 0:
        return kind(
            f"{place} failed{subject} with status {status}: {detail}. It asks to wait {asked:.0f} s, and retries go on "
            "for less (retry_seconds, --retry-seconds). Try again then."
        )
    return kind(f"{place} failed{subject} with status {status}: {detail}. See the server's log.")


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error stands for, None where nothing answered."""
    if isinstance(error, UnexpectedResponse):
        if says_exists(error):
            return HTTPStatus.CONFLICT
        return error.status_code
    if isinstance(error, ResourceExhaustedResponse) or _unread_date(error) is not None:
        return HTTPStatus.TOO_MANY_REQUESTS
    if isinstance(error, NotAppliedError):
        return HTTPStatus.ACCEPTED
    if isinstance(error, grpc.RpcError):
        code = _code_of(error)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None
        if "already exists" in detail_of(error):
            return HTTPStatus.CONFLICT
        return _HTTP_STATUS_OF.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, ResponseHandlingException) and isinstance(error.source, ValueError):
        return HTTPStatus.BAD_GATEWAY
    if isinstance(error, json.JSONDecodeError):
        return HTTPStatus.OK
    if isinstance(error, ValueError) and not _says_closed(error):
        return _status_in_memory(str(error))
    return None


def _is_too_large(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return True
    elif not isinstance(error, grpc.RpcError):
        return False
    detail = detail_of(error)
    limit = _OVER_LIMIT.search(detail)
    return "larger than max" in detail or (limit is not None and limit[3] != "limit")


def most_results(error: Exception) -> int | None:
    """Return how many results strict mode allows, where a failure is that more were asked for."""
    found = _OVER_LIMIT.search(detail_of(error)) if isinstance(error, UnexpectedResponse | grpc.RpcError) else None
    return int(found[2]) if found is not None and found[3] == "limit" else None


def _says_closed(error: ValueError) -> bool:
    """Return whether gRPC was called after the client was closed."""
    return "closed channel" in str(error)


def _is_foreign(error: Exception) -> bool:
    """Return whether an answer is another program's, such as the page of a proxy."""
    if isinstance(error, UnexpectedResponse):
        wrong = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
        is_page = error.content.lstrip().startswith(b"<") or 300 <= (error.status_code or 0) < 400
        return is_page or (error.status_code in wrong and not says_status(error))
    return isinstance(error, json.JSONDecodeError)


def says_exists(error: Exception) -> bool:
    """Return whether an answer over REST says that a collection is there already."""
    return isinstance(error, UnexpectedResponse) and (
        error.status_code == HTTPStatus.CONFLICT or b"already exists" in error.content
    )


def says_status(error: UnexpectedResponse) -> bool:
    """Return whether an answer has the form of Qdrant's, and is not a proxy's page."""
    try:
        return "status" in json.loads(error.content)
    except (ValueError, TypeError, RecursionError):
        return False


def _status_in_memory(message: str) -> int:
    """Return the status for a message of the client's local mode, which raises only ValueError."""
    if message.startswith("Collection ") and message.endswith("not found"):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.CONFLICT if message.endswith("already exists") else HTTPStatus.BAD_REQUEST


def _code_of(error: grpc.RpcError) -> grpc.StatusCode:
    code = getattr(error, "code", lambda: None)()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def detail_of(error: Exception) -> str:
    """Return a failure's own message, in one line."""
    if isinstance(error, UnexpectedResponse):
        try:
            return str(json.loads(error.content)["status"]["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return str(error).replace("\n", " ")
    if isinstance(error, grpc.RpcError):
        return str(getattr(error, "details", lambda: None)() or error)
    if isinstance(error, ResponseHandlingException):
        return f"{type(error.source).__name__}: {error.source}".replace("\n", " ")
    return str(error)
