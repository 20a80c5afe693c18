"""What is opened and what is refused before it is decoded; the files are a few bytes that declare a lot."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdrant_cir.errors import ImageError, InputError, printable
from qdrant_cir.model.bundle import PreprocessingSpec
from qdrant_cir.model.decoding_gate import decoding
from qdrant_cir.model.picture_files import format_of
from qdrant_cir.model.preprocess import hash_source, load_image, read_pixels, source_digests
from qdrant_cir.types import PictureLimits

RED = (220, 30, 40)
VERSION_1 = PreprocessingSpec(size=8, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
VERSION_2 = PreprocessingSpec(size=8, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), version=2)

FORMATS = {
    "jpg": ("JPEG", "JPEG"),
    "mpo": ("MPO", "JPEG"),
    "png": ("PNG", "PNG"),
    "webp": ("WEBP", "WebP"),
    "gif": ("GIF", "GIF"),
    "bmp": ("BMP", "BMP"),
    "tif": ("TIFF", "TIFF"),
    "ppm": ("PPM", "PPM"),
    "jp2": ("JPEG2000", "JPEG 2000"),
    "tga": ("TGA", "TGA"),
    "avif": ("AVIF", "AVIF"),
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png_declaring(width: int, height: int, *, depth: int = 8, color: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of_scans(count: int) -> bytes:
    whole = encoded(Image.new("RGB", (64, 64), RED), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (count - whole.count(b"\xff\xda")) + whole[-2:]


@pytest.mark.parametrize("name", FORMATS)
def test_every_promised_format_is_read_by_its_content(name: str) -> None:
    content = encoded(Image.new("RGB", (16, 16), RED), FORMATS[name][0])
    assert format_of(content[:32]) == FORMATS[name][1]
    read = np.asarray(load_image(content)).astype(int)
    assert np.abs(read - RED).max() < 12


@pytest.mark.parametrize("kind", ["PCX", "ICO", "SGI", "EPS", "QOI"])
def test_other_formats_of_pillow_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match="in a format that is read"):
        load_image(encoded(Image.new("RGB", (16, 16), RED), kind))


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho started > {mark}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n%%EOF\n"
    (tmp_path / "shoe.jpg").write_bytes(content)
    for source in (tmp_path / "shoe.jpg", content):
        with pytest.raises(ImageError, match="in a format that is read"):
            load_image(source)
    assert not mark.exists()


def test_a_heic_picture_says_what_to_install() -> None:
    with pytest.raises(ImageError, match=r'HEIC picture.*pip install "qdrant-cir\[heic\]"'):
        load_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")


def test_a_png_with_a_wrong_checksum_is_called_damaged() -> None:
    content = encoded(Image.new("RGB", (32, 32), RED), "PNG")
    comment = struct.pack(">I", 12) + b"tEXtComment\0shop" + struct.pack(">I", 123)
    with pytest.raises(ImageError, match="is truncated or damaged"):
        load_image(content[:33] + comment + content[33:])


@pytest.mark.parametrize("spec", [VERSION_1, VERSION_2])
class TestLimits:
    def test_pixels_are_counted_before_decoding(self, spec: PreprocessingSpec) -> None:
        with pytest.raises(ImageError, match=r"9000 x 9000 = 81000000 pixels; at most 64000000.*--max-megapixels 81"):
            read_pixels(png_declaring(9000, 9000), spec)

    def test_a_side_of_more_than_20_000_is_refused_unless_asked_for(self, spec: PreprocessingSpec) -> None:
        strip = encoded(Image.new("L", (20_001, 2)), "PNG")
        with pytest.raises(ImageError, match=r"sides up to 20000 are read.*--max-side 20001"):
            read_pixels(strip, spec)
        assert read_pixels(strip, spec, limits=PictureLimits(side=20_001)).shape == (3, 8, 8)

    @pytest.mark.parametrize(("kind", "side"), [("WEBP", 1500), ("JPEG2000", 1500), ("AVIF", 1500)])
    def test_formats_that_take_more_memory_count_as_more_pixels(
        self, spec: PreprocessingSpec, kind: str, side: int
    ) -> None:
        content = encoded(Image.new("RGB", (side, side), RED), kind)
        limits = PictureLimits(pixels=side * side)
        with pytest.raises(ImageError, match="MB to decode from"):
            read_pixels(content, spec, limits=limits)
        assert read_pixels(content, spec, limits=PictureLimits(pixels=3 * side * side)).shape == (3, 8, 8)

    def test_scans_of_a_jpeg_are_counted(self, spec: PreprocessingSpec) -> None:
        assert read_pixels(jpeg_of_scans(64), spec).shape == (3, 8, 8)
        with pytest.raises(ImageError, match="more than 64 scans"):
            read_pixels(jpeg_of_scans(65), spec)
        assert read_pixels(jpeg_of_scans(65), spec, limits=PictureLimits(scans=65)).shape == (3, 8, 8)


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_looks_the_same() -> None:
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    content = encoded(coarse.resize((2000, 1500), Image.Resampling.BICUBIC), "JPEG", quality=90)
    limits = PictureLimits(pixels=1_000_000)
    with pytest.raises(ImageError, match="at most 1000000"):
        read_pixels(content, VERSION_1, limits=limits)
    # 64 pixels from 1,600, padded: 6 times smaller is enough, of which the decoder does 4
    whole, part = replace(VERSION_1, size=64), replace(VERSION_2, size=64)
    difference = read_pixels(content, part, limits=limits) - read_pixels(content, whole)
    assert np.abs(difference).mean() * 255 < 2


def test_a_picture_of_up_to_four_times_the_size_has_the_same_pixels_in_both_versions() -> None:
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (39, 39, 3), dtype=np.uint8))
    content = encoded(noise, "JPEG")
    assert (read_pixels(content, VERSION_1) == read_pixels(content, VERSION_2)).all()


@pytest.mark.parametrize("values", [{"pixels": 0}, {"side": -1}, {"scans": True}, {"pixels": 1.5}])
def test_limits_are_whole_numbers_of_at_least_one(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"PictureLimits.{next(iter(values))} is"):
        PictureLimits(**values)


class TestGate:
    def test_what_does_not_fit_beside_the_others_waits_and_comes_in_order(self) -> None:
        entered: list[str] = []

        def enter(name: str, needed: int) -> None:
            with decoding(needed, capacity=10):
                entered.append(name)

        with decoding(8, capacity=10):
            threads = []
            for name, needed in (("large", 9), ("small", 1)):
                threads.append(threading.Thread(target=enter, args=(name, needed)))
                threads[-1].start()
                time.sleep(0.05)
            assert entered == []
        for thread in threads:
            thread.join(5)
        assert entered == ["large", "small"]

    def test_a_single_one_is_let_in_whatever_it_needs(self) -> None:
        with decoding(100, capacity=10):
            pass

    def test_a_forked_process_does_not_wait_for_what_its_parent_holds(self) -> None:
        with decoding(10, capacity=10):
            child = os.fork()
            if child == 0:
                with decoding(10, capacity=10):
                    os._exit(0)
            deadline = time.monotonic() + 5
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.01)
            if ended == (0, 0):
                os.kill(child, 9)
                os.waitpid(child, 0)
        assert ended == (child, 0)


class TestSources:
    def test_arrays_open_files_and_buffers_are_read(self, tmp_path: Path) -> None:
        pixels = np.full((6, 5, 3), RED, dtype=np.uint8)
        content = encoded(Image.fromarray(pixels), "PNG")
        (tmp_path / "red.png").write_bytes(content)
        with (tmp_path / "red.png").open("rb") as file:
            for source in (pixels, io.BytesIO(content), bytearray(content), memoryview(content), file):
                for _ in range(2):
                    assert (np.asarray(load_image(source)) == pixels).all()
        assert load_image(np.zeros((4, 4), np.uint8)).mode == "RGB"

    @pytest.mark.parametrize(
        ("source", "word"),
        [
            (np.zeros((4, 4, 3), np.float32), r"array of float32 \[4, 4, 3\]"),
            (np.zeros((4, 4, 5), np.uint8), r"\[4, 4, 5\]"),
            (np.zeros((0, 4, 3), np.uint8), "array of uint8"),
            (17, "given as int"),
            (None, "given as NoneType"),
            (io.StringIO("x"), "opened as text"),
            (b"", "empty"),
            (os.fsencode("a.png") and Path("/dev/null"), "not a regular file"),
        ],
    )
    def test_what_is_no_picture_is_an_image_error(self, source: object, word: str) -> None:
        for act in (load_image, hash_source):
            with pytest.raises(ImageError, match=word):
                act(source)  # type: ignore[arg-type]

    def test_the_same_bytes_in_another_shape_are_another_picture(self) -> None:
        flat = np.arange(36, dtype=np.uint8)
        tall, wide = flat.reshape(6, 2, 3), flat.reshape(2, 6, 3)
        assert hash_source(tall) != hash_source(wide)
        assert hash_source(tall) == hash_source(Image.fromarray(tall))

    def test_floating_point_pictures_that_differ_below_one_differ(self) -> None:
        low, high = (Image.new("F", (2, 2), value) for value in (0.25, 0.75))
        assert hash_source(low) != hash_source(high)

    def test_a_pillow_image_is_also_known_by_the_file_that_it_was_opened_from(self, tmp_path: Path) -> None:
        file = tmp_path / "red.png"
        file.write_bytes(encoded(Image.new("RGB", (4, 4), RED), "PNG"))
        with Image.open(file) as image:
            assert source_digests(image) == {hash_source(file), hash_source(image)}
        assert source_digests(file) == {hash_source(file)}


def test_names_with_escape_sequences_are_quoted(tmp_path: Path) -> None:
    assert printable("Kleid grün.jpg") == "Kleid grün.jpg"
    assert printable("\x1b[31m.jpg") == r"'\x1b[31m.jpg'"
    assert printable("a\udcff") == r"'a\udcff'"
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "\x1b]0;owned\x07.jpg")
    assert str(caught.value).isprintable()
