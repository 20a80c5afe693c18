"""Image files, bytes and Pillow images to pixels, exactly as the manifest says."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qdrant_cir.errors import ImageError
from qdrant_cir.model.bundle import PreprocessingSpec
from qdrant_cir.types import Float32, ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "blank_pixels", "hash_source", "load_image", "preprocess"]

MAX_PIXELS = 64_000_000
"""Pixels that a file may declare before it is refused; 64 million take 192 MB as RGB."""

_LONGEST_PADDED = 8192
"""Longer side in pixels up to which an elongated picture is padded as it is; 8192 x 6554 take 161 MB."""


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a picture as RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits, CMYK
    and palettes are converted, and an animation gives its first frame.

    Args:
        source: a path, the bytes of an encoded file, or a Pillow image (which is not changed).
        max_pixels: files that declare more are refused before they are decoded.

    Returns:
        A decoded Pillow image of mode RGB that depends on no open file.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or declares more pixels than allowed. The
            message names the path, or the number of bytes where there is no path.
    """
    from PIL import Image as PillowImage

    if isinstance(source, PillowImage.Image):
        return _decoded(source, label="the Pillow image", max_pixels=max_pixels)
    if isinstance(source, bytes):
        label = f"the image given as {len(source)} bytes"
        if not source:
            raise ImageError("The image given as bytes is empty (0 bytes). Give the content of an image file.")
        return _opened(io.BytesIO(source), label=label, max_pixels=max_pixels)
    path = Path(os.fspath(source))
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image file. Give the path of one image.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes). Replace it with a readable image.")
        with path.open("rb") as file:
            return _opened(file, label=str(path), max_pixels=max_pixels)
    except FileNotFoundError as error:
        raise ImageError(f"There is no image file {path}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}.") from error


def preprocess(image: Image, spec: PreprocessingSpec) -> Float32:
    """Turn a picture into the image encoder's input (paper, "Preprocessing").

    Elongated pictures are padded with black towards ``spec.pad_ratio``, the shorter side is resized to
    ``spec.size`` (bicubic, antialiased, on 8-bit values), the centre is cut out, and each channel is
    normalised.

    Args:
        image: mode RGB, as :func:`load_image` gives it.
        spec: the manifest's numbers.

    Returns:
        float32 [3, H, W], H = W = ``spec.size``, contiguous.

    Raises:
        ImageError: the image is not RGB.
    """
    from PIL import Image as PillowImage

    if image.mode != "RGB":
        raise ImageError(f"preprocess reads RGB images, but this one is {image.mode}. Use load_image first.")
    padded = _padded(image, spec.pad_ratio)
    width, height = padded.size
    shorter, longer = min(width, height), max(width, height)
    # The longer side is cut to whole pixels, not rounded, as torchvision's Resize does it.
    resized_longer = int(spec.size * longer / shorter)
    size = (spec.size, resized_longer) if width <= height else (resized_longer, spec.size)
    resized = padded if size == padded.size else padded.resize(size, PillowImage.Resampling.BICUBIC)
    left = round((size[0] - spec.size) / 2.0)
    top = round((size[1] - spec.size) / 2.0)
    cut = resized.crop((left, top, left + spec.size, top + spec.size))
    channels = np.asarray(cut, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean = np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((channels - mean) / std)


def hash_source(source: ImageSource) -> str:
    """Return the sha256 of a picture's content, 64 hex digits: of the file's bytes, or of a Pillow image's RGB pixels.

    Raises:
        ImageError: there is no such file, or it cannot be read.
    """
    from PIL import Image as PillowImage

    if isinstance(source, PillowImage.Image):
        rgb = load_image(source)
        return hashlib.sha256(f"RGB {rgb.width}x{rgb.height} ".encode() + rgb.tobytes()).hexdigest()
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    path = Path(source)
    try:
        if not path.is_file():
            raise ImageError(f"{path} is not a file" if path.exists() else f"there is no file {path}")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error


def blank_pixels(spec: PreprocessingSpec) -> Float32:
    """Give the neutral reference of a text-only query: float32 zeros [3, H, W], the mean colour."""
    return np.zeros((3, spec.size, spec.size), dtype=np.float32)


def _padded(image: Image, pad_ratio: float) -> Image:
    from PIL import Image as PillowImage

    width, height = image.size
    longer = max(width, height)
    if longer / min(width, height) < pad_ratio:
        return image
    if longer > _LONGEST_PADDED:
        # The padded square of a thin 60,000 px strip would take 9 GB. Shrunk first, it stays a strip.
        scale = _LONGEST_PADDED / longer
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize((width, height), PillowImage.Resampling.BICUBIC)
        longer = max(width, height)
    horizontal = max(int((longer / pad_ratio - width) / 2), 0)
    vertical = max(int((longer / pad_ratio - height) / 2), 0)
    canvas = PillowImage.new("RGB", (width + 2 * horizontal, height + 2 * vertical), (0, 0, 0))
    canvas.paste(image, (horizontal, vertical))
    return canvas


def _opened(file: io.BytesIO | io.BufferedReader, *, label: str, max_pixels: int) -> Image:
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    try:
        with PillowImage.open(file) as image:
            return _decoded(image, label=label, max_pixels=max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{label} is not an image in a format that Pillow reads. Convert it to PNG or JPEG."
        ) from error
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise ImageError(f"{label} declares more pixels than are safe to decode: {error}") from error


def _decoded(image: Image, *, label: str, max_pixels: int) -> Image:
    from PIL import ImageOps

    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{label} has no pixels ({width} x {height}). Replace it with a readable image.")
    if width * height > max_pixels:
        raise ImageError(
            f"{label} declares {width} x {height} = {width * height} pixels; at most {max_pixels} "
            "are decoded. Scale it down, or allow more with max_pixels."
        )
    # Decoders of damaged files raise whatever their parser stumbled over, so every kind is translated here.
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _as_rgb(upright)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise ImageError(f"{label} is truncated or damaged: {reason}. Replace it with a readable image.") from error


def _as_rgb(image: Image) -> Image:
    from PIL import Image as PillowImage

    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.int64)
        # 65535 / 255 = 257 exactly: the brightest 16-bit grey becomes the brightest 8-bit grey.
        grey = np.clip((wide + 128) // 257, 0, 255).astype(np.uint8)
        return PillowImage.fromarray(grey).convert("RGB")
    if image.mode == "F":
        grey = np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8)
        return PillowImage.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        canvas = PillowImage.new("RGBA", over.size, (255, 255, 255, 255))
        return PillowImage.alpha_composite(canvas, over).convert("RGB")
    if image.mode == "RGB":
        return image.copy()
    return image.convert("RGB")
