"""``qdrant-cir serve``: composed search over HTTP, and the page."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    PrecisionOption,
    ProviderOption,
    StoreOptions,
    VectorOption,
    precision_named,
    provider_named,
    with_options,
)
from qdrant_cir.cli.search import MinMatchOption
from qdrant_cir.errors import InputError, MissingExtraError

__all__ = ["serve"]

_RETRY_SECONDS = 2.0
"""How long a call of Qdrant's is tried again where nothing else is asked for: a client waits for the answer."""

_LAST_PORT = 65_535


@with_options({"store": StoreOptions})
def serve(
    *,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Collection to serve; may be repeated; all by default."),
    ] = None,
    vector: VectorOption = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Folder that files of attached collections must lie below; by default the one they were attached "
            "with. Without any, only addresses are opened.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8000,
    service_key: Annotated[
        str | None,
        typer.Option(
            "--service-key",
            envvar="QDRANT_CIR_SERVICE_KEY",
            help="Key that clients must send; none by default.",
            show_default=False,
        ),
    ] = None,
    running: Annotated[int, typer.Option("--running", help="Queries that are answered at the same time.")] = 2,
    waiting: Annotated[int, typer.Option("--waiting", help="Queries that wait; the next one is answered 429.")] = 32,
    deadline_ms: Annotated[
        int | None,
        typer.Option(
            "--deadline-ms",
            help="Milliseconds after which a query re-ranks no further, where it names none.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            help="Stop early once this share of the results is expected to match full re-ranking, where a query names "
            "none.",
            show_default=False,
        ),
    ] = None,
    min_match: MinMatchOption = None,
    most_megabytes: Annotated[int, typer.Option("--max-body", help="Megabytes of one request.")] = 20,
    origins: Annotated[
        list[str] | None,
        typer.Option("--cors", help="Origin of a page on another host that may call; may be repeated."),
    ] = None,
    addresses: Annotated[
        bool,
        typer.Option("--addresses", help="Let clients of /rerank name pictures by http(s) addresses."),
    ] = False,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "float32",
    store: StoreOptions,
) -> None:
    """Answer searches over HTTP, and show the page.

    Stops at Ctrl-C or SIGTERM, when all that was accepted has been answered. A call that Qdrant fails is tried again
    for 2 seconds, or --retry-seconds.
    """
    try:
        from qdrant_cir.service.answering import Settings
        from qdrant_cir.service.run import Address, Opened
        from qdrant_cir.service.run import serve as run_service
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'`serve` needs {error.name}, which is not installed. Run: pip install "qdrant-cir[service]"'
        ) from error
    for name, value, least in (
        ("--port", port, 0),
        ("--running", running, 1),
        ("--waiting", waiting, 0),
        ("--max-body", most_megabytes, 1),
        ("--deadline-ms", deadline_ms, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}.")
    if port > _LAST_PORT:
        raise InputError(f"--port is {port}; it must be at most {_LAST_PORT}.")
    if service_key is not None and not service_key.strip():
        raise InputError("--service-key is empty, which would let everybody in. Give a key, or leave it out.")
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"--confidence is {confidence}; it must be above 0 and below 1.")
    if min_match is not None and not 0 <= min_match <= 1:
        raise InputError(f"--min-match is {min_match}; it must be a probability, from 0 to 1.")
    settings = Settings(
        running=running,
        waiting=waiting,
        deadline_ms=deadline_ms,
        confidence=confidence,
        min_match=min_match,
        api_key=service_key,
        most_bytes=most_megabytes * 1_000_000,
        addresses=addresses,
    )
    how = Opened(
        vector=vector,
        bundle=bundle,
        provider=provider_named(provider),
        precision=precision_named(precision),
        root=None if root is None else root.resolve(),
    )
    _log_to_stderr()
    place = store.place
    if place.retry_seconds is None:
        place = replace(place, retry_seconds=_RETRY_SECONDS)
    with place.opened(creates=False) as opened:
        run_service(opened, collections or [], how, settings, Address(host, port, origins or []))
    printing.print_note("Stopped; what was accepted has been answered.")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("qdrant_cir.service")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
