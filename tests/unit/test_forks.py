"""Whatever was opened and used before a fork answers in the child, or refuses with a named error; nothing waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SCRIPT = """
import asyncio, os, signal, sys, time
from pathlib import Path
from threading import Thread

from PIL import Image
from qdrant_client import AsyncQdrantClient, QdrantClient, models

import qdrant_cir
from qdrant_cir import CirError, Gallery, GalleryImage, ImageRecord, Query, attach, attach_async
from qdrant_cir.service.decoding import Decoder

bundle, folder = sys.argv[1], Path(sys.argv[2])
for n in range(6):
    Image.new("RGB", (32, 32), (n * 40, 90, 0)).save(folder / f"{n}.png")
picture = folder / "3.png"
points = [models.PointStruct(id=n, vector={}, payload={"picture": f"{n}.png"}) for n in range(6)]
records = [ImageRecord(str(n), folder / f"{n}.png", {}, None) for n in range(6)]
client = QdrantClient(":memory:", force_disable_check_same_thread=True)
client.create_collection("products", vectors_config={})
client.upsert("products", points)
attached = attach(client, "products", picture="picture", root=folder, bundle=bundle)
attached.index()
attached.delete([5])
query = attached.compose(picture, "in blue")
found = attached.search(picture, "in blue")
attached.rerank(query, [1, folder / "4.png", 5], encode_missing=True)
attached.explain(picture, "in blue", found.candidates[0])
own = Gallery.create("own", store=client, bundle=bundle)
own.index(records)
own.search(GalleryImage("1"), "in blue")
decoder = Decoder()
asyncio.run(decoder.run(lambda: 1))


async def open_async():
    asked = AsyncQdrantClient(":memory:")
    await asked.create_collection("products", vectors_config={})
    await asked.upsert("products", points)
    gallery = await attach_async(asked, "products", picture="picture", root=folder, bundle=bundle)
    await gallery.index()
    await gallery.search(picture, "in blue")
    return gallery


resting, running = asyncio.new_event_loop(), asyncio.new_event_loop()
Thread(target=running.run_forever, daemon=True).start()
galleries = {
    "closed loop": asyncio.run(open_async()),
    "resting loop": resting.run_until_complete(open_async()),
    "running loop": asyncio.run_coroutine_threadsafe(open_async(), running).result(),
}
uses = {
    "search": lambda: attached.search(picture, "in blue"),
    "search_many": lambda: attached._retriever.search_many([Query(picture, "in blue")] * 3),
    "compose": lambda: attached.compose(picture, "in blue"),
    "compose stored": lambda: attached.compose(GalleryImage(3), "in blue"),
    "rerank": lambda: attached.rerank(query, [1, 2]),
    "encode_missing": lambda: attached.rerank(query, [5, folder / "4.png"], encode_missing=True),
    "explain": lambda: attached.explain(picture, "in blue", found.candidates[0]),
    "index attached": lambda: attached.index(verify=True),
    "index": lambda: own.index(records),
    "index anew": lambda: own.index([ImageRecord("new", picture, {}, None)]),
    "info": attached.info,
    "check": own.check,
    "delete": lambda: own.delete(["1"]),
    "service decodes": lambda: asyncio.run(decoder.run(lambda: 1)),
    "opened after the fork": lambda: Gallery.open("own", store=client, bundle=bundle).search(picture, "in blue"),
}
for kind, gallery in galleries.items():
    uses[f"async search, {kind}"] = lambda gallery=gallery: asyncio.run(gallery.search(picture, "in blue"))
    uses[f"async info, {kind}"] = lambda gallery=gallery: asyncio.run(gallery.info())
    uses[f"async index, {kind}"] = lambda gallery=gallery: asyncio.run(gallery.index())
    uses[f"async close, {kind}"] = lambda gallery=gallery: asyncio.run(gallery.close())


def outcome(use):
    try:
        use()
    except CirError as error:
        return type(error).__name__
    except BaseException as error:
        return f"raw {type(error).__name__}: {error}"
    return "answered"


for name, use in uses.items():
    child = os.fork()
    if not child:
        print(f"{name}: {outcome(use)}", flush=True)
        os._exit(0)
    ends = time.monotonic() + 15
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print(f"{name}: hangs", flush=True)
            break
        time.sleep(0.01)
os._exit(0)
"""


def test_nothing_that_was_opened_before_a_fork_hangs_after_it(tmp_path: Path, tiny_bundle: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_bundle), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert len(told) == 15 + 3 * 4, done.stderr
    assert {name: said for name, said in told.items() if said == "hangs" or said.startswith("raw")} == {}
    assert told["rerank"] == told["encode_missing"] == told["explain"] == told["compose"] == "ProviderError"
    assert told["service decodes"] == told["opened after the fork"] == told["info"] == "answered"
    assert {said for name, said in told.items() if name.startswith("async search")} == {"StoreError"}
