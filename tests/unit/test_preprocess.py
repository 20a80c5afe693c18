"""Preprocessing: every number is arithmetic on solid colours, or redone by hand in the comment beside it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from qdrant_cir.errors import ImageError
from qdrant_cir.model.bundle import PreprocessingSpec
from qdrant_cir.model.preprocess import blank_pixels, load_image, preprocess
from qdrant_cir.types import Float32, PictureLimits

# (value / 255 - 0) / 1: pixels stay what they are, divided by 255.
PLAIN = PreprocessingSpec(size=8, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
RED = (255, 0, 0)


def png(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "PNG", **options)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(image: Image.Image) -> tuple[int, ...]:
    value = image.getpixel((0, 0))
    assert isinstance(value, tuple)
    return tuple(int(channel) for channel in value)


# preprocess


def test_pixels_are_normalised_per_channel() -> None:
    spec = PreprocessingSpec(size=4, pad_ratio=1.25, mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.1))
    pixels = preprocess(Image.new("RGB", (10, 10), (255, 102, 0)), spec)
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, 4, 4)
    assert pixels.flags.c_contiguous
    # (1 - 0.2) / 0.5 = 1.6;  (0.4 - 0.4) / 0.25 = 0;  (0 - 0.6) / 0.1 = -6
    np.testing.assert_allclose(pixels[:, 0, 0], [1.6, 0, -6], atol=1e-6)
    np.testing.assert_allclose(pixels[:, 3, 3], [1.6, 0, -6], atol=1e-6)


def red_columns(width: int, height: int, size: int = 1000) -> Float32:
    spec = PreprocessingSpec(size=size, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    red: Float32 = preprocess(Image.new("RGB", (width, height), RED), spec)[0]
    return red


def test_an_elongated_picture_is_padded_with_black_on_both_sides_of_its_shorter_axis() -> None:
    # 40 x 100: 100 / 1.25 = 80, hp = int((80 - 40) / 2) = 20, vp = max(int((80 - 100) / 2), 0) = 0: 80 x 100.
    # At size 80 the crop takes 10 rows off top and bottom: columns 0-19 black, 20-59 red, 60-79 black.
    red = red_columns(40, 100, size=80)
    assert (red[:, :20] == 0).all()
    assert (red[:, 20:60] == 1).all()
    assert (red[:, 60:] == 0).all()
    # The same lying down.
    assert (red_columns(100, 40, size=80) == red.T).all()


def test_the_padding_is_cut_to_whole_pixels() -> None:
    # 41 x 100: hp = int((80 - 41) / 2) = int(19.5) = 19: 79 x 100.
    red = red_columns(41, 100, size=79)
    assert (red[:, :19] == 0).all()
    assert (red[:, 19:60] == 1).all()
    assert (red[:, 60:] == 0).all()


def test_padding_begins_at_the_ratio_itself() -> None:
    # 100 / 80 = 1.25 is padded by hp = int((80 - 80) / 2) = 0, 100 / 81 is not padded: neither shows black.
    assert (red_columns(80, 100, size=80) == 1).all()
    assert (red_columns(81, 100, size=81) == 1).all()
    # 100 / 77 > 1.25: hp = int(1.5) = 1: 79 x 100.
    assert (red_columns(77, 100, size=79)[:, 0] == 0).all()


def test_the_longer_side_is_cut_to_whole_pixels_and_the_crop_is_central() -> None:
    # 10 x 11, shorter side to 20: longer = int(20 * 11 / 10) = 22; top = round((22 - 20) / 2) = 1.
    # Twice magnified, row r begins at 2 r, in the crop at 2 r - 1.
    picture = Image.new("RGB", (10, 11), (0, 0, 0))
    ImageDraw.Draw(picture).rectangle((0, 5, 9, 10), fill=RED)
    spec = PreprocessingSpec(size=20, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    column = preprocess(picture, spec)[0, :, 10]
    # The edge between rows 4 and 5 lies at 10, in the crop at 9: rows up to 8 are dark, from 9 on bright.
    assert (column[:9] < 0.5).all()
    assert (column[9:] > 0.5).all()


def test_shrinking_is_antialiased() -> None:
    # A fine chessboard is grey from afar. Without antialiasing, sampling would give 0 or 1.
    board = (np.indices((160, 160)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = preprocess(Image.fromarray(board).convert("RGB"), PLAIN)
    np.testing.assert_allclose(pixels[:, 2:-2, 2:-2], 0.5, atol=0.03)


def test_a_picture_of_the_right_size_is_taken_pixel_by_pixel() -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = preprocess(Image.fromarray(values), PLAIN)
    np.testing.assert_array_equal(pixels, values.transpose(2, 0, 1) / np.float32(255))


def test_one_pixel_becomes_a_whole_picture() -> None:
    assert (preprocess(Image.new("RGB", (1, 1), RED), PLAIN)[0] == 1).all()


def test_a_strip_is_padded_without_a_canvas_of_gigabytes() -> None:
    # 60,000 x 1 padded as it is would be 60,000 x 48,001 pixels = 8.6 GB.
    pixels = preprocess(Image.new("RGB", (60_000, 1), RED), PLAIN)
    assert pixels.shape == (3, 8, 8)
    assert pixels.max() < 0.5


def test_only_rgb_is_preprocessed() -> None:
    with pytest.raises(ImageError, match=r"this one is L\. Use load_image"):
        preprocess(Image.new("L", (4, 4)), PLAIN)


def test_the_blank_reference_is_the_mean_colour() -> None:
    blank = blank_pixels(PLAIN)
    assert blank.shape == (3, 8, 8)
    assert blank.dtype == np.float32
    assert (blank == 0).all()


# load_image


def test_path_bytes_and_pillow_image_give_the_same_pixels(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    path = tmp_path / "picture.png"
    picture.save(path)
    answers = [load_image(source) for source in (path, str(path), path.read_bytes(), picture)]
    assert all(answer.mode == "RGB" and answer.tobytes() == picture.tobytes() for answer in answers)
    assert answers[-1] is not picture


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to view
    stored = Image.new("RGB", (30, 10), (0, 0, 255))
    stored.paste(RED, (0, 0, 10, 10))
    viewed = load_image(png(stored, exif=exif))
    assert viewed.size == (10, 30)
    assert rgb(viewed) == RED
    assert viewed.getpixel((5, 25)) == (0, 0, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    # 0 -> 0, 32896 = 128 * 257 -> 128, 65535 -> 255
    picture = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    image = load_image(png(picture))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_cmyk_becomes_rgb() -> None:
    assert rgb(load_image(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))) == RED


def test_transparency_lies_over_white() -> None:
    # half of red over white: 255, 255 * (1 - 128 / 255) = 127, 127
    assert rgb(load_image(png(Image.new("RGBA", (4, 4), (255, 0, 0, 128))))) == (255, 127, 127)
    assert rgb(load_image(png(Image.new("LA", (4, 4), (0, 0))))) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_lies_over_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    image = load_image(png(picture, transparency=0))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 255, 0)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    red, green, blue = rgb(load_image(data))
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV", "F", "I"])
def test_every_other_mode_of_pillow_becomes_rgb(mode: str) -> None:
    assert load_image(Image.new(mode, (3, 3))).mode == "RGB"


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty \(0 bytes\)"):
        load_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="empty"):
        load_image(b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused_not_filled_with_grey(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=rf"cut\.{kind.lower()} (is truncated|is not an image|cannot be read)"):
        load_image(path)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
        load_image(tmp_path / "notes.jpg")
    with pytest.raises(ImageError, match="the image given as 5 bytes is not an image"):
        load_image(b"hello")


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="There is no image file"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image("null\0byte.png")


def declaring(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header declares a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_what_it_declares() -> None:
    with pytest.raises(ImageError, match="declares 9000 x 9000 = 81000000 pixels; at most 64000000"):
        load_image(declaring(9000, 9000))
    with pytest.raises(ImageError, match="sides up to 20000 are read"):
        load_image(declaring(60_000, 60_000))
    with pytest.raises(ImageError, match="at most 15"):
        load_image(Image.new("RGB", (4, 4)), limits=PictureLimits(pixels=15))


def test_real_photographs_are_read(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos").rglob("*.jpg"))[:20]
    assert photos
    for photo in photos:
        pixels = preprocess(load_image(photo), PLAIN)
        assert pixels.shape == (3, 8, 8)
        assert 0 <= pixels.min() <= pixels.max() <= 1
