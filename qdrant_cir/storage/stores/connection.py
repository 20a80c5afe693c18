"""One way to reach a Qdrant server, with the settings that this library's data needs."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

import grpc  # type: ignore[import-untyped]
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_cir.arguments import checked_port, checked_text
from qdrant_cir.errors import InputError
from qdrant_cir.storage.stores.places import shown_address

__all__ = ["connect", "connect_async", "place_of"]

_logger = logging.getLogger(__name__)

REST_PORT = 6333
GRPC_PORT = 6334
_TIMEOUT = 60
_PORT_TIMEOUT = 0.3
_PROBE_TIMEOUT = 1
_UNCOMPRESSED = {"grpc.compression_enabled_algorithms_bitset": 1}
_WITHOUT_GRPC = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED}
)


def connect(url: str, api_key: str | None = None, *, grpc_port: int | None = None) -> QdrantClient:
    """Make a client for a server or a cloud cluster.

    It uses gRPC where that is certain to be the same server and the port answers, else REST. Answers are not
    compressed: gzip costs 0.4 s per 12 MB of tokens, which it cannot make smaller. Calls may take a minute. A
    server that cannot be reached shows at the first call, not here.

    Args:
        url: such as ``http://localhost:6333``; 6333 is the port where none is named. A path, an IPv6 host in
            brackets, and a user and password for a proxy in front of the server may be part of it.
        api_key: the server's, if it wants one; ``QDRANT_API_KEY`` where it is None.
        grpc_port: where the server speaks gRPC; ``QDRANT_GRPC_PORT`` where it is None. Without either, gRPC is
            used on port 6334 if ``url`` names the port 6333 or none, and no path or user: behind any other
            address, the port 6334 of that host may be another server's.

    Raises:
        InputError: ``url`` is not an address, or a port is not valid.
    """
    address = _read_address(url)
    key = os.environ.get("QDRANT_API_KEY") if api_key is None else checked_text(api_key, name="api_key")
    if key and not (key.isascii() and key.isprintable()):
        raise InputError("The API key holds signs that a header cannot. Check how it was copied.")
    if key and address.scheme == "http":
        _logger.warning("The API key is sent to %s unencrypted; an address with https:// would hide it.", address.shown)
    port = _grpc_port(address, grpc_port)
    prefers_grpc = port is not None and _speaks_grpc(address, key, port)
    _logger.info("talking to %s over %s", address.shown, "gRPC" if prefers_grpc else "REST")
    return _client(address, key, port, prefers_grpc=prefers_grpc, timeout=_TIMEOUT)


def connect_async(url: str, api_key: str | None = None, *, grpc_port: int | None = None) -> AsyncQdrantClient:
    """Make an asynchronous client with the settings of :func:`connect`. Looking for gRPC blocks the caller."""
    client = connect(url, api_key, grpc_port=grpc_port)
    client.close()
    # the client has written its name into the given one, and would warn of finding it there
    return AsyncQdrantClient(**{**client.init_options, "grpc_options": dict(_UNCOMPRESSED)})


def place_of(client: QdrantClient | AsyncQdrantClient) -> str:
    """Return where a client's data is, for messages, without a password."""
    options = client.init_options
    for key in ("url", "location", "path"):
        if options.get(key) is not None:
            return f"Qdrant at {shown_address(str(options[key]))}"
    return f"Qdrant at {options.get('host') or 'localhost'}:{options.get('port')}"


@dataclass(frozen=True, slots=True)
class _Address:
    """A server's address; ``shown`` is all of it but user and password."""

    shown: str
    scheme: str
    host: str
    port: int | None
    has_path: bool
    login: tuple[str, str] | None


def _read_address(url: str) -> _Address:
    given = checked_text(url, name="url").strip()
    wrong = f"{shown_address(given)!r} is not the address of a Qdrant server"
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{wrong}: {error}.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"{wrong}. Expected one such as http://localhost:6333.")
    path = parts.path.rstrip("/")
    place = parts.netloc.rpartition("@")[2]
    login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return _Address(f"{parts.scheme}://{place}{path}", parts.scheme, host, port, bool(path), login)


def _grpc_port(address: _Address, given: int | None) -> int | None:
    """Return the port on which gRPC may be tried, None for none. Raises InputError."""
    named = os.environ.get("QDRANT_GRPC_PORT") if given is None else given
    if named not in (None, ""):
        is_number = isinstance(named, str) and named.isascii() and named.isdigit() and len(named) < 9
        return checked_port(int(named) if is_number else cast("int", named))
    is_plain = address.port in (None, REST_PORT) and not address.has_path and address.login is None
    return GRPC_PORT if is_plain else None


def _client(
    address: _Address, api_key: str | None, grpc_port: int | None, *, prefers_grpc: bool, timeout: int
) -> QdrantClient:
    try:
        return QdrantClient(
            url=address.shown,
            port=address.port or REST_PORT,
            # as api_key=, it would be a warning with a line of source over http
            headers={"api-key": api_key} if api_key else None,
            grpc_port=grpc_port or GRPC_PORT,
            prefer_grpc=prefers_grpc,
            timeout=timeout,
            grpc_options=dict(_UNCOMPRESSED),
            # headers of REST alone: gRPC would refuse this one
            metadata={"Accept-Encoding": "identity"},
            check_compatibility=False,
            auth=address.login,
        )
    except ValueError as error:
        raise InputError(f"{address.shown!r} is not the address of a Qdrant server: {error}.") from error


def _speaks_grpc(address: _Address, api_key: str | None, port: int) -> bool:
    """Return whether gRPC answers on a port; one that a firewall blocks costs 0.3 s, not a whole call."""
    try:
        socket.create_connection((address.host, port), timeout=_PORT_TIMEOUT).close()
    except (OSError, UnicodeError):
        return False
    client = _client(address, api_key, port, prefers_grpc=True, timeout=_PROBE_TIMEOUT)
    try:
        client.get_collections()
    except grpc.RpcError as error:
        code = getattr(error, "code", lambda: None)()
        return code not in _WITHOUT_GRPC
    except Exception:
        _logger.debug("the probe of gRPC failed", exc_info=True)
        return False
    finally:
        client.close()
    return True
