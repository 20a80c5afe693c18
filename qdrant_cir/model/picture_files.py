"""Picture files before they are decoded: which formats are opened, and what each may ask for.

A decoder is chosen by the first bytes of a file and called by name. Pillow's own search among its plug-ins is not used:
some of them start a program (Ghostscript for PostScript), and a file's name says nothing about its content.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias, cast

from qdrant_cir.types import PictureLimits

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "ALLOWED_BYTES_PER_PIXEL",
    "OpenedPicture",
    "RefusedError",
    "check_pixels",
    "check_size",
    "format_of",
    "open_picture",
]

Format: TypeAlias = Literal["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "PPM", "JPEG 2000", "TGA", "AVIF", "HEIC"]

_BYTES_PER_PIXEL = 4
"""What Pillow holds for a pixel of RGB."""

ALLOWED_BYTES_PER_PIXEL = 2 * _BYTES_PER_PIXEL
"""What decoding may take for a pixel; formats whose decoders take more count as more pixels."""

_HEAD = 32
_CHUNK = 1 << 20
_START_OF_SCAN = b"\xff\xda"
_DRAFTED_PER_DECODED = 4
"""A JPEG that its decoder shrinks may declare so many times the pixels; they cost time, but no memory."""

# Measured peak bytes per pixel, decoder and decoded picture together (benchmarks/trust/bombs.py).
_WEBP_BYTES = 16
_AVIF_BYTES = 16
_HEIC_BYTES = 16
_PIXEL_IN_PYTHON_BYTES = 12

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_CONTAINER_BRANDS = frozenset({b"mif1", b"msf1"})


def format_of(head: bytes) -> Format | None:
    """Return the format that a file's first 32 bytes stand for, None for one that is not read."""
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(b"\x89PNG"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"GIF8"):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")):
        return "TIFF"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if head[4:8] == b"ftyp":
        return _of_container(head)
    return "TGA" if _may_be_tga(head) else None


class RefusedError(Exception):
    """Why a picture is not read, as the rest of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class OpenedPicture:
    """A picture file that was opened and not yet decoded.

    Attributes:
        image: set to be decoded smaller where that is asked for and its decoder can.
        needed_bytes: what decoding takes at most.
        factor: by how much it is to be reduced after decoding; 1 for not at all.
    """

    image: ImageFile
    needed_bytes: int
    factor: int


def open_picture(
    file: BinaryIO, limits: PictureLimits, *, factor_of: Callable[[tuple[int, int]], int]
) -> OpenedPicture:
    """Open a picture file without decoding it, and refuse what asks for more than the limits.

    Args:
        file: at its start; not closed.
        limits: what is allowed.
        factor_of: from a size (width, height) to the factor by which such a picture is to be reduced.

    Raises:
        RefusedError: it is of no format that is read, or asks for too much.
        Exception: whatever the format's parser stumbles over.
    """
    kind = format_of(file.read(_HEAD))
    file.seek(0)
    if kind is None:
        raise RefusedError("is not an image in a format that is read. Convert it to PNG or JPEG.")
    if kind == "WebP":
        # its decoder allocates the canvas when it is made
        _check_webp(file, limits)
    image = _openers()[kind](file)
    declared = image.size
    check_size(declared, limits)
    factor = factor_of(declared)
    if kind != "JPEG":
        check_pixels(declared, limits)
        needed = image.width * image.height * _bytes_per_pixel(image, kind)
        _check_bytes(declared, needed, kind, limits)
        return OpenedPicture(image, needed, factor)
    scans = _count_scans(file, most=limits.scans)
    if scans > limits.scans:
        raise RefusedError(
            f"is a JPEG of more than {limits.scans} scans, each of which is a pass over the whole picture; cameras and "
            "programs write ten. Save it again, or allow more with limits=PictureLimits(scans=...) in Python."
        )
    if factor > 1:
        check_pixels(declared, limits, times=_DRAFTED_PER_DECODED)
        image.draft(None, (max(1, declared[0] // factor), max(1, declared[1] // factor)))
        factor = max(1, factor * image.width // declared[0])
    check_pixels(image.size, limits)
    needed = _jpeg_bytes(image, declared, several=scans > 1)
    _check_bytes(declared, needed, kind, limits)
    return OpenedPicture(image, needed, factor)


def check_size(size: tuple[int, int], limits: PictureLimits) -> None:
    """Refuse a picture without pixels or with a side that is too long. Raises RefusedError."""
    width, height = size
    if width < 1 or height < 1:
        raise RefusedError(f"has no pixels ({width} x {height}). Replace it with a readable image.")
    if max(size) > limits.side:
        raise RefusedError(
            f"declares {width} x {height} pixels; sides up to {limits.side} are read. Cut it into parts, or allow "
            f"more with --max-side {max(size)}, in Python limits=PictureLimits(side={max(size)})."
        )


def check_pixels(size: tuple[int, int], limits: PictureLimits, *, times: int = 1) -> None:
    """Refuse a picture of more pixels than are decoded, or than so many ``times`` them. Raises RefusedError."""
    pixels, most = size[0] * size[1], limits.pixels * times
    if pixels > most:
        raise RefusedError(f"declares {_size_text(size)}; at most {most} are decoded. {_advice(-(-pixels // times))}")


def _check_bytes(size: tuple[int, int], needed: int, kind: Format, limits: PictureLimits) -> None:
    allowed = limits.pixels * ALLOWED_BYTES_PER_PIXEL
    if needed > allowed:
        raise RefusedError(
            f"declares {_size_text(size)}, which take {needed // 1_000_000} MB to decode from {kind}; at most "
            f"{allowed // 1_000_000} MB are used. {_advice(needed // ALLOWED_BYTES_PER_PIXEL)}"
        )


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} = {size[0] * size[1]} pixels"


def _advice(pixels: int) -> str:
    megapixels = -(-pixels // 1_000_000)
    return (
        f"Scale it down, or allow more with --max-megapixels {megapixels}, in Python "
        f"limits=PictureLimits(pixels={megapixels}_000_000)."
    )


def _of_container(head: bytes) -> Format | None:
    """Distinguish AVIF from HEIC by the brands of an ISO container, of which up to five fit the head."""
    (length,) = struct.unpack(">I", head[:4])
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(length, len(head)), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "AVIF" if brands & _CONTAINER_BRANDS else None


def _may_be_tga(head: bytes) -> bool:
    """Return whether a head can be of TGA, which has no signature: all its fields must hold defined values."""
    if len(head) < 18:
        return False
    width, height = struct.unpack("<HH", head[12:16])
    return (
        head[1] in (0, 1) and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (1, 8, 15, 16, 24, 32)
        and width > 0 and height > 0
    )  # fmt: skip


@cache
def _openers() -> Mapping[Format, Callable[[BinaryIO], ImageFile]]:
    """Return the function that opens each format."""
    from PIL.AvifImagePlugin import AvifImageFile
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
    from PIL.JpegImagePlugin import jpeg_factory
    from PIL.PngImagePlugin import PngImageFile
    from PIL.PpmImagePlugin import PpmImageFile
    from PIL.TgaImagePlugin import TgaImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    return {
        "JPEG": jpeg_factory,  # MPO too
        "PNG": PngImageFile,  # APNG too
        "WebP": WebPImageFile,
        "GIF": GifImageFile,
        "BMP": BmpImageFile,
        "TIFF": TiffImageFile,
        "PPM": PpmImageFile,
        "JPEG 2000": Jpeg2KImageFile,
        "TGA": TgaImageFile,
        "AVIF": AvifImageFile,
        "HEIC": _open_heic,
    }


def _open_heic(file: BinaryIO) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise RefusedError(
            'is a HEIC picture, whose decoder is not installed. Install it with: pip install "qdrant-cir[heic]", or '
            "save the picture as JPEG."
        ) from error
    return cast("ImageFile", HeifImageFile(file))


def _check_webp(file: BinaryIO, limits: PictureLimits) -> None:
    head = file.read(_HEAD)
    file.seek(0)
    kind = head[12:16]
    if len(head) < 30:
        return
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[place : place + 3], "little") + 1 for place in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[26:30]))
    else:
        return
    _check_bytes((width, height), width * height * _WEBP_BYTES, "WebP", limits)


def _count_scans(file: BinaryIO, *, most: int) -> int:
    """Count the scans of a JPEG, those of a preview inside it too, and stop above ``most``."""
    file.seek(0)
    found, before = 0, b""
    while found <= most and (chunk := file.read(_CHUNK)):
        found += (before + chunk).count(_START_OF_SCAN)
        before = chunk[-1:] if chunk[-1:] == b"\xff" else b""
    file.seek(0)
    return found


def _jpeg_bytes(image: ImageFile, declared: tuple[int, int], *, several: bool) -> int:
    """Return what decoding a JPEG takes: with several scans, 2 bytes for each coefficient of the whole picture too."""
    needed = image.width * image.height * _BYTES_PER_PIXEL
    if not several:
        return needed
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    sampling = [across * down for _, across, down, _ in layers] or [1, 1, 1, 1]
    return needed + 2 * declared[0] * declared[1] * sum(sampling) // max(*sampling, 1)


def _bytes_per_pixel(image: ImageFile, kind: Format) -> int:
    """Return the bytes that a pixel takes while it is decoded; measured, not below the truth."""
    if kind == "WebP":
        return _WEBP_BYTES
    if kind == "AVIF":
        return _AVIF_BYTES
    if kind == "HEIC":
        return _HEIC_BYTES
    if kind == "JPEG 2000":
        # an int32 and a byte for each component, and the picture
        return 5 * len(image.getbands()) + _BYTES_PER_PIXEL + 1
    if kind == "TIFF":
        # the picture, and a strip of it, which may be all of it
        bits = cast("tuple[int, ...]", getattr(image, "tag_v2", {}).get(258, (8,)))
        samples = cast("int", getattr(image, "tag_v2", {}).get(277, 1))
        return _BYTES_PER_PIXEL + -(-max(sum(bits), bits[0] * samples) // 8)
    is_in_python = kind in ("PPM", "BMP") and any(tile[0] not in ("raw",) for tile in image.tile)
    return _PIXEL_IN_PYTHON_BYTES if is_in_python else _BYTES_PER_PIXEL
