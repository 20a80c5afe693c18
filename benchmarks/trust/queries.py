"""Odd texts and filters: each is answered or refused with a named error, alike in every store, and quickly.

``python -m benchmarks.trust.queries [--count 6000] [--seed 0] [--bundle FOLDER]``; the last line is JSON. A third are
texts of a query, a third conditions of the command line, a third filters of qdrant-client. The exit code is 1 where an
error was raw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from qdrant_client import models

import qdrant_cir
from qdrant_cir import CirError
from qdrant_cir.cli.filters import parse_filters

__all__ = ["count_outcomes", "main"]

_ANY = st.characters(codec=None, categories=None)
_KEYS = st.one_of(
    st.sampled_from(
        ["n", "tags", "size.cm", "tags[]", "a.b[0].c", '"my field"', "", ".", "[", "n\0", "\ud800", "_cir.id"]
    ),
    st.text(_ANY, max_size=8),
)
_INTS = st.one_of(st.integers(), st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400]))
_FLOATS = st.floats()
_WORDS = st.one_of(st.text(_ANY, max_size=10), st.sampled_from(["", "\ud800", "a" * 10_000, "\0"]))


def filters() -> st.SearchStrategy[Callable[[], Any]]:
    """Return what makes filters; qdrant-client may refuse to."""
    m = models
    points = st.builds(lambda lon, lat: {"lon": lon, "lat": lat}, _FLOATS, _FLOATS)
    lines = st.builds(lambda each: {"points": each}, st.lists(points, max_size=5))
    tests: st.SearchStrategy[Callable[[], dict[str, Any]]] = st.one_of(
        st.builds(lambda v: lambda: {"match": m.MatchValue(value=v)}, st.one_of(_INTS, _WORDS, st.booleans(), _FLOATS)),
        st.builds(lambda v: lambda: {"match": m.MatchAny(any=v)}, st.lists(st.one_of(_INTS, _WORDS), max_size=4)),
        st.builds(lambda v: lambda: {"match": m.MatchExcept(**{"except": v})}, st.lists(_WORDS, max_size=4)),
        st.builds(lambda v: lambda: {"match": m.MatchText(text=v)}, _WORDS),
        st.builds(lambda a, b: lambda: {"range": m.Range(gt=a, lte=b)}, _FLOATS, st.one_of(st.none(), _FLOATS)),
        st.builds(lambda a: lambda: {"range": m.DatetimeRange(gte=a)}, st.one_of(st.datetimes(), _WORDS)),
        st.builds(lambda a, b: lambda: {"values_count": m.ValuesCount(gt=a, lt=b)}, _INTS, _INTS),
        st.builds(lambda p, r: lambda: {"geo_radius": m.GeoRadius(center=p, radius=r)}, points, _FLOATS),
        st.builds(
            lambda a, b: lambda: {"geo_bounding_box": m.GeoBoundingBox(top_left=a, bottom_right=b)}, points, points
        ),
        st.builds(
            lambda a, b: lambda: {"geo_polygon": m.GeoPolygon(exterior=a, interiors=b)},
            lines,
            st.lists(lines, max_size=2),
        ),
        st.builds(lambda a: lambda: {"is_null": a, "is_empty": a}, st.booleans()),
        st.just(dict),
    )
    conditions: st.SearchStrategy[Callable[[], Any]] = st.one_of(
        st.builds(lambda key, test: lambda: m.FieldCondition(key=key, **test()), _KEYS, tests),
        st.builds(
            lambda ids: lambda: m.HasIdCondition(has_id=ids),
            st.lists(st.one_of(_INTS, st.uuids().map(str)), max_size=3),
        ),
        st.builds(lambda key: lambda: m.HasVectorCondition(has_vector=key), _KEYS),
        st.builds(lambda key: lambda: m.IsEmptyCondition(is_empty=m.PayloadField(key=key)), _KEYS),
        st.builds(lambda key: lambda: m.IsNullCondition(is_null=m.PayloadField(key=key)), _KEYS),
    )

    def joined(inner: st.SearchStrategy[Callable[[], Any]]) -> st.SearchStrategy[Callable[[], Any]]:
        clause = st.lists(inner, max_size=3)
        return st.one_of(
            st.builds(
                lambda a, b, c: (
                    lambda: m.Filter(
                        must=[each() for each in a], should=[each() for each in b], must_not=[each() for each in c]
                    )
                ),
                clause,
                clause,
                clause,
            ),
            st.builds(
                lambda key, each: lambda: m.NestedCondition(nested=m.Nested(key=key, filter=m.Filter(must=[each()]))),
                _KEYS,
                inner,
            ),
            st.builds(
                lambda a, n: lambda: m.Filter(min_should=m.MinShould(conditions=[each() for each in a], min_count=n)),
                clause,
                _INTS,
            ),
        )

    whole = joined(st.recursive(conditions, joined, max_leaves=6))

    def deep(levels: int) -> Callable[[], Any]:
        def made() -> Any:  # noqa: ANN401
            filter = m.Filter(must=[m.FieldCondition(key="n", match=m.MatchValue(value=1))])
            for _ in range(levels):
                filter = m.Filter(should=[filter])
            return filter

        return made

    return st.one_of(whole, st.sampled_from([60, 70, 150, 500]).map(deep))


def count_outcomes(count: int, seed_number: int, bundle: str) -> tuple[Counter[str], Counter[str], float]:
    """Ask.

    Returns:
        How many were ``answered``, ``refused``, could not be ``made`` with qdrant-client, or were ``raw``; the raw
        errors; the longest seconds of one.
    """
    outcomes: Counter[str] = Counter(answered=0, refused=0, raw=0)
    raw: Counter[str] = Counter()
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        payloads = [{"n": n, "tags": ["a", "b"][: n % 3], "size": {"cm": n * 1.5}, "my field": n > 2} for n in range(6)]
        records = [
            qdrant_cir.ImageRecord(f"p{n}", Image.new("RGB", (16, 16), (n * 40, 0, 0)), payload, None)
            for n, payload in enumerate(payloads)
        ]
        galleries = [
            qdrant_cir.Gallery.create("queries", store=store, bundle=bundle, provider="cpu")
            for store in (Path(folder, "store"), ":memory:")
        ]
        for gallery in galleries:
            gallery.index(records)

        @seed(seed_number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def ask(data: st.DataObject) -> None:
            nonlocal longest
            gallery = data.draw(st.sampled_from(galleries))
            kind = data.draw(st.sampled_from(["text", "command line", "filter"]))
            if kind == "text":
                text = data.draw(
                    st.one_of(st.text(_ANY, max_size=200), st.text(_ANY, max_size=4).map(lambda part: part * 100_000))
                )
                asked: Callable[[], Any] = lambda: gallery.search(records[0].image, text, must_not=text[:9], limit=3)  # noqa: E731
            elif kind == "command line":
                lines = data.draw(
                    st.lists(
                        st.one_of(
                            st.builds(
                                lambda key, sign, value: key + sign + value,
                                _KEYS,
                                st.sampled_from(["=", "!=", ">", "<=", ">=", "<", "==", "", "=["]),
                                st.one_of(_WORDS, st.integers().map(str)),
                            ),
                            st.text(_ANY, max_size=4).map(lambda part: part * 20_000),
                        ),
                        max_size=3,
                    )
                )
                asked = lambda: gallery.count(parse_filters(lines))  # noqa: E731
            else:
                made = data.draw(filters())
                try:
                    filter = made()
                except (ValidationError, ValueError, OverflowError):
                    outcomes["not made"] += 1
                    return
                by_count = data.draw(st.booleans())
                asked = (
                    (lambda: gallery.count(filter)) if by_count else lambda: gallery.search(None, "red", filter=filter)
                )
            started = time.perf_counter()
            try:
                asked()
                outcome = "answered"
            except CirError:
                outcome = "refused"
            except Exception as error:
                outcome = "raw"
                raw[f"{kind}: {type(error).__name__}: {str(error)[:100]!a}"] += 1
            longest = max(longest, time.perf_counter() - started)
            outcomes[outcome] += 1

        ask()
        for gallery in galleries:
            gallery.drop()
            gallery.close()
    return outcomes, raw, longest


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", default="drawn")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes, raw, longest = count_outcomes(arguments.count, arguments.seed, arguments.bundle)
    for place, times in raw.most_common():
        print(f"{times:6} {place}")
    print(json.dumps({**outcomes, "longest_seconds": round(longest, 2)}))
    raise SystemExit(outcomes["raw"] > 0)


if __name__ == "__main__":
    main()
