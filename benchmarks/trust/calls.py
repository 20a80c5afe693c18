"""Public calls with wrong arguments: each works or is refused with a named error, and nothing else.

``python -m benchmarks.trust.calls [--count 20000] [--seed 0] [--bundle FOLDER]``; the last line is JSON.
The exit code is 1 where an error was raw. Every call has its own parameters, read from its signature, of which
hypothesis replaces one to three by what is of another type, out of range, or no text.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import inspect
import io
import json
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from qdrant_client import QdrantClient, models

import qdrant_cir
from qdrant_cir import CirError

__all__ = ["count_outcomes", "main"]


class Number(enum.IntEnum):
    """An int that is not one."""

    SEVEN = 7


class Word(str, enum.Enum):  # noqa: UP042 - not the same class
    """A text that is not one."""

    RED = "red"


class Strange(int):
    """An int of which hash and comparison fail."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Call:
    """A public call and arguments with which it works."""

    name: str
    function: Callable[..., Any]
    good: Mapping[str, Callable[[], Any]]
    is_async: bool = False


def odd_values() -> st.SearchStrategy[Any]:
    """Return what a caller may give by mistake."""
    nested: Any = 1
    for _ in range(500):
        nested = [nested]
    wide: Any = {"a": 1}
    for _ in range(200):
        wide = {"a": wide}
    fixed: list[Any] = [
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 0.0, -0.5, 1.5, 1e308, math.inf,
        -math.inf, math.nan, 1j, Fraction(1, 3), "", " ", "\0", "\ud800", "a\udfffb", "x" * 5_000, "\x1b[2J", "../..",
        "http://", "http://localhost:1", "https://[::1", "file:///etc", ":memory:", "a.b[].c", "[", '"', "cir",
        "e\u0301",
        b"", b"\xff", bytearray(b"x"), memoryview(b"abc"), [], (), {}, set(), frozenset({1}), [None], ["a"], [1, "a"],
        [[]], {"a": 1}, {1: 2}, {"must": []}, {"must": [{"key": "n", "match": {"value": 2**70}}]}, nested, wide,
        object(),
        object, len, lambda: 1, range(3), iter([]), iter([1]), np.float32(1), np.int64(3), np.str_("n"), np.bool_(1),
        np.array(3), np.zeros((2, 2)), np.zeros((4, 4, 3), np.uint8), np.array(["a"], object), np.datetime64("NaT"),
        Number.SEVEN, Word.RED, Strange(3), UUID(int=0), UUID(int=2**128 - 1), Path(), Path("/nowhere/at/all"),
        Path("a\0b"), Path("\udcff"), io.BytesIO(b"x"), io.StringIO("x"), Image.new("RGB", (3, 3)),
        Image.new("F", (1, 1)),
        models.Filter(), models.Filter(must=[models.HasIdCondition(has_id=[2**70])]),
        models.FieldCondition(key="n", match=models.MatchValue(value=1)),
        models.Filter(must=[models.FieldCondition(key="n\ud800", match=models.MatchValue(value="\ud800"))]),
        models.SearchParams(hnsw_ef=-1), NotImplemented, ..., int, Exception("x"), Exception,
    ]  # fmt: skip
    drawn = st.one_of(
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None, categories=None), max_size=12),
        st.binary(max_size=12),
        st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), st.one_of(st.none(), st.integers()), max_size=2),
        st.datetimes(),
        st.decimals(),
        st.uuids(),
    )
    return st.one_of(st.sampled_from(range(len(fixed))).map(lambda place: fixed[place]), drawn)


def public_calls(folder: Path, bundle: str | None) -> list[Call]:
    """Return public calls on small galleries below a folder: our own, an attached one, and nothing at all."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for n in range(6):
        Image.new("RGB", (16, 16), (n * 40, 0, 250 - n * 40)).save(pictures / f"{n}.png")
    manifest = folder / "shop.csv"
    manifest.write_text("file,price\n" + "".join(f"pictures/{n}.png,{n}\n" for n in range(6)))
    places: dict[str, Any] = {"store": folder / "store", "bundle": bundle, "provider": "cpu"}
    own = qdrant_cir.Gallery.create("shop", **places)
    own.index(manifest)
    client = QdrantClient(":memory:")
    size = own.bundle.manifest.vector_size
    vectors = {name: models.VectorParams(size=size, distance=models.Distance.COSINE) for name in ("cir", "other")}
    client.create_collection("products", vectors)
    points = [models.PointStruct(id=n, vector={}, payload={"file": f"{n}.png", "n": n}) for n in range(6)]
    client.upsert("products", points)
    attached = qdrant_cir.attach(client, "products", picture="file", root=pictures, bundle=bundle, provider="cpu")
    attached.index()
    retriever = qdrant_cir.Retriever.open("shop", **places)
    indexer = qdrant_cir.Indexer.open("shop", **places)
    composed = own.compose(pictures / "1.png", "in red")
    known: dict[str, Callable[[], Any]] = {
        "self": lambda: None,
        "collection": lambda: "shop",
        "collection_name": lambda: "shop",
        "store": lambda: own.collection.store,
        "bundle": lambda: bundle,
        "provider": lambda: "cpu",
        "reference": lambda: pictures / "1.png",
        "references": lambda: [pictures / "1.png"],
        "text": lambda: "in red",
        "modification_text": lambda: "in red",
        "candidate": lambda: "pictures/2.png",
        "query": lambda: composed,
        "hits": lambda: ["pictures/1.png", "pictures/2.png"],
        "image_ids": lambda: ["no such image"],
        "image_id": lambda: "pictures/1.png",
        "payload": lambda: {"price": 3},
        "field": lambda: "price",
        "records": lambda: [qdrant_cir.ImageRecord("pictures/1.png", pictures / "1.png", {}, None)],
        "source": lambda: manifest,
        "path": lambda: manifest,
        "folder": lambda: pictures,
        "manifest": lambda: manifest,
        "picture": lambda: "file",
        "root": lambda: pictures,
        "url": lambda: "http://localhost:1",
        "result": lambda: own.search(pictures / "1.png", "in red", limit=2),
        "progress": lambda: None,
        "limits": qdrant_cir.PictureLimits,
        "address_limits": qdrant_cir.AddressLimits,
        "max_bytes": lambda: 1_000,
        "seconds": lambda: 1.0,
        "rerank_depth": lambda: 4,
        "retry_seconds": lambda: 0,
        "queries": lambda: [qdrant_cir.Query(pictures / "1.png", "in red")],
        "repair": lambda: False,
        "target": lambda: pictures / "2.png",
    }
    query = {"query": lambda: qdrant_cir.Query(pictures / "1.png", "in red")}
    calls: list[Call] = []

    def add(name: str, function: Callable[..., Any], over: Mapping[str, Callable[[], Any]] | None = None) -> None:
        good = {**known, **(over or {})}
        accepted = {
            each.name: good.get(each.name, (lambda default=each.default: default))
            for each in inspect.signature(function).parameters.values()
            if each.name in good or each.default is not inspect.Parameter.empty
        }
        calls.append(Call(name, function, accepted, inspect.iscoroutinefunction(function)))

    no_source = {"source": lambda: None}
    for door, gallery, over in (
        ("Gallery", own, {}),
        ("attached", attached, {**no_source, "image_ids": lambda: [77], "hits": lambda: [1, 2], "candidate": lambda: 2,
                                "query": lambda: attached.compose(pictures / "1.png", "in red"), "field": lambda: "n"}),
    ):  # fmt: skip
        twin = qdrant_cir.AsyncGallery(gallery)
        for method in ("index", "compose", "rerank", "search", "explain", "count", "delete", "set_payload", "check",
                       "create_payload_index"):  # fmt: skip
            add(f"{door}.{method}", getattr(gallery, method), over)
            add(f"Async {door}.{method}", getattr(twin, method), over)
    for method in ("search", "search_many", "compose", "rerank", "explain"):
        if hasattr(retriever, method):
            add(f"Retriever.{method}", getattr(retriever, method), {} if method == "rerank" else query)
    add("Indexer.index", indexer.index)
    add("Gallery.open", _closing(qdrant_cir.Gallery.open))
    add("Gallery.create", _closing(qdrant_cir.Gallery.create))
    add("Retriever.open", _closing(qdrant_cir.Retriever.open))
    add("Indexer.open", _closing(qdrant_cir.Indexer.open))
    add("attach", _closing(qdrant_cir.attach), {"store": lambda: client, "collection": lambda: "products"})
    add("connect", _closing(qdrant_cir.connect))
    add("load_bundle", qdrant_cir.load_bundle)
    add("read_folder", _listed(qdrant_cir.read_folder), {"path": lambda: pictures})
    add("read_images", _listed(qdrant_cir.read_images))
    add("read_manifest", _listed(qdrant_cir.read_manifest))
    add("Effort", qdrant_cir.Effort)
    add("PictureLimits", qdrant_cir.PictureLimits)
    add("AddressLimits", qdrant_cir.AddressLimits)
    add("Query", lambda reference=None, modification_text="", must_not="", weights=None, must_not_weight=0.5: (
        retriever.search(
            qdrant_cir.Query(reference, modification_text, must_not, weights, must_not_weight), limit=2, rerank_depth=2
        )
    ))  # fmt: skip
    add("GalleryImage", lambda image_id="pictures/1.png": own.search(qdrant_cir.GalleryImage(image_id), "red", limit=2))
    add("ImageRecord", lambda image_id="a", source=pictures / "1.png", payload={}, path=None: (
        own.index([qdrant_cir.ImageRecord(image_id, source, payload, path)])
    ))  # fmt: skip
    return calls


def _closing(function: Callable[..., Any]) -> Callable[..., Any]:
    def opened(**given: Any) -> None:  # noqa: ANN401
        function(**given).close()

    opened.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return opened


def _listed(function: Callable[..., Any]) -> Callable[..., Any]:
    def listed(**given: Any) -> None:  # noqa: ANN401
        list(function(**given))

    listed.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return listed


def count_outcomes(count: int, seed_number: int, bundle: str | None = None) -> tuple[Counter[str], Counter[str], float]:
    """Make calls.

    Returns:
        How many ``worked``, were ``refused`` or ``raw``; the raw errors by call, arguments and class; the longest
        seconds of one.
    """
    outcomes: Counter[str] = Counter(worked=0, refused=0, raw=0)
    raw: Counter[str] = Counter()
    longest = 0.0
    # odd texts are names of folders, which a store makes below the current one
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as current, chdir(current):
        folder = Path(place)
        calls = public_calls(folder, bundle)
        loop = asyncio.new_event_loop()

        @seed(seed_number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def make(data: st.DataObject) -> None:
            nonlocal longest
            call = data.draw(st.sampled_from(calls))
            names = data.draw(st.lists(st.sampled_from(sorted(call.good)), min_size=1, max_size=3, unique=True))
            odd = {name: data.draw(odd_values()) for name in names}
            given_now = {name: odd[name] if name in odd else good() for name, good in call.good.items()}
            started = time.perf_counter()
            outcome = "worked"
            try:
                made = call.function(**given_now)
                if call.is_async:
                    loop.run_until_complete(made)
            except CirError:
                outcome = "refused"
            except Exception as error:
                outcome = "raw"
                shown = ", ".join(f"{name}={_shown(value)}" for name, value in odd.items())
                raw[f"{call.name}({shown}): {type(error).__name__}: {str(error)[:90]!a}"] += 1
            longest = max(longest, time.perf_counter() - started)
            outcomes[outcome] += 1

        make()
        loop.close()
    return outcomes, raw, longest


def _shown(value: object) -> str:
    try:
        return ascii(value)[:60]
    except Exception:
        return type(value).__name__


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=20_000)
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
