"""What stands before every route: the key, the largest body, the request's id, security headers, log and metrics."""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from qdrant_client.context_headers import headers as qdrant_headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qdrant_cir.service.observing import Metrics
from qdrant_cir.service.statuses import error_object

__all__ = ["OPEN_PATHS", "Guard", "request_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered."""

OPEN_PATHS = ("/healthz", "/readyz", "/", "/page/")
"""What needs no key: probes, and the files of the page."""

_MOST_VALUES = 20_000
"""Values in a body of JSON: each may become an error of its own, a hundred times as large."""

_HELD_BODIES = 16
"""Bodies of the greatest size that are held at the same time; of smaller ones more."""

_log = logging.getLogger("qdrant_cir.service")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, api_key: str | None, most_bytes: int) -> None:
        """Let requests to ``app`` that have the key, if there is one, and a body of at most ``most_bytes``."""
        self._app, self._metrics = app, metrics
        self._key = None if not api_key else api_key.encode()
        self._most_bytes = most_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # whatever answers GET; the server leaves out the body
            scope = {**scope, "method": "GET"}
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        own_id = given.decode() if _ID.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(own_id)
        began, status = perf_counter(), 500
        body = _Body(is_json=b"json" in headers.get(b"content-type", b"").lower())

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, (b"x-request-id", own_id.encode())]
            await send(message)

        try:
            with qdrant_headers({"X-Request-ID": own_id}):
                if refused := self._refused(scope["path"], headers):
                    await _send_error(answer, *refused)
                else:
                    await self._app(scope, self._limited(receive, body), answer)
        except Exception:
            # it has been answered 500; raised further, it would cost the client its connection
            _log.exception("request %s failed", own_id)
        finally:
            self._held -= body.taken
            seconds = perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.responded(route, status, seconds)
            _log.info(
                "%s",
                json.dumps(
                    {
                        "request": own_id,
                        "method": method,
                        "path": scope["path"],
                        "status": status,
                        "ms": round(seconds * 1000, 1),
                    }
                ),
            )
            request_id.reset(token)

    def _refused(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str, str] | None:
        is_open = path in OPEN_PATHS[:3] or path.startswith(OPEN_PATHS[3])
        if self._key is not None and not is_open and not self._has_key(headers):
            return 401, "Unauthorized", "Send the key of this service as `Authorization: Bearer KEY` or `api-key: KEY`."
        length = headers.get(b"content-length", b"")
        if length.isdigit() and len(length) < 20 and int(length) > self._most_bytes:
            return 413, "TooLarge", self._too_large
        return None

    def _has_key(self, headers: Mapping[bytes, bytes]) -> bool:
        bearer = headers.get(b"authorization", b"")
        given = bearer[7:].strip() if bearer[:7].lower() == b"bearer " else headers.get(b"api-key", b"")
        return hmac.compare_digest(given, self._key or b"")

    @property
    def _too_large(self) -> str:
        return f"The body has more than {self._most_bytes:,} bytes, the most that this service takes."

    def _limited(self, receive: Receive, body: _Body) -> Receive:
        async def receive_some() -> Message:
            message = await receive()
            part = message.get("body", b"")
            body.taken += len(part)
            self._held += len(part)
            if body.taken > self._most_bytes:
                raise HTTPException(413, self._too_large)
            if self._held > _HELD_BODIES * self._most_bytes:
                raise HTTPException(429, "Too many large bodies are being read. Ask again later.", {"Retry-After": "1"})
            if body.is_json:
                # base64 has no commas
                body.values += part.count(b",")
                if body.values > _MOST_VALUES:
                    raise HTTPException(413, f"The body has more than {_MOST_VALUES:,} values, the most that are read.")
            return message

        return receive_some


@dataclass(slots=True)
class _Body:
    """What has been read of a request's body."""

    is_json: bool
    taken: int = 0
    values: int = 0


async def _send_error(send: Send, status: int, kind: str, message: str) -> None:
    body: dict[str, Any] = error_object(kind, message)
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
