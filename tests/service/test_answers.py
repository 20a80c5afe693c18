"""The answers of the service are those of the library."""

from __future__ import annotations

import base64
import json
import math
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import COLOURS, Service

from qdrant_cir import Gallery, GalleryImage
from qdrant_cir.service.facets import facets_of
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import JsonObject

QUERY = {"reference": {"id": "red"}, "text": "make it blue", "limit": 6, "rerank_depth": 6}


def events_of(client: httpx.Client, body: dict[str, Any]) -> list[tuple[str, Any]]:
    answer = client.post("/search", json=body, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_search_answers_as_the_gallery_does(client: httpx.Client, shop: Store, service_bundle: Path) -> None:
    with Gallery.open("shop", store=shop, bundle=service_bundle) as gallery:
        expected = gallery.search(GalleryImage("red"), "make it blue", limit=6, rerank_depth=6)
    answer = client.post("/search", json=QUERY).json()
    assert [(each["id"], each["retrieval_rank"]) for each in answer["candidates"]] == [
        (each.image_id, each.retrieval_rank) for each in expected
    ]
    assert [each["score"] for each in answer["candidates"]] == pytest.approx([each.rerank_score for each in expected])
    assert [each["rank"] for each in answer["candidates"]] == [1, 2, 3, 4, 5, 6]
    assert answer["candidates"][0]["payload"]["color"] == expected[0].image_id
    assert (answer["rerank_mode"], answer["scored"]) == (expected.rerank_mode, 6)


def test_a_stream_tells_stage_one_then_scores_then_the_answer(client: httpx.Client) -> None:
    answer = client.post("/search", json=QUERY).json()
    told = events_of(client, QUERY)
    assert [name for name, _ in told] == ["retrieved", "scored", "ranked", "done"]
    (_, retrieved), (_, scored), (_, ranked), (_, done) = told
    assert [each["retrieval_rank"] for each in retrieved["candidates"]] == [1, 2, 3, 4, 5, 6]
    assert all(each["score"] is None for each in retrieved["candidates"])
    assert ranked["candidates"] == answer["candidates"]
    assert {each["id"]: each["score"] for each in scored["candidates"]} == {
        each["id"]: each["score"] for each in answer["candidates"]
    }
    assert done["rerank_mode"] == answer["rerank_mode"]


def test_a_title_is_no_facet_and_a_few_long_values_hide_no_field() -> None:
    long = "a white sneaker with a green heel, no stars and a thick purple sole"
    payloads: list[JsonObject] = [
        {
            "title": f"{long} {place}" if place % 4 else f"lamp {place}",
            "name": f"lamp {place}",
            "color": long if place == 0 else ["red", "blue"],
            "material": "brass",
            "sold": place % 2 == 0,
        }
        for place in range(20)
    ]
    assert facets_of(payloads) == {
        "color": [("blue", 19), ("red", 19)],
        "sold": [(False, 10), (True, 10)],
    }


def test_a_picture_in_base64_an_upload_and_a_stored_one_are_the_same_reference(
    client: httpx.Client, shop: Store, service_bundle: Path
) -> None:
    with Gallery.open("shop", store=shop, bundle=service_bundle) as gallery:
        stored = gallery.collection.stored(["red"])["red"]
    data = Path(str(stored.image.source)).read_bytes()
    upload = client.post("/uploads", content=data).json()
    text = base64.b64encode(data).decode()
    answers = [
        client.post("/search", json={**QUERY, "reference": reference}).json()["candidates"]
        for reference in (
            {"id": "red"},
            upload,
            {"data": text},
            {"data": f"data:image/png;base64,{text}"},
        )
    ]
    assert [[each["id"] for each in answer] for answer in answers] == [[each["id"] for each in answers[0]]] * 4
    assert client.get(f"/uploads/{upload['upload']}").headers["content-type"] == "image/jpeg"


def test_a_filter_of_qdrants_and_facets_agree(client: httpx.Client) -> None:
    facets = {each["field"]: each["values"] for each in client.get("/facets").json()["facets"]}
    assert {each["value"]: each["count"] for each in facets["dark"]} == {True: 4, False: 2}
    found = client.post("/search", json={**QUERY, "filter": {"must": [{"key": "dark", "match": {"value": False}}]}})
    assert {each["id"] for each in found.json()["candidates"]} == {"white", "grey"}


def test_rerank_orders_documents_as_the_search_scores_them(client: httpx.Client) -> None:
    answer = client.post("/search", json={**QUERY, "reference": None}).json()["candidates"]
    names = [*COLOURS, "red"]
    body = {"query": "make it blue", "documents": names, "return_documents": True}
    told = client.post("/v1/rerank", json=body).json()
    assert told["model"] == "shop"
    order = [names[each["index"]] for each in told["results"]]
    scores = {each["id"]: each["score"] for each in answer}
    expected = [1 / (1 + math.exp(-scores[name])) for name in order]
    assert [each["relevance_score"] for each in told["results"]] == pytest.approx(expected, abs=1e-6)
    assert sorted(each["index"] for each in told["results"]) == list(range(7))
    relevances = [each["relevance_score"] for each in told["results"]]
    assert relevances == sorted(relevances, reverse=True)
    assert all(0 <= each <= 1 for each in relevances)
    assert told["results"][0]["document"] == {"text": order[0]}
    for path in ("/v2/rerank", "/rerank"):
        assert client.post(path, json={**body, "top_n": 2}).json()["results"] == told["results"][:2]


def test_rerank_takes_pictures_that_are_sent(client: httpx.Client, shop: Store, service_bundle: Path) -> None:
    with Gallery.open("shop", store=shop, bundle=service_bundle) as gallery:
        source = gallery.collection.stored(["blue"])["blue"].image.source
    uri = f"data:image/png;base64,{base64.b64encode(Path(str(source)).read_bytes()).decode()}"
    query = {"text": "make it blue", "image": uri}
    told = client.post("/rerank", json={"query": query, "documents": [{"id": "red"}, {"image": uri}, "blue"]}).json()
    scores = {each["index"]: each["relevance_score"] for each in told["results"]}
    assert scores[1] == pytest.approx(scores[2], abs=1e-4)
    assert scores[1] > scores[0]


@pytest.mark.parametrize("document", ["a red dress with long sleeves", "https://shop.example/red.jpg", "data:nonsense"])
def test_a_document_that_is_no_picture_is_refused(document: str, client: httpx.Client) -> None:
    answer = client.post("/rerank", json={"query": "red", "documents": [document]})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] in ("InputError", "ImageError")


def test_a_cohere_client_is_answered(service: Service, shop: Store, service_bundle: Path) -> None:
    cohere = pytest.importorskip("cohere", reason="needs cohere: cohere is not installed")
    with Gallery.open("shop", store=shop, bundle=service_bundle) as gallery:
        sources = [str(gallery.collection.stored([name])[name].image.source) for name in ("red", "blue")]
    uris = [f"data:image/png;base64,{base64.b64encode(Path(each).read_bytes()).decode()}" for each in sources]
    client = cohere.ClientV2(api_key="any", base_url=service.address)
    told = client.rerank(model="shop", query="make it blue", documents=uris, top_n=2)
    assert [each.index for each in told.results] == [1, 0]


def test_explain_names_the_candidate_as_the_search_does(client: httpx.Client) -> None:
    told = client.post("/explain", json={**QUERY, "candidate": "blue"}).json()
    best = {each["id"]: each for each in client.post("/search", json=QUERY).json()["candidates"]}["blue"]
    assert told["candidate"]["id"] == "blue"
    assert told["candidate"]["score"] == pytest.approx(best["score"])
    assert [each["word"] for each in told["words"]] == ["make", "it", "blue"]
    assert told["count"] == 6


def test_a_picture_is_sent_small_once_and_never_as_a_file(client: httpx.Client) -> None:
    first = client.get("/images/red", params={"size": 16})
    assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
    assert first.content[:3] == b"\xff\xd8\xff"
    again = client.get("/images/red", params={"size": 16}, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("purple", "../../etc/passwd", "/etc/passwd"):
        assert client.get(f"/images/{name}").status_code == 404


def test_samples_are_images_of_the_collection(client: httpx.Client) -> None:
    assert {each["id"] for each in client.get("/samples").json()["candidates"]} == set(COLOURS)


def test_info_and_probes(client: httpx.Client) -> None:
    (told,) = client.get("/info").json()["collections"]
    assert told == {"name": "shop", "count": 6, "bundle": "tiny", "attached": False}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_documents_curl_lines_are_answered(service: Service) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl: curl is not installed")
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 6
    for line in lines:
        command = shlex.split(line.replace("http://127.0.0.1:8000", service.address))
        done = subprocess.run([*command, "--fail", "--noproxy", "*"], capture_output=True, text=True, check=False)
        assert (done.returncode, line if not done.stdout else "") == (0, "")
