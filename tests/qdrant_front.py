"""A Qdrant server of the test's own process: the client's ``:memory:`` engine behind real HTTP, with faults on demand.

It writes down every request but those for its version. ``RestFront.faults`` are taken one by one by the requests
that ``is_faulty`` names.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Literal

from pydantic import BaseModel
from qdrant_client import QdrantClient, models


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent; the headers' names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer of a status, or a connection that is cut before or after the call was applied."""

    status: int = 503
    body: bytes = b'{"status": {"error": "down for the moment"}, "time": 0}'
    retry_after: str | None = None
    cut: Literal["no", "before", "after"] = "no"


@dataclass(slots=True)
class RestFront:
    """The server: its memory, what it was asked, what it shall do wrong next, and which version it claims to be."""

    memory: QdrantClient
    port: int
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    is_faulty: Callable[[Request], bool] = lambda request: True
    turn: Lock = field(default_factory=Lock)
    version: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, end: str) -> list[Request]:
        """The requests of a method whose path ends so."""
        return [request for request in self.requests if request.method == method and request.path.endswith(end)]


@contextmanager
def rest_front(port: int = 0, memory: QdrantClient | None = None) -> Iterator[RestFront]:
    """Serve until the block ends; a memory that is given outlives a restart."""
    front = RestFront(memory or QdrantClient(":memory:", force_disable_check_same_thread=True), port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Write no access log."""

        def serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/":
                said = {"title": "qdrant - vector search engine", "version": front.version}
                self.answer(404 if front.version is None else 200, json.dumps(said).encode())
                return
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Request(self.command, self.path.partition("?")[0], headers, json.loads(data) if data else None)
            with front.turn:
                front.requests.append(request)
                fault = front.faults.pop(0) if front.faults and front.is_faulty(request) else None
            if fault is not None and fault.cut == "no":
                self.answer(fault.status, fault.body, retry_after=fault.retry_after)
                return
            status, answer = (0, {}) if fault is not None and fault.cut == "before" else self.apply(request)
            if fault is not None:
                # closed at once and with nothing said, which the client sees as a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            self.answer(status, json.dumps(answer).encode(), gzipped="gzip" in headers.get("accept-encoding", ""))

        do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815 - names that http.server looks for

        def apply(self, request: Request) -> tuple[int, dict[str, Any]]:
            try:
                with front.turn:
                    result = _apply(front.memory, request)
            except (KeyError, ValueError) as error:
                status = 404 if "not found" in str(error) else 409 if "already exists" in str(error) else 400
                return status, {"status": {"error": str(error)}, "time": 0}
            return 200, {"result": result, "status": "ok", "time": 0}

        def answer(self, status: int, data: bytes, *, gzipped: bool = False, retry_after: str | None = None) -> None:
            data = gzip.compress(data) if gzipped else data
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if gzipped:
                self.send_header("Content-Encoding", "gzip")
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of connections that a test has cut."""

    with Server(("127.0.0.1", port), Handler) as server:
        front.port = server.server_address[1]
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield front
        server.shutdown()


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else value


def _apply(memory: QdrantClient, request: Request) -> object:
    """Make a call of REST on the memory."""
    if request.path == "/aliases":
        return _plain(memory.get_aliases())
    body = request.body
    _, _, name, *rest = [*request.path.split("/"), ""]
    match request.method, "/".join(rest).strip("/"):
        case "GET", "":
            return _plain(memory.get_collections()) if not name else _plain(memory.get_collection(name))
        case "GET", "exists":
            return {"exists": memory.collection_exists(name)}
        case "PUT", "":
            wanted = models.CreateCollection.model_validate(body)
            return memory.create_collection(name, vectors_config=wanted.vectors or {}, metadata=wanted.metadata)
        case "DELETE", "":
            return memory.delete_collection(name)
        case "PUT", "points":
            return _plain(memory.upsert(name, models.PointsList.model_validate(body).points))
        case "POST", "points":
            read = models.PointRequest.model_validate(body)
            vectors = read.with_vector or False
            return _plain(memory.retrieve(name, read.ids, with_payload=read.with_payload, with_vectors=vectors))
        case "POST", "points/query":
            asked = models.QueryRequest.model_validate(body)
            found = memory.query_points(
                name,
                asked.query,
                using=asked.using,
                limit=asked.limit or 10,
                query_filter=asked.filter,
                with_payload=asked.with_payload,
            )
            return _plain(found)
        case "POST", "points/scroll":
            scroll = models.ScrollRequest.model_validate(body)
            points, after = memory.scroll(
                name,
                scroll_filter=scroll.filter,
                limit=scroll.limit or 10,
                offset=scroll.offset,
                with_payload=scroll.with_payload,
            )
            return {"points": _plain(points), "next_page_offset": after}
        case "POST", "points/count":
            counted = models.CountRequest.model_validate(body)
            return _plain(memory.count(name, counted.filter, exact=True))
        case "POST", "points/delete":
            return _plain(memory.delete(name, models.PointIdsList.model_validate(body)))
        case "PUT", "index":
            return {"operation_id": 1, "status": "completed"}
    raise KeyError(f"{request.path} not found")
