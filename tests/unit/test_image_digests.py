"""By what a picture that is no file is known."""

from __future__ import annotations

import numpy as np
import pytest
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
