"""An adapter with which store code in other threads calls an asynchronous Qdrant client as if it were synchronous."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any

from qdrant_client import AsyncQdrantClient

from qdrant_cir.errors import StoreError

__all__ = ["ClientBridge"]


class ClientBridge:
    """Calls of a client that lives on an event loop, made from other threads, which wait for the answer.

    So a store is written once, for a synchronous client. Request headers that the calling thread has set with
    ``qdrant_client.context_headers`` are passed on.
    """

    def __init__(self, client: AsyncQdrantClient, loop: asyncio.AbstractEventLoop) -> None:
        self._target: Any = client
        self._loop = loop
        self._process = os.getpid()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        value = getattr(self._target, name)
        if callable(value):
            return lambda *args, **options: self._answer(value(*args, **options))
        if isinstance(value, str | int | float | bool | dict | list | tuple | None):
            return value
        inner = object.__new__(ClientBridge)
        inner._target, inner._loop, inner._process = value, self._loop, self._process
        return inner

    def _answer(self, outcome: Any) -> Any:  # noqa: ANN401
        if not inspect.isawaitable(outcome):
            return outcome
        # a forked process has no thread that runs the loop, and a loop that rests never answers
        if self._process != os.getpid() or not self._loop.is_running():
            outcome.close()  # type: ignore[attr-defined]
            state = "closed" if self._loop.is_closed() else "not running in this process"
            raise StoreError(
                f"The event loop of the asynchronous client is {state}. Open a client in the loop that uses it, "
                "after a fork."
            )

        async def awaited() -> Any:  # noqa: ANN401
            return await outcome

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()
