"""The path of a query, computed by hand with the tiny model: solid colours, and words that move them.

A picture is its colour from -1 to 1 per channel. The query "red, make it blue" is (1, -1, -1) + (-3, -3, 3)
= (-2, -4, 2), over its length sqrt(24). Stage one's score is the cosine with a colour, stage two's the dot
product, so that the pale colour, near in direction and short in length, falls from place 2 to place 4.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models

from qdrant_cir.errors import (
    BundleError,
    CollectionMismatchError,
    CollectionNotFoundError,
    ImageError,
    InputError,
    TokensError,
)
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.ranking import rank_candidates
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import GalleryHit, KnownImage
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import GalleryImage, Query, SearchResult

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
PRICES = {"blue": 10, "pale": 20, "navy": 30, "black": 40, "red": 50, "green": 60}
QUERY = np.array([-2, -4, 2]) / sqrt(24)
STAGE_ONE = ["blue", "pale", "navy", "black", "red", "green"]
STAGE_TWO = ["blue", "navy", "black", "pale", "red", "green"]


def direction(name: str) -> np.ndarray:
    """Give a colour from -1 to 1, as the tiny encoder sees it."""
    return np.array(COLORS[name]) / 255 * 2 - 1


def ids(result: SearchResult) -> list[str]:
    return [candidate.image_id for candidate in result.candidates]


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
def retriever(client: QdrantClient, tiny_bundle: Path, pictures: Mapping[str, Path]) -> Iterator[Retriever]:
    bundle = load_bundle(tiny_bundle)
    records = [
        ImageRecord(name, path, payload={"price": PRICES[name]}, source=str(path)) for name, path in pictures.items()
    ]
    collection = Collection.create(ServerStore(client), "colors", bundle)
    report = Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    assert report.indexed == len(COLORS)
    with Retriever.open("colors", store=client, bundle=tiny_bundle, provider="cpu") as retriever:
        yield retriever


@pytest.fixture
def composed(pictures: Mapping[str, Path]) -> Query:
    return Query(pictures["red"], "make it blue")


def test_both_scores_and_both_ranks_are_what_a_person_computes(retriever: Retriever, composed: Query) -> None:
    result = retriever.search(composed)
    assert ids(result) == STAGE_TWO
    assert result.rerank_mode == "exact"
    assert result.notes == ()
    for rank, candidate in enumerate(result.candidates, start=1):
        color = direction(candidate.image_id)
        assert candidate.retrieval_score == pytest.approx(color @ QUERY / np.linalg.norm(color), abs=1e-5)
        assert candidate.retrieval_rank == STAGE_ONE.index(candidate.image_id) + 1
        assert candidate.rerank_score == pytest.approx(color @ QUERY, abs=1e-2)
        assert candidate.rerank_rank == rank


def test_payload_is_the_users_alone_and_the_source_is_where_the_file_is(
    retriever: Retriever, composed: Query, pictures: Mapping[str, Path]
) -> None:
    best = retriever.search(composed, limit=1).candidates[0]
    assert best.payload == {"price": 10}
    assert best.source == str(pictures["blue"])


def test_depth_zero_is_stage_one_alone(retriever: Retriever, composed: Query) -> None:
    result = retriever.search(composed, rerank_depth=0)
    assert ids(result) == STAGE_ONE
    assert result.rerank_mode == "none"
    assert {(c.rerank_score, c.rerank_rank) for c in result.candidates} == {(None, None)}
    assert result.timings.fetch == result.timings.rerank == 0.0


def test_a_depth_below_the_limit_re_ranks_the_first_and_keeps_the_rest_in_place(
    retriever: Retriever, composed: Query
) -> None:
    result = retriever.search(composed, rerank_depth=3)
    assert ids(result) == ["blue", "navy", "pale", "black", "red", "green"]
    assert [candidate.rerank_rank for candidate in result.candidates] == [1, 2, 3, None, None, None]


def test_a_depth_above_the_limit_can_bring_a_deep_candidate_up(retriever: Retriever, composed: Query) -> None:
    assert ids(retriever.search(composed, limit=3)) == ["blue", "navy", "black"]
    assert ids(retriever.search(composed, limit=3, rerank_depth=0)) == ["blue", "pale", "navy"]


def test_a_depth_larger_than_the_collection_ranks_what_exists(retriever: Retriever, composed: Query) -> None:
    assert ids(retriever.search(composed, limit=1000, rerank_depth=1000)) == STAGE_TWO


def test_a_gallery_image_gives_the_answer_of_its_picture(retriever: Retriever, composed: Query) -> None:
    stored = retriever.search(Query(GalleryImage("red"), "make it blue"))
    fresh = retriever.search(composed)
    assert ids(stored) == ids(fresh)
    for one, other in zip(stored.candidates, fresh.candidates, strict=True):
        assert one.retrieval_score == pytest.approx(other.retrieval_score, abs=1e-2)


def test_path_text_bytes_and_pillow_give_the_same_answer(
    retriever: Retriever, composed: Query, pictures: Mapping[str, Path]
) -> None:
    expected = retriever.search(composed).candidates
    red = pictures["red"]
    with Image.open(red) as picture:
        for reference in (str(red), red.read_bytes(), picture):
            found = retriever.search(Query(reference, "make it blue")).candidates
            assert [(c.image_id, c.rerank_score) for c in found] == [(c.image_id, c.rerank_score) for c in expected]


def test_image_only_searches_the_pictures_own_embedding(retriever: Retriever, pictures: Mapping[str, Path]) -> None:
    for reference in (pictures["navy"], GalleryImage("navy")):
        result = retriever.search(Query(reference), limit=2)
        assert ids(result)[0] == "navy"
        assert result.candidates[0].retrieval_score == pytest.approx(1.0, abs=1e-5)
        assert result.rerank_mode == "none"
        assert len(result.notes) == 1
        assert "no modification text" in result.notes[0]


def test_text_only_composes_with_a_blank_picture_and_re_ranks(retriever: Retriever) -> None:
    # the blank picture is (0, 0, 0), so the query is (-3, -3, 3) over its length: cosine 1 with blue
    result = retriever.search(Query(modification_text="blue"))
    assert ids(result)[0] == "blue"
    assert result.candidates[0].retrieval_score == pytest.approx(1.0, abs=1e-5)
    assert result.candidates[0].rerank_score == pytest.approx(sqrt(3), abs=1e-2)
    assert "blank picture" in result.notes[0]


def test_unknown_words_are_named_and_change_nothing(retriever: Retriever, pictures: Mapping[str, Path]) -> None:
    known = retriever.search(Query(pictures["red"], "make it blue"))
    found = retriever.search(Query(pictures["red"], "make it sleeveless blue"))
    assert [(c.image_id, c.rerank_score) for c in found.candidates] == [
        (c.image_id, c.rerank_score) for c in known.candidates
    ]
    assert found.notes == ("The model does not know: sleeveless; it was ignored.",)


def test_unknown_words_alone_search_the_picture_itself(retriever: Retriever, pictures: Mapping[str, Path]) -> None:
    result = retriever.search(Query(pictures["navy"], "sleeveless"))
    assert ids(result)[0] == "navy"
    assert result.rerank_mode == "none"
    assert result.notes == (
        "The model does not know: sleeveless; no other word is left, so the picture itself was searched.",
    )


def test_unknown_words_of_what_to_avoid_are_named_and_change_nothing(
    retriever: Retriever, pictures: Mapping[str, Path]
) -> None:
    known = retriever.search(Query(pictures["red"], "make it blue"))
    found = retriever.search(Query(pictures["red"], "make it blue", must_not="sleeveless taupe"))
    assert [(c.image_id, c.rerank_score) for c in found.candidates] == [
        (c.image_id, c.rerank_score) for c in known.candidates
    ]
    assert found.notes == ("The model does not know, in must_not: sleeveless, taupe; they were ignored.",)


def test_unknown_words_without_a_reference_are_refused(retriever: Retriever) -> None:
    with pytest.raises(InputError, match="does not know: sleeveless; and there is no reference"):
        retriever.search(Query(modification_text="sleeveless"))


def test_filters_are_applied_in_the_store(retriever: Retriever, composed: Query) -> None:
    dear = models.Filter(must=[models.FieldCondition(key="price", range=models.Range(gte=30))])
    assert ids(retriever.search(composed, filter=dear)) == ["navy", "black", "red", "green"]


def test_a_filter_that_nothing_meets_gives_nothing(retriever: Retriever, composed: Query) -> None:
    free = models.Filter(must=[models.FieldCondition(key="price", range=models.Range(lt=0))])
    assert ids(retriever.search(composed, filter=free)) == []


def test_a_filter_on_a_field_that_does_not_exist_is_an_input_error(retriever: Retriever, composed: Query) -> None:
    wrong = models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="red"))])
    with pytest.raises(InputError, match="colour"):
        retriever.search(composed, filter=wrong)


def test_excluding_the_reference_leaves_out_that_image_and_keeps_the_limit(
    retriever: Retriever, pictures: Mapping[str, Path]
) -> None:
    with Image.open(pictures["blue"]) as opened:
        pixels = opened.convert("RGB")
    forms = (GalleryImage("blue"), pictures["blue"], pictures["blue"].read_bytes(), pixels, np.asarray(pixels))
    for reference in forms:
        query = Query(reference, "same but darker")
        assert "blue" in ids(retriever.search(query, limit=5))
        rest = retriever.search(query, limit=5, exclude_reference=True)
        assert set(ids(rest)) == set(COLORS) - {"blue"}
        assert sorted(c.retrieval_rank for c in rest.candidates) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("limit", "rerank_depth"), [(3, 0), (3, 2), (2, 4)])
def test_a_spare_hit_stands_in_for_the_excluded_reference(
    retriever: Retriever, pictures: Mapping[str, Path], limit: int, rerank_depth: int
) -> None:
    for reference in (GalleryImage("blue"), pictures["blue"]):
        query = Query(reference, "same")
        assert ids(retriever.search(query, limit=1, rerank_depth=0)) == ["blue"]
        rest = retriever.search(query, limit=limit, rerank_depth=rerank_depth, exclude_reference=True)
        assert "blue" not in ids(rest)
        assert (len(rest.candidates), rest.scored) == (limit, rerank_depth)


def test_copies_of_the_reference_are_left_out_in_whatever_form_it_is_given(
    tiny_bundle: Path, pictures: Mapping[str, Path], tmp_path: Path
) -> None:
    content = pictures["blue"].read_bytes()
    with Image.open(pictures["blue"]) as opened:
        pixels = opened.convert("RGB")
    copies = [ImageRecord(f"copy{place}", content, {}, None) for place in range(12)]
    others = [ImageRecord(name, path, {}, None) for name, path in pictures.items() if name != "blue"]
    with Indexer.open("shop", store=tmp_path / "copies", bundle=tiny_bundle) as indexer:
        indexer.index(copies + others)
    with Retriever.open("shop", store=tmp_path / "copies", bundle=tiny_bundle) as retriever:
        for reference in (GalleryImage("copy3"), content, pixels, np.asarray(pixels), [pixels, content]):
            for text in ("", "same"):
                found = retriever.search(Query(reference, text), limit=5, rerank_depth=3, exclude_reference=True)
                assert set(ids(found)) == {record.image_id for record in others}


def test_a_text_that_is_too_long_is_cut_and_the_answer_says_so(
    retriever: Retriever, pictures: Mapping[str, Path]
) -> None:
    # the tiny model reads 8 tokens, [ENC] and [SEP] among them: the red at the end is not read
    result = retriever.search(Query(pictures["red"], "make it blue " + "same " * 20 + "red"))
    assert ids(result)[0] == "blue"
    assert len(result.notes) == 1
    assert "8 tokens" in result.notes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit is 0; it must be at least 1"),
        ({"limit": -5}, "limit is -5"),
        ({"rerank_depth": -1}, "rerank_depth is -1; it must be at least 0, where 0 means stage one alone"),
    ],
)
def test_numbers_out_of_range_are_refused(
    retriever: Retriever, composed: Query, arguments: Mapping[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        retriever.search(composed, limit=arguments.get("limit", 10), rerank_depth=arguments.get("rerank_depth", 5))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_query_of_nothing_is_refused(retriever: Retriever, text: str) -> None:
    with pytest.raises(InputError, match="neither a reference image nor a modification text"):
        retriever.search(Query(modification_text=text))


def test_an_unknown_gallery_image_is_refused_by_name(retriever: Retriever) -> None:
    with pytest.raises(InputError, match="'nobody'"):
        retriever.search(Query(GalleryImage("nobody"), "blue"))


def test_an_unreadable_picture_is_refused_by_name(retriever: Retriever, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(ImageError, match=name):
            retriever.search(Query(tmp_path / name, "blue"))


def test_tokens_that_are_damaged_or_gone_put_the_candidate_last_and_name_it(
    retriever: Retriever, composed: Query, client: QdrantClient
) -> None:
    points = {}
    for point in client.scroll("colors__tokens", limit=100)[0]:
        assert point.payload is not None
        points[point.payload["_cir"]["id"]] = point
    client.delete("colors__tokens", models.PointIdsList(points=[points["navy"].id]))
    damaged = bytearray(base64.b64decode((points["blue"].payload or {})["tokens"]))
    damaged[-1] ^= 1
    client.set_payload("colors__tokens", {"tokens": base64.b64encode(damaged).decode()}, points=[points["blue"].id])
    result = retriever.search(composed)
    assert ids(result) == ["black", "pale", "red", "green", "blue", "navy"]
    assert [candidate.rerank_rank for candidate in result.candidates] == [1, 2, 3, 4, None, None]
    assert any("blue" in note for note in result.notes)
    assert any("navy" in note for note in result.notes)


def test_timings_add_up_and_steps_that_ran_took_time(retriever: Retriever, composed: Query) -> None:
    timings = retriever.search(composed).timings
    steps = (timings.encode, timings.compose, timings.retrieve, timings.fetch, timings.rerank)
    assert min(steps) > 0
    assert timings.total == pytest.approx(sum(steps))


def test_an_unknown_collection_is_refused_and_what_exists_is_named(
    retriever: Retriever, client: QdrantClient, tiny_bundle: Path
) -> None:
    with pytest.raises(CollectionNotFoundError, match="colors"):
        Retriever.open("colours", store=client, bundle=tiny_bundle)


def test_another_bundles_collection_is_refused(
    retriever: Retriever, client: QdrantClient, tmp_path: Path, build_tiny_bundle: Callable[..., Path]
) -> None:
    other = build_tiny_bundle(tmp_path / "other", codec="float16")
    with pytest.raises(CollectionMismatchError):
        Retriever.open("colors", store=client, bundle=other)


def test_a_folder_that_is_no_bundle_is_refused(client: QdrantClient, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cir_config"):
        Retriever.open("colors", store=client, bundle=tmp_path)


def test_a_path_opens_the_embedded_store_and_closing_releases_it(
    tmp_path: Path, tiny_bundle: Path, pictures: Mapping[str, Path], composed: Query
) -> None:
    from qdrant_cir.storage.stores.edge import EdgeStore

    bundle = load_bundle(tiny_bundle)
    store = EdgeStore(tmp_path / "edge")
    collection = Collection.create(store, "colors", bundle)
    records = [ImageRecord(name, path, payload={}, source=None) for name, path in pictures.items()]
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    store.close()
    for _ in range(2):
        with Retriever.open("colors", store=tmp_path / "edge", bundle=tiny_bundle) as retriever:
            assert ids(retriever.search(composed)) == STAGE_TWO


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_cannot_be_ordered_are_refused(score: float) -> None:
    hit = GalleryHit(KnownImage("a", 1, None, None, {}, None), 0.5, None)
    with pytest.raises(TokensError, match="'a'"):
        rank_candidates([[hit]], {1: score}, {})
