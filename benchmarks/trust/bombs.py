"""Small files that declare large pictures: the peak memory of decoding each, in a process of its own.

``python -m benchmarks.trust.bombs [--version 1]``; the last line is JSON. The limit allows 64 million pixels of 4
bytes, 256 MB; the exit code is 1 where decoding one takes more than twice that.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["bombs", "main"]

SIDE = 8_000
"""64 million pixels in a square: all that is allowed."""

_ALLOWED_MB = 256
_READ = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")
from qdrant_cir.errors import ImageError
from qdrant_cir.model.manifest import PreprocessingSpec
from qdrant_cir.model.preprocess import read_pixels
spec = PreprocessingSpec(384, 1.25, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), int(sys.argv[2]))
def peak():
    kilobytes = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 // 1_000_000
try:
    read_pixels(sys.argv[3], spec)  # loads the decoder
except ImageError:
    pass
before, started = peak(), time.perf_counter()
try:
    read_pixels(sys.argv[1], spec)
    outcome = "read"
except ImageError as error:
    outcome = "refused"
print(outcome, peak() - before, round(time.perf_counter() - started, 2))
"""


def bombs() -> Iterator[tuple[str, bytes, bytes]]:
    """Yield 32 bombs: name, content, and a small file of the same kind."""
    for name, kind, mode, size, options in _SAVED:
        large = _flat(mode, size)
        yield name, _encoded(large, kind, **options), _encoded(_flat(mode, (16, 16)), kind, **options)
    yield "jpeg of 1,000 scans", _scans(3000, 1000), _scans(16, 11)
    yield "jpeg of 64 scans", _scans(6500, 64), _scans(16, 11)
    yield "png, 60,000 sides", _png(60_000, 60_000, b""), _png(16, 16, zlib.compress(bytes(16 * 49)))
    yield "png, long text", _png(16, 16, zlib.compress(bytes(16 * 49)), text=True), _png(16, 16, b"")
    yield "bmp, packed", _packed_bmp(SIDE, SIDE), _packed_bmp(16, 16)
    yield "pgm, 16 bits", _pgm(4000), _pgm(16)
    yield "webp, declared 16,383 x 16,383", _webp(), _encoded(_flat("RGB", (16, 16)), "WEBP")


_WHOLE = (SIDE, SIDE)
_STRIP = (20_000, 3_200)
_HALF = (5_600, 5_600)
_SAVED: list[tuple[str, str, str, tuple[int, int], dict[str, object]]] = [
    ("jpeg", "JPEG", "RGB", _WHOLE, {}),
    ("jpeg, grey", "JPEG", "L", _WHOLE, {}),
    ("jpeg, cmyk", "JPEG", "CMYK", _WHOLE, {}),
    ("jpeg, strip", "JPEG", "RGB", _STRIP, {}),
    ("jpeg, progressive 4:2:0", "JPEG", "RGB", _WHOLE, {"progressive": True}),
    ("jpeg, progressive 4:4:4", "JPEG", "RGB", _WHOLE, {"progressive": True, "subsampling": 0}),
    ("jpeg, 150 megapixels", "JPEG", "RGB", (15_000, 10_000), {}),
    ("png", "PNG", "RGB", _WHOLE, {}),
    ("png, alpha", "PNG", "RGBA", _WHOLE, {}),
    ("png, grey", "PNG", "L", _WHOLE, {}),
    ("png, 16-bit grey", "PNG", "I;16", _WHOLE, {}),
    ("png, palette", "PNG", "P", _WHOLE, {"transparency": 0}),
    ("png, bits", "PNG", "1", _WHOLE, {}),
    ("png, strip", "PNG", "RGB", _STRIP, {}),
    ("gif", "GIF", "P", _WHOLE, {}),
    ("tiff, lzw", "TIFF", "RGB", _WHOLE, {"compression": "tiff_lzw"}),
    ("tiff, one strip", "TIFF", "RGB", _WHOLE, {"compression": "tiff_adobe_deflate", "tiffinfo": {278: SIDE}}),
    ("tiff, alpha", "TIFF", "RGBA", _WHOLE, {"compression": "tiff_adobe_deflate"}),
    ("tiff, float", "TIFF", "F", _WHOLE, {"compression": "tiff_adobe_deflate"}),
    ("tiff, fax", "TIFF", "1", _WHOLE, {"compression": "group4"}),
    ("tga", "TGA", "RGB", _WHOLE, {"compression": "tga_rle"}),
    ("webp", "WEBP", "RGB", _HALF, {"method": 0}),
    ("webp, alpha", "WEBP", "RGBA", _HALF, {"method": 0, "lossless": True, "quality": 0}),
    ("jpeg 2000", "JPEG2000", "RGB", (5_000, 5_000), {}),
    ("avif, 4:4:4 with alpha", "AVIF", "RGBA", _HALF, {"speed": 10, "subsampling": "4:4:4"}),
]


def _flat(mode: str, size: tuple[int, int]) -> Image.Image:
    if mode == "F":
        return Image.fromarray(np.full(size[::-1], 0.5, np.float32))
    if mode == "I;16":
        return Image.fromarray(np.full(size[::-1], 30_000, np.uint16))
    return Image.new(mode, size, {"L": 200, "P": 1, "1": 1}.get(mode, (200, 30, 40, 128)[: len(mode)]))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _scans(side: int, count: int) -> bytes:
    whole = _encoded(_flat("RGB", (side, side)), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (count - whole.count(b"\xff\xda")) + whole[-2:]


def _png(width: int, height: int, data: bytes, *, text: bool = False) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    words = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 300_000_000)) if text else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + words + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _packed_bmp(width: int, height: int) -> bytes:
    row = bytes([255, 1]) * (width // 255) + bytes([width % 255 or 1, 1, 0, 0])
    data = row * height + b"\0\1"
    start = 14 + 40 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return head + bytes(range(256)) * 4 + data


def _pgm(side: int) -> bytes:
    return b"P5\n%d %d\n4095\n" % (side, side) + b"\x07\xff" * (side * side)


def _webp() -> bytes:
    content = bytearray(_encoded(_flat("RGBA", (16, 16)), "WEBP", lossless=True))
    place = content.index(b"VP8L")
    bits = int.from_bytes(content[place + 9 : place + 13], "little") | 0xFFFFFFF
    content[place + 9 : place + 13] = bits.to_bytes(4, "little")
    return bytes(content)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--version", default="2", help="of the preprocessing")
    parser.add_argument("--only", default="", help="bombs whose names begin so")
    arguments = parser.parse_args()
    version = arguments.version
    peaks: dict[str, int] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        large, small = Path(place, "large"), Path(place, "small")
        for name, content, other in bombs():
            if not name.startswith(arguments.only):
                continue
            large.write_bytes(content)
            small.write_bytes(other)
            done = subprocess.run(
                [sys.executable, "-c", _READ, str(large), version, str(small)],
                capture_output=True,
                text=True,
                check=True,
            )
            outcome, peak, seconds = done.stdout.split()
            peaks[name] = int(peak)
            print(f"{name:32} {len(content) / 1000:10.1f} KB  {outcome:8} {peak:>5} MB {seconds:>6} s", flush=True)
    over = {name: peak for name, peak in peaks.items() if peak > 2 * _ALLOWED_MB}
    summary = {"bombs": len(peaks), "greatest_mb": max(peaks.values()), "over": over}
    print(json.dumps({**summary, "seconds": round(time.monotonic() - started)}))
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
