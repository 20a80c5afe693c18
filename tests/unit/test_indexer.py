"""Indexing into a real Edge store with the tiny model's real graph; counts are those of the folder."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client.models import FieldCondition, Filter, MatchValue

from qdrant_cir.errors import IndexingError, InputError
from qdrant_cir.indexer import Indexer, IndexProgress
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow, read_folder, read_manifest
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import GalleryHit
from qdrant_cir.storage.steps import run
from qdrant_cir.storage.stores.edge import EdgeStore
from qdrant_cir.tokens.codec import decode_tokens
from qdrant_cir.types import EncodedImages, Float32, ImageSource, JsonObject, JsonValue, PictureLimits, Precision

CLASSES = ("dress", "hat", "shoe")


class CountingEncoder:
    """The real encoder, and how many images it was given."""

    precision: Precision = "float32"

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder
        self.images = 0
        self.before_batch: Callable[[], None] = lambda: None

    def encode(self, pixel_values: Float32) -> EncodedImages:
        self.before_batch()
        self.images += len(pixel_values)
        return self._encoder.encode(pixel_values)


def nearest(collection: Collection, vector: Float32, *, limit: int) -> list[GalleryHit]:
    return run(collection.reads.nearest(vector, limit=limit, filter=None), collection.store).hits


@dataclass(frozen=True, slots=True)
class Gallery:
    """A collection in an Edge store, and an encoder that counts."""

    collection: Collection
    encoder: CountingEncoder
    bundle: Bundle
    store: EdgeStore

    def indexer(self, *, batch_size: int = 4) -> Indexer:
        return Indexer(self.collection, self.encoder, self.bundle, batch_size=batch_size, decode_threads=2)

    def payload(self, image_id: str) -> dict[str, object]:
        hits = nearest(self.collection, np.array([1, 0, 0], np.float32), limit=1000)
        return next(dict(hit.image.payload) for hit in hits if hit.image_id == image_id)


@pytest.fixture
def gallery(tmp_path: Path, tiny_bundle: Path) -> Iterator[Gallery]:
    bundle = load_bundle(tiny_bundle)
    store = EdgeStore(tmp_path / "store")
    encoder = CountingEncoder(ImageEncoder.open(bundle, Compute("cpu", 1)))
    yield Gallery(Collection.create(store, "pictures", bundle), encoder, bundle, store)
    store.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty pictures, ten in each of three folders, no two alike."""
    for place in range(30):
        file = tmp_path / "photos" / CLASSES[place % 3] / f"{place:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (200, place, 8 * place)).save(file)
    return tmp_path / "photos"


def record(image_id: str, image: ImageSource, **payload: str | int | float) -> ImageRecord:
    return ImageRecord(image_id, image, dict(payload), None)


def test_every_picture_of_a_folder_is_found_by_its_folder(gallery: Gallery, photos: Path) -> None:
    report = gallery.indexer().index(read_folder(photos))
    assert (report.indexed, report.unchanged, report.updated, report.failed) == (30, 0, 0, ())
    assert report.images_per_second == pytest.approx(30 / report.seconds)
    for name in CLASSES:
        in_folder = Filter(must=[FieldCondition(key="folder", match=MatchValue(value=name))])
        assert gallery.collection.count(in_folder) == 10


def test_what_is_stored_is_what_the_encoder_gives_whatever_the_batches(
    tmp_path: Path, photos: Path, tiny_bundle: Path
) -> None:
    bundle = load_bundle(tiny_bundle)
    encoder = ImageEncoder.open(bundle, Compute("cpu", 1))
    stored: list[dict[str, bytes]] = []
    for batch_size in (7, 64):
        store = EdgeStore(tmp_path / f"store{batch_size}")
        collection = Collection.create(store, "pictures", bundle)
        Indexer(collection, encoder, bundle, batch_size=batch_size).index(read_folder(photos))
        hits = nearest(collection, np.array([1, 0, 0], np.float32), limit=30)
        tokens = collection.tokens([hit.image_id for hit in hits])
        stored.append(dict(tokens))
        store.close()
    assert stored[0] == stored[1]
    # 200 of 255 is 145/255 above the middle, in units from -1 to 1
    (red,) = decode_tokens([stored[0]["dress/00.png"]], bundle.manifest.sizes).values[:, 0, 0]
    (scale,) = decode_tokens([stored[0]["dress/00.png"]], bundle.manifest.sizes).scales[:, 0]
    assert red * scale == pytest.approx(145 / 255, abs=float(scale))


def test_a_second_run_encodes_and_writes_nothing(
    gallery: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.indexer().index(read_folder(photos))
    monkeypatch.setattr(EdgeStore, "upsert", lambda *_: pytest.fail("a second run wrote"))
    report = gallery.indexer(batch_size=7).index(read_folder(photos))
    assert (report.indexed, report.updated, report.unchanged, report.failed) == (0, 0, 30, ())
    assert gallery.encoder.images == 30


def test_only_a_changed_picture_is_encoded_again(gallery: Gallery, photos: Path) -> None:
    gallery.indexer().index(read_folder(photos))
    Image.new("RGB", (20, 20), (0, 255, 0)).save(photos / "hat" / "01.png")
    report = gallery.indexer().index(read_folder(photos))
    assert (report.indexed, report.unchanged) == (1, 29)
    assert gallery.encoder.images == 31
    (best,) = nearest(gallery.collection, np.array([-1, 1, -1], np.float32), limit=1)
    assert best.image_id == "hat/01.png"
    assert best.score == pytest.approx(1.0)
    assert gallery.collection.count(None) == 30


def test_changed_metadata_is_rewritten_without_encoding(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("file,price,colour\nphotos/hat/01.png,10,red\nphotos/hat/04.png,20,red\n")
    gallery.indexer().index(read_manifest(manifest))
    before = nearest(gallery.collection, np.array([1, 0, 0], np.float32), limit=9)
    manifest.write_text("file,price,size\nphotos/hat/01.png,11,L\nphotos/hat/04.png,20,\n")
    report = gallery.indexer().index(read_manifest(manifest))
    assert (report.indexed, report.updated, report.unchanged) == (0, 2, 0)
    assert gallery.encoder.images == 2
    assert gallery.payload("photos/hat/01.png") == {"price": 11, "size": "L"}
    assert gallery.payload("photos/hat/04.png") == {"price": 20}
    after = nearest(gallery.collection, np.array([1, 0, 0], np.float32), limit=9)
    assert [(hit.image_id, hit.score) for hit in after] == [(hit.image_id, hit.score) for hit in before]
    assert gallery.indexer().index(read_manifest(manifest)).unchanged == 2


def test_any_json_payload_comes_back_as_it_was_so_that_it_is_not_rewritten(gallery: Gallery, photos: Path) -> None:
    payload: JsonObject = {
        "whole_float": 20.0,
        "large": 1e300,
        "integer": 2**63 - 1,
        "false": False,
        "nothing": None,
        "empty": [],
        "nested": {"größe": ["L", 1, 1.0, {"b": True}]},
        "text": "a\u2028b\x00",
    }
    odd = ImageRecord("odd", photos / "hat" / "01.png", payload, None)
    gallery.indexer().index([odd])
    assert gallery.payload("odd") == payload
    assert gallery.indexer().index([odd]).unchanged == 1


class Size(IntEnum):
    LARGE = 3


class Color(str, Enum):  # noqa: UP042 (its str() is not its value, unlike that of StrEnum)
    RED = "red"


def test_values_of_subclasses_are_stored_as_what_they_stand_for(gallery: Gallery, photos: Path) -> None:
    given = {"size": Size.LARGE, "color": Color.RED, "price": np.float64(1.5), np.str_("name"): [np.str_("hat")]}
    odd = ImageRecord(np.str_("odd"), photos / "hat" / "01.png", OrderedDict(given), None)
    assert gallery.indexer().index([odd]).indexed == 1
    stored = gallery.payload("odd")
    assert stored == {"size": 3, "color": "red", "price": 1.5, "name": ["hat"]}
    assert gallery.indexer().index([odd]).unchanged == 1


def nested(depth: int) -> JsonValue:
    return [] if depth == 1 else [nested(depth - 1)]


def test_a_payload_of_64_levels_is_stored_and_a_deeper_or_endless_one_refused(gallery: Gallery, photos: Path) -> None:
    endless: list[JsonValue] = []
    endless.append(endless)
    image = photos / "hat" / "01.png"
    values = {"deep": nested(63), "deeper": nested(64), "endless": endless}
    report = gallery.indexer().index([ImageRecord(name, image, {"a": value}, None) for name, value in values.items()])
    assert gallery.payload("deep") == {"a": nested(63)}
    assert [failed.image_id for failed in report.failed] == ["deeper", "endless"]
    assert all("deeper than 64" in failed.reason for failed in report.failed)


def test_a_moved_picture_with_its_old_id_gets_its_new_source(gallery: Gallery, photos: Path) -> None:
    (first, *_) = read_folder(photos)
    gallery.indexer().index([first])
    Path(str(first.source)).rename(photos / "moved.png")
    moved = replace(first, image=str(photos / "moved.png"), source=str(photos / "moved.png"))
    report = gallery.indexer().index([moved])
    assert (report.indexed, report.updated) == (0, 1)
    (hit,) = nearest(gallery.collection, np.array([1, 0, 0], np.float32), limit=9)
    assert hit.image.source == str(photos / "moved.png")


class TestBadInput:
    def bad_files(self, folder: Path) -> dict[str, str]:
        """Write bad pictures; give the word that each reason must hold."""
        folder.mkdir()
        noise = Image.effect_noise((64, 64), 80).convert("RGB")
        noise.save(folder / "truncated.jpg")
        data = (folder / "truncated.jpg").read_bytes()
        (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
        noise.save(folder / "truncated.png")
        data = (folder / "truncated.png").read_bytes()
        (folder / "truncated.png").write_bytes(data[: len(data) // 2])
        (folder / "empty.jpg").touch()
        (folder / "text.jpg").write_text("this is no picture")
        (folder / "bomb.png").write_bytes(declared_png(60_000, 60_000))
        (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
        os.mkfifo(folder / "pipe.jpg")
        return {
            "truncated.jpg": "truncated",
            "truncated.png": "truncated",
            "empty.jpg": "empty",
            "text.jpg": "not an image",
            "bomb.png": "pixels",
            "dangling.jpg": "no image file",
            "pipe.jpg": "not a regular file",
        }

    def test_bad_pictures_are_reported_by_name_and_reason_and_the_others_are_indexed(
        self, gallery: Gallery, photos: Path
    ) -> None:
        words = self.bad_files(photos / "bad")
        report = gallery.indexer().index(read_folder(photos))
        assert report.indexed == 30
        reasons = {failed.image_id.removeprefix("bad/"): failed.reason for failed in report.failed}
        assert reasons.keys() == words.keys()
        assert {name: words[name] in reasons[name] for name in words} == dict.fromkeys(words, True)

    def test_uncommon_pictures_are_indexed(self, gallery: Gallery, tmp_path: Path) -> None:
        folder = tmp_path / "uncommon"
        folder.mkdir()
        red = Image.new("RGB", (30, 20), (255, 0, 0))
        red.convert("CMYK").save(folder / "cmyk.jpg")
        red.convert("P").save(folder / "palette.gif")
        red.convert("RGBA").save(folder / "alpha.webp")
        red.save(folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", (30, 20), "blue")])
        exif = Image.Exif()
        exif[0x0112] = 6
        red.save(folder / "rotated.jpg", exif=exif)
        red.resize((1, 1)).save(folder / "pixel.png")
        Image.fromarray(np.full((20, 30), 60_000, np.uint16)).save(folder / "sixteen.png")
        report = gallery.indexer().index(read_folder(folder))
        assert (report.indexed, report.failed) == (7, ())

    def test_records_that_cannot_be_stored_are_reported_and_their_batch_is_written(
        self, gallery: Gallery, photos: Path
    ) -> None:
        image = photos / "hat" / "01.png"
        records: list[ImageRecord | RejectedRow] = [
            record("nan", image, price=float("nan")),
            record("huge", image, count=2**63),
            record("reserved", image, _cir="mine"),
            record("surrogate", image, name="\udcff"),
            record("numpy", image, price=np.int64(1)),  # type: ignore[arg-type]
            record("vast", image, count=10**5000),
            ImageRecord("rows", image, [("price", 1)], None),  # type: ignore[arg-type]
            ImageRecord(7, image, {}, None),  # type: ignore[arg-type]
            record("", image),
            record("good", image, price=1.5),
            record("good", image, price=2.5),
            RejectedRow("m.csv line 9", "1 values for 2 columns"),
        ]
        report = gallery.indexer().index(records)
        assert report.indexed == 1
        assert [failed.image_id for failed in sorted(report.failed, key=lambda failed: failed.image_id)] == [
            "",
            "7",
            "good",
            "huge",
            "m.csv line 9",
            "nan",
            "numpy",
            "reserved",
            "rows",
            "surrogate",
            "vast",
        ]
        assert gallery.payload("good") == {"price": 1.5}

    def test_whatever_is_wrong_with_one_record_the_others_are_indexed(self, gallery: Gallery, photos: Path) -> None:
        image = photos / "hat" / "01.png"
        odd: list[object] = [
            ImageRecord(77, image, {}, None),  # type: ignore[arg-type]
            ImageRecord("payload", image, None, None),  # type: ignore[arg-type]
            ImageRecord("source", image, {}, 5),  # type: ignore[arg-type]
            ImageRecord("image", 5, {}, None),  # type: ignore[arg-type]
            ImageRecord(["unhashable"], image, {}, None),  # type: ignore[arg-type]
            ("a", "tuple"),
            None,
            record("gone", photos / "gone.png"),
        ]
        records = [record("first", image), *odd, record("last", image)]
        report = gallery.indexer().index(records)  # type: ignore[arg-type]
        assert (report.indexed, len(report.failed)) == (2, len(odd))
        assert all(failed.reason for failed in report.failed)

    def test_what_a_decoder_raises_is_the_failure_of_its_picture(
        self, gallery: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def breaks(hashed: object, **_: object) -> None:
            raise SystemError("unknown")

        monkeypatch.setattr("qdrant_cir.indexer.decode_image", breaks)
        report = gallery.indexer().index([record("a", photos / "hat" / "01.png")])
        assert [(failed.image_id, failed.reason) for failed in report.failed] == [
            ("a", "it cannot be read: SystemError: unknown")
        ]

    def test_a_picture_that_became_unreadable_is_said_to_keep_its_older_version(
        self, gallery: Gallery, photos: Path
    ) -> None:
        gallery.indexer().index(read_folder(photos))
        (photos / "hat" / "01.png").write_bytes(b"no picture")
        (photos / "hat" / "new.png").write_bytes(b"no picture either")
        report = gallery.indexer().index(read_folder(photos))
        told = {failed.image_id: "indexed before is kept" in failed.reason for failed in report.failed}
        assert told == {"hat/01.png": True, "hat/new.png": False}
        assert gallery.collection.count(None) == 30

    def test_files_that_are_no_pictures_are_counted_in_the_report(self, gallery: Gallery, photos: Path) -> None:
        (photos / "notes.txt").write_text("x")
        assert gallery.indexer().index(read_folder(photos)).skipped == {".txt": 1}

    def test_limits_of_an_indexer_are_those_of_its_pictures(self, gallery: Gallery, photos: Path) -> None:
        indexer = Indexer(gallery.collection, gallery.encoder, gallery.bundle, limits=PictureLimits(pixels=399))
        assert len(indexer.index(read_folder(photos)).failed) == 30

    def test_numbers_below_one_are_refused(self, gallery: Gallery) -> None:
        with pytest.raises(InputError, match="batch_size"):
            gallery.indexer(batch_size=0)


class TestIterables:
    def test_bytes_and_pillow_images_are_known_by_their_content(self, gallery: Gallery, photos: Path) -> None:
        data = (photos / "hat" / "01.png").read_bytes()
        pixels = Image.open(photos / "hat" / "04.png")
        gallery.indexer().index([record("bytes", data), record("pillow", pixels)])
        changed = Image.open(photos / "hat" / "04.png").convert("RGB")
        same = gallery.indexer().index([record("bytes", data), record("pillow", changed)])
        assert (same.indexed, same.unchanged) == (0, 2)
        changed.putpixel((3, 3), (0, 0, 0))
        other = gallery.indexer().index([record("bytes", data), record("pillow", changed)])
        assert (other.indexed, other.unchanged) == (1, 1)

    def test_a_generator_is_read_only_a_few_batches_ahead(self, gallery: Gallery) -> None:
        drawn: list[int] = []
        largest_lead = 0

        def endless() -> Iterator[ImageRecord]:
            for place in range(100):
                drawn.append(place)
                yield record(f"{place}", Image.new("RGB", (8, 8), (200, place % 256, 7)))

        def watch(progress: IndexProgress) -> None:
            nonlocal largest_lead
            largest_lead = max(largest_lead, len(drawn) - progress.done)
            assert progress.total is None
            assert progress.eta_seconds is None

        assert gallery.indexer(batch_size=4).index(endless(), progress=watch).indexed == 100
        assert largest_lead <= 10 * 4

    def test_an_error_of_the_iterable_comes_through_and_no_thread_stays(self, gallery: Gallery, photos: Path) -> None:
        def broken() -> Iterator[ImageRecord]:
            yield from read_folder(photos)[:9]
            raise ConnectionError("the catalogue went away")

        before = set(threading.enumerate())
        with pytest.raises(ConnectionError, match="went away"):
            gallery.indexer().index(broken())
        assert set(threading.enumerate()) <= before


def test_progress_counts_what_is_stored_and_ends_at_the_total(gallery: Gallery, photos: Path) -> None:
    seen: list[IndexProgress] = []

    def watch(progress: IndexProgress) -> None:
        seen.append(progress)
        assert progress.done == progress.indexed + progress.updated + progress.unchanged + progress.failed

    (photos / "empty.jpg").touch()
    gallery.indexer().index(read_folder(photos), progress=watch)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].failed, seen[-1].eta_seconds) == (31, 31, 1, 0.0)


@pytest.mark.parametrize("place", ["progress", "encoder"])
def test_after_ctrl_c_the_next_run_encodes_only_what_is_left(gallery: Gallery, photos: Path, place: str) -> None:
    def interrupt(progress: IndexProgress | None = None) -> None:
        if gallery.encoder.images >= 12 and (progress is None or progress.done):
            raise KeyboardInterrupt

    if place == "encoder":
        gallery.encoder.before_batch = interrupt
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        gallery.indexer().index(read_folder(photos), progress=interrupt if place == "progress" else None)
    assert set(threading.enumerate()) <= before
    done = gallery.collection.count(None)
    assert 12 <= done < 30
    gallery.encoder.before_batch = lambda: None
    report = gallery.indexer().index(read_folder(photos))
    assert (report.indexed, report.unchanged) == (30 - done, done)
    assert gallery.encoder.images == 30


def test_a_failing_store_ends_the_run_with_the_count_and_the_next_run_goes_on(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    def close_store() -> None:
        if gallery.encoder.images == 16:
            gallery.store.close()

    gallery.encoder.before_batch = close_store
    with pytest.raises(IndexingError, match=r"after \d+ images were indexed .*run the same command"):
        gallery.indexer().index(read_folder(photos))
    gallery.encoder.before_batch = lambda: None
    store = EdgeStore(tmp_path / "store")
    collection = Collection.open(store, "pictures", gallery.bundle)
    done = collection.count(None)
    report = Indexer(collection, gallery.encoder, gallery.bundle).index(read_folder(photos))
    store.close()
    assert 8 <= done < 30
    assert (report.indexed, report.unchanged) == (30 - done, done)


def declared_png(width: int, height: int) -> bytes:
    """A PNG whose header declares so many pixels and whose data holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
