"""Under load, without the key, with a broken store: the service refuses, and says why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_front import Fault, rest_front
from serving import COLOURS, Service, serving

from qdrant_cir import Gallery, ImageRecord, connect
from qdrant_cir.errors import BusyError, ImageError, InputError
from qdrant_cir.indexing.opening import PictureOpener
from qdrant_cir.search.gate import Gate
from qdrant_cir.service.answering import Answerer, Settings
from qdrant_cir.service.app import create_app, guarded
from qdrant_cir.service.bodies import SearchBody
from qdrant_cir.service.run import Opened, open_served
from qdrant_cir.service.served import refuse_files
from qdrant_cir.service.statuses import NotHereError
from qdrant_cir.service.uploads import Uploads
from qdrant_cir.storage.stores.protocol import Store

QUERY = {"reference": {"id": "red"}, "text": "make it blue", "limit": 6, "rerank_depth": 6}
SHOP = ["shop"]


@contextmanager
def held(service: Service) -> Iterator[None]:
    """Hold every place of the service, as queries that take long do."""
    release = asyncio.Event()
    entered: list[None] = []

    async def hold() -> None:
        async with service.answerer.gate:
            entered.append(None)
            await release.wait()

    holding = [service.run(hold()) for _ in range(service.answerer.settings.running)]
    while len(entered) < len(holding):
        time.sleep(0.01)
    try:
        yield
    finally:
        service.loop.call_soon_threadsafe(release.set)
        for each in holding:
            each.result(10)


def settled(service: Service) -> tuple[int, int]:
    """Wait until nothing runs or waits, and return how many do."""
    gate = service.answerer.gate
    for _ in range(500):
        if not gate.running and not gate.waiting:
            break
        time.sleep(0.01)
    return gate.running, gate.waiting


@pytest.fixture(scope="module")
def narrow(shop: Store, service_bundle: Path) -> Iterator[Service]:
    """A service in which one query runs and one waits, and bodies have at most 100,000 bytes."""
    settings = Settings(running=1, waiting=1, api_key="open sesame", most_bytes=100_000)
    with serving(shop, SHOP, Opened(bundle=service_bundle), settings) as running:
        yield running


@pytest.fixture
def keyed(narrow: Service) -> Iterator[httpx.Client]:
    with narrow.client({"Authorization": "Bearer open sesame"}) as client:
        yield client


def test_when_too_many_wait_the_next_is_refused_and_the_waiting_one_is_answered(
    narrow: Service, keyed: httpx.Client
) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(base_url=narrow.address, headers=keyed.headers, trust_env=False) as client:
            return await client.post("/search", json=QUERY, timeout=20)

    with held(narrow):
        waiting = narrow.run(ask())
        while not narrow.answerer.gate.waiting:
            time.sleep(0.01)
        refused = keyed.post("/search", json=QUERY)
        streamed = keyed.post("/search", json=QUERY, headers={"Accept": "text/event-stream"})
    for answer in (refused, streamed):
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "BusyError"
    answer = waiting.result(10)
    assert answer.status_code == 200
    assert answer.json()["timings"]["waited"] > 0
    assert settled(narrow) == (0, 0)


def test_a_query_whose_deadline_passed_while_it_waited_is_answered_by_stage_one(
    narrow: Service, keyed: httpx.Client
) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(base_url=narrow.address, headers=keyed.headers, trust_env=False) as client:
            return await client.post("/search", json={**QUERY, "deadline_ms": 20}, timeout=20)

    with held(narrow):
        waiting = narrow.run(ask())
        while not narrow.answerer.gate.waiting:
            time.sleep(0.01)
        time.sleep(0.05)
    told = waiting.result(10).json()
    assert (told["rerank_mode"], told["scored"]) == ("none", 0)
    assert [each["retrieval_rank"] for each in told["candidates"]] == [1, 2, 3, 4, 5, 6]
    assert any("deadline" in note for note in told["notes"])


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_the_query_of_a_client_that_goes_away_ends(accept: str, narrow: Service, keyed: httpx.Client) -> None:
    async def leave() -> None:
        async with httpx.AsyncClient(base_url=narrow.address, headers=keyed.headers, trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/search", json=QUERY, headers={"Accept": accept}, timeout=0.2)

    with held(narrow):
        narrow.run(leave()).result(10)
        gate = narrow.answerer.gate
        for _ in range(300):
            if not gate.waiting:
                break
            time.sleep(0.01)
        # it no longer waits, though no place became free
        assert gate.waiting == 0
    assert settled(narrow) == (0, 0)


def test_a_client_that_leaves_before_the_first_event_is_sent_ends_its_query(
    shop: Store, service_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a query waits so long for its first event to be sent, unless it is ended
    monkeypatch.setattr("qdrant_cir.service.answering._FIRST_EVENT_SECONDS", 5.0)
    body = json.dumps(QUERY).encode()
    sent: list[str] = []

    async def ask() -> tuple[int, bytes]:
        settings = Settings()
        app = create_app(await open_served(shop, SHOP, Opened(bundle=service_bundle)), settings)
        calls = 0

        async def receive() -> MutableMapping[str, Any]:
            nonlocal calls
            calls += 1
            if calls == 1:
                return {"type": "http.request", "body": body}
            # who waits for the references and for the first event is told of nothing until it has them
            if calls in (2, 3):
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message["type"])
            await asyncio.sleep(0.01)

        scope = {
            **{"type": "http", "method": "POST", "path": "/search", "query_string": b"", "root_path": ""},
            **{"scheme": "http", "http_version": "1.1", "server": ("here", 80), "client": ("there", 1)},
            "headers": [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")],
        }
        await guarded(app, settings)(scope, receive, send)
        answerer: Answerer = app.state.answerer
        await asyncio.sleep(0)
        return answerer.gate.running, answerer.metrics.text()

    running, metrics = asyncio.run(ask())
    assert running == 0
    assert "http.response.body" not in sent
    assert b'searches_total{mode="exact"}' not in metrics


def test_without_the_key_only_probes_and_the_page_answer(narrow: Service) -> None:
    with narrow.client() as client:
        for path in ("/healthz", "/readyz", "/", "/page/style.css"):
            assert client.get(path).status_code == 200
        for path in ("/info", "/metrics", "/images/red", "/facets", "/openapi.json"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "Unauthorized")
        for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "open sesame"}, {"api-key": "open"}):
            assert client.post("/search", json=QUERY, headers=headers).status_code == 401
        assert client.get("/info", headers={"api-key": "open sesame"}).status_code == 200


def test_a_body_that_is_too_large_is_refused_with_its_length_or_without(keyed: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    for content in (b"x" * 100_001, parts()):
        answer = keyed.post("/uploads", content=content)
        assert answer.status_code == 413
        assert "100,000 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"text": "in red", "limit": 0}, 422),
        ({"text": "in red", "limit": "3"}, 422),
        ({"text": "in red", "path": "/etc/passwd"}, 422),
        ({"reference": "/etc/passwd"}, 422),
        ({"text": "in red", "collection": "purple"}, 404),
        ({"reference": {"upload": "0" * 64}}, 404),
        ({"reference": {"data": "bm8gcGljdHVyZQ=="}}, 400),
        ({"text": "in red", "filter": {"must": [{"key": "color"}]}}, 400),
        ({"text": "in red", "filter": {"must": [{"key": "collar", "match": {"value": "x"}}]}}, 400),
        ({"text": "\ud800", "limit": 1}, 422),
        ({"reference": {"id": "purple"}, "text": "in red"}, 400),
        ({"text": "in red", "confidence": 0.9}, 400),
    ],
)
def test_a_wrong_query_is_refused_with_a_sentence(body: dict[str, Any], status: int, client: httpx.Client) -> None:
    answer = client.post("/search", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert len(answer.json()["error"]["message"]) > 10


def test_every_answer_has_an_id_and_security_headers(client: httpx.Client) -> None:
    for path in ("/info", "/nowhere", "/", "/images/purple"):
        headers = client.get(path, headers={"X-Request-ID": "mine-1"}).headers
        assert headers["x-request-id"] == "mine-1"
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert client.get("/info", headers={"X-Request-ID": "no\tid!"}).headers["x-request-id"] != "no\tid!"


def test_metrics_count_what_was_answered(client: httpx.Client) -> None:
    def scored() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("qdrant_cir_candidates_scored_total"))

    before = scored()
    client.post("/search", json=QUERY)
    assert scored() == before + 6


def test_uploads_expire_and_the_oldest_make_room() -> None:
    now = [0.0]
    uploads = Uploads(seconds=10, most_bytes=100, clock=lambda: now[0])
    first = uploads.keep(b"a" * 60)
    assert uploads.read(first) == b"a" * 60
    second = uploads.keep(b"b" * 60)
    with pytest.raises(NotHereError):
        uploads.read(first)
    now[0] = 11.0
    with pytest.raises(NotHereError, match="kept for an hour"):
        uploads.read(second)


def test_a_gate_lets_in_as_many_as_it_may_and_refuses_beyond() -> None:
    async def work() -> None:
        gate = Gate(1, waiting=1)
        async with gate:
            waiting = asyncio.create_task(gate.__aenter__())
            await asyncio.sleep(0)
            assert (gate.running, gate.waiting) == (1, 1)
            with pytest.raises(BusyError, match="Ask again later"):
                await gate.__aenter__()
        await waiting
        assert (gate.running, gate.waiting) == (1, 0)

    asyncio.run(work())


def test_a_server_that_stops_in_the_middle_is_503_and_the_service_goes_on(
    service_bundle: Path, write_solid_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    paths = write_solid_images(tmp_path, COLOURS)
    with rest_front() as front:
        client = connect(front.url)
        with Gallery.create("shop", store=client, bundle=service_bundle, retry_seconds=0) as gallery:
            gallery.index([ImageRecord(path.stem, path, {}, str(path)) for path in paths])
            store = gallery.collection.store
            with serving(store, SHOP, Opened(bundle=service_bundle)) as service, service.client() as asking:
                answer = asking.post("/search", json=QUERY, headers={"X-Request-ID": "seen-by-qdrant"})
                assert answer.status_code == 200
                assert "seen-by-qdrant" in {each.headers.get("x-request-id") for each in front.requests}
                front.faults.extend(Fault(cut="before") for _ in range(4))
                assert asking.post("/search", json=QUERY).status_code == 503
                assert asking.get("/healthz").status_code == 200
                front.faults.clear()
                assert asking.post("/search", json=QUERY).status_code == 200


@contextmanager
def serve_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `qdrant-cir serve` and yield the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from qdrant_cir.cli import main; main()", "serve", *arguments, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    try:
        yield process, next(line.split()[-1] for line in process.stderr if "serving" in line)
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()


def test_sigterm_answers_what_was_accepted(
    service_bundle: Path, write_solid_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    paths = write_solid_images(tmp_path / "pictures", COLOURS)
    with Gallery.create("shop", store=tmp_path / "store", bundle=service_bundle) as gallery:
        gallery.index([ImageRecord(path.stem, path, {}, str(path)) for path in paths])
    arguments = ("--path", str(tmp_path / "store"), "-c", "shop", "--bundle", str(service_bundle))
    with serve_process(*arguments) as (process, address):
        client = httpx.Client(base_url=address, timeout=20, trust_env=False)
        with client.stream("POST", "/search", json=QUERY, headers={"Accept": "text/event-stream"}) as answer:
            process.send_signal(signal.SIGTERM)
            text = answer.read().decode()
        assert "event: done" in text
        client.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(20) == 0
        assert "Stopped" in said
        assert "Traceback" not in said


def test_while_qdrant_is_dead_a_call_is_refused_within_seconds(
    service_bundle: Path, write_solid_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    paths = write_solid_images(tmp_path, COLOURS)
    with rest_front() as front:
        with Gallery.create("shop", store=connect(front.url), bundle=service_bundle) as gallery:
            gallery.index([ImageRecord(path.stem, path, {}, str(path)) for path in paths])
        with serve_process("--url", front.url, "-c", "shop", "--bundle", str(service_bundle)) as (_, address):
            client = httpx.Client(base_url=address, timeout=30, trust_env=False)
            assert client.get("/readyz").status_code == 200
            front.faults.extend(Fault(status=503) for _ in range(1000))
            for ask in (lambda: client.get("/readyz"), lambda: client.post("/search", json=QUERY)):
                began = time.monotonic()
                assert ask().status_code == 503
                assert time.monotonic() - began < 15
            client.close()


def test_the_six_steps_are_spans_under_the_request(client: httpx.Client) -> None:
    trace = pytest.importorskip("opentelemetry.trace", reason="needs otel: opentelemetry is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.get("/images/red", headers={"traceparent": caller})
    client.get("/nowhere/red", headers={"traceparent": caller})
    client.post("/search", json=QUERY, headers={"traceparent": caller})
    steps = ["encode", "compose", "retrieve", "fetch", "rerank", "order"]
    spans: list[Any] = []
    # the request's own span ends when the answer has been sent
    for _ in range(300):
        spans = list(kept.get_finished_spans())
        if any(each.name == "POST /search" for each in spans):
            break
        time.sleep(0.01)
    assert [each.name for each in spans if each.name in steps] == steps
    assert {f"{each.context.trace_id:032x}" for each in spans} == {caller.split("-")[1]}
    requests = {each.name: each for each in spans if each.name not in steps}
    assert set(requests) == {"GET /images/{image_id}", "GET", "POST /search"}
    assert {each.parent.span_id for each in spans if each.name in steps} == {requests["POST /search"].context.span_id}


@pytest.mark.parametrize("path", ["/search", "/rerank"])
def test_a_body_of_very_many_values_is_refused_before_it_is_read(path: str, client: httpx.Client) -> None:
    # each unknown key and each wrong document would become an error of its own: 20 MB took 40 s and gigabytes
    for body in (
        "{" + ",".join(f'"a{number}":1' for number in range(30_000)) + "}",
        '{"query": "x", "documents": [' + ",".join(["0"] * 30_000) + "]}",
    ):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "20,000 values" in answer.json()["error"]["message"]


def test_bodies_that_are_held_at_the_same_time_are_bounded_together(narrow: Service, keyed: httpx.Client) -> None:
    async def fill() -> list[int]:
        release = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 90_000
            await release.wait()
            yield b"x"

        async with httpx.AsyncClient(base_url=narrow.address, headers=keyed.headers, trust_env=False) as client:
            sending = [asyncio.create_task(client.post("/uploads", content=slow(), timeout=20)) for _ in range(17)]
            await asyncio.sleep(0.3)
            refused = await client.post("/uploads", content=b"x" * 90_000, timeout=20)
            release.set()
            rest = [(await each).status_code for each in sending]
        assert "retry-after" in refused.headers
        return [refused.status_code, *rest]

    refused, *rest = narrow.run(fill()).result(20)
    assert refused == 429
    assert set(rest) == {400}
    # and they are given back
    assert keyed.post("/uploads", content=b"x" * 90_000).status_code == 400


def test_what_nobody_foresaw_is_an_error_as_json_in_a_stream_too(
    service: Service, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of this machine")

    monkeypatch.setattr("qdrant_cir.service.app.summary_object", fail)
    monkeypatch.setattr("qdrant_cir.service.answering.summary_object", fail)
    answer = client.post("/search", json=QUERY)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]
    text = client.post("/search", json=QUERY, headers={"Accept": "text/event-stream"}).text
    assert "event: error" in text
    assert '"status":500' in text


def test_a_query_may_ask_that_nothing_is_marked() -> None:
    asked: list[float | None] = []

    class Watched:
        async def search(self, *_: object, min_match: float | None, **__: object) -> None:
            asked.append(min_match)
            raise InputError("enough")

    async def ask() -> None:
        answerer = Answerer(Settings(min_match=0.9))
        for body in (SearchBody(text="x"), SearchBody(text="x", min_match=0), SearchBody(text="x", min_match=0.5)):
            with pytest.raises(InputError, match="enough"):
                await answerer.search(Watched(), body, None)  # type: ignore[arg-type]

    asyncio.run(ask())
    assert asked == [0.9, 0, 0.5]


@pytest.mark.parametrize(
    "value", ["ht\ntp:/../../etc/hostname", "file:///etc/hostname", "/etc/hostname", "http://[bad"]
)
def test_without_a_root_no_value_of_a_payload_opens_a_file(value: str) -> None:
    with pytest.raises(ImageError):
        refuse_files(PictureOpener())(value)


def test_head_is_answered_as_get_is_without_the_body(client: httpx.Client) -> None:
    for path in ("/healthz", "/info", "/images/red", "/", "/nowhere"):
        got, told = client.get(path), client.head(path)
        assert (told.status_code, told.content) == (got.status_code, b"")
        assert told.headers["content-length"] == got.headers["content-length"]
    assert client.head("/search").status_code == 405
