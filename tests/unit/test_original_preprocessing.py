"""Preprocessing version 0 is the research code's arithmetic, which is written out here once more."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from qdrant_cir.errors import ImageError
from qdrant_cir.model.bundle import PreprocessingSpec
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.types import Float32, PictureLimits

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SPEC = PreprocessingSpec(size=24, pad_ratio=1.25, mean=MEAN, std=STD, version=0)


def researched(image: Image.Image, size: int) -> Float32:
    """Pad to a ratio of 1.25 with zeros, resize the shorter side, cut the centre, convert to RGB, normalise."""
    width, height = image.size
    if max(width, height) / min(width, height) >= 1.25:
        scaled = max(width, height) / 1.25
        across, down = max(int((scaled - width) / 2), 0), max(int((scaled - height) / 2), 0)
        bands, palette = len(image.getbands()), image.getpalette() if image.mode == "P" else None
        image = ImageOps.expand(image, border=(across, down, across, down), fill=(0,) * bands if bands > 1 else 0)
        if palette is not None:
            image.putpalette(palette)
    width, height = image.size
    shape = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    image = image.resize(shape, Image.Resampling.BICUBIC)
    left, top = round((shape[0] - size) / 2.0), round((shape[1] - size) / 2.0)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)).convert("RGB")).transpose(2, 0, 1)
    scaled_pixels = pixels.astype(np.float32) / np.float32(255)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    result: Float32 = (scaled_pixels - mean) / std
    return result


def noise(mode: str, width: int, height: int) -> Image.Image:
    bands = {"RGB": 3, "RGBA": 4, "CMYK": 4, "L": 1, "LA": 2}[mode]
    values = np.random.default_rng(1).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


def palette(width: int, height: int) -> Image.Image:
    return noise("RGB", width, height).quantize(17)


def rotated(width: int, height: int) -> Image.Image:
    image = noise("RGB", width, height)
    image.getexif()[0x0112] = 6
    return image


PICTURES: dict[str, Callable[[int, int], tuple[Image.Image, str]]] = {
    "RGB": lambda width, height: (noise("RGB", width, height), "PNG"),
    "RGBA": lambda width, height: (noise("RGBA", width, height), "PNG"),
    "grey with alpha": lambda width, height: (noise("LA", width, height), "PNG"),
    "palette": lambda width, height: (palette(width, height), "PNG"),
    "CMYK": lambda width, height: (noise("CMYK", width, height), "TIFF"),
    "CMYK in JPEG": lambda width, height: (noise("CMYK", width, height), "JPEG"),
    "rotated": lambda width, height: (rotated(width, height), "JPEG"),
}


@pytest.mark.parametrize(("width", "height"), [(50, 50), (90, 40), (31, 77)])
@pytest.mark.parametrize("kind", PICTURES)
def test_pixels_are_bitwise_those_of_the_research_code(kind: str, width: int, height: int) -> None:
    image, form = PICTURES[kind](width, height)
    buffer = io.BytesIO()
    image.save(buffer, form, **({"exif": image.getexif()} if kind == "rotated" else {}))
    expected = researched(Image.open(io.BytesIO(buffer.getvalue())), SPEC.size)
    np.testing.assert_array_equal(read_pixels(buffer.getvalue(), SPEC), expected)
    # as an open Pillow image, which stays as it was
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    np.testing.assert_array_equal(read_pixels(opened, SPEC), expected)
    assert (opened.size, opened.mode) == (image.size, Image.open(io.BytesIO(buffer.getvalue())).mode)


def test_cmyk_is_padded_with_white_and_hidden_colours_appear() -> None:
    plain = PreprocessingSpec(size=10, pad_ratio=1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), version=0)
    # 100 x 20 is padded by int((100 / 1.25 - 20) / 2) = 30 rows above and below
    ink = read_pixels(Image.new("CMYK", (100, 20), (255, 255, 255, 255)), plain)
    assert ink[:, 0, 5].tolist() == [1, 1, 1]
    assert ink[:, 5, 5].tolist() == [0, 0, 0]
    hidden = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert read_pixels(hidden, plain)[:, 5, 5].tolist() == [0, 0, 0]  # resized premultiplied, a hidden red is black
    same_size = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert read_pixels(same_size, plain)[:, 5, 5].tolist() == [1, 0, 0]  # not resized, it appears


def test_what_would_be_padded_beyond_the_limits_is_refused() -> None:
    with pytest.raises(ImageError, match="the Pillow image"):
        read_pixels(Image.new("RGB", (3000, 10)), SPEC, limits=PictureLimits(1_000_000, 5000))
