"""Which version of Qdrant a server is, and what is said of one that is too old or far from the client's."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from http import HTTPStatus

import grpc  # type: ignore[import-untyped]
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_cir.errors import StoreError
from qdrant_cir.storage.stores.errors import CLIENT_ERRORS
from qdrant_cir.storage.stores.memory import is_local

__all__ = ["NEEDED", "check_versions", "checks_itself", "raise_if_too_old"]

_logger = logging.getLogger(__name__)

NEEDED = (1, 18)
"""The first version of the server that has every call of ours."""

_FAR = 3
"""Minor versions between client and server from which on they are warned of."""


def checks_itself(client: QdrantClient | AsyncQdrantClient) -> bool:
    """Whether a client has compared the versions already, or has no server."""
    return is_local(client) or bool(client.init_options.get("check_compatibility"))


def check_versions(client: QdrantClient, place: str) -> None:
    """Log a warning where client and server are three minor versions apart, or of another major one."""
    shown = _server_version(client)
    own = importlib.metadata.version("qdrant-client")
    server, library = _parsed(shown), _parsed(own)
    if server is None or library is None:
        return
    if server[0] != library[0] or abs(server[1] - library[1]) >= _FAR:
        _logger.warning(
            "%s is version %s and qdrant-client is %s; they are made for versions next to each other. "
            "Upgrade the older one.",
            place,
            shown,
            own,
        )


def raise_if_too_old(client: QdrantClient, place: str, error: Exception) -> None:
    """Raise StoreError where a call failed because the server is too old to know it; return for all else."""
    if not _says_unknown(error):
        return
    shown = _server_version(client)
    server = _parsed(shown)
    if server is not None and server < NEEDED:
        raise StoreError(
            f"{place} is version {shown} and lacks a call: this needs Qdrant {NEEDED[0]}.{NEEDED[1]}. "
            "Upgrade the server."
        ) from error


def _says_unknown(error: Exception) -> bool:
    """Whether a failure is what a server answers to a call that it does not know."""
    if isinstance(error, UnexpectedResponse):
        # Qdrant's own 404, of a collection or a point, has a body
        unknown = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
        return error.status_code in unknown and not error.content.strip()
    code = getattr(error, "code", lambda: None)() if isinstance(error, grpc.RpcError) else None
    return code is grpc.StatusCode.UNIMPLEMENTED


def _server_version(client: QdrantClient) -> str:
    """Return what a server says its version is, nothing where it does not say."""
    try:
        return str(client.info().version)
    except CLIENT_ERRORS:
        _logger.debug("the server does not say its version", exc_info=True)
        return ""


def _parsed(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return None if found is None else (int(found[1]), int(found[2]))
