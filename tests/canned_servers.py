"""Servers in this process that a real client talks to: REST with answers made by hand, and gRPC that refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc  # type: ignore[import-untyped]

VECTOR_SIZE = 3
_COLLECTION = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "config": {
        "params": {"vectors": {"image": {"size": VECTOR_SIZE, "distance": "Cosine"}}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
    },
    "payload_schema": {},
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: ``query`` holds the arguments behind the path."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success, and how many seconds to wait before the next attempt."""

    status: int
    retry_after: str | None = None


@dataclass(slots=True)
class RestServer:
    """A server that has every collection and point; the next answers to writes are ``refusals``, if there are any."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if _is_write(request.method, request.path)]


def _is_write(method: str, path: str) -> bool:
    """Whether a call writes points; a ``POST`` to the points themselves reads them."""
    return "/points" in path and (method, path.rpartition("/")[2]) != ("POST", "points")


@contextmanager
def rest_server() -> Iterator[RestServer]:
    """Serve until the block ends."""
    canned = RestServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            headers = {key.lower(): value for key, value in self.headers.items()}
            if parts.path != "/":  # asked for its version, of which it says nothing
                canned.requests.append(Request(self.command, parts.path, parse_qs(parts.query), headers))
            is_write = _is_write(self.command, parts.path)
            refusal = canned.refusals.pop(0) if is_write and canned.refusals else None
            result: Any = {"operation_id": 1, "status": "completed"} if is_write else _COLLECTION
            if parts.path.endswith("/points/batch"):
                result = [result for _ in json.loads(sent)["operations"]]
            if parts.path.endswith("/points") and not is_write:
                result = [{"id": id} for id in json.loads(sent)["ids"]]
            body = {"result": result, "status": "ok", "time": 0.0}
            if refusal is not None:
                body = {"result": None, "status": {"error": f"refused with {refusal.status}"}, "time": 0.0}
            data = json.dumps(body).encode()
            self.send_response(200 if refusal is None else refusal.status)
            if refusal is not None and refusal.retry_after is not None:
                self.send_header("Retry-After", refusal.retry_after)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            """Write no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        canned.port = server.server_address[1]
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        serving.start()
        yield canned
        server.shutdown()
        serving.join()


@dataclass(slots=True)
class GrpcServer:
    """A server that ends every call with ``code``; ``sent`` is what clients wrote on the wire."""

    port: int
    code: grpc.StatusCode = grpc.StatusCode.UNIMPLEMENTED
    sent: bytearray = field(default_factory=bytearray)


@contextmanager
def grpc_server() -> Iterator[GrpcServer]:
    """Serve until the block ends, behind a socket that keeps what passes to the server."""

    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def refuse(request: bytes, context: grpc.ServicerContext) -> None:
                context.abort(canned.code, f"refused with {canned.code.name}")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Refusing(),))
    behind = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with socket.create_server(("127.0.0.1", 0)) as door:
        canned = GrpcServer(door.getsockname()[1])
        Thread(target=_let_in, args=(door, behind, canned.sent), daemon=True).start()
        yield canned
    server.stop(None).wait()


def _let_in(door: socket.socket, port: int, sent: bytearray) -> None:
    while True:
        try:
            client, _ = door.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        Thread(target=_pass_on, args=(client, server, sent), daemon=True).start()
        Thread(target=_pass_on, args=(server, client, bytearray()), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65536):
            kept.extend(data)
            target.sendall(data)
    except OSError:
        pass
    finally:
        source.close()
        target.close()
