"""Decoded pictures of every mode to RGB, a band of rows at a time, so that no second whole copy is needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.model.picture_files import RefusedError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_rgb", "as_rgb_version_1"]

_BAND_PIXELS = 1 << 17
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_MIN, _SAMPLE_MAX = 258, 262, 340, 341
"""Tags of TIFF. MinSampleValue and MaxSampleValue (280, 281) are statistics, not for display (TIFF 6.0)."""

_LEAST_OF_255 = 16.0
"""Floating-point values that reach this and no more than 255 are taken for 0 to 255, as Pillow writes them."""

_Base: TypeAlias = Literal["RGB", "L", "CMYK"]
_SPACES: Mapping[bytes, _Base] = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_BASES: Mapping[str, frozenset[str]] = {
    "RGB": frozenset({"RGB", "RGBA", "RGBX", "P", "PA"}),
    "L": frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N"}),
    "CMYK": frozenset({"CMYK"}),
}


@dataclass(frozen=True, slots=True)
class _Range:
    """The values that become black and white."""

    black: float
    white: float


def as_rgb(image: Image, *, factor: int = 1) -> Image:
    """Convert a decoded picture to sRGB as it looks (preprocessing version 2), reduced by a whole factor.

    Transparency is laid over white. Grey of more than 8 bits and floating-point values are scaled by what the file
    declares: 12 or 16 bits, or the range in the tags of a TIFF. Floating-point values that declare nothing are taken as
    0 to 1, or as 0 to 255 where they reach 16. The embedded colour profile is applied last; a damaged one is ignored.

    Returns:
        A picture of mode RGB, of ``ceil(side / factor)`` pixels; the picture itself where there is nothing to do.

    Raises:
        RefusedError: the values' range is not known, or the picture would be black though its values differ.
    """
    profile = _profile_of(image)
    base: _Base = "RGB" if profile is None else _SPACES[profile[16:20]]
    convert = _wide_to_grey(image, _declared_range(image)) if _is_wide(image) else _over_white
    return _as_srgb(_in_bands(image, base, convert, factor=factor), profile)


def as_rgb_version_1(image: Image) -> Image:
    """Convert a decoded picture to RGB as preprocessing version 1 does: values as they stand, scaled by type alone.

    Returns:
        A picture of mode RGB; the picture itself where it is one.

    Raises:
        RefusedError: the picture would be black though its values differ.
    """
    if not _is_wide(image):
        return _in_bands(image, "RGB", _over_white)
    # 65535 / 255 = 257 exactly: the brightest 16-bit grey becomes the brightest 8-bit grey.
    scaled = _clipped if image.mode == "F" else _divided
    return _in_bands(image, "RGB", _seen(image, scaled))


def _is_wide(image: Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _bands(image: Image, factor: int = 1) -> Iterator[tuple[int, Image]]:
    """Yield bands of whole rows with the number of their first row, a multiple of ``factor``."""
    width, height = image.size
    rows = max(_BAND_PIXELS // width // factor, 1) * factor
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _in_bands(image: Image, mode: _Base, convert: Callable[[Image], Image], *, factor: int = 1) -> Image:
    from PIL import Image as PillowImage

    if image.mode == mode and not image.has_transparency_data:
        return image.reduce(factor) if factor > 1 else image
    width, height = image.size
    canvas = PillowImage.new(mode, (-(-width // factor), -(-height // factor)))
    for top, band in _bands(image, factor):
        converted = convert(band)
        if converted.mode != mode:
            converted = converted.convert(mode)
        canvas.paste(converted.reduce(factor) if factor > 1 else converted, (0, top // factor))
    return canvas


def _over_white(band: Image) -> Image:
    from PIL import Image as PillowImage

    if not band.has_transparency_data:
        return band if band.mode in ("L", "CMYK") else band.convert("RGB")
    over = band.convert("RGBA")
    return PillowImage.alpha_composite(PillowImage.new("RGBA", over.size, (255, 255, 255, 255)), over).convert("RGB")


def _divided(values: NDArray[Any]) -> NDArray[np.uint8]:
    wide = values.astype(np.int64)
    return np.clip((wide + 128) // 257, 0, 255).astype(np.uint8)


def _clipped(values: NDArray[Any]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)
    return grey


def _seen(image: Image, scaled: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> Callable[[Image], Image]:
    """Return the conversion of a band to grey, after a look at whether anything can be seen in the whole picture."""
    found = _extremes(image)
    brightest = int(scaled(np.array([found.white])).max())
    if found.black < found.white and brightest <= 1:
        raise RefusedError(
            f"holds values from {found.black:g} to {found.white:g}, all of which would be read as black. Save it "
            "with 8 bits per channel."
        )
    return _grey(scaled)


def _grey(scaled: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> Callable[[Image], Image]:
    from PIL import Image as PillowImage

    return lambda band: PillowImage.fromarray(scaled(np.asarray(band)))


def _extremes(image: Image) -> _Range:
    """Find the least and the greatest finite value."""
    least, greatest = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if values.size:
            least, greatest = min(least, float(values.min())), max(greatest, float(values.max()))
    return _Range(least, greatest) if least <= greatest else _Range(0.0, 0.0)


def _wide_to_grey(image: Image, declared: _Range | None) -> Callable[[Image], Image]:
    """Return the conversion of a band of 12-bit, 16-bit, 32-bit or floating-point grey to 8 bits."""
    known = declared or _conventional_range(image)
    scale = 255.0 / (known.white - known.black)

    def scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
        finite = np.nan_to_num(values.astype(np.float64), nan=known.black)
        return np.clip(np.rint((finite - known.black) * scale), 0, 255).astype(np.uint8)

    zero_is_white = known.black > known.white
    return _grey(scaled) if zero_is_white else _seen(image, scaled)


def _declared_range(image: Image) -> _Range | None:
    """Return the range that a TIFF declares, turned round where its zero is white; None where nothing is declared."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    if not tags:
        return None
    least, most = _first_number(tags.get(_SAMPLE_MIN)), _first_number(tags.get(_SAMPLE_MAX))
    if least is not None and most is not None and least < most:
        known = _Range(least, most)
    elif image.mode.startswith("I;16"):
        known = _Range(0.0, 4095.0 if _first_number(tags.get(_BITS_PER_SAMPLE)) == 12 else 65535.0)
    else:
        return None
    is_white_zero = tags.get(_PHOTOMETRIC) == 0
    return _Range(known.white, known.black) if is_white_zero else known


def _first_number(value: object) -> float | None:
    first = value[0] if isinstance(value, tuple) and value else value
    try:
        number = float(cast("float", first))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _conventional_range(image: Image) -> _Range:
    """Return the range of values that no file declares. Raises RefusedError where there is no convention for them."""
    if image.mode.startswith("I;16"):
        return _Range(0.0, 65535.0)
    found = _extremes(image)
    if image.mode == "I":
        # Pillow reads PGM of more than 8 bits as 0 to 65535; 32-bit integers of a TIFF may mean anything
        if found.black >= 0 and found.white <= 65535 and not hasattr(image, "tag_v2"):
            return _Range(0.0, 65535.0)
    elif found.black >= 0 and found.white <= 1:
        return _Range(0.0, 1.0)
    elif found.black >= 0 and _LEAST_OF_255 <= found.white <= 255:
        return _Range(0.0, 255.0)
    raise RefusedError(
        f"holds values from {found.black:g} to {found.white:g} and does not declare which of them are black and white. "
        "Save it with 8 bits per channel, or as TIFF with the tags SMinSampleValue and SMaxSampleValue."
    )


def _profile_of(image: Image) -> bytes | None:
    """Return the embedded ICC profile where it is one of the picture's own colour space."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) < 128 or profile[36:40] != b"acsp":
        return None
    base = _SPACES.get(profile[16:20])
    return profile if base is not None and image.mode in _BASES[base] else None


def _as_srgb(image: Image, profile: bytes | None) -> Image:
    from PIL import ImageCms

    if profile is not None:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            # browsers show such a picture as sRGB, too
            return image if image.mode == "RGB" else image.convert("RGB")
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")
