"""What every store must do alike. Runs here on memory and Edge; tests/integration runs it on a real server.

Expected answers are computed from the points themselves: cosines with numpy, filters with a line of Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from functools import reduce
from typing import Any
from uuid import UUID, uuid4, uuid5

import numpy as np
import pytest
from qdrant_client import models as m

from qdrant_cir.errors import CollectionError, CollectionNotFoundError, InputError
from qdrant_cir.storage.stores import CollectionSpec, Store, StoredPoint

DIMS = 8
COUNT = 60
RANDOM = np.random.default_rng(5)
VECTORS = RANDOM.normal(size=(COUNT, DIMS)).astype(np.float32)
IDS = [uuid5(UUID(int=0), f"point {n}") for n in range(COUNT)]
COLORS = ("red", "green", "blue", "größe", "深い 青")
Payload = dict[str, Any]


def payload_of(n: int) -> Payload:
    payload: Payload = {
        "n": n,
        "sku": str(uuid5(UUID(int=0), f"sku {n}")),
        "price": n * 1.5,
        "color": COLORS[n % 5],
        "sale": n % 3 == 0,
        "tags": ["new", "old", "worn"][: n % 4],
        "title": f"A {COLORS[n % 5]} dress, number {n}",
        "added": (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=n)).isoformat(),
        "größe": n % 2,
        "shop": {"city": "Köln" if n % 2 else "Oslo", "floor": n % 3},
        "place": {"lon": n / 10, "lat": 50.0},
        "offers": [{"price": n, "stock": n % 2}, {"price": n + 100, "stock": (n + 1) % 2}],
    }
    if n % 4 == 0:
        payload["rare"] = n
    if n % 4 == 1:
        payload["rare"] = None
    if n % 4 == 2:
        payload["rare"] = []
    return payload


PAYLOADS = [payload_of(n) for n in range(COUNT)]


def field(key: str, **test: object) -> m.FieldCondition:
    return m.FieldCondition.model_validate({"key": key, **test})


def value(key: str, wanted: str | int | bool) -> m.FieldCondition:
    return field(key, match=m.MatchValue(value=wanted))


Law = tuple[m.Filter, Callable[[Payload], bool]]
SQUARE = [(0.95, 49), (2.05, 49), (2.05, 51), (0.95, 51), (0.95, 49)]
HOLE = [(1.35, 49.5), (1.65, 49.5), (1.65, 50.5), (1.35, 50.5), (1.35, 49.5)]


def ring(points: list[tuple[float, float]]) -> m.GeoLineString:
    return m.GeoLineString(points=[m.GeoPoint(lon=lon, lat=lat) for lon, lat in points])


FILTERS: Mapping[str, Law] = {
    "empty": (m.Filter(), lambda p: True),
    "empty lists": (m.Filter(must=[], must_not=[]), lambda p: True),
    "string": (m.Filter(must=[value("color", "red")]), lambda p: p["color"] == "red"),
    "unicode": (m.Filter(must=[value("color", "深い 青")]), lambda p: p["color"] == "深い 青"),
    "unicode field": (m.Filter(must=[value("größe", 1)]), lambda p: p["größe"] == 1),
    "one bare condition": (m.Filter(must=value("color", "red")), lambda p: p["color"] == "red"),
    "integer": (m.Filter(must=[value("n", 7)]), lambda p: p["n"] == 7),
    "true": (m.Filter(must=[value("sale", True)]), lambda p: p["sale"]),
    "false": (m.Filter(must=[value("sale", False)]), lambda p: not p["sale"]),
    "a bool is no integer": (m.Filter(must=[value("sale", 1)]), lambda p: False),
    "an integer is no bool": (m.Filter(must=[value("größe", True)]), lambda p: False),
    "a float is no integer": (m.Filter(must=[value("price", 3)]), lambda p: False),
    "uuid": (m.Filter(must=[value("sku", str(uuid5(UUID(int=0), "sku 7")))]), lambda p: p["n"] == 7),
    "nothing has it": (m.Filter(must=[value("color", "mauve")]), lambda p: False),
    "element of a list": (m.Filter(must=[value("tags", "worn")]), lambda p: "worn" in p["tags"]),
    "any string": (
        m.Filter(must=[field("color", match=m.MatchAny(any=["red", "blue"]))]),
        lambda p: p["color"] in ("red", "blue"),
    ),
    "any integer": (
        m.Filter(must=[field("n", match=m.MatchAny(any=[3, 9, 99]))]),
        lambda p: p["n"] in (3, 9),
    ),
    "except": (
        m.Filter(must=[field("color", match=m.MatchExcept(**{"except": ["red", "blue"]}))]),
        lambda p: p["color"] not in ("red", "blue"),
    ),
    "text": (
        m.Filter(must=[field("title", match=m.MatchText(text="dress red"))]),
        lambda p: p["color"] == "red",
    ),
    "range": (
        m.Filter(must=[field("price", range=m.Range(gte=15, lt=30))]),
        lambda p: 15 <= p["price"] < 30,
    ),
    "range of integers": (
        m.Filter(must=[field("n", range=m.Range(gt=3, lte=7.5))]),
        lambda p: 3 < p["n"] <= 7.5,
    ),
    "dates": (
        m.Filter(
            must=[
                field(
                    "added",
                    range=m.DatetimeRange(gte=datetime(2025, 1, 5, tzinfo=UTC), lt=datetime(2025, 1, 9, tzinfo=UTC)),
                )
            ]
        ),
        lambda p: 4 <= p["n"] < 8,
    ),
    "a date without a zone is UTC": (
        m.Filter(must=[field("added", range=m.DatetimeRange(lte=datetime(2025, 1, 5)))]),
        lambda p: p["n"] <= 4,
    ),
    "a date of another zone": (
        m.Filter(
            must=[
                field(
                    "added",
                    range=m.DatetimeRange(lte=datetime(2025, 1, 5, tzinfo=timezone(timedelta(hours=2)))),
                )
            ]
        ),
        lambda p: p["n"] <= 3,
    ),
    "a day": (
        m.Filter(must=[field("added", range=m.DatetimeRange(gt=date(2025, 1, 5)))]),
        lambda p: p["n"] > 4,
    ),
    "values count": (
        m.Filter(must=[field("tags", values_count=m.ValuesCount(gte=2))]),
        lambda p: len(p["tags"]) >= 2,
    ),
    "is empty": (
        m.Filter(must=[m.IsEmptyCondition(is_empty=m.PayloadField(key="rare"))]),
        lambda p: p.get("rare") in (None, []),
    ),
    "is null": (
        m.Filter(must=[m.IsNullCondition(is_null=m.PayloadField(key="rare"))]),
        lambda p: "rare" in p and p["rare"] is None,
    ),
    "is not empty": (
        m.Filter(must=[field("rare", is_empty=False)]),
        lambda p: p.get("rare") not in (None, []),
    ),
    "no such field is empty": (
        m.Filter(must=[m.IsEmptyCondition(is_empty=m.PayloadField(key="nowhere"))]),
        lambda p: True,
    ),
    "ids": (
        m.Filter(must=[m.HasIdCondition(has_id=[str(IDS[3]), str(IDS[5]), str(uuid4())])]),
        lambda p: p["n"] in (3, 5),
    ),
    "path": (m.Filter(must=[value("shop.city", "Köln")]), lambda p: p["shop"]["city"] == "Köln"),
    "path in quotes": (m.Filter(must=[value('"shop"."floor"', 2)]), lambda p: p["shop"]["floor"] == 2),
    "any element's field": (
        m.Filter(must=[value("offers[].price", 105)]),
        lambda p: 105 in [offer["price"] for offer in p["offers"]],
    ),
    "one element's field": (m.Filter(must=[value("offers[0].price", 105)]), lambda p: False),
    "nested": (
        m.Filter(
            must=[
                m.NestedCondition(
                    nested=m.Nested(
                        key="offers",
                        filter=m.Filter(must=[field("price", range=m.Range(lt=10)), value("stock", 1)]),
                    )
                )
            ]
        ),
        lambda p: any(offer["price"] < 10 and offer["stock"] == 1 for offer in p["offers"]),
    ),
    "near a place": (
        # a degree of longitude at 50 north is 71.5 km
        m.Filter(must=[field("place", geo_radius=m.GeoRadius(center=m.GeoPoint(lon=2, lat=50), radius=25_000))]),
        lambda p: abs(p["place"]["lon"] - 2) < 0.35,
    ),
    "in a box": (
        m.Filter(
            must=[
                field(
                    "place",
                    geo_bounding_box=m.GeoBoundingBox(
                        top_left=m.GeoPoint(lon=0.95, lat=51), bottom_right=m.GeoPoint(lon=2.05, lat=49)
                    ),
                )
            ]
        ),
        lambda p: 0.95 < p["place"]["lon"] < 2.05,
    ),
    "in a polygon with a hole": (
        m.Filter(must=[field("place", geo_polygon=m.GeoPolygon(exterior=ring(SQUARE), interiors=[ring(HOLE)]))]),
        lambda p: 0.95 < p["place"]["lon"] < 2.05 and not 1.35 < p["place"]["lon"] < 1.65,
    ),
    "and": (
        m.Filter(must=[value("color", "red"), value("sale", True)]),
        lambda p: p["color"] == "red" and p["sale"],
    ),
    "or": (
        m.Filter(should=[value("color", "red"), value("sale", True)]),
        lambda p: p["color"] == "red" or p["sale"],
    ),
    "not": (
        m.Filter(must_not=[value("color", "red"), value("sale", True)]),
        lambda p: p["color"] != "red" and not p["sale"],
    ),
    "all three": (
        m.Filter(
            must=[field("n", range=m.Range(lt=40))],
            should=[value("color", "red"), value("color", "blue")],
            must_not=[value("sale", True)],
        ),
        lambda p: p["n"] < 40 and p["color"] in ("red", "blue") and not p["sale"],
    ),
    "at least two of three": (
        m.Filter(
            min_should=m.MinShould(
                conditions=[value("color", "red"), value("sale", True), value("größe", 1)], min_count=2
            )
        ),
        lambda p: (p["color"] == "red") + p["sale"] + (p["größe"] == 1) >= 2,
    ),
    "filters within filters": (
        m.Filter(
            must=[m.Filter(should=[value("color", "red"), m.Filter(must_not=[value("sale", False)])])],
        ),
        lambda p: p["color"] == "red" or p["sale"],
    ),
}


def nested(levels: int, kind: type) -> Payload:
    """A payload of so many levels, itself the first."""
    value: Any = kind()
    for _ in range(levels - 2):
        value = [value] if kind is list else {"deeper": value}
    return {"deep": value}


@pytest.fixture
def name(store: Store) -> Iterator[str]:
    """The name of a collection that is not there, and will not be afterwards."""
    name = f"laws-{uuid4().hex}"
    yield name
    store.drop(name)


def fill(store: Store, name: str) -> None:
    points = [StoredPoint(IDS[n], VECTORS[n], PAYLOADS[n]) for n in range(COUNT)]
    store.create(name, CollectionSpec(vector_size=DIMS, metadata={}))
    store.upsert(name, points[:40])
    store.upsert(name, points[40:])
    store.create_payload_index(name, "title", "text")


@pytest.fixture
def gallery(store: Store, name: str) -> str:
    """A collection of sixty points."""
    fill(store, name)
    return name


@pytest.fixture(scope="module")
def standing(store: Store) -> Iterator[str]:
    """A collection of the same points for all laws that change nothing of it; that none did is looked at."""
    name = f"laws-{uuid4().hex}"
    fill(store, name)
    yield name
    found = store.scroll(name, filter=None, limit=COUNT + 1, after=None)
    assert {record.point_id: record.payload for record in found} == dict(zip(IDS, PAYLOADS, strict=True))
    store.drop(name)


def cosines(query: np.ndarray) -> np.ndarray:
    return (VECTORS @ query) / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(query)


def places(hits: list[Any]) -> list[int]:
    return [IDS.index(hit.point_id) for hit in hits]


@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_finds_what_a_line_of_python_finds(store: Store, standing: str, kind: str) -> None:
    filter, holds = FILTERS[kind]
    expected = [n for n in range(COUNT) if holds(PAYLOADS[n])]
    assert store.count(standing, filter) == len(expected)
    assert sorted(places(store.scroll(standing, filter=filter, limit=COUNT, after=None))) == expected
    query = np.ones(DIMS, np.float32)
    by_cosine = sorted(expected, key=lambda n: -cosines(query)[n])
    assert places(store.query(standing, query, limit=COUNT, filter=filter)) == by_cosine


def test_a_query_gives_cosines_best_first_with_all_payload(store: Store, standing: str) -> None:
    for seed in range(5):
        query = np.random.default_rng(seed).normal(size=DIMS).astype(np.float32)
        hits = store.query(standing, query, limit=10, filter=None)
        expected = np.argsort(-cosines(query))[:10]
        assert places(hits) == expected.tolist()
        assert [hit.score for hit in hits] == pytest.approx(cosines(query)[expected].tolist(), abs=1e-5)
        assert [hit.payload for hit in hits] == [PAYLOADS[n] for n in expected]


def test_a_limit_larger_than_the_collection_gives_all_of_it(store: Store, standing: str) -> None:
    assert len(store.query(standing, VECTORS[0], limit=10_000, filter=None)) == COUNT


def test_a_vector_of_zeros_scores_zero(store: Store, gallery: str) -> None:
    zero = np.zeros(DIMS, np.float32)
    assert {hit.score for hit in store.query(gallery, zero, limit=5, filter=None)} == {0.0}
    store.upsert(gallery, [StoredPoint(IDS[0], zero, {})])
    hits = store.query(gallery, VECTORS[1], limit=COUNT, filter=None)
    assert next(hit.score for hit in hits if hit.point_id == IDS[0]) == 0.0


def test_fetch_gives_what_exists_in_the_order_asked_for(store: Store, standing: str) -> None:
    asked = [IDS[7], uuid4(), IDS[2], IDS[55], IDS[7]]
    records = store.fetch(standing, asked, with_vectors=True)
    assert [record.point_id for record in records] == [IDS[7], IDS[2], IDS[55], IDS[7]]
    for record, n in zip(records, (7, 2, 55, 7), strict=True):
        assert record.payload == PAYLOADS[n]
        assert record.vector is not None
        assert record.vector.dtype == np.float32
        assert record.vector == pytest.approx(VECTORS[n] / np.linalg.norm(VECTORS[n]), abs=1e-6)
    assert store.fetch(standing, [], with_vectors=False) == []
    assert store.fetch(standing, [uuid4()], with_vectors=False) == []


def test_fetch_reads_only_the_fields_asked_for(store: Store, standing: str) -> None:
    (record,) = store.fetch(standing, [IDS[7]], with_vectors=False, fields=("color", "shop", "nowhere"))
    assert record.payload == {"color": "blue", "shop": {"city": "Köln", "floor": 1}}
    assert record.vector is None
    (record,) = store.fetch(standing, [IDS[7]], with_vectors=False, fields=())
    assert record.payload == {}


def test_scrolling_passes_every_point_once_in_id_order(store: Store, standing: str) -> None:
    for limit in (1, 7, COUNT, 1000):
        seen: list[UUID] = []
        while batch := store.scroll(standing, filter=None, limit=limit, after=seen[-1] if seen else None):
            assert len(batch) <= limit
            seen += [record.point_id for record in batch]
        assert seen == sorted(IDS)
    middle = uuid4()
    behind = store.scroll(standing, filter=None, limit=1000, after=middle)
    assert [record.point_id for record in behind] == sorted(point_id for point_id in IDS if point_id > middle)
    assert store.scroll(standing, filter=None, limit=10, after=UUID(int=2**128 - 1)) == []


def test_writing_an_id_again_replaces_vector_and_payload(store: Store, gallery: str) -> None:
    store.upsert(gallery, [StoredPoint(IDS[3], VECTORS[4], {"only": "this"})])
    assert store.count(gallery, None) == COUNT
    (record,) = store.fetch(gallery, [IDS[3]], with_vectors=True)
    assert record.payload == {"only": "this"}
    assert record.vector == pytest.approx(VECTORS[4] / np.linalg.norm(VECTORS[4]), abs=1e-6)
    assert store.count(gallery, m.Filter(must=[value("n", 3)])) == 0


def test_the_last_of_equal_ids_in_one_write_stands(store: Store, gallery: str) -> None:
    new = uuid4()
    store.upsert(gallery, [StoredPoint(new, VECTORS[0], {"n": 1}), StoredPoint(new, VECTORS[1], {"n": 2})])
    assert [record.payload for record in store.fetch(gallery, [new], with_vectors=False)] == [{"n": 2}]
    assert store.count(gallery, None) == COUNT + 1


def test_deleting_removes_what_exists_and_passes_over_the_rest(store: Store, gallery: str) -> None:
    store.delete(gallery, [IDS[0], uuid4(), IDS[1]])
    store.delete(gallery, [])
    assert store.count(gallery, None) == COUNT - 2
    assert store.fetch(gallery, IDS[:2], with_vectors=False) == []
    assert set(places(store.query(gallery, VECTORS[0], limit=COUNT, filter=None))) == set(range(2, COUNT))


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"text": "深い 青 🧥 é e\u0301 \n\t\"'\\ \x00 \x7f"},
        {"深い": {"青.[]": [1, [2, [3]], {"a": None}]}, "": "empty key", "a b": 1},
        {"largest": 2**63 - 1, "smallest": -(2**63), "zero": 0},
        {"tiny": 5e-324, "huge": 1.7976931348623157e308, "minus": -0.1, "whole": 2.0},
        {"none": None, "true": True, "false": False, "list": [], "object": {}},
        {"large": "x" * 1_000_000},
        {"wide": {f"field {n}": n for n in range(500)}},
        nested(64, list),
        nested(64, dict),
    ],
    ids=lambda payload: next(iter(payload), "nothing")[:8],
)
def test_a_payload_comes_back_as_it_was_with_the_same_types(store: Store, gallery: str, payload: Payload) -> None:
    store.upsert(gallery, [StoredPoint(IDS[0], VECTORS[0], payload)])
    (record,) = store.fetch(gallery, IDS[:1], with_vectors=False)
    assert record.payload == payload
    # as text, 1 is not 1.0 nor True; the order of keys is no part of JSON, and a server does not keep it
    assert json.dumps(record.payload, sort_keys=True) == json.dumps(payload, sort_keys=True)


@pytest.mark.parametrize(
    ("vector", "payload", "word"),
    [
        (VECTORS[0][:5], {}, "shape"),
        (VECTORS[:2], {}, "shape"),
        (np.full(DIMS, np.nan, np.float32), {}, "finite"),
        (np.full(DIMS, np.inf, np.float32), {}, "finite"),
        (None, {}, "vector"),
        (VECTORS[0], {"a": float("nan")}, "payload.a is nan"),
        (VECTORS[0], {"a": [1, {"b": float("inf")}]}, r"payload.a\[1\].b"),
        (VECTORS[0], {"a": 2**63}, "64 bits"),
        (VECTORS[0], {"a": b"bytes"}, "bytes"),
        (VECTORS[0], {"a": (1, 2)}, "tuple"),
        (VECTORS[0], {"a": np.float32(1)}, "float32"),
        (VECTORS[0], reduce(lambda inner, _: {"a": inner}, range(64), {}), "deeper than 64"),
        (VECTORS[0], {"a": datetime(2025, 1, 1, tzinfo=UTC)}, "datetime"),
        (VECTORS[0], {"a": {1: 2}}, "strings"),
        (VECTORS[0], {1: 2}, "strings"),
        (VECTORS[0], {"a": "\udcff"}, "Unicode"),
        (VECTORS[0], {"\udcff": 1}, "Unicode"),
        (VECTORS[0], nested(65, list), "deeper than 64"),
        (VECTORS[0], nested(65, dict), "deeper than 64"),
        (VECTORS[0], nested(100_000, list), "deeper than 64"),
    ],
)
def test_a_batch_with_a_point_that_cannot_be_stored_is_refused_whole(
    store: Store, standing: str, vector: np.ndarray, payload: Payload, word: str
) -> None:
    good = StoredPoint(uuid4(), VECTORS[0], {})
    with pytest.raises(InputError, match=word):
        store.upsert(standing, [good, StoredPoint(uuid4(), vector, payload)])
    assert store.count(standing, None) == COUNT


@pytest.mark.parametrize("path", ["", "a b", "a..b", "a[", "f(x)", ".a", 'a"b'])
def test_a_filter_whose_path_cannot_be_read_is_refused(store: Store, standing: str, path: str) -> None:
    for filter in (
        m.Filter(must=[value(path, 1)]),
        m.Filter(must_not=[m.IsEmptyCondition(is_empty=m.PayloadField(key=path))]),
        m.Filter(should=[m.NestedCondition(nested=m.Nested(key="a", filter=m.Filter(must=[value(path, 1)])))]),
    ):
        with pytest.raises(InputError, match="field"):
            store.query(standing, VECTORS[0], limit=3, filter=filter)
        with pytest.raises(InputError, match="field"):
            store.count(standing, filter)


def test_a_condition_with_no_test_or_two_is_refused(store: Store, standing: str) -> None:
    for condition in (
        field("n"),
        field("n", match=m.MatchValue(value=1), range=m.Range(gt=0)),
    ):
        with pytest.raises(InputError, match="exactly one test"):
            store.scroll(standing, filter=m.Filter(must=[condition]), limit=3, after=None)


def test_what_is_no_filter_and_what_is_nested_too_deep_is_refused(store: Store, standing: str) -> None:
    deep = m.Filter()
    for _ in range(500):
        deep = m.Filter(must=[deep])
    for filter, words in ((deep, "deeper than 64"), ({"must": []}, "is a dict"), ("color = red", "is a str")):
        for call in (
            lambda filter: store.count(standing, filter),
            lambda filter: store.query(standing, VECTORS[0], limit=3, filter=filter),
            lambda filter: store.scroll(standing, filter=filter, limit=3, after=None),
        ):
            with pytest.raises(InputError, match=words):
                call(filter)


@pytest.mark.parametrize("vector", [VECTORS[0][:3], np.full(DIMS, np.nan, np.float32)])
def test_a_query_vector_that_does_not_fit_is_refused(store: Store, standing: str, vector: np.ndarray) -> None:
    with pytest.raises(InputError, match="query vector"):
        store.query(standing, vector, limit=3, filter=None)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(store: Store, standing: str, limit: int) -> None:
    with pytest.raises(InputError, match="limit"):
        store.query(standing, VECTORS[0], limit=limit, filter=None)
    with pytest.raises(InputError, match="limit"):
        store.scroll(standing, filter=None, limit=limit, after=None)


def test_a_collection_without_vectors_holds_payloads_alone(store: Store, name: str) -> None:
    store.create(name, CollectionSpec(vector_size=None, metadata={"role": "tokens"}))
    store.upsert(name, [StoredPoint(point_id, None, {"tokens": "AAAA" * 8000}) for point_id in IDS])
    assert store.count(name, None) == COUNT
    records = store.fetch(name, IDS[:50], with_vectors=True)
    assert [record.point_id for record in records] == IDS[:50]
    assert {(record.payload["tokens"], record.vector) for record in records} == {("AAAA" * 8000, None)}
    with pytest.raises(InputError, match="vector"):
        store.query(name, VECTORS[0], limit=3, filter=None)
    with pytest.raises(InputError, match="vector"):
        store.upsert(name, [StoredPoint(IDS[0], VECTORS[0], {})])


def test_metadata_is_kept_with_the_collection(store: Store, name: str) -> None:
    metadata: Payload = {"_cir": {"fingerprint": "ab" * 32, "version": 1, "größe": [1.5, None, True]}}
    assert store.describe(name) is None
    store.create(name, CollectionSpec(vector_size=DIMS, metadata=metadata))
    assert store.describe(name) == CollectionSpec(vector_size=DIMS, metadata=metadata)


def test_names_are_listed_in_order_and_a_dropped_one_is_gone(store: Store, name: str) -> None:
    second = name + "__tokens"
    for made in (second, name):
        store.create(made, CollectionSpec(vector_size=None, metadata={}))
    names = store.collection_names()
    assert names == sorted(names)
    assert {name, second} <= set(names)
    store.drop(second)
    store.drop(second)
    assert second not in store.collection_names()
    assert store.describe(second) is None


def test_a_name_can_be_used_again_after_a_drop_with_another_size(store: Store, gallery: str) -> None:
    store.drop(gallery)
    store.create(gallery, CollectionSpec(vector_size=3, metadata={"again": True}))
    assert store.count(gallery, None) == 0
    store.upsert(gallery, [StoredPoint(IDS[0], np.ones(3, np.float32), {})])
    assert places(store.query(gallery, np.ones(3, np.float32), limit=9, filter=None)) == [0]


def test_a_collection_that_stands_is_not_made_again(store: Store, standing: str) -> None:
    with pytest.raises(CollectionError, match="already"):
        store.create(standing, CollectionSpec(vector_size=DIMS, metadata={}))
    assert store.count(standing, None) == COUNT


@pytest.mark.parametrize("bad", ["", ".hidden", "a/b", "..", "a\\b", "a\x00b", "x" * 300, "\udcff", "a*b"])
def test_a_name_that_no_store_can_hold_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(InputError, match="cannot name a collection"):
        store.create(bad, CollectionSpec(vector_size=DIMS, metadata={}))


@pytest.mark.parametrize(
    "call",
    [
        lambda store, name: store.upsert(name, [StoredPoint(IDS[0], VECTORS[0], {})]),
        lambda store, name: store.upsert(name, []),
        lambda store, name: store.query(name, VECTORS[0], limit=1, filter=None),
        lambda store, name: store.fetch(name, IDS[:1], with_vectors=False),
        lambda store, name: store.scroll(name, filter=None, limit=1, after=None),
        lambda store, name: store.delete(name, IDS[:1]),
        lambda store, name: store.count(name, None),
        lambda store, name: store.optimize(name),
        lambda store, name: store.create_payload_index(name, "n", "integer"),
    ],
    ids=["upsert", "upsert nothing", "query", "fetch", "scroll", "delete", "count", "optimize", "index"],
)
def test_an_unknown_collection_is_named(store: Store, name: str, call: Callable[[Store, str], None]) -> None:
    with pytest.raises(CollectionNotFoundError, match=name):
        call(store, name)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("color", "keyword"),
        ("shop.city", "keyword"),
        ("offers[].price", "integer"),
        ("n", "integer"),
        ("price", "float"),
        ("sale", "bool"),
        ("added", "datetime"),
        ("title", "text"),
        ("sku", "uuid"),
        ("place", "geo"),
    ],
)
def test_an_index_changes_no_answer(store: Store, gallery: str, key: str, kind: str) -> None:
    store.create_payload_index(gallery, key, kind)
    store.create_payload_index(gallery, key, kind)
    for filter, holds in FILTERS.values():
        assert store.count(gallery, filter) == sum(holds(payload) for payload in PAYLOADS)


def test_an_unknown_kind_of_index_is_refused(store: Store, standing: str) -> None:
    with pytest.raises(InputError, match="keyword, integer"):
        store.create_payload_index(standing, "n", "magic")


@pytest.mark.parametrize("path", ["", "a b", "a..b", "a["])
def test_an_index_on_a_path_that_cannot_be_read_is_refused(store: Store, standing: str, path: str) -> None:
    with pytest.raises(InputError, match="which Qdrant cannot read"):
        store.create_payload_index(standing, path, "keyword")


def test_optimizing_changes_no_answer(store: Store, gallery: str) -> None:
    before = store.query(gallery, VECTORS[0], limit=COUNT, filter=None)
    store.optimize(gallery)
    after = store.query(gallery, VECTORS[0], limit=COUNT, filter=None)
    assert [(hit.point_id, hit.payload) for hit in after] == [(hit.point_id, hit.payload) for hit in before]
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-6)
