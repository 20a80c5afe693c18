"""Several references, what must not be, groups, and hits of the caller's, each computed by hand with the tiny model.

A picture is its colour from -1 to 1 per channel, and a word adds its own; "same" adds nothing. The vector of a
composed query is that sum over its length. Stage two's score is the dot product of a vector and a colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models
from recording_store import RecordingStore

from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.points import point_id_of
from qdrant_cir.storage.stores.protocol import HitGroup, Store
from qdrant_cir.storage.stores.server import ServerStore
from qdrant_cir.types import Float32, GalleryImage, JsonValue, Query, SearchResult

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
STAGE_ONE = ["blue", "pale", "navy", "black", "red", "green"]
"""The order of "red, make it blue"; stage two's is blue, navy, black, pale, red, green."""
MAKE_RED_BLUE = Query(GalleryImage("red"), "make it blue")
WHITE = Query(modification_text="white")
"""Composed with a blank picture: the query is (1, 1, 1) over its length."""


@contextmanager
def searching(
    bundle_path: Path, store: Store, colors: Mapping[str, Color], payloads: Mapping[str, JsonValue]
) -> Iterator[Retriever]:
    """Search pictures of one colour each, indexed in the order given, with a payload field ``of``."""
    bundle = load_bundle(bundle_path)
    encoder = ImageEncoder.open(bundle, Compute("cpu", 1))
    records = [
        ImageRecord(name, Image.new("RGB", (20, 20), color), {"of": payloads.get(name)}, None)
        for name, color in colors.items()
    ]
    collection = Collection.create(store, "colors", bundle)
    assert Indexer(collection, encoder, bundle).index(records).indexed == len(colors)
    yield Retriever(collection, QueryModel(bundle, Compute("cpu", 1), encoder=encoder))


@pytest.fixture(scope="module")
def retriever(tiny_bundle: Path) -> Iterator[Retriever]:
    with searching(tiny_bundle, RecordingStore(), COLORS, {}) as retriever:
        yield retriever


def unit(*sums: float) -> Float32:
    vector = np.array(sums, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def color_of(name: str) -> Float32:
    return (np.array(COLORS[name]) / 255 * 2 - 1).astype(np.float32)


def ids(result: SearchResult) -> list[str]:
    return [candidate.image_id for candidate in result.candidates]


RED, BLUE = unit(1, -1, -1), unit(-1, -1, 1)
RED_TO_BLUE = unit(-2, -4, 2)
"""Red with the word "blue"."""


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_what_must_not_be_is_taken_away_from_both_scores(retriever: Retriever, weight: float) -> None:
    query = Query(GalleryImage("red"), "same", must_not="blue", must_not_weight=weight)
    for candidate in retriever.search(query).candidates:
        color = color_of(candidate.image_id)
        # stage one moves away from the text alone, stage two from the reference with that text
        assert candidate.retrieval_score == pytest.approx(unit(*RED - weight * BLUE) @ unit(*color), abs=1e-2)
        assert candidate.rerank_score == pytest.approx((RED - weight * RED_TO_BLUE) @ color, abs=2e-2)


@pytest.mark.parametrize(
    ("weights", "shares"), [(None, (0.5, 0.5)), ((3, 1), (0.75, 0.25)), ((0.2, 0.2), (0.5, 0.5)), ((0, 7), (0, 1))]
)
def test_weights_of_references_are_shares_of_one_in_both_scores(
    retriever: Retriever, weights: Sequence[float] | None, shares: tuple[float, float]
) -> None:
    query = Query([GalleryImage("red"), GalleryImage("blue")], "same", weights=weights)
    for candidate in retriever.search(query).candidates:
        color = color_of(candidate.image_id)
        mean = shares[0] * RED + shares[1] * BLUE
        assert candidate.retrieval_score == pytest.approx(unit(*mean) @ unit(*color), abs=1e-2)
        assert candidate.rerank_score == pytest.approx(mean @ color, abs=2e-2)


def test_a_must_not_is_weighed_against_each_reference_by_its_share(retriever: Retriever) -> None:
    query = Query([GalleryImage("red"), GalleryImage("blue")], "same", must_not="blue", weights=(3, 1))
    for candidate in retriever.search(query).candidates:
        terms = 0.75 * RED + 0.25 * BLUE - 0.5 * (0.75 * RED_TO_BLUE + 0.25 * unit(-4, -4, 4))
        assert candidate.rerank_score == pytest.approx(terms @ color_of(candidate.image_id), abs=2e-2)


@contextmanager
def grouping(
    bundle: Path, colors: Mapping[str, Color], groups: Mapping[str, JsonValue], *, turned: bool = False
) -> Iterator[Retriever]:
    """Search in a store that has groups, in either order where they are equally good."""

    class Store(ServerStore):
        def query_groups(self, *args: object, **options: object) -> list[HitGroup]:
            found = super().query_groups(*args, **options)  # type: ignore[arg-type]
            return sorted(reversed(found) if turned else found, key=lambda group: -round(group.hits[0].score, 5))

    client = QdrantClient(":memory:")
    with searching(bundle, Store(client), colors, groups) as retriever:
        yield retriever
    client.close()


def test_a_group_stands_where_its_best_member_does_in_either_stage(tiny_bundle: Path) -> None:
    # stage one finds blue, pale, navy, black, red, green; stage two blue, navy, black, pale, red, green
    makers = {"blue": "x", "green": "x", "pale": "y", "navy": "z", "black": "y", "red": "z"}
    with grouping(tiny_bundle, COLORS, makers) as retriever:
        first = retriever.search(MAKE_RED_BLUE, rerank_depth=0, group_by="of")
        both = retriever.search(MAKE_RED_BLUE, group_by="of")
    assert [(c.image_id, c.group) for c in first.candidates] == [("blue", "x"), ("pale", "y"), ("navy", "z")]
    assert [(c.image_id, c.group, c.retrieval_rank) for c in both.candidates] == [
        ("blue", "x", 1),
        ("navy", "z", 3),
        ("black", "y", 2),
    ]
    assert both.scored == len(COLORS)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rerank_depth", [0, 10])
def test_groups_that_are_equally_good_go_by_the_image_id_of_their_best(
    tiny_bundle: Path, rerank_depth: int, *, turned: bool
) -> None:
    groups = {"b": "z", "d": "z", "a": "y", "e": "y", "c": "x", "f": "x"}
    with grouping(tiny_bundle, dict.fromkeys(groups, (255, 0, 0)), groups, turned=turned) as retriever:
        result = retriever.search(WHITE, rerank_depth=rerank_depth, group_by="of")
    assert [(candidate.image_id, candidate.group) for candidate in result.candidates] == [
        ("a", "y"),
        ("b", "z"),
        ("c", "x"),
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_groups_that_share_their_best_member_go_by_their_values(tiny_bundle: Path, *, turned: bool) -> None:
    with grouping(tiny_bundle, {"a": (255, 0, 0)}, {"a": ["y", "x"]}, turned=turned) as retriever:
        result = retriever.search(WHITE, rerank_depth=0, group_by="of")
    assert [candidate.group for candidate in result.candidates] == ["x", "y"]


def points_of(names: Sequence[str]) -> list[UUID]:
    return [point_id_of(name) for name in names]


def test_given_hits_are_re_ranked_from_the_order_they_come_in(retriever: Retriever) -> None:
    result = retriever.rerank(retriever.compose(MAKE_RED_BLUE), points_of(STAGE_ONE))
    assert ids(result) == ["blue", "navy", "black", "pale", "red", "green"]
    assert [candidate.retrieval_rank for candidate in result.candidates] == [1, 3, 4, 2, 5, 6]


def test_a_given_point_that_is_no_image_is_left_out_with_a_note(retriever: Retriever) -> None:
    hits: list[object] = [
        UUID(int=7),
        models.ScoredPoint(id=8, version=0, score=0.5, payload={"of": "somebody else"}),
        *points_of(["pale", "navy"]),
    ]
    result = retriever.rerank(retriever.compose(MAKE_RED_BLUE), hits)
    assert ids(result) == ["navy", "pale"]
    (note,) = result.notes
    assert note.startswith("2 of the hits are")


def test_given_points_without_tokens_follow_the_scored_in_the_order_given(tiny_bundle: Path) -> None:
    store = RecordingStore()
    with searching(tiny_bundle, store, COLORS, {}) as retriever:
        for name in ("blue", "red"):
            del store.points["colors__tokens"][point_id_of(name)]
        result = retriever.rerank(
            retriever.compose(Query(modification_text="make it blue")), points_of(["red", "pale", "blue", "navy"])
        )
    assert ids(result) == ["navy", "pale", "red", "blue"]
    assert [candidate.rerank_rank for candidate in result.candidates] == [1, 2, None, None]
