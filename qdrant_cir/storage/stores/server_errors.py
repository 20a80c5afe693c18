"""What qdrant-client raises, over REST, gRPC and in memory, in the terms of :mod:`qdrant_cir.errors`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from qdrant_cir.errors import CirError, CollectionError, CollectionNotFoundError, InputError, StoreError

__all__ = ["call_with_backoff", "translated"]

_logger = logging.getLogger(__name__)

_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before each further attempt at a write."""

_LONGEST_PAUSE = 30.0

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
_HTTP_STATUS_OF = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
}


@contextmanager
def translated(place: str, *, name: str | None) -> Iterator[None]:
    """Turn what the client raises into an error of ours that says where and what to do.

    Args:
        place: the server, for the message.
        name: of the collection that the call was about, None for none.

    Raises:
        CollectionNotFoundError: there is no such collection.
        CollectionError: it stands already.
        InputError: Qdrant finds the call itself wrong.
        StoreError: all else.
    """
    try:
        yield
    except CirError:
        raise
    except (ApiException, QdrantException, grpc.RpcError, OSError, RuntimeError, ValueError) as error:
        raise _translate(error, place=place, name=name) from error


def call_with_backoff(call: Callable[[], object], *, place: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Make a call that may be repeated, again after growing pauses while the failure is likely to pass.

    Args:
        call: is made up to five times.
        place: the server, for the log.
        sleep: waits so many seconds.

    Raises:
        Exception: what the client raised, of the last of five attempts or at once where waiting does not
            help.
    """
    for pause in _PAUSES:
        try:
            call()
        except (ApiException, QdrantException, grpc.RpcError) as error:
            if not _is_transient(error):
                raise
            asked = error.retry_after_s if isinstance(error, ResourceExhaustedResponse) else 0.0
            wait = min(max(pause, asked), _LONGEST_PAUSE)
            _logger.warning("%s failed (%s); trying again in %.1f s", place, _detail_of(error), wait)
            sleep(wait)
        else:
            return
    call()


def _is_transient(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TRANSIENT_STATUS
    if isinstance(error, ResponseHandlingException):
        # anything but an answer that cannot be read: no connection, or none in time
        return not isinstance(error.source, ValueError)
    if isinstance(error, grpc.RpcError):
        return _code_of(error) in _TRANSIENT_CODES
    return isinstance(error, ResourceExhaustedResponse)


def _translate(error: Exception, *, place: str, name: str | None) -> CirError:
    status = _status_of(error)
    detail = _detail_of(error)
    subject = "" if name is None else f" about the collection {name!r}"
    if status == HTTPStatus.NOT_FOUND and name is not None:
        return CollectionNotFoundError(f"There is no collection {name!r} in {place}. Index images into it first.")
    if status == HTTPStatus.CONFLICT:
        return CollectionError(
            f"There is already a collection {name!r} in {place}. Drop it first, or use another name."
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return StoreError(f"{place} refused the API key{subject}: {detail}. Give a key that may do this.")
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return InputError(f"{place} finds a call{subject} wrong: {detail}")
    if status is None:
        return StoreError(
            f"{place} cannot be reached{subject}: {detail}. Check the address, and that Qdrant runs there and answers."
        )
    return StoreError(f"{place} failed{subject} with status {status}: {detail}. See the server's log.")


def _status_of(error: Exception) -> int | None:
    """Give the HTTP status that an error stands for, None where nothing answered."""
    if isinstance(error, UnexpectedResponse):
        if b"already exists" in error.content:
            return HTTPStatus.CONFLICT
        return error.status_code
    if isinstance(error, ResourceExhaustedResponse):
        return HTTPStatus.TOO_MANY_REQUESTS
    if isinstance(error, grpc.RpcError):
        code = _code_of(error)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None
        if "already exists" in _detail_of(error):
            return HTTPStatus.CONFLICT
        return _HTTP_STATUS_OF.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, ResponseHandlingException) and isinstance(error.source, ValueError):
        return HTTPStatus.BAD_GATEWAY
    if isinstance(error, ValueError):
        return _status_in_memory(str(error))
    return None


def _status_in_memory(message: str) -> int:
    """Give the status of what the client's local mode says; it raises nothing but ValueError."""
    if message.startswith("Collection ") and message.endswith("not found"):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.CONFLICT if message.endswith("already exists") else HTTPStatus.BAD_REQUEST


def _code_of(error: grpc.RpcError) -> grpc.StatusCode:
    code = getattr(error, "code", lambda: None)()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _detail_of(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        try:
            return str(json.loads(error.content)["status"]["error"])
        except (ValueError, KeyError, TypeError):
            return str(error).replace("\n", " ")
    if isinstance(error, grpc.RpcError):
        return str(getattr(error, "details", lambda: None)() or error)
    if isinstance(error, ResponseHandlingException):
        return f"{type(error.source).__name__}: {error.source}".replace("\n", " ")
    return str(error)
