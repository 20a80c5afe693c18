"""A Qdrant server of the test's own process: the client's ``:memory:`` engine behind real HTTP, with faults on demand.

It writes down every request but those for its version. ``RestFront.faults`` are taken one by one by the requests that
``is_faulty`` names. What a real server does and ``:memory:`` does not is switched on: old vectors that stay under an
owner's new payload, filters on fields without an index refused, exact counts refused.
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
from urllib.parse import unquote

from pydantic import BaseModel
from qdrant_client import QdrantClient, models


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent, ``size`` bytes; the headers' names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    size: int = 0

    @property
    def call(self) -> str:
        """The call without the address: ``POST products/points/query``."""
        return f"{self.method} {self.path.removeprefix('/collections/')}"


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer of a status, or a connection that is cut before or after the call was applied."""

    status: int = 503
    body: bytes = b'{"status": {"error": "down for the moment"}, "time": 0}'
    retry_after: str | None = None
    cut: Literal["no", "before", "after"] = "no"


@dataclass(slots=True)
class RestFront:
    """The server: its memory, what it was asked, and what it shall do wrong next.

    Attributes:
        memory: the engine behind it; a test writes there as the collection's owner.
        port: of its address.
        requests: all that it was asked.
        faults: of the next requests that ``is_faulty`` names.
        is_faulty: which requests take a fault.
        before: called with every request before it is applied, for an owner who writes in between.
        keeps_vectors: an upsert leaves vectors that it does not name, as a server does whose segments are indexed.
        indexed: the only fields that filters may name, None for all.
        allows_exact: whether exact counts are answered.
        placement: shards and copies that every collection is said to have.
        strict: the strict mode that every collection is said to have, None for none.
        turn: held by a request that is applied.
        version: that it claims to be; None says none.
        largest: bytes of the largest request that it takes; larger ones are refused with 413.
        most: results that a call may ask for, None for any number.
        most_written: points that a call may write, None for any number.
        schema: kinds of the payload indexes that were made, by collection and field; filters may name these too.
        shard_keys: that were made, by collection.
        peers: ids of the servers of its cluster, its own first.
        acknowledges: how many of the next writes are said to be taken but not applied.
    """

    memory: QdrantClient
    port: int
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    is_faulty: Callable[[Request], bool] = lambda request: True
    before: Callable[[Request], None] = lambda request: None
    keeps_vectors: bool = False
    indexed: set[str] | None = None
    allows_exact: bool = True
    placement: dict[str, object] = field(default_factory=dict)
    strict: dict[str, int | bool] | None = None
    turn: Lock = field(default_factory=Lock)
    version: str | None = None
    largest: int = 2**25
    acknowledges: int = 0
    shard_keys: dict[str, set[int | str]] = field(default_factory=dict)
    peers: tuple[int, ...] = (1,)
    most: int | None = None
    most_written: int | None = None
    schema: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self) -> list[str]:
        """Every call since the last time it was asked for."""
        calls = [request.call for request in self.requests]
        self.requests.clear()
        return calls

    def refuse(self, request: Request) -> None:
        """Raise what strict mode says of a request that it forbids."""
        body = request.body if isinstance(request.body, dict) else {}
        if not self.allows_exact and body.get("exact"):
            raise ValueError("Forbidden: Exact search disabled! Help: Set exact=false.")
        if self.indexed is not None:
            indexed = self.indexed | set(self.schema.get("".join(request.path.split("/")[2:3]), {}))
            named = {*_keys_of(body.get("filter")), *([body["group_by"]] if "group_by" in body else [])}
            for key in sorted(named - indexed):
                raise ValueError(
                    f'Bad request: Index required but not found for "{key}" of one of the following types: [keyword]. '
                    "Help: Create an index for this key or use a different filter."
                )
        for asked, most, what in (
            (body.get("limit"), self.most, "limit"),
            (len(body.get("points") or []) if request.method == "PUT" else None, self.most_written, "upsert limit"),
        ):
            if asked is not None and most is not None and asked > most:
                raise ValueError(
                    f'Forbidden: Limit exceeded {asked} > {most} for "{what}". Help: Reduce the "{what}" parameter to '
                    f"or below {most}."
                )

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
            path = unquote(self.path.partition("?")[0])
            request = Request(self.command, path, headers, json.loads(data) if data else None, len(data))
            with front.turn:
                front.requests.append(request)
                fault = front.faults.pop(0) if front.faults and front.is_faulty(request) else None
            if len(data) > front.largest:
                self.answer(413, b"<html><body>Request Entity Too Large</body></html>")
                return
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
                    front.before(request)
                    front.refuse(request)
                    result = _apply(front, request)
                    if front.acknowledges and isinstance(result, dict) and "operation_id" in result:
                        front.acknowledges -= 1
                        result = {**result, "status": "acknowledged"}
            except (KeyError, ValueError) as error:
                is_gone = "No point with id" in str(error) or str(error).strip("'").endswith("not found")
                status = 404 if is_gone else 409 if "already exists" in str(error) else 400
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


def _keys_of(filter: object) -> Iterator[str]:
    """The payload fields that a filter names, wherever they stand in it."""
    if isinstance(filter, dict):
        if isinstance(filter.get("key"), str):
            yield filter["key"]
        for inner in filter.values():
            yield from _keys_of(inner)
    if isinstance(filter, list):
        for inner in filter:
            yield from _keys_of(inner)


def _kept(memory: QdrantClient, name: str, points: list[models.PointStruct]) -> list[models.PointVectors]:
    """The vectors that points have now and that an upsert of them does not name."""
    old = {point.id: point.vector for point in memory.retrieve(name, [p.id for p in points], with_vectors=True)}
    kept = []
    for point in points:
        before, now = old.get(point.id), point.vector
        if isinstance(before, dict) and isinstance(now, dict) and before.keys() - now.keys():
            left = {key: value for key, value in before.items() if key not in now}
            kept.append(models.PointVectors(id=point.id, vector=left))
    return kept


def _query(memory: QdrantClient, name: str, query: Any, using: str | None) -> Any:  # noqa: ANN401
    """A query as the memory takes it: a server compares one vector with each of several, the memory wants a list."""
    vectors = memory.get_collection(name).config.params.vectors
    params = vectors.get(using or "") if isinstance(vectors, dict) else None
    vector = getattr(query, "nearest", query)
    is_single = isinstance(vector, list) and not isinstance(vector[0], list)
    return [vector] if params is not None and params.multivector_config is not None and is_single else query


def _apply(front: RestFront, request: Request) -> object:
    """Make a call of REST on the memory."""
    memory, body = front.memory, request.body
    _, kind, name, *rest = [*request.path.split("/"), "", ""]
    if kind == "aliases":
        return _plain(memory.get_aliases())
    if (name, request.method) == ("aliases", "POST"):
        return memory.update_collection_aliases(models.ChangeAliasesOperation.model_validate(body).actions)
    # an alias stands for its collection in every call
    aliases = {alias.alias_name: alias.collection_name for alias in memory.get_aliases().aliases}
    name = aliases.get(name, name)
    match request.method, "/".join(rest).strip("/"):
        case "GET", "":
            if not name:
                return _plain(memory.get_collections())
            described: Any = _plain(memory.get_collection(name))
            described["config"]["params"] |= front.placement
            described["config"]["strict_mode_config"] = front.strict
            kinds = front.schema.get(name, {})
            described["payload_schema"] = {key: {"data_type": kind, "points": 0} for key, kind in kinds.items()}
            return described
        case "PUT", "shards":
            if body["shard_key"] in front.shard_keys.setdefault(name, set()):
                raise ValueError(f"Bad request: Shard key {body['shard_key']} already exists")
            front.shard_keys[name].add(body["shard_key"])
            return True
        case "GET", "cluster":
            if not memory.collection_exists(name):
                raise KeyError(f"Collection {name} not found")
            remote = [{"shard_id": n, "peer_id": peer, "state": "Active"} for n, peer in enumerate(front.peers[1:], 1)]
            shards = {"shard_count": 1, "local_shards": [], "remote_shards": remote, "shard_transfers": []}
            return {"peer_id": front.peers[0], **shards}
        case "GET", "exists":
            return {"exists": memory.collection_exists(name)}
        case "PUT", "":
            wanted = models.CreateCollection.model_validate(body)
            return memory.create_collection(
                name,
                vectors_config=wanted.vectors or {},
                sparse_vectors_config=wanted.sparse_vectors,
                metadata=wanted.metadata,
            )
        case "DELETE", "":
            return memory.delete_collection(name)
        case "PUT", "points":
            points = models.PointsList.model_validate(body).points
            kept = _kept(memory, name, points) if front.keeps_vectors else []
            done = memory.upsert(name, points)
            if kept:
                memory.update_vectors(name, kept)
            return _plain(done)
        case "POST", "points":
            read = models.PointRequest.model_validate(body)
            vectors = read.with_vector or False
            return _plain(memory.retrieve(name, read.ids, with_payload=read.with_payload, with_vectors=vectors))
        case "POST", "points/query":
            asked = models.QueryRequest.model_validate(body)
            found = memory.query_points(
                name,
                _query(memory, name, asked.query, asked.using),
                using=asked.using,
                limit=asked.limit or 10,
                prefetch=asked.prefetch,
                query_filter=asked.filter,
                with_payload=asked.with_payload,
                with_vectors=asked.with_vector or False,
            )
            return _plain(found)
        case "POST", "points/query/groups":
            grouped = models.QueryGroupsRequest.model_validate(body)
            groups = memory.query_points_groups(
                name,
                grouped.group_by,
                _query(memory, name, grouped.query, grouped.using),
                using=grouped.using,
                limit=grouped.limit or 3,
                group_size=grouped.group_size or 3,
                query_filter=grouped.filter,
                with_payload=grouped.with_payload,
            )
            return _plain(groups)
        case "POST", "points/scroll":
            scroll = models.ScrollRequest.model_validate(body)
            points_, after = memory.scroll(
                name,
                scroll_filter=scroll.filter,
                limit=scroll.limit or 10,
                offset=scroll.offset,
                with_payload=scroll.with_payload,
                with_vectors=scroll.with_vector or False,
            )
            return {"points": _plain(points_), "next_page_offset": after}
        case "POST", "points/count":
            counted = models.CountRequest.model_validate(body)
            return _plain(memory.count(name, counted.filter, exact=True))
        case "POST", "points/delete":
            return _plain(memory.delete(name, models.PointIdsList.model_validate(body)))
        case "PUT", "points/vectors":
            return _plain(memory.update_vectors(name, models.UpdateVectors.model_validate(body).points))
        case "POST", "points/vectors/delete":
            vector = models.DeleteVectors.model_validate(body)
            return _plain(memory.delete_vectors(name, vector.vector, models.PointIdsList(points=vector.points or [])))
        case "POST" | "PUT" as method, "points/payload":
            given = models.SetPayload.model_validate(body)
            write = memory.set_payload if method == "POST" else memory.overwrite_payload
            return _plain(write(name, given.payload, given.points))
        case "POST", "points/payload/delete":
            dropped = models.DeletePayload.model_validate(body)
            return _plain(memory.delete_payload(name, dropped.keys, dropped.points))
        case "POST", "points/payload/clear":
            return _plain(memory.clear_payload(name, models.PointIdsList.model_validate(body)))
        case "POST", "points/batch":
            operations = models.UpdateOperations.model_validate(body).operations
            return _plain(memory.batch_update_points(name, operations))
        case "PUT", path if path.startswith("vectors/"):
            config = body.get("dense") or {}
            made = models.DenseVectorNameConfig(dense=models.DenseVectorConfig.model_validate(config))
            return _plain(memory.create_vector_name(name, path.removeprefix("vectors/"), made))
        case "DELETE", path if path.startswith("vectors/"):
            return _plain(memory.delete_vector_name(name, path.removeprefix("vectors/")))
        case "PUT", "index":
            kind = body["field_schema"]
            front.schema.setdefault(name, {})[body["field_name"]] = kind["type"] if isinstance(kind, dict) else kind
            return {"operation_id": 1, "status": "completed"}
    raise KeyError(f"{request.path} not found")
