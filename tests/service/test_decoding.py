"""Pictures are decoded few at a time, and none for a client that has gone."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from serving import Service

from qdrant_cir import AsyncGallery, ImageRecord
from qdrant_cir.errors import BusyError
from qdrant_cir.model import preprocess
from qdrant_cir.service import decoding, thumbnails
from qdrant_cir.service.decoding import Decoder
from qdrant_cir.service.served import Served
from qdrant_cir.service.thumbnails import Thumbnail


class Watched:
    """What stands for the decoder of pictures: slow, and counted."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun, self.most = seconds, 0, 0
        self._now, self._lock = 0, threading.Lock()

    def __call__(self, source: object) -> Image.Image:
        with self._lock:
            self.begun += 1
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self.seconds)
        try:
            return preprocess.load_image(source)  # type: ignore[arg-type]
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched(0.05)
    monkeypatch.setattr(decoding, "load_image", made)
    monkeypatch.setattr(thumbnails, "load_image", made)
    return made


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (20, 20), shade).save(file, "PNG")
    return file.getvalue()


def test_uploads_data_and_thumbnails_are_decoded_two_at_a_time(
    service: Service, client: httpx.Client, watched: Watched
) -> None:
    upload = client.post("/uploads", content=picture(0)).json()["upload"]

    async def ask() -> set[int]:
        async with httpx.AsyncClient(base_url=service.address, trust_env=False, timeout=20) as asking:
            answers = await asyncio.gather(
                *(asking.post("/uploads", content=picture(shade)) for shade in range(1, 7)),
                *(asking.get(f"/uploads/{upload}", params={"size": size}) for size in range(20, 26)),
                *(asking.get("/images/red", params={"size": size}) for size in range(20, 26)),
                *(
                    asking.post("/search", json={"reference": {"data": base64.b64encode(picture(shade)).decode()}})
                    for shade in range(6)
                ),
            )
        return {each.status_code for each in answers}

    assert service.run(ask()).result(30) == {200}
    assert watched.begun >= 25
    assert watched.most == 2


def test_the_documents_of_a_client_that_goes_away_are_not_decoded(service: Service, watched: Watched) -> None:
    document = f"data:image/png;base64,{base64.b64encode(picture(9)).decode()}"

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=service.address, trust_env=False) as asking:
            with pytest.raises(httpx.ReadTimeout):
                await asking.post("/rerank", json={"query": "make it blue", "documents": [document] * 40}, timeout=0.2)

    service.run(leave()).result(10)
    time.sleep(0.2)
    begun = watched.begun
    time.sleep(0.2)
    assert watched.begun == begun < 20


def test_a_picture_that_was_replaced_has_a_new_thumbnail(
    service_bundle: Path, write_solid_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    red, blue = write_solid_images(tmp_path, {"red": (255, 0, 0), "blue": (0, 0, 255)})
    content, fetched, now = [red.read_bytes()], [], [0.0]

    def fetch(address: str) -> bytes:
        fetched.append(address)
        return content[0]

    async def look() -> list[Thumbnail]:
        decoder = Decoder()
        async with AsyncGallery.create("shop", store=tmp_path / "store", bundle=service_bundle) as gallery:
            await gallery.index(
                [
                    ImageRecord("file", red, {}, str(red)),
                    ImageRecord("address", red, {}, "https://pictures.example/red.png"),
                ]
            )
            files = Served("shop", gallery)
            addresses = Served("shop", gallery, open_picture=fetch, clock=lambda: now[0])
            found = [await files.thumbnail("file", 16, decoder), await addresses.thumbnail("address", 16, decoder)]
            red.write_bytes(blue.read_bytes())
            content[0] = blue.read_bytes()
            found += [await files.thumbnail("file", 16, decoder), await addresses.thumbnail("address", 16, decoder)]
            now[0] = 61.0
            found.append(await addresses.thumbnail("address", 16, decoder))
        decoder.close()
        return found

    file, address, new_file, within_a_minute, later = asyncio.run(look())
    assert file.etag == address.etag == within_a_minute.etag
    assert new_file.etag == later.etag != file.etag
    assert len(fetched) == 2


def test_a_thumbnail_that_is_kept_is_not_drawn_again(client: httpx.Client, watched: Watched) -> None:
    upload = client.post("/uploads", content=picture(77)).json()["upload"]
    for path in (f"/uploads/{upload}", "/images/blue"):
        before = watched.begun
        assert client.get(path, params={"size": 33}).content == client.get(path, params={"size": 33}).content
        assert watched.begun == before + 1


def test_when_too_many_pictures_wait_the_next_is_refused() -> None:
    async def work() -> None:
        decoder = Decoder(at_once=1, waiting=1)
        release = threading.Event()
        asked = [asyncio.create_task(decoder.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="Ask again later"):
            await decoder.run(release.wait)
        # one that is cancelled makes room and is never begun
        asked[1].cancel()
        await asyncio.sleep(0)
        last = asyncio.create_task(decoder.run(release.wait))
        await asyncio.sleep(0)
        release.set()
        assert await asked[0]
        assert await last
        decoder.close()

    asyncio.run(work())
