"""Every exception that can come through qdrant-client, and what it becomes.

The classes are not listed by hand: the client's modules are walked, so that a class that a later version adds
fails here until it has a row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from types import ModuleType

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from canned_servers import GrpcServer, grpc_server
from qdrant_client import QdrantClient, models
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
from qdrant_cir.storage.stores.errors import translated
from qdrant_cir.storage.stores.retrying import Retries


@dataclass(frozen=True, slots=True)
class Row:
    """What an exception becomes, words of the message, and whether a write is tried again after it."""

    error: Exception
    kind: type[CirError]
    words: str
    is_transient: bool = False


def response(status: int, message: str = "the reason") -> UnexpectedResponse:
    content = json.dumps({"status": {"error": message}}).encode()
    return UnexpectedResponse(status, "", content, httpx.Headers())


def unreadable() -> ValueError:
    try:
        models.CountResult.model_validate({})
    except ValueError as error:
        return error
    raise AssertionError("the client read an answer without a number")


ROWS: dict[str, Row] = {
    "any of REST": Row(ApiException("odd"), StoreError, "cannot be reached"),
    "any of the client": Row(QdrantException("odd"), StoreError, "cannot be reached"),
    "too many requests": Row(ResourceExhaustedResponse("busy", 3), StoreError, "status 429: busy", is_transient=True),
    "no connection": Row(
        ResponseHandlingException(httpx.ConnectError("refused")), StoreError, "cannot be reached", is_transient=True
    ),
    "an answer that cannot be read": Row(ResponseHandlingException(unreadable()), StoreError, "status 502"),
    "a refused call": Row(response(400), InputError, "rejected a call about the collection 'gallery': the reason"),
    "a collection that stands": Row(response(400, "Collection `g` already exists!"), CollectionError, "already"),
    "an answer without a reason": Row(
        UnexpectedResponse(500, "", b"<html>", httpx.Headers()), StoreError, "html", True
    ),
    "grpc, of a misuse of its own": Row(grpc.aio.UsageError("cancelled"), StoreError, "cancelled"),
    "grpc, without a code": Row(grpc.RpcError("odd"), StoreError, "status 500: odd"),
    "httpx itself": Row(httpx.ReadError("broken"), StoreError, "broken"),
    "an address that httpx cannot read": Row(httpx.InvalidURL("no port"), StoreError, "no port"),
    "the file system": Row(OSError("no space left"), StoreError, "no space left"),
    "a name that has no address": Row(UnicodeError("label too long"), InputError, "label too long"),
    "a client that is closed": Row(RuntimeError("Client was closed."), StoreError, "closed"),
    "no such collection in memory": Row(ValueError("Collection g not found"), CollectionNotFoundError, "'gallery'"),
    "a collection that stands in memory": Row(ValueError("Collection g already exists"), CollectionError, "already"),
    "a refused call in memory": Row(ValueError("Vector contains NaN"), InputError, "NaN"),
}

STATUSES: dict[int, type[CirError]] = {
    400: InputError,
    401: StoreError,
    403: StoreError,
    404: CollectionNotFoundError,
    409: CollectionError,
    413: TooLargeError,
    422: InputError,
}
"""What becomes of answers by status; every other one is a StoreError."""
TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}

CODES: dict[grpc.StatusCode, Row] = {
    code: Row(grpc.RpcError(), kind, words, is_transient)
    for code, kind, words, is_transient in (
        (grpc.StatusCode.ABORTED, StoreError, "status 500", False),
        (grpc.StatusCode.ALREADY_EXISTS, CollectionError, "already", False),
        (grpc.StatusCode.CANCELLED, StoreError, "status 500", False),
        (grpc.StatusCode.DATA_LOSS, StoreError, "status 500", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StoreError, "cannot be reached", True),
        (grpc.StatusCode.FAILED_PRECONDITION, InputError, "rejected", False),
        (grpc.StatusCode.INTERNAL, StoreError, "status 500", True),
        (grpc.StatusCode.INVALID_ARGUMENT, InputError, "rejected", False),
        (grpc.StatusCode.NOT_FOUND, CollectionNotFoundError, "'gallery'", False),
        (grpc.StatusCode.OUT_OF_RANGE, StoreError, "status 500", False),
        (grpc.StatusCode.PERMISSION_DENIED, StoreError, "refused the API key", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, StoreError, "status 500", True),
        (grpc.StatusCode.UNAUTHENTICATED, StoreError, "refused the API key", False),
        (grpc.StatusCode.UNAVAILABLE, StoreError, "cannot be reached", True),
        (grpc.StatusCode.UNIMPLEMENTED, StoreError, "status 500", False),
        (grpc.StatusCode.UNKNOWN, StoreError, "status 500", False),
    )
}


def exceptions_of(modules: list[ModuleType], package: str) -> set[type[Exception]]:
    """Find the exception classes that modules define or show."""
    values = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind for kind in values if issubclass(kind, Exception) and kind.__module__.split(".")[0] == package}


def loaded(package: str) -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.split(".")[0] == package]


def translation_of(error: Exception) -> CirError:
    with pytest.raises(CirError) as raised, translated("Qdrant at home", name="gallery"):
        raise error
    return raised.value


def is_tried_again(error: Exception) -> bool:
    pauses: list[float] = []

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        Retries("Qdrant at home", sleep=pauses.append, has_answered=True).call(fail)
    return bool(pauses)


@pytest.mark.parametrize("name", ROWS)
def test_a_foreign_exception_becomes_one_of_ours(name: str) -> None:
    row = ROWS[name]
    found = translation_of(row.error)
    assert type(found) is (StoreUnavailableError if row.is_transient else row.kind)
    assert row.words in str(found)
    assert found.__cause__ is row.error
    assert is_tried_again(row.error) == row.is_transient


def test_every_exception_class_of_the_client_has_a_row() -> None:
    found = exceptions_of(loaded("qdrant_client"), "qdrant_client")
    assert {ApiException, QdrantException} < found
    assert found == {type(row.error) for row in ROWS.values()} & found


def test_every_status_of_http_becomes_the_error_of_its_row_and_the_transient_ones_are_tried_again() -> None:
    failures = [status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST]
    assert {status: type(translation_of(response(status))) for status in failures} == {
        status: StoreUnavailableError if status in TRANSIENT_STATUSES else STATUSES.get(status, StoreError)
        for status in failures
    }
    assert {status for status in failures if is_tried_again(response(status))} == TRANSIENT_STATUSES


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_a_store_error_that_asks_for_another_key(status: int) -> None:
    found = translation_of(response(status))
    assert type(found) is StoreError
    assert "refused the API key" in str(found)


def test_whatever_httpx_raises_is_a_store_error_that_names_it() -> None:
    found = exceptions_of(loaded("httpx"), "httpx")
    assert {httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.InvalidURL} < found
    for kind in found:
        # made without their own arguments, which differ: a request, a response, a message
        error = translation_of(ResponseHandlingException(Exception.__new__(kind, "the reason")))
        assert type(error) is (
            StoreUnavailableError if is_tried_again(ResponseHandlingException(Exception.__new__(kind))) else StoreError
        )
        assert f"{kind.__name__}: the reason" in str(error)


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[GrpcServer, QdrantClient]]:
    with grpc_server() as server:
        client = QdrantClient(
            url="http://127.0.0.1:9", grpc_port=server.port, prefer_grpc=True, check_compatibility=False
        )
        yield server, client
        client.close()


def test_every_code_of_grpc_has_a_row() -> None:
    assert CODES.keys() == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_a_call_that_grpc_ends_with_a_code_becomes_the_error_of_its_row(
    refusing: tuple[GrpcServer, QdrantClient], code: grpc.StatusCode
) -> None:
    server, client = refusing
    server.code = code
    row = CODES[code]
    with pytest.raises(grpc.RpcError) as raised:
        client.get_collection("gallery")
    found = translation_of(raised.value)
    assert type(found) is (StoreUnavailableError if row.is_transient else row.kind)
    assert row.words in str(found)
    assert is_tried_again(raised.value) == row.is_transient


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda client: client.get_collection("nowhere"), CollectionNotFoundError),
        (lambda client: client.create_collection("gallery", vectors_config={}), CollectionError),
        (lambda client: client.query_points("gallery", [1.0], using="nothing"), InputError),
        (lambda client: (client.close(), client.get_collections()), StoreError),
    ],
    ids=["missing", "standing", "wrong", "closed"],
)
def test_what_the_client_raises_in_memory_becomes_one_of_ours(
    call: Callable[[QdrantClient], object], kind: type[CirError]
) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("gallery", vectors_config={})
    with pytest.raises(kind) as raised, translated("Qdrant in memory", name="gallery"):
        call(client)
    assert raised.type is kind
    client.close()
