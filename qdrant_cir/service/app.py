"""The routes of the service."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic_core import PydanticSerializationError, to_json
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qdrant_cir import __version__
from qdrant_cir.errors import CirError, ImageError, InputError
from qdrant_cir.indexing.opening import PictureOpener
from qdrant_cir.service import bodies
from qdrant_cir.service.answering import (
    Answerer,
    Event,
    GoneError,
    Settings,
    Stream,
    candidate_objects,
    read_filter,
    summary_object,
    until_gone,
)
from qdrant_cir.service.decoding import Decoder, check_picture
from qdrant_cir.service.guard import Guard, request_id
from qdrant_cir.service.served import Served, named
from qdrant_cir.service.statuses import error_object, status_of
from qdrant_cir.service.thumbnails import Thumbnails, draw_thumbnail
from qdrant_cir.service.uploads import Uploads
from qdrant_cir.types import GalleryImage, ImageSource, JsonObject, Reference, SearchResult

__all__ = ["create_app", "guarded"]

_log = logging.getLogger("qdrant_cir.service")

PAGE = Path(__file__).parent / "page"

_LARGEST = 1600
"""Pixels of a picture's longer side that the service sends."""

_FETCHED_BODIES = 10
"""Bytes that the addresses of one request may have, in bodies of the greatest size."""

Collection = Annotated[str | None, Query(max_length=255, description="May be left out where one is served.")]
Size = Annotated[int, Query(ge=16, le=_LARGEST, description="Pixels of the longer side.")]

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": bodies.ErrorAnswer, "description": "The request is wrong; the message says what to do."},
    401: {"model": bodies.ErrorAnswer, "description": "The key is missing or wrong."},
    404: {"model": bodies.ErrorAnswer, "description": "What the request names is not here."},
    409: {"model": bodies.ErrorAnswer, "description": "The collection, or what it holds, is not usable as it is."},
    413: {"model": bodies.ErrorAnswer, "description": "The body is too large."},
    422: {"model": bodies.ErrorAnswer, "description": "The request is not of this form."},
    429: {
        "model": bodies.ErrorAnswer,
        "description": "Too many wait; `Retry-After` has the seconds.",
    },
    500: {"model": bodies.ErrorAnswer, "description": "The service failed; its log has the reason."},
    501: {"model": bodies.ErrorAnswer, "description": "An extra is missing where the service runs."},
    503: {"model": bodies.ErrorAnswer, "description": "Qdrant cannot be reached."},
}
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture as JPEG."},
    304: {"description": "It is still what the client has."},
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "Results; as events where the client accepts `text/event-stream`: `retrieved` after stage one, "
        "`scored` after every step of the re-ranking, `ranked`, and `done`; or `error`.",
    }
}


_FAILED = error_object(
    "InternalError", "The service failed at this request. Its log has the reason, by the request's id."
)


class _Json(JSONResponse):
    """JSON that holds any text, lone surrogates too."""

    def render(self, content: object) -> bytes:
        return _json(content)


class _Events(StreamingResponse):
    """A stream whose query ends with it, also where the client left before anything was sent."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(_sent(stream), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._end = stream.end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def create_app(served: Mapping[str, Served], settings: Settings) -> FastAPI:
    """Return the service over some collections, by name; :func:`guarded` belongs around it."""
    answerer = Answerer(settings)
    uploads, upload_thumbnails = Uploads(), Thumbnails()
    decoder = Decoder()
    opener = PictureOpener()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        decoder.close()
        for each in served.values():
            await each.gallery.close()

    app = FastAPI(
        title="qdrant-cir",
        version=__version__,
        description="Composed image retrieval: a reference image plus a text that says what should be different.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=_Json,
        responses=_ERRORS,
        telemetry={"operation_spans": False},
    )
    app.state.answerer = answerer

    async def picture(data: str) -> bytes:
        """Return the bytes in base64 or in a data URI, checked to be a picture."""
        text = data.partition(",")[2] if data[:5].lower() == "data:" else data
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError("The picture is not in base64. Expected the bytes of a file, or a data URI.") from error
        await decoder.run(partial(check_picture, found))
        return found

    async def reference(given: bodies.ReferenceBody) -> Reference:
        if isinstance(given, bodies.StoredPicture):
            return GalleryImage(given.id)
        if isinstance(given, bodies.UploadedPicture):
            return uploads.read(given.upload)
        return await picture(given.data)

    async def references(body: bodies.SearchBody) -> list[Reference] | None:
        if body.reference is not None and body.references is not None:
            raise InputError("Give either reference or references.")
        given = body.references or ([] if body.reference is None else [body.reference])
        return [await reference(each) for each in given] or None

    @app.exception_handler(CirError)
    async def refuse(_: Request, error: CirError) -> Response:
        status = status_of(error)
        headers = {"Retry-After": "1"} if status in (429, 503) else None
        return _Json(error_object(type(error).__name__, str(error)), status, headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_form(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        return _Json(error_object("InputError", f"{place}: {first['msg']}"), 422)

    @app.exception_handler(HTTPException)
    async def refuse_call(_: Request, error: HTTPException) -> Response:
        return _Json(error_object("HTTPException", str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> Response:
        # the log has the traceback; it is nothing for clients
        return _Json(_FAILED, 500)

    @app.exception_handler(GoneError)
    async def end(_: Request, __: GoneError) -> Response:
        # nobody reads it
        return Response(status_code=499)

    @app.post("/search", response_model=bodies.SearchAnswer, responses=_EVENTS)
    async def search(body: bodies.SearchBody, request: Request) -> Response:
        """Search with a reference, a text, or both."""
        of = named(served, body.collection)
        given = await until_gone(request, asyncio.create_task(references(body)))
        if "text/event-stream" in request.headers.get("accept", ""):
            return _Events(await answerer.events(of.gallery, body, given, request))
        answered = await until_gone(request, asyncio.create_task(answerer.search(of.gallery, body, given)))
        return _Json({"candidates": candidate_objects(answered.result.candidates), **summary_object(answered)})

    @app.post("/explain", response_model=bodies.ExplainAnswer)
    async def explain(body: bodies.ExplainBody, request: Request) -> Response:
        """Explain the place of one result of a query."""
        of = named(served, body.collection)
        given = await until_gone(request, asyncio.create_task(references(body)))
        filter = read_filter(body.filter)
        work = answerer.admitted(
            lambda: of.gallery.explain(
                given,
                body.text,
                body.candidate if of.gallery.collection.attachment is not None else str(body.candidate),
                must_not=body.must_not,
                weights=body.weights,
                must_not_weight=body.must_not_weight,
                rerank_depth=body.rerank_depth,
                filter=filter,
                exclude_reference=body.exclude_reference,
                group_by=body.group_by,
            )
        )
        why = await until_gone(request, asyncio.create_task(work))
        return _Json(why.to_object(with_point=False))

    async def rerank(body: bodies.RerankBody, request: Request) -> Response:
        """Order pictures by how well they answer a text, or a picture and a text."""
        of = named(served, body.model)
        query = (
            body.query
            if isinstance(body.query, bodies.RerankQuery)
            else bodies.RerankQuery(text=body.query, image=None)
        )
        if not query.text.strip():
            raise InputError("The query has no text, so there is nothing to re-rank by.")

        fetched = 0

        async def given_picture(value: str) -> ImageSource:
            nonlocal fetched
            if value[:5].lower() == "data:":
                return await picture(value)
            if value[:7].lower() == "http://" or value[:8].lower() == "https://":
                if not settings.addresses:
                    raise InputError("This service opens no addresses. Send the picture as a data URI.")
                opened = await asyncio.to_thread(opener, value)
                fetched += len(opened) if isinstance(opened, bytes) else 0
                if fetched > _FETCHED_BODIES * settings.most_bytes:
                    raise InputError("The addresses of this request have too many bytes. Send fewer in one request.")
                return opened
            raise InputError("A picture is given as a data URI, data:image/jpeg;base64,...")

        async def hit(document: bodies.RerankDocument | str) -> GalleryImage | ImageSource:
            if isinstance(document, str):
                is_picture = document[:5].lower() == "data:" or "://" in document[:10]
                return await given_picture(document) if is_picture else GalleryImage(document)
            if (document.id is None) == (document.image is None):
                raise InputError("A document has either an id or an image.")
            if document.image is not None:
                return await given_picture(document.image)
            return GalleryImage(document.id if document.id is not None else "")

        async def read() -> tuple[ImageSource | None, list[GalleryImage | ImageSource]]:
            reference = None if query.image is None else await given_picture(query.image)
            return reference, [await hit(each) for each in body.documents]

        reference, hits = await until_gone(request, asyncio.create_task(read()))
        layout = of.gallery.collection.layout
        places: dict[object, list[int]] = {}
        unique: list[object] = []
        for index, each in enumerate(hits):
            if isinstance(each, GalleryImage):
                try:
                    key: object = layout.point_id(each.image_id)
                except InputError as error:
                    raise _no_picture(index, each) from error
            else:
                # a candidate that is a picture comes back with the very object
                key = id(each)
            if key not in places:
                unique.append(each)
            places.setdefault(key, []).append(index)

        async def work() -> SearchResult:
            composed = await of.gallery.compose(reference, query.text)
            return await of.gallery.rerank(composed, unique, limit=len(unique), encode_missing=True)

        result = await until_gone(request, asyncio.create_task(answerer.admitted(work)))
        scores = {
            index: each.rerank_score
            for each in result.candidates
            for index in places[id(each.point) if each.point_id is None else each.point_id]
            if each.rerank_score is not None
        }
        for index, each in enumerate(hits):
            if index not in scores:
                raise _no_picture(index, each)
        order = sorted(scores, key=lambda index: (-scores[index], index))[: body.top_n]
        results: list[JsonObject] = []
        for index in order:
            entry: JsonObject = {"index": index, "relevance_score": 1 / (1 + math.exp(-max(-700.0, scores[index])))}
            if body.return_documents:
                document = body.documents[index]
                entry["document"] = {"text": document} if isinstance(document, str) else document.model_dump()
            results.append(entry)
        meta = {"api_version": {"version": "2"}, "notes": list(result.notes)}
        return _Json({"id": request_id.get(), "model": of.name, "results": results, "meta": meta})

    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        name = path.strip("/").replace("/", "_")
        app.post(path, response_model=bodies.RerankAnswer, name=name, operation_id=name)(rerank)

    @app.post(
        "/uploads",
        response_model=bodies.UploadAnswer,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def upload(request: Request) -> Response:
        """Keep a picture for an hour; the answer's name stands for it in a query."""
        data = await request.body()
        await until_gone(request, asyncio.create_task(decoder.run(partial(check_picture, data))))
        return _Json({"upload": uploads.keep(data)})

    @app.get("/uploads/{upload}", responses=_JPEG, response_class=Response)
    async def uploaded(upload: str, request: Request, size: Size = 480) -> Response:
        """Return a picture that was sent."""
        draw = partial(upload_thumbnails.drawn, f"{upload} {size}", partial(draw_thumbnail, uploads.read(upload), size))
        made = await until_gone(request, asyncio.create_task(decoder.run(draw)))
        return Response(made.data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/images/{image_id:path}", responses=_JPEG, response_class=Response)
    async def image(image_id: str, request: Request, collection: Collection = None, size: Size = 480) -> Response:
        """Return a picture of the collection."""
        drawing = named(served, collection).thumbnail(image_id, size, decoder)
        made = await until_gone(request, asyncio.create_task(drawing))
        headers = {"ETag": made.etag, "Cache-Control": "private, max-age=60"}
        if made.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(made.data, media_type="image/jpeg", headers=headers)

    @app.get("/facets", response_model=bodies.FacetsAnswer)
    async def facets(collection: Collection = None) -> Response:
        """Return the payload fields to filter by."""
        look = await named(served, collection).look()
        found = [
            {"field": field, "values": [{"value": value, "count": count} for value, count in values]}
            for field, values in look.facets.items()
        ]
        return _Json({"facets": found, "counted": look.counted})

    @app.get("/samples", response_model=bodies.SamplesAnswer)
    async def samples(collection: Collection = None, limit: Annotated[int, Query(ge=1, le=64)] = 10) -> Response:
        """Return images to begin with."""
        found = (await named(served, collection).look()).samples
        step = max(1, len(found) // limit)
        chosen = found[::step][:limit]
        return _Json({"candidates": [{"id": image_id, "payload": payload} for image_id, payload in chosen]})

    @app.get("/info", response_model=bodies.InfoAnswer)
    async def info() -> Response:
        """Return the collections that are served."""
        collections = [
            {
                "name": each.name,
                "count": await each.gallery.count(),
                "bundle": each.gallery.bundle.manifest.name,
                "attached": each.gallery.collection.attachment is not None,
            }
            for each in served.values()
        ]
        return _Json({"version": __version__, "collections": collections})

    @app.get("/healthz", response_model=bodies.StateAnswer)
    async def healthz() -> Response:
        """Return whether the process answers."""
        return _Json({"status": "ok"})

    @app.get("/readyz", response_model=bodies.StateAnswer)
    async def readyz() -> Response:
        """Return whether queries can be answered: the store is there."""
        for each in served.values():
            await asyncio.to_thread(each.gallery.collection.store.describe, each.gallery.collection.name)
        return _Json({"status": "ready"})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}, "description": "For Prometheus."}})
    async def metrics() -> Response:
        """Return metrics for Prometheus."""
        return Response(answerer.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def guarded(app: FastAPI, settings: Settings) -> ASGIApp:
    """Put the guard before the routes: key, largest body, ids, headers, log, metrics."""
    answerer: Answerer = app.state.answerer
    return Guard(app, answerer.metrics, api_key=settings.api_key, most_bytes=settings.most_bytes)


async def _sent(stream: Stream) -> AsyncIterator[bytes]:
    try:
        yield _event(stream.first)
        async for event in stream.following:
            yield _event(event)
    except CirError as error:
        told = error_object(type(error).__name__, str(error))
        yield _event(Event("error", {**told, "status": status_of(error)}))
    except Exception:
        _log.exception("request %s failed", request_id.get())
        yield _event(Event("error", {**_FAILED, "status": 500}))


def _event(event: Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.name.encode(), _json(event.data))


def _json(content: object) -> bytes:
    try:
        return to_json(content, inf_nan_mode="null")
    except PydanticSerializationError:
        # UTF-8 has no lone surrogates; JSON writes them as escapes
        return json.dumps(content, separators=(",", ":")).encode()


def _no_picture(index: int, document: object) -> InputError:
    what = f"{document.image_id!r:.80}" if isinstance(document, GalleryImage) else "this picture"
    return InputError(
        f"documents[{index}]: there is no image {what} in the collection. Documents are pictures, not texts: give ids "
        "or data URIs."
    )
