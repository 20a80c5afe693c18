"""One way to reach a Qdrant server, with the settings that this library's data needs."""

from __future__ import annotations

import logging
import os
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_cir.errors import InputError

__all__ = ["connect", "connect_async", "place_of"]

_logger = logging.getLogger(__name__)

GRPC_PORT = 6334
_TIMEOUT = 60
_PROBE_TIMEOUT = 3
_WITHOUT_GRPC = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED}
)


def connect(url: str, api_key: str | None = None, *, grpc_port: int = GRPC_PORT) -> QdrantClient:
    """Make a client for a server or a cloud cluster.

    It speaks gRPC where the server answers on ``grpc_port`` within three seconds, else REST. Responses are
    not
    compressed: gzip costs 0.4 s per 12 MB of tokens, which it cannot make smaller. Calls may take a minute. A
        server
    that cannot be reached shows at the first call, not here.

    Args:
        url: such as ``http://localhost:6333``.
        api_key: the server's, if it wants one; ``QDRANT_API_KEY`` where it is None.
        grpc_port: where the server speaks gRPC.

    Raises:
        InputError: ``url`` is no address.
    """
    api_key = os.environ.get("QDRANT_API_KEY") if api_key is None else api_key
    prefers_grpc = _speaks_grpc(url, api_key, grpc_port)
    _logger.info("talking to %s over %s", url, "gRPC" if prefers_grpc else "REST")
    return _client(url, api_key, grpc_port, prefers_grpc=prefers_grpc, timeout=_TIMEOUT)


def connect_async(url: str, api_key: str | None = None, *, grpc_port: int = GRPC_PORT) -> AsyncQdrantClient:
    """Make an asynchronous client with the settings of :func:`connect`; the probing blocks the caller."""
    client = connect(url, api_key, grpc_port=grpc_port)
    client.close()
    return AsyncQdrantClient(**client.init_options)


def place_of(client: QdrantClient | AsyncQdrantClient) -> str:
    """Name where a client's data is, for messages."""
    options = client.init_options
    for key in ("url", "location", "path"):
        if options.get(key) is not None:
            return f"Qdrant at {options[key]}"
    return f"Qdrant at {options.get('host') or 'localhost'}:{options.get('port')}"


def _client(url: str, api_key: str | None, grpc_port: int, *, prefers_grpc: bool, timeout: int) -> QdrantClient:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no address of a Qdrant server: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is no address of a Qdrant server. Expected one such as http://localhost:6333.")
    return QdrantClient(
        url=url,
        port=port or 6333,
        api_key=api_key,
        grpc_port=grpc_port,
        prefer_grpc=prefers_grpc,
        timeout=timeout,
        grpc_options={"grpc.compression_enabled_algorithms_bitset": 1},
        # headers of REST alone: gRPC would refuse this one
        metadata={"Accept-Encoding": "identity"},
        check_compatibility=False,
    )


def _speaks_grpc(url: str, api_key: str | None, grpc_port: int) -> bool:
    client = _client(url, api_key, grpc_port, prefers_grpc=True, timeout=_PROBE_TIMEOUT)
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
