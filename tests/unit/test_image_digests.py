"""By what a picture that is no file is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qdrant_cir.indexing.preparation import hash_image
from qdrant_cir.indexing.sources import ImageRecord

BYTES = np.arange(24, dtype=np.uint8)
SHAPES = [(1, 8), (8, 1), (2, 4), (4, 2)]


def digest(height: int, width: int, *, mode: str = "RGB") -> str:
    picture = Image.fromarray(BYTES.reshape(height, width, 3)).convert(mode)
    return hash_image(ImageRecord("picture", picture, {}, None)).sha256


def test_pictures_of_the_same_bytes_and_other_shapes_are_other_pictures() -> None:
    assert len({digest(*shape) for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_is_known_by_its_pixels_whatever_holds_them(shape: tuple[int, int]) -> None:
    assert digest(*shape) == digest(*shape) == digest(*shape, mode="RGBA")


def deep_digest(numbers: NDArray[np.int32] | NDArray[np.float32]) -> str:
    return hash_image(ImageRecord("picture", Image.fromarray(numbers), {}, None)).sha256


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_of_pictures_of_more_than_eight_bits_every_bit_and_the_shape_count(
    kind: type[np.int32] | type[np.float32],
) -> None:
    numbers = np.arange(8, dtype=kind) * 8000
    nearly = numbers.copy()
    nearly[3] += 1
    pictures = [numbers.reshape(shape) for shape in SHAPES] + [nearly.reshape(shape) for shape in SHAPES]
    assert len({deep_digest(picture) for picture in pictures}) == len(pictures)
