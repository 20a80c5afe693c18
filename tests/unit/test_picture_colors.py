"""Pictures arrive as they look. Expected values are arithmetic beside the test."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from qdrant_cir.errors import ImageError
from qdrant_cir.model.bundle import PreprocessingSpec
from qdrant_cir.model.preprocess import load_image, read_pixels
from qdrant_cir.types import JsonValue

RED = (220, 30, 40)
PLAIN = {"size": 8, "pad_ratio": 1.25, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
VERSION_1, VERSION_2 = PreprocessingSpec(**PLAIN), PreprocessingSpec(**PLAIN, version=2)  # type: ignore[arg-type]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def tiff(values: np.ndarray, **tags: JsonValue) -> bytes:
    """A grey TIFF with tags by their names."""
    numbers = {"least": (340, 11), "most": (341, 11), "photometric": (262, 3)}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        number, kind = numbers[name]
        directory.tagtype[number] = kind
        directory[number] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=directory)


def wide_profile() -> bytes:
    """A profile of wide primaries and gamma 1.8, written by hand."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*value: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, value))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + b"\0\0"
    parts = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.7977, 0.2880, 0.0),
        b"gXYZ": xyz(0.1352, 0.7119, 0.0),
        b"bXYZ": xyz(0.0313, 0.0001, 0.8249),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(parts)
    for tag, data in parts.items():
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += b"".join(map(number, (0.9642, 1.0, 0.8249)))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(parts)) + table + body


def in_wide_space(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(wide_profile()))
    )
    assert converted is not None
    return converted


class TestProfiles:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
    def test_a_strong_red_in_a_wide_space_arrives_strong(self, kind: str) -> None:
        stored = in_wide_space(Image.new("RGB", (64, 64), RED))
        pixel = stored.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        assert pixel[0] < 180
        read = np.asarray(load_image(encoded(stored, kind, icc_profile=wide_profile()))).astype(int)
        assert np.abs(read - RED).mean() < 5

    def test_version_1_takes_the_values_as_they_stand(self) -> None:
        stored = in_wide_space(Image.new("RGB", (8, 8), RED))
        content = encoded(stored, "PNG", icc_profile=wide_profile())
        values = np.asarray(stored).transpose(2, 0, 1) / np.float32(255)
        assert (read_pixels(content, VERSION_1) == values).all()
        assert np.abs(read_pixels(content, VERSION_2)[:, 0, 0] * 255 - RED).max() < 4

    def test_transparency_lies_over_white_before_the_profile_is_applied(self) -> None:
        stored = in_wide_space(Image.new("RGB", (8, 8), RED))
        stored.putalpha(0)
        read = load_image(encoded(stored, "PNG", icc_profile=wide_profile()))
        assert np.asarray(read).min() >= 254

    def test_a_profile_of_another_space_or_a_damaged_one_is_ignored(self) -> None:
        plain = Image.new("RGB", (8, 8), RED)
        damaged = wide_profile()[:200] + bytes(100)
        grey = bytearray(wide_profile())
        grey[16:20] = b"GRAY"
        for profile in (damaged, bytes(grey), b"", b"no profile"):
            assert load_image(encoded(plain, "PNG", icc_profile=profile)).getpixel((0, 0)) == RED

    def test_the_picture_that_is_read_carries_no_profile_any_more(self) -> None:
        content = encoded(Image.new("RGB", (8, 8), RED), "PNG", icc_profile=wide_profile())
        assert load_image(content).info == {}
        given = Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 8), RED), "PNG", dpi=(72, 72))))
        assert load_image(given).info == {}
        assert "dpi" in given.info


class TestRanges:
    def test_floating_point_values_from_0_to_1_are_scaled(self) -> None:
        ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
        read = np.asarray(load_image(tiff(ramp)))
        assert (read[0, :, 0] == np.rint(np.linspace(0, 1, 64) * 255)).all()

    def test_floating_point_values_from_0_to_255_are_taken_as_they_are(self) -> None:
        ramp = np.tile(np.linspace(0, 255, 64, dtype=np.float32), (64, 1))
        assert np.asarray(load_image(tiff(ramp))).max() == 255

    def test_a_declared_range_is_used(self) -> None:
        # -100 is black, 410 white; 100 is 200 of 510 above black: 100 of 255
        values = np.full((4, 4), 100, np.float32)
        values[0, 0] = -100
        read = np.asarray(load_image(tiff(values, least=-100.0, most=410.0)))
        assert read[0, 0].tolist() == [0, 0, 0]
        assert read[1, 1].tolist() == [100, 100, 100]

    @pytest.mark.parametrize("values", [(-5.0, 3.0), (0.0, 4.0), (0.0, 90_000.0)])
    def test_a_range_that_nobody_declares_is_refused(self, values: tuple[float, float]) -> None:
        picture = np.array([values, values], np.float32)
        with pytest.raises(ImageError, match="does not declare which of them are black and white"):
            load_image(tiff(picture))

    def test_integers_of_32_bits_in_a_tiff_are_refused_unless_they_declare_a_range(self) -> None:
        picture = np.array([[0, 5000]], np.int32)
        with pytest.raises(ImageError, match="from 0 to 5000 and does not declare"):
            load_image(tiff(picture))
        assert np.asarray(load_image(tiff(picture, least=0.0, most=5000.0)))[0, 1, 0] == 255

    def test_grey_of_12_bits_is_scaled_by_4095(self) -> None:
        # two pixels of 12 bits in three bytes: 0x800 = 2048 and 0xfff = 4095
        content = bytearray(tiff(np.zeros((2, 2), np.uint16)))
        with Image.open(io.BytesIO(bytes(content))) as image:
            strip = image.tag_v2[273][0]  # type: ignore[attr-defined]
        for entry in range(8 + 2, len(content) - 12, 12):
            if struct.unpack_from("<HHI", content, entry) == (258, 3, 1):
                struct.pack_into("<H", content, entry + 8, 12)
        content[strip : strip + 6] = bytes([0x80, 0x0F, 0xFF, 0x80, 0x0F, 0xFF])
        read = np.asarray(load_image(bytes(content)))[..., 0]
        # 2048 * 255 / 4095 = 127.53
        assert read.tolist() == [[128, 255], [128, 255]]

    def test_sixteen_bit_grey_whose_zero_is_white_is_turned_round(self) -> None:
        values = np.array([[0, 65535]], np.uint16)
        assert np.asarray(load_image(tiff(values, photometric=0)))[0, :, 0].tolist() == [255, 0]

    @pytest.mark.parametrize("spec", [VERSION_1, VERSION_2])
    @pytest.mark.parametrize("values", [np.array([[0, 200]], np.uint16), np.array([[0.0, 0.9]], np.float32)])
    def test_no_version_reads_a_picture_as_black_in_silence(self, spec: PreprocessingSpec, values: np.ndarray) -> None:
        try:
            assert read_pixels(tiff(np.tile(values, (2, 1))), spec).max() > 0.5
        except ImageError as error:
            assert "would be read as black" in str(error)  # noqa: PT017 - both are right

    def test_a_wholly_black_picture_is_black(self) -> None:
        for values in (np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.float32)):
            assert np.asarray(load_image(tiff(values))).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_is_reduced_is_turned_upright_like_a_whole_one(orientation: int) -> None:
    picture = Image.new("RGB", (320, 240), (0, 0, 0))
    picture.paste(RED, (0, 0, 160, 120))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture, "PNG", exif=exif)
    difference = read_pixels(content, VERSION_1) - read_pixels(content, VERSION_2)
    assert np.abs(difference).max() * 255 < 3


def test_damaged_exif_data_does_not_lose_a_picture_in_version_2() -> None:
    content = encoded(Image.new("RGB", (8, 8), RED), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.abs(read_pixels(content, VERSION_2)[:, 0, 0] * 255 - RED).max() < 1
