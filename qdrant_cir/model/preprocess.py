"""Image files, bytes, arrays and Pillow images to pixels, exactly as the manifest says."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from qdrant_cir.errors import ImageError, printable
from qdrant_cir.model.decoding_gate import decoding
from qdrant_cir.model.manifest import ORIGINAL_PREPROCESSING, PREPROCESSING_VERSION, PreprocessingSpec
from qdrant_cir.model.picture_colors import as_rgb, as_rgb_version_1
from qdrant_cir.model.picture_files import (
    ALLOWED_BYTES_PER_PIXEL,
    RefusedError,
    check_pixels,
    check_size,
    open_picture,
)
from qdrant_cir.types import DEFAULT_LIMITS, Float32, ImageSource, PictureLimits

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

__all__ = [
    "blank_pixels",
    "hash_source",
    "is_pixels",
    "load_image",
    "preprocess",
    "read_pixels",
    "settled",
    "source_digests",
]

_LONGEST_PADDED = 8192
"""Longer side in pixels up to which an elongated picture is padded as it is; 8192 x 6554 take 215 MB."""

_LEFT_BY_REDUCING = 4
"""A picture is decoded smaller, or reduced by boxes, down to so many times the size that it is resized to. What is
resized from there cannot be told from what is resized from the whole (Pillow: ``reducing_gap``)."""

_DECODED_AT_ONCE = 2
"""Pictures of the greatest size allowed that are decoded at the same time, over all threads; of smaller ones more."""

_ORIENTATION = 0x0112

_Settled: TypeAlias = "Path | bytes | Image"


def load_image(source: ImageSource, *, limits: PictureLimits = DEFAULT_LIMITS) -> Image:
    """Read a picture as it looks, as RGB in the colours of sRGB.

    The EXIF orientation and the embedded colour profile are applied, transparency is laid over white, grey of more than
    8 bits is scaled to 8, CMYK and palettes are converted, and an animation gives its first frame.

    Args:
        source: a path, an encoded file as bytes or open for reading, a Pillow image (which is not changed), or pixels
            as uint8 [H, W, 3] or [H, W].
        limits: what asks for more is refused before it is decoded.

    Returns:
        A decoded Pillow image of mode RGB that depends on no open file.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or asks for more than the limits. The message names
            the path, or the number of bytes where there is no path.
    """
    given = settled(source)
    picture = _read(given, limits, version=PREPROCESSING_VERSION, spec=None)
    if picture is given:
        picture = picture.copy()
        picture.info = {}
    return picture


def read_pixels(source: ImageSource, spec: PreprocessingSpec, *, limits: PictureLimits = DEFAULT_LIMITS) -> Float32:
    """Read a picture as the image encoder's input, as the version in ``spec`` has it.

    Args:
        source: as :func:`load_image` takes it.
        spec: the manifest's numbers.
        limits: what asks for more is refused before it is decoded.

    Returns:
        float32 [3, H, W], H = W = ``spec.size``, contiguous.

    Raises:
        ImageError: as :func:`load_image`.
    """
    given = settled(source)
    picture = _read(given, limits, version=spec.version, spec=spec)
    if spec.version != ORIGINAL_PREPROCESSING:
        return preprocess(picture, spec)
    with _named(_label(given)):
        return _preprocess_as_original(picture, spec, limits)


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
    if image.mode != "RGB":
        raise ImageError(f"preprocess reads RGB images, but this one is {image.mode}. Use load_image first.")
    return _normalised(_cut(_padded(image, spec.pad_ratio, longest=_LONGEST_PADDED), spec), spec)


def _preprocess_as_original(image: Image, spec: PreprocessingSpec, limits: PictureLimits) -> Float32:
    """Pad, resize and cut a picture of any mode as it stands, and convert it to RGB last, as the research code does.

    So a palette is resized without new colours and padded with its first one, CMYK is padded with white, colours of
    transparent pixels come through, and neither orientation nor colour profile is looked at.
    """
    longer = max(image.size)
    check_pixels((longer, max(min(image.size), int(longer / spec.pad_ratio))), limits)
    return _normalised(_cut(_padded(image, spec.pad_ratio, longest=None), spec).convert("RGB"), spec)


def _cut(padded: Image, spec: PreprocessingSpec) -> Image:
    """Resize the shorter side and cut out the centre: ``spec.size`` pixels each way, in the picture's own mode."""
    from PIL import Image as PillowImage

    width, height = padded.size
    shorter, longer = min(width, height), max(width, height)
    # The longer side is cut to whole pixels, not rounded, as torchvision's Resize does it.
    resized_longer = int(spec.size * longer / shorter)
    size = (spec.size, resized_longer) if width <= height else (resized_longer, spec.size)
    resized = padded if size == padded.size else padded.resize(size, PillowImage.Resampling.BICUBIC)
    left = round((size[0] - spec.size) / 2.0)
    top = round((size[1] - spec.size) / 2.0)
    return resized.crop((left, top, left + spec.size, top + spec.size))


def _normalised(cut: Image, spec: PreprocessingSpec) -> Float32:
    """Turn a square of mode RGB into float32 [3, H, W]."""
    channels = np.asarray(cut, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean = np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((channels - mean) / std)


def blank_pixels(spec: PreprocessingSpec) -> Float32:
    """Return the neutral reference of a text-only query: float32 zeros [3, H, W], the mean colour."""
    return np.zeros((3, spec.size, spec.size), dtype=np.float32)


def hash_source(source: ImageSource) -> str:
    """Return a digest of a picture's content, 64 hex digits.

    Of a file it is that of its bytes, wherever they are; of a Pillow image or an array that of its size and pixels, so
    that the same bytes in another shape are another picture.

    Raises:
        ImageError: there is no such file, or it cannot be read.
    """
    given = settled(source)
    if isinstance(given, bytes):
        return hashlib.sha256(given).hexdigest()
    if isinstance(given, Path):
        with _file(given) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return _hash_pixels(given)


def source_digests(source: ImageSource) -> frozenset[str]:
    """Return every digest under which the same picture may have been stored.

    A Pillow image that was opened from a file may have been indexed as that file.

    Raises:
        ImageError: as :func:`hash_source`.
    """
    digests = {hash_source(source)}
    origin = getattr(source, "filename", None) if _is_pillow(source) else None
    if isinstance(origin, str | os.PathLike) and os.fspath(origin):
        # where the file is gone, so is what was indexed from it
        with suppress(ImageError):
            digests.add(hash_source(Path(os.fspath(origin))))
    return frozenset(digests)


def is_pixels(source: object) -> bool:
    """Return whether a picture is given by its pixels, which do not tell the file that they were read from."""
    return isinstance(source, np.ndarray) or _is_pillow(source)


def settled(source: ImageSource) -> Path | bytes | Image:
    """Bring the forms in which a picture may be given to three: a path, bytes, or a Pillow image.

    A file that is open for reading is read from its start.

    Raises:
        ImageError: it is none of them, is empty, or is an array of another type or shape than pixels have.
    """
    if _is_pillow(source):
        return source  # type: ignore[return-value]
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise ImageError(f"The path {path!r} is bytes. Give the path as a string, or the content of the file.")
        return Path(path)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    content = _content_of(source)
    if not content:
        raise ImageError("The image given as bytes is empty (0 bytes). Give the content of an image file.")
    return content


def _content_of(source: object) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    read = getattr(source, "read", None)
    if callable(read):
        try:
            if source.seekable():  # type: ignore[attr-defined]
                source.seek(0)  # type: ignore[attr-defined]
            content = read()
        except Exception as error:
            raise ImageError(f"The open file given as an image cannot be read: {_reason(error)}.") from error
        if isinstance(content, bytes):
            return content
        raise ImageError("The file given as an image was opened as text. Open it in binary mode, as open(path, 'rb').")
    raise ImageError(
        f"An image is given as {type(source).__name__}; expected a path, bytes, an open file, a Pillow image or an "
        "array."
    )


def _is_pillow(source: object) -> bool:
    from PIL import Image as PillowImage

    return isinstance(source, PillowImage.Image)


def _from_array(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Image:
    from PIL import Image as PillowImage

    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not fits or not pixels.size:
        raise ImageError(
            f"An image is given as an array of {pixels.dtype} {list(pixels.shape)}; expected uint8 [H, W, 3] in RGB "
            "or uint8 [H, W]."
        )
    return PillowImage.fromarray(np.ascontiguousarray(pixels))


def _hash_pixels(image: Image) -> str:
    digest = hashlib.sha256()
    if image.mode in ("I", "F"):
        # more than 8 bits would be lost
        digest.update(f"{image.mode} {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
    else:
        rgb = _read(image, PictureLimits(2**31, 2**31), version=1, spec=None)
        digest.update(f"RGB {rgb.width}x{rgb.height} ".encode())
        digest.update(rgb.tobytes())
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes):
        digest.update(profile)
    return digest.hexdigest()


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file that is not empty. Raises ImageError, also for what goes wrong while it is read."""
    label = printable(str(path))
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{label} is a folder, not an image file. Give the path of one image.")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{label} is not a regular file. Give the path of one image.")
        if found.st_size == 0:
            raise ImageError(f"{label} is empty (0 bytes). Replace it with a readable image.")
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"There is no image file {label}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{label} cannot be read: {_reason(error)}.") from error


def _read(given: _Settled, limits: PictureLimits, *, version: int, spec: PreprocessingSpec | None) -> Image:
    """Read a picture as RGB, reduced towards ``spec`` where it is given and the version does so.

    As the original preprocessing reads it, it is as the decoder leaves it.
    """
    if isinstance(given, bytes):
        return _decoded(io.BytesIO(given), _label(given), limits, version=version, spec=spec)
    if isinstance(given, Path):
        with _file(given) as opened:
            return _decoded(opened, _label(given), limits, version=version, spec=spec)
    with _named(_label(given)):
        check_size(given.size, limits)
        check_pixels(given.size, limits)
        with decoding(_converting_bytes(given), capacity=_capacity(limits)):
            given.load()
            return _upright_rgb(given, version=version, factor=_factor(given.size, version, spec), is_ours=False)


def _label(given: _Settled) -> str:
    if isinstance(given, Path):
        return printable(str(given))
    return f"the image given as {len(given)} bytes" if isinstance(given, bytes) else "the Pillow image"


def _decoded(
    file: BinaryIO, label: str, limits: PictureLimits, *, version: int, spec: PreprocessingSpec | None
) -> Image:
    with _named(label):
        opened = open_picture(file, limits, factor_of=lambda size: _factor(size, version, spec))
        image = opened.image
        needed = opened.needed_bytes if version > 1 else max(opened.needed_bytes, _converting_bytes(image))
        with decoding(needed, capacity=_capacity(limits)):
            image.load()
            return _upright_rgb(image, version=version, factor=opened.factor, is_ours=True)


def _factor(size: tuple[int, int], version: int, spec: PreprocessingSpec | None) -> int:
    """Return by how much a picture may be reduced before it is resized; 1 for not at all."""
    if version < 2 or spec is None:
        return 1
    # what becomes spec.size pixels: the shorter side once it is padded
    padded = max(min(size), max(size) / spec.pad_ratio)
    return max(1, int(padded / spec.size / _LEFT_BY_REDUCING))


def _capacity(limits: PictureLimits) -> int:
    return _DECODED_AT_ONCE * limits.pixels * ALLOWED_BYTES_PER_PIXEL


def _converting_bytes(image: Image) -> int:
    """Return what a decoded picture and one of RGB take together."""
    return image.width * image.height * ALLOWED_BYTES_PER_PIXEL


def _upright_rgb(image: Image, *, version: int, factor: int, is_ours: bool) -> Image:
    """Convert a decoded picture to RGB and turn it upright; what is not ours is not changed."""
    if version == ORIGINAL_PREPROCESSING:
        return image
    picture = as_rgb_version_1(image) if version == 1 else as_rgb(image, factor=factor)
    turn = _turn(image, version)
    if turn is not None:
        picture = picture.transpose(turn)
    elif picture is image:
        if not is_ours:
            return picture
        # the pixels without the file and its decoder, not copied
        picture = image._new(image.im)
    picture.info = {}
    return picture


def _turn(image: Image, version: int) -> Transpose | None:
    """Return how the EXIF orientation says that a picture is turned, None for not at all."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        if version == 1:
            raise
        return None  # damaged EXIF data; the picture is whole
    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    return turns[orientation - 2] if isinstance(orientation, int) and 2 <= orientation <= 8 else None


def _padded(image: Image, pad_ratio: float, *, longest: int | None) -> Image:
    """Pad with zeros, which are black in RGB; what is longer than ``longest`` pixels is shrunk before."""
    from PIL import Image as PillowImage

    width, height = image.size
    longer = max(width, height)
    if longer / min(width, height) < pad_ratio:
        return image
    if longest is not None and longer > longest:
        # The padded square of a thin 60,000 px strip would take 9 GB. Shrunk first, it stays a strip.
        scale = longest / longer
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize((width, height), PillowImage.Resampling.BICUBIC)
        longer = max(width, height)
    horizontal = max(int((longer / pad_ratio - width) / 2), 0)
    vertical = max(int((longer / pad_ratio - height) / 2), 0)
    canvas = PillowImage.new(image.mode, (width + 2 * horizontal, height + 2 * vertical), 0)
    if image.palette is not None:
        canvas.putpalette(image.getpalette() or [])
    canvas.paste(image, (horizontal, vertical))
    return canvas


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError that names the picture."""
    try:
        yield
    except RefusedError as error:
        raise ImageError(f"{label} {error}") from error
    except MemoryError:
        raise
    # Decoders of damaged files raise whatever their parser stumbled over.
    except Exception as error:
        raise ImageError(
            f"{label} is truncated or damaged: {_reason(error)}. Replace it with a readable image."
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return (printable(lines[0]).rstrip(".") if lines else "") or type(error).__name__
