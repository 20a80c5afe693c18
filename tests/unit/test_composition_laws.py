"""Several references, weights and what must not be: numbers of the tiny model that a person can redo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qdrant_cir.errors import InputError
from qdrant_cir.gallery import Gallery
from qdrant_cir.indexing.sources import ImageRecord

Color = tuple[int, int, int]
Writer = Callable[[Path, Mapping[str, Color]], list[Path]]

# colours from -1 to 1: (1, -1, -1), (-1, -1, 1), (1, 1, 1), (0.6, -0.6, -0.6)
COLORS: dict[str, Color] = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255, 255, 255), "dim": (204, 51, 51)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, write_solid_images: Writer) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("laws")
    return {path.stem: path for path in write_solid_images(folder, COLORS)}


@pytest.fixture(scope="module")
def gallery(tiny_bundle: Path, pictures: dict[str, Path]) -> Gallery:
    made = Gallery.create("laws", store=QdrantClient(":memory:"), bundle=tiny_bundle, provider="cpu")
    made.index([ImageRecord(name, path, payload={}, source=None) for name, path in pictures.items()])
    return made


def unit(*vector: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(vector) / np.linalg.norm(vector)


def scores(gallery: Gallery, *args: object, **options: object) -> dict[str, float | None]:
    result = gallery.search(*args, limit=9, **options)  # type: ignore[arg-type]
    return {candidate.image_id: candidate.rerank_score for candidate in result}


def test_a_change_moves_the_reference(gallery: Gallery, pictures: dict[str, Path]) -> None:
    # red (1, -1, -1) with "blue" (-3, -3, 3): (-2, -4, 2)
    query = gallery.compose(pictures["red"], "make it blue")
    assert np.allclose(query.vector, unit(-2, -4, 2), atol=0.01)


def test_one_reference_twice_is_that_reference(gallery: Gallery, pictures: dict[str, Path]) -> None:
    one = gallery.compose(pictures["red"], "make it blue")
    two = gallery.compose([pictures["red"], pictures["red"]], "make it blue")
    assert np.allclose(one.vector, two.vector, atol=1e-6)
    once, twice = (
        scores(gallery, given, "make it blue") for given in (pictures["red"], [pictures["red"], pictures["red"]])
    )
    assert twice == pytest.approx(once)


def test_a_weight_of_zero_is_an_absence(gallery: Gallery, pictures: dict[str, Path]) -> None:
    both = [pictures["red"], pictures["white"]]
    one = gallery.compose(pictures["red"], "make it blue")
    weighted = gallery.compose(both, "make it blue", weights=[2, 0])
    assert np.array_equal(one.vector, weighted.vector)
    assert scores(gallery, both, "make it blue", weights=[2, 0]) == scores(gallery, pictures["red"], "make it blue")


def test_the_vector_is_the_weighted_mean_at_unit_length(gallery: Gallery, pictures: dict[str, Path]) -> None:
    # red to (-2, -4, 2), white (1, 1, 1) to (-2, -2, 4); three parts to one
    query = gallery.compose([pictures["red"], pictures["white"]], "make it blue", weights=[3, 1])
    mean = 0.75 * unit(-2, -4, 2) + 0.25 * unit(-2, -2, 4)
    assert np.allclose(query.vector, unit(*mean), atol=0.01)


def test_the_score_is_the_weighted_mean_of_the_scores(gallery: Gallery, pictures: dict[str, Path]) -> None:
    red, white = (scores(gallery, pictures[name], "make it blue") for name in ("red", "white"))
    both = scores(gallery, [pictures["red"], pictures["white"]], "make it blue", weights=[3, 1])
    assert both == pytest.approx({name: 0.75 * red[name] + 0.25 * white[name] for name in both})  # type: ignore[operator]
    # blue (-1, -1, 1) against (-2, -4, 2) at unit length: 8 / sqrt(24)
    assert red["blue"] == pytest.approx(8 / 24**0.5, abs=0.02)


def test_must_not_lowers_what_it_names_in_both_stages(gallery: Gallery, pictures: dict[str, Path]) -> None:
    plain = gallery.compose(pictures["white"], "same")
    less = gallery.compose(pictures["white"], "same", must_not="red")
    # white (1, 1, 1), less half of a blank picture with "red" (3, -3, -3); a blank one is grey at 0, or close to it
    red = unit(1, -1, -1)
    assert float(less.vector @ red) < float(plain.vector @ red)
    before, after = (scores(gallery, pictures["white"], "same", must_not=text) for text in (None, "red"))
    against = scores(gallery, pictures["white"], "red")
    assert after == pytest.approx({name: before[name] - 0.5 * against[name] for name in after})  # type: ignore[operator]
    assert after["red"] < before["red"]  # type: ignore[operator]
    assert after["blue"] > before["blue"]  # type: ignore[operator]


def test_must_not_of_no_weight_is_an_absence(gallery: Gallery, pictures: dict[str, Path]) -> None:
    plain = gallery.compose(pictures["white"], "same")
    none = gallery.compose(pictures["white"], "same", must_not="red", must_not_weight=0)
    assert np.allclose(plain.vector, none.vector, atol=1e-6)
    assert scores(gallery, pictures["white"], "same", must_not="red", must_not_weight=0) == pytest.approx(
        scores(gallery, pictures["white"], "same")
    )


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2], [float("nan"), 1]])
def test_weights_that_mean_nothing_are_refused(
    gallery: Gallery, pictures: dict[str, Path], weights: list[float]
) -> None:
    with pytest.raises(InputError, match="weight"):
        gallery.compose([pictures["red"], pictures["white"]], "same", weights=weights)
