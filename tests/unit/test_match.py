"""Whether an answer is a match at all: the regression, where it is kept, and what a search says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import exp, log1p
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from qdrant_client import QdrantClient, models
from typer.testing import CliRunner

from qdrant_cir import Candidate, Gallery, ImageRecord, attach
from qdrant_cir.cli import app
from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.match_queries import examples_of_edits, examples_of_queries
from qdrant_cir.search.match import (
    METADATA_KEY,
    MatchCalibration,
    MatchExample,
    calibration_error,
    fit_match,
    match_features,
)

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}


def candidate(name: str, rank: int, cosine: float, score: float | None) -> Candidate:
    return Candidate(name, {}, None, cosine, rank, score, None)


def calibration(gallery: Gallery, bias: float) -> MatchCalibration:
    """One that says the same of every answer."""
    return MatchCalibration(gallery.bundle.fingerprint, 10, 100, bias, (0.0,) * 7, 0.5, 0.0, 1.0, 0.0)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def pictures(
    tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]
) -> Mapping[str, Path]:
    return dict(zip(COLORS, write_solid_images(tmp_path / "pictures", COLORS), strict=True))


@pytest.fixture
def gallery(client: QdrantClient, tiny_bundle: Path, pictures: Mapping[str, Path]) -> Gallery:
    gallery = Gallery.create("colors", store=client, bundle=tiny_bundle, provider="cpu")
    gallery.index(ImageRecord(name, path, payload={}, source=str(path)) for name, path in pictures.items())
    return gallery


def made_examples(rng: np.random.Generator, queries: int) -> list[MatchExample]:
    """Answers whose first score says how likely they are right, in the way that the regression assumes."""
    examples = []
    for query in range(queries):
        for answerable in (True, False):
            score = rng.normal(2 if answerable else -2, 1.5)
            is_right = bool(answerable and rng.random() < 1 / (1 + exp(-2 * score)))
            examples.append(MatchExample(query, (score, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0), is_right, answerable))
    return examples


def test_features_are_those_of_the_first_place() -> None:
    answer = [candidate("a", 3, 0.7, 9.0), candidate("b", 1, 0.9, 7.5), candidate("c", 2, 0.8, 1.0)]
    # behind it are two, so that the fifth and the tenth place count as the last
    assert match_features(answer) == pytest.approx((9.0, 1.5, 8.0, 8.0, 0.7, 0.2, log1p(2)))
    assert match_features([candidate("a", 1, 0.7, None)]) is None
    assert match_features([]) is None


def test_the_calibration_error_is_the_gap_between_probability_and_share() -> None:
    # two bins: 0.2 said, 0.5 true; 0.9 said, 1.0 true
    error = calibration_error(np.array([0.2, 0.9, 0.2, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]), bins=2)
    assert error == pytest.approx((0.3 + 0.1) / 2)


def test_the_probability_learnt_is_right_on_answers_that_it_was_not_learnt_from() -> None:
    rng = np.random.default_rng(3)
    found = fit_match(made_examples(rng, 600), fingerprint="f", rerank_depth=10)
    others = made_examples(rng, 600)
    logits = [found.bias + sum(w * f for w, f in zip(found.weights, each.features, strict=True)) for each in others]
    probabilities = 1 / (1 + np.exp(-np.array(logits)))
    right = np.array([each.is_right for each in others], dtype=float)
    assert calibration_error(probabilities, right) < 0.05
    assert found.error < 0.05
    marked = probabilities < found.min_match
    answerable = np.array([each.is_answerable for each in others])
    assert marked[answerable].mean() < 0.15
    assert marked[~answerable].mean() > 0.75


def test_a_calibration_is_read_as_it_was_written_and_others_are_left_alone() -> None:
    found = fit_match(made_examples(np.random.default_rng(1), 60), fingerprint="f", rerank_depth=10)
    written = json.loads(json.dumps(found.to_object()))
    assert MatchCalibration.of_object(written) == found
    for other in (None, [], {**written, "format_version": 2}, {**written, "weights": [1]}, {**written, "bias": None}):
        assert MatchCalibration.of_object(other) is None


@pytest.mark.parametrize("queries", [49, 60])
def test_too_few_queries_or_only_wrong_ones_teach_nothing(queries: int) -> None:
    examples = [replace(each, is_right=False) for each in made_examples(np.random.default_rng(1), queries)]
    with pytest.raises(InputError, match="at least 50" if queries < 50 else "first place is right"):
        fit_match(examples, fingerprint="f", rerank_depth=10)


def test_an_answer_says_how_likely_it_is_a_match(gallery: Gallery, pictures: Mapping[str, Path]) -> None:
    before = gallery.search(pictures["red"], "make it blue")
    assert (before.match_probability, before.is_match) == (None, None)
    gallery.collection.update_metadata({METADATA_KEY: calibration(gallery, -1.0).to_object()})
    result = gallery.search(pictures["red"], "make it blue")
    assert result.match_probability == pytest.approx(1 / (1 + exp(1)))
    assert result.is_match is False
    assert "No good match" in result.notes[-1]
    assert [c.image_id for c in result] == [c.image_id for c in before]
    assert gallery.search(pictures["red"], "make it blue", min_match=0.2).is_match is True
    assert gallery.search(pictures["red"], "make it blue", min_match=0).notes == ()


def test_no_probability_where_it_was_not_learnt(gallery: Gallery, pictures: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="no calibration of matches"):
        gallery.search(pictures["red"], "make it blue", min_match=0.5)
    gallery.collection.update_metadata({METADATA_KEY: calibration(gallery, 1.0).to_object()})
    assert gallery.search(pictures["red"], "make it blue").is_match is True
    assert gallery.search(pictures["red"], "make it blue", must_not="green").match_probability is None
    assert gallery.search(pictures["red"]).match_probability is None
    assert gallery.search(pictures["red"], "make it blue", rerank_depth=0).match_probability is None
    with pytest.raises(InputError, match="from 0 to 1"):
        gallery.search(pictures["red"], "make it blue", min_match=2)
    other = replace(calibration(gallery, 1.0), fingerprint="another bundle")
    gallery.collection.update_metadata({METADATA_KEY: other.to_object()})
    assert gallery.search(pictures["red"], "make it blue").match_probability is None


@pytest.mark.parametrize("embedded", [False, True])
def test_it_is_kept_with_the_gallery(
    client: QdrantClient, tiny_bundle: Path, tmp_path: Path, pictures: Mapping[str, Path], embedded: bool
) -> None:
    store = str(tmp_path / "store") if embedded else client
    with Gallery.create("colors", store=store, bundle=tiny_bundle, provider="cpu") as gallery:
        gallery.index(ImageRecord(name, path, payload={}, source=str(path)) for name, path in pictures.items())
        gallery.collection.update_metadata({METADATA_KEY: calibration(gallery, 1.0).to_object()})
    with Gallery.create("colors", store=store, bundle=tiny_bundle, provider="cpu") as again:
        assert again.search(pictures["red"], "make it blue").match_probability == pytest.approx(1 / (1 + exp(-1)))


def test_the_users_collection_is_not_touched(
    client: QdrantClient, tiny_bundle: Path, pictures: Mapping[str, Path]
) -> None:
    client.create_collection("shop", vectors_config={}, metadata={"owner": "them"})
    points = [
        models.PointStruct(id=number, vector={}, payload={"image": str(path)})
        for number, path in enumerate(pictures.values())
    ]
    client.upsert("shop", points)
    gallery = attach(client, "shop", picture="image", bundle=tiny_bundle)
    gallery.index()
    gallery.collection.update_metadata({METADATA_KEY: calibration(gallery, 1.0).to_object()})
    again = Gallery.open("shop", store=client, bundle=tiny_bundle)
    assert again.search(pictures["red"], "make it blue").is_match is True
    assert client.get_collection("shop").config.metadata == {"owner": "them"}


def test_every_query_counts_with_its_answer_and_without(
    gallery: Gallery, pictures: Mapping[str, Path], tmp_path: Path
) -> None:
    lines = [
        {"reference": "red", "modification_text": "make it blue", "targets": ["blue"]},
        {"reference": "red", "modification_text": "make it blue", "targets": ["not there"]},
    ]
    file = tmp_path / "queries.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done: list[tuple[int, int]] = []
    examples = examples_of_queries(
        file,
        gallery,
        rerank_depth=5,
        exclude_reference=False,
        progress=lambda count, total: done.append((count, total)),
    )
    assert [(each.query, each.is_right, each.is_answerable) for each in examples] == [
        (0, True, True),
        (0, False, False),
        (1, False, False),
    ]
    with_answer, without, _ = (each.features[0] for each in examples)
    scores = {c.image_id: c.rerank_score for c in gallery.search(pictures["red"], "make it blue")}
    assert (with_answer, without) == pytest.approx((scores["blue"], scores["navy"]))
    assert done == [(1, 2), (2, 2)]


def test_pictures_of_the_gallery_are_recoloured_where_there_are_no_queries(
    client: QdrantClient, tiny_bundle: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "things").mkdir()
    for number in range(6):
        picture = Image.fromarray(rng.integers(200, 220, (96, 96, 3)).astype(np.uint8))
        ImageDraw.Draw(picture).ellipse((24, 18, 72, 80), fill=tuple(rng.integers(20, 160, 3).tolist()))
        picture.save(tmp_path / "things" / f"{number}.png")
    gallery = Gallery.create("things", store=client, bundle=tiny_bundle, provider="cpu")
    gallery.index(tmp_path / "things")
    examples = examples_of_edits(
        gallery, count=4, seed=1, rerank_depth=5, opener=None, progress=lambda count, total: None
    )
    assert [(each.query, each.is_answerable) for each in examples] == [
        (query, answerable) for query in range(4) for answerable in (True, False)
    ]
    assert not any(each.is_right for each in examples if not each.is_answerable)
    with pytest.raises(InputError, match="--queries"):
        examples_of_edits(gallery, count=50, seed=1, rerank_depth=5, opener=None, progress=lambda count, total: None)


def test_the_commands_learn_and_mark(tmp_path: Path, tiny_bundle: Path, pictures: Mapping[str, Path]) -> None:
    place = ("-c", "colors", "--path", str(tmp_path / "store"), "--bundle", str(tiny_bundle))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    run("index", str(tmp_path / "pictures"), *place)
    asked = [("blue", "blue.png"), ("green", "green.png"), ("black", "red.png")]
    lines = [
        {"reference": "pictures/red.png", "modification_text": f"make it {word}", "targets": [target]}
        for word, target in asked * 20
    ]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    told = json.loads(run("calibrate-match", *place, "--queries", str(tmp_path / "queries.jsonl"), "--json"))
    assert told["queries"] == 60
    shown = json.loads(run("search", *place, "-i", str(pictures["red"]), "-t", "make it blue", "--json"))
    assert 0 < shown["match_probability"] < 1
    marked = json.loads(
        run("search", *place, "-i", str(pictures["red"]), "-t", "make it blue", "--min-match", "1", "--json")
    )
    assert marked["is_match"] is False
