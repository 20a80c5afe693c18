"""Whoever takes a server's address takes its key, its gRPC port and the seconds of retrying, and passes them on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from qdrant_cir import AsyncGallery, AsyncRetriever, Gallery, Indexer, Retriever, attach, attach_async
from qdrant_cir.errors import StoreError
from qdrant_cir.storage.stores.server import ServerStore

URL = "http://host:6333"


async def _awaited(opening: Awaitable[object]) -> object:
    return await opening


DOORS: dict[str, Callable[[str], object]] = {
    "Gallery.create": lambda b: Gallery.create(
        "c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5
    ),
    "Gallery.open": lambda b: Gallery.open("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5),
    "attach": lambda b: attach(URL, "c", picture="p", bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5),
    "Retriever": lambda b: Retriever.open("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5),
    "Indexer": lambda b: Indexer.open("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5),
    "AsyncRetriever": lambda b: asyncio.run(
        _awaited(AsyncRetriever.open("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5))
    ),
    "AsyncGallery.create": lambda b: asyncio.run(
        _awaited(AsyncGallery.create("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5))
    ),
    "AsyncGallery.open": lambda b: asyncio.run(
        _awaited(AsyncGallery.open("c", store=URL, bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5))
    ),
    "attach_async": lambda b: asyncio.run(
        _awaited(attach_async(URL, "c", picture="p", bundle=b, api_key="k", grpc_port=7001, retry_seconds=2.5))
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_way_to_a_server_is_passed_on(door: str, tiny_bundle: object, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def connect(url: str, api_key: str | None, **options: object) -> ServerStore:
        given.extend([url, api_key, options])
        raise StoreError("enough")

    monkeypatch.setattr(ServerStore, "connect", connect)
    with pytest.raises(StoreError, match="enough"):
        DOORS[door](str(tiny_bundle))
    assert given == [URL, "k", {"grpc_port": 7001, "retry_seconds": 2.5}]
