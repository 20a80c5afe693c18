"""``qdrant-cir serve``: opens the collections, and answers until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from socket import socket as Socket  # noqa: N812 - a class
from typing import TYPE_CHECKING

import uvicorn
from PIL import Image
from starlette.middleware.cors import CORSMiddleware

from qdrant_cir.errors import CollectionNotFoundError, InputError
from qdrant_cir.gallery import AsyncGallery
from qdrant_cir.indexing.opening import PictureOpener
from qdrant_cir.model.compute import ExecutionProvider
from qdrant_cir.service.answering import Settings
from qdrant_cir.service.app import create_app, guarded
from qdrant_cir.service.served import Served, refuse_files
from qdrant_cir.storage.attachment import list_attachments
from qdrant_cir.storage.collection import Collection, list_collections
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import ImageSource, Precision

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Address", "Opened", "listen", "open_served", "serve"]

_log = logging.getLogger("qdrant_cir.service")

_GRACE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service listens, and the origins of pages on other hosts that may call it."""

    host: str = "127.0.0.1"
    port: int = 8000
    origins: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """How collections are opened.

    Attributes:
        vector: of attached collections.
        bundle: a model folder or a packaged model's name; None for the one that made the collection.
        provider: where graphs run.
        precision: what the re-ranker computes in.
        root: below which the files of attached collections lie; None for the root that each was attached with.
    """

    vector: str | None = None
    bundle: Path | None = None
    provider: ExecutionProvider = "auto"
    precision: Precision = "float32"
    root: Path | None = None


async def open_served(store: Store, names: Sequence[str], how: Opened) -> dict[str, Served]:
    """Open collections of a store; all of its galleries where none is named.

    Raises:
        CollectionNotFoundError: one does not exist, or there is no gallery at all.
        CirError: as :meth:`Gallery.open`.
    """
    chosen = names or await asyncio.to_thread(_galleries, store)
    served: dict[str, Served] = {}
    for name in chosen:
        served[name] = await _open(store, name, how)
    if not served:
        raise CollectionNotFoundError("There is no gallery to serve. `qdrant-cir index` makes one.")
    return served


def serve(store: Store, names: Sequence[str], how: Opened, settings: Settings, address: Address) -> None:
    """Answer until SIGTERM or SIGINT; what was accepted is answered first.

    Raises:
        InputError: the port is taken.
        CirError: as :func:`open_served`.
    """
    asyncio.run(_serve(store, names, how, settings, address))


def listen(config: uvicorn.Config) -> Socket:
    """Listen where a configuration says. Raises InputError where that cannot be."""
    try:
        listening = config.bind_socket()
    except SystemExit as error:
        raise InputError(
            f"{config.host}:{config.port} cannot be listened on; something else may use it. Give another --port."
        ) from error
    # asyncio does it for sockets that were made for TCP by number, which this one was not; without it the second part
    # of every answer waits 40 ms until the client has acknowledged the first
    listening.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    listening.listen(config.backlog)
    return listening


async def _serve(store: Store, names: Sequence[str], how: Opened, settings: Settings, address: Address) -> None:
    _trace()
    served = await open_served(store, names, how)
    app = create_app(served, settings)
    # the first query shall not wait for the model
    for each in served.values():
        await each.gallery.compose(Image.new("RGB", (8, 8)))
    guard: ASGIApp = guarded(app, settings)
    if address.origins:
        guard = CORSMiddleware(
            guard,
            allow_origins=list(address.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "api-key", "content-type", "x-request-id"],
        )
    config = uvicorn.Config(
        guard,
        host=address.host,
        port=address.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config)
    listening = listen(config)
    host = f"[{address.host}]" if ":" in address.host else address.host
    _log.info("serving %s on http://%s:%s", ", ".join(served), host, listening.getsockname()[1])
    await server.serve([listening])


async def _open(store: Store, name: str, how: Opened) -> Served:
    found = await asyncio.to_thread(Collection.find, store, name, vector=how.vector)
    opener: Callable[[str], ImageSource] | None = None
    if found.attachment is not None:
        root = how.root or found.attachment.root
        any_opener = PictureOpener.of_attached(found.attachment, root=root)
        opener = any_opener if root is not None else refuse_files(any_opener)
    gallery = await AsyncGallery.open(
        name,
        store=store,
        vector=None if found.attachment is None else found.attachment.vector,
        bundle=how.bundle,
        open_picture=opener,
        provider=how.provider,
        precision=how.precision,
    )
    return Served(name, gallery, open_picture=opener)


def _galleries(store: Store) -> list[str]:
    return sorted({*list_collections(store), *(each.collection for each in list_attachments(store))})


class _Server(uvicorn.Server):
    """Ends by itself at a signal, without raising it again: to be told to stop is no error."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _trace() -> None:
    """Send spans where OTEL_EXPORTER_OTLP_ENDPOINT says, if OpenTelemetry's SDK and exporter are installed."""
    if "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        _log.warning('OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra is missing: pip install "qdrant-cir[otel]"')
        return
    provider = TracerProvider(resource=Resource.create({"service.name": "qdrant-cir"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
