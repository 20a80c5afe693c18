"""A service in a thread of its own, behind real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import uvicorn

from qdrant_cir.service.answering import Answerer, Settings
from qdrant_cir.service.app import create_app, guarded
from qdrant_cir.service.run import Opened, listen, open_served
from qdrant_cir.storage.stores.protocol import Store

T = TypeVar("T")

DEFAULTS = Settings()

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: its address, and what lies behind it."""

    address: str
    answerer: Answerer
    loop: asyncio.AbstractEventLoop

    def client(self, headers: dict[str, str] | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=20, trust_env=False, headers=headers)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)


@contextmanager
def serving(store: Store, names: Sequence[str], how: Opened, settings: Settings = DEFAULTS) -> Iterator[Service]:
    listening = listen(uvicorn.Config("", port=0))
    begun: Future[Service] = Future()
    stop: list[uvicorn.Server] = []

    async def main() -> None:
        served = await open_served(store, names, how)
        app = create_app(served, settings)
        server = uvicorn.Server(uvicorn.Config(guarded(app, settings), log_config=None, access_log=False))
        stop.append(server)
        begun.set_result(
            Service(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.answerer, asyncio.get_running_loop())
        )
        await server.serve([listening])

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if not begun.done():
                begun.set_exception(error)
                return
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield begun.result(30)
    finally:
        for server in stop:
            server.should_exit = True
        thread.join(30)
        listening.close()
