"""Whole files of every kind, and ways to damage them, from a seed."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageCms

__all__ = ["damaged", "foreign_pictures", "whole_pictures"]

_HEADER = 64


def whole_pictures() -> dict[str, bytes]:
    """Return a small picture in every promised format and in the variants that decoders treat apart, by name."""
    noise = np.random.default_rng(7).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    smooth = np.linspace(0, 255, 48, dtype=np.uint8)[None, :, None] + np.zeros((40, 1, 3), np.uint8)
    rgb = Image.fromarray((noise // 4 + smooth // 2).astype(np.uint8))
    blue = Image.new("RGB", rgb.size, (0, 0, 255))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    several = {"save_all": True, "append_images": [blue]}
    return {
        "jpeg": _encoded(rgb, "JPEG"),
        "jpeg-progressive": _encoded(rgb, "JPEG", progressive=True, exif=exif, icc_profile=profile),
        "jpeg-grey": _encoded(rgb.convert("L"), "JPEG"),
        "jpeg-cmyk": _encoded(rgb.convert("CMYK"), "JPEG"),
        "mpo": _encoded(rgb, "MPO", **several),
        "png": _encoded(rgb, "PNG", exif=exif, icc_profile=profile),
        "png-alpha": _encoded(rgb.convert("RGBA"), "PNG"),
        "png-palette": _encoded(rgb.convert("P"), "PNG", transparency=3),
        "png-deep": _encoded(deep, "PNG"),
        "apng": _encoded(rgb, "PNG", **several),
        "webp": _encoded(rgb, "WEBP", exif=exif),
        "webp-lossless": _encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        "webp-moving": _encoded(rgb, "WEBP", **several),
        "gif": _encoded(rgb, "GIF"),
        "gif-moving": _encoded(rgb, "GIF", **several),
        "bmp": _encoded(rgb, "BMP"),
        "bmp-palette": _encoded(rgb.convert("P"), "BMP"),
        "bmp-bits": _encoded(rgb.convert("1"), "BMP"),
        "tiff": _encoded(rgb, "TIFF"),
        "tiff-lzw": _encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": _encoded(rgb.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": _encoded(rgb, "TIFF", compression="jpeg"),
        "tiff-fax": _encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-deep": _encoded(deep, "TIFF"),
        "tiff-float": _encoded(Image.fromarray(np.asarray(deep).astype(np.float32) / 65535), "TIFF"),
        "ppm": _encoded(rgb, "PPM"),
        "pgm": _encoded(rgb.convert("L"), "PPM"),
        "pgm-deep": _encoded(deep, "PPM"),
        "ppm-plain": b"P3\n48 40\n255\n" + b" ".join(b"%d" % value for value in noise.ravel()),
        "jp2": _encoded(rgb, "JPEG2000"),
        "j2k": _encoded(rgb.convert("RGBA"), "JPEG2000", no_jp2=True),
        "tga": _encoded(rgb, "TGA"),
        "tga-packed": _encoded(rgb.convert("RGBA"), "TGA", compression="tga_rle"),
        "avif": _encoded(rgb, "AVIF", exif=exif, icc_profile=profile),
        "avif-alpha": _encoded(rgb.convert("RGBA"), "AVIF"),
    }


def foreign_pictures() -> dict[str, bytes]:
    """Return files of formats that Pillow knows and this library does not promise, by name."""
    rgb = Image.new("RGB", (16, 16), (200, 30, 40))
    texture = struct.pack("<4s7I", b"DDS ", 124, 0x1007, 8, 8, 32, 0, 0) + bytes(44)
    texture += struct.pack("<2I4s5I", 32, 4, b"\x07\x07\x07\x07", 0, 0, 0, 0, 0) + struct.pack(
        "<5I", 0x1000, 0, 0, 0, 0
    )
    spider = np.zeros(16 * 16 + 256, np.float32)
    spider[:27] = [1, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0, 1024, 64, 0, 0, 0, 0]
    return {
        "dds": texture,
        "spider": spider.tobytes(),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n%%EOF\n",
        "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        **{kind.lower(): _encoded(rgb, kind) for kind in ("ICO", "PCX", "SGI", "IM", "QOI", "ICNS")},
    }


def damaged(files: Mapping[str, bytes], names: list[str], random: Generator) -> tuple[str, bytes]:
    """Return one of the files, by name, with one to three damages."""
    name = names[int(random.integers(len(names)))]
    content = bytearray(files[name])
    for _ in range(int(random.integers(1, 4))):
        _damage(content, files, random)
    return name, bytes(content)


def _damage(content: bytearray, files: Mapping[str, bytes], random: Generator) -> None:
    size = len(content)
    if size < 2:
        return
    reach = min(size, _HEADER) if random.random() < 0.5 else size
    place = int(random.integers(reach))
    length = int(min(size - place, random.integers(1, 33)))
    match int(random.integers(8)):
        case 0:
            del content[int(random.integers(size)) :]
        case 1:
            content[place] ^= 1 << int(random.integers(8))
        case 2:
            content[place] = int(random.integers(256))
        case 3:
            content[place : place + length] = random.bytes(length)
        case 4:
            content[place : place + length] = bytes([int(random.choice([0, 255, 127, 128]))]) * length
        case 5:
            del content[place : place + length]
        case 6:
            content[place:place] = content[place : place + length]
        case _:
            other = list(files.values())[int(random.integers(len(files)))]
            start = int(random.integers(len(other)))
            content[place : place + length] = other[start : start + length]


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
