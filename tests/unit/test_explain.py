"""Explanations, computed by hand with the tiny model: cells are quadrants, and words move colours.

The query "red, make it blue" is (1, -1, -1) + (-3, -3, 3) = (-2, -4, 2) over sqrt(24). A candidate's score is the dot
product with the mean of its five tokens: the whole picture's mean, and those of its quadrants.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient

from qdrant_cir import AsyncGallery, Gallery, ImageRecord, Query, attach
from qdrant_cir.errors import InputError
from qdrant_cir.search.explanation import CellEffects, Explanation, Region
from qdrant_cir.types import Candidate, GalleryImage, SearchResult

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
QUERY = np.array([-2, -4, 2]) / sqrt(24)
WITHOUT_BLUE = np.array([1, -1, -1]) / sqrt(3)
TEXT = "make it blue, but shiny"
CORNERS = (("black", "blue"), ("red", "black"))
"""The quadrants of the picture "corners", from left to right and top to bottom."""


def direction(name: str) -> np.ndarray:
    """A colour from -1 to 1, as the tiny encoder sees it."""
    return np.array(COLORS[name]) / 255 * 2 - 1


def tokens_of_corners() -> np.ndarray:
    quadrants = np.array([direction(name) for row in CORNERS for name in row])
    return np.vstack([quadrants.mean(axis=0), quadrants])


def found_in(result: SearchResult) -> Candidate:
    return next(each for each in result if each.image_id == "corners")


def numbers(candidate: Candidate) -> list[float | None]:
    ranks = [candidate.retrieval_rank, candidate.rerank_rank]
    return [candidate.retrieval_score, candidate.rerank_score, *ranks]


@pytest.fixture
def pictures(
    tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]
) -> Mapping[str, Path]:
    paths = dict(zip(COLORS, write_solid_images(tmp_path / "pictures", COLORS), strict=True))
    corners = Image.new("RGB", (16, 16))
    for top, row in enumerate(CORNERS):
        for left, name in enumerate(row):
            corners.paste(COLORS[name], (8 * left, 8 * top, 8 * left + 8, 8 * top + 8))
    paths["corners"] = tmp_path / "pictures" / "corners.png"
    corners.save(paths["corners"])
    return paths


@pytest.fixture
def bundle(tmp_path: Path, build_tiny_bundle: Callable[..., Path]) -> Path:
    return build_tiny_bundle(tmp_path / "weighted", "float32", weighted=True)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def gallery(client: QdrantClient, bundle: Path, pictures: Mapping[str, Path]) -> Gallery:
    gallery = Gallery.create("colors", store=client, bundle=bundle, provider="cpu")
    groups = {"blue": "a", "corners": "a"}
    gallery.index(
        ImageRecord(name, path, payload={"product": groups.get(name, name)}, source=str(path))
        for name, path in pictures.items()
    )
    return gallery


@pytest.fixture
def explained(gallery: Gallery, pictures: Mapping[str, Path]) -> Explanation:
    return gallery.explain(pictures["red"], TEXT, "corners")


def test_a_cell_adds_what_the_score_falls_by_without_it(explained: Explanation) -> None:
    tokens = tokens_of_corners()
    whole = QUERY @ tokens.mean(axis=0)
    expected = [whole - QUERY @ np.delete(tokens, cell, axis=0).mean(axis=0) for cell in range(1, 5)]
    assert explained.cells is not None
    assert np.array(explained.cells.drops) == pytest.approx(np.reshape(expected, (2, 2)), abs=1e-5)
    without_blue = [
        WITHOUT_BLUE @ (tokens.mean(axis=0) - np.delete(tokens, cell, axis=0).mean(axis=0)) for cell in range(1, 5)
    ]
    # of the three words with the greatest falls, two change nothing
    to_blue = (np.array(expected) - without_blue) / 3
    assert np.array(explained.cells.text_drops) == pytest.approx(np.reshape(to_blue, (2, 2)), abs=1e-5)
    assert explained.cells.best(1) == [(0, 1)]


def test_a_word_gains_the_places_between_the_score_without_it_and_the_kept_ones(
    gallery: Gallery, pictures: Mapping[str, Path], explained: Explanation
) -> None:
    result = gallery.search(pictures["red"], TEXT)
    others = [c.rerank_score for c in result if c.image_id != "corners" and c.rerank_score is not None]
    without = float(WITHOUT_BLUE @ tokens_of_corners().mean(axis=0))
    (blue,) = [word for word in explained.words if word.word == "blue,"]
    assert TEXT[blue.start : blue.stop] == "blue,"
    assert explained.candidate.rerank_score is not None
    assert blue.drop == pytest.approx(explained.candidate.rerank_score - without, abs=1e-5)
    assert blue.rank == 1 + sum(score > without for score in others)
    assert blue.places == blue.rank - (explained.candidate.rerank_rank or 0)
    assert blue.places > 0


def test_words_that_change_nothing_and_words_that_the_model_does_not_know_gain_nothing(explained: Explanation) -> None:
    words = {word.word: word for word in explained.words}
    assert list(words) == ["make", "it", "blue,", "but", "shiny"]
    assert [words[word].drop for word in ("make", "it", "but")] == pytest.approx([0, 0, 0], abs=1e-6)
    assert words["shiny"].drop == 0.0
    assert [word.places for word in words.values() if word.word != "blue,"] == [0, 0, 0, 0]
    assert [word.word for word in words.values() if not word.is_known] == ["shiny"]


def test_scores_and_ranks_are_those_of_the_search(
    gallery: Gallery, pictures: Mapping[str, Path], explained: Explanation
) -> None:
    result = gallery.search(pictures["red"], TEXT)
    assert numbers(explained.candidate) == pytest.approx(numbers(found_in(result)))
    assert explained.first_retrieved.image_id == next(each.image_id for each in result if each.retrieval_rank == 1)
    assert explained.count == len(result)
    assert gallery.explain(pictures["red"], TEXT, explained.candidate).words == explained.words


def test_it_is_the_same_awaited(
    client: QdrantClient, bundle: Path, pictures: Mapping[str, Path], tmp_path: Path
) -> None:
    async def awaited() -> Explanation:
        async with AsyncGallery.create("colors", store=str(tmp_path / "store"), bundle=bundle) as gallery:
            await gallery.index(
                ImageRecord(name, path, payload={}, source=str(path)) for name, path in pictures.items()
            )
            return await gallery.explain(pictures["red"], TEXT, "corners")

    explained = asyncio.run(awaited())
    with Gallery.create("colors", store=client, bundle=bundle) as gallery:
        gallery.index(ImageRecord(name, path, payload={}, source=str(path)) for name, path in pictures.items())
        again = gallery.explain(pictures["red"], TEXT, "corners")
    assert (explained.words, explained.cells, explained.count) == (again.words, again.cells, again.count)


def test_references_with_weights_and_must_not_are_explained_as_they_are_scored(
    gallery: Gallery, pictures: Mapping[str, Path]
) -> None:
    references = [pictures["red"], GalleryImage("green")]
    options = {"must_not": "red", "weights": [3, 1]}
    result = gallery.search(references, TEXT, **options)  # type: ignore[arg-type]
    explained = gallery.explain(references, TEXT, "corners", **options)  # type: ignore[arg-type]
    assert numbers(explained.candidate) == pytest.approx(numbers(found_in(result)))
    assert [word.drop for word in explained.words if word.word == "make"] == pytest.approx([0], abs=1e-6)
    assert explained.cells is not None
    # the class token is the cells' own mean, so that what some add others take away
    assert sum(map(sum, explained.cells.drops)) == pytest.approx(0, abs=1e-4)
    assert np.abs(explained.cells.drops).max() > 0.01


def test_a_candidate_stands_for_its_group(gallery: Gallery, pictures: Mapping[str, Path]) -> None:
    explained = gallery.explain(pictures["red"], TEXT, "corners", group_by="product")
    assert explained.candidate.image_id == "corners"
    assert explained.candidate.group == "a"
    assert explained.count == len(COLORS)  # blue is of the same group


def test_a_point_with_several_pictures_is_explained_by_its_best_one(
    client: QdrantClient, bundle: Path, pictures: Mapping[str, Path]
) -> None:
    from qdrant_client import models

    # a collection in memory cannot get a vector of several values afterwards
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vector = models.VectorParams(size=3, distance=models.Distance.COSINE, multivector_config=several)
    client.create_collection("shop", vectors_config={"cir": vector})
    client.upsert(
        "shop",
        [
            models.PointStruct(id=1, vector={}, payload={"images": [str(pictures["red"]), str(pictures["corners"])]}),
            models.PointStruct(id=2, vector={}, payload={"images": [str(pictures["green"])]}),
        ],
    )
    gallery = attach(client, "shop", picture="images[]", bundle=bundle)
    gallery.index()
    explained = gallery.explain(pictures["red"], TEXT, 1)
    assert explained.candidate.view == str(pictures["corners"])
    assert explained.cells is not None
    assert explained.cells.best(1) == [(0, 1)]


@pytest.mark.parametrize(
    ("text", "candidate", "depth", "message"),
    [
        (TEXT, "red", 1, "not among the 1 candidates"),
        (TEXT, "nobody", 10, "'nobody' is not among"),
        ("", "corners", 10, "nothing to explain"),
        (TEXT, "corners", 0, "not among the 0 candidates"),
    ],
)
def test_what_was_not_re_ranked_cannot_be_explained(
    gallery: Gallery, pictures: Mapping[str, Path], text: str, candidate: str, depth: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        gallery.explain(pictures["red"], text, candidate, rerank_depth=depth)


def test_a_bundle_without_weights_explains_words_and_says_what_cells_need(
    client: QdrantClient, tmp_path: Path, pictures: Mapping[str, Path], build_tiny_bundle: Callable[..., Path]
) -> None:
    gallery = Gallery.create("plain", store=client, bundle=build_tiny_bundle(tmp_path / "plain", "float32"))
    gallery.index(ImageRecord(name, path, payload={}, source=str(path)) for name, path in pictures.items())
    explained = gallery.explain(pictures["red"], TEXT, "corners")
    assert explained.cells is None
    assert [note for note in explained.notes if "add-weighted" in note]
    assert [word.places for word in explained.words if word.word == "blue,"] > [0]


def test_the_graph_with_weights_is_no_part_of_the_fingerprint_and_is_checked(
    bundle: Path, tmp_path: Path, build_tiny_bundle: Callable[..., Path]
) -> None:
    from qdrant_cir.errors import BundleError
    from qdrant_cir.model.bundle import load_bundle

    plain = build_tiny_bundle(tmp_path / "plain", "float32")
    assert load_bundle(bundle).fingerprint == load_bundle(plain).fingerprint
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    (damaged / "onnx" / "reranker_weighted.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="reranker_weighted"):
        load_bundle(damaged)


def test_the_cells_of_a_long_picture_lie_in_the_square_that_the_model_sees() -> None:
    none = ((0.0, 0.0), (0.0, 0.0))
    cells = CellEffects(none, none, pad_ratio=1.25)
    assert cells.square(width=100, height=100) == Region(0, 0, 1, 1)
    assert cells.square(width=110, height=100) == Region(0.5 - 100 / 220, 0, 0.5 + 100 / 220, 1)
    # padded to 250 x 200, of which the middle 200 x 200 is seen
    assert cells.square(width=250, height=100) == Region(0.5 - 200 / 500, -0.5, 0.5 + 200 / 500, 1.5)


def test_the_answer_is_json_with_every_number(explained: Explanation) -> None:
    told = json.loads(json.dumps(explained.to_object()))
    assert told["candidate"]["rank"] == explained.candidate.rerank_rank
    assert told["words"][2]["places"] == explained.words[2].places
    assert told["cells"]["drops"][0][1] == explained.cells.drops[0][1]  # type: ignore[union-attr]
    assert (told["cells"]["rows"], told["cells"]["columns"]) == (2, 2)


def test_queries_are_checked(gallery: Gallery) -> None:
    with pytest.raises(InputError, match="neither a reference"):
        gallery._retriever.explain(Query(), "corners")
