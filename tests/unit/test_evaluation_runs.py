"""Runs: completed where they were cut off, refused where they are of something else, blind to the answers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from qdrant_cir.errors import EvaluationError
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart, EvaluationQuery, gallery_record
from qdrant_cir.evaluation.evaluate import EvaluationSettings, evaluate
from qdrant_cir.evaluation.metrics import Recall, Truth
from qdrant_cir.evaluation.runs.answering import complete_run, queries_sha256
from qdrant_cir.evaluation.runs.rankings import answer_reranked, answer_retrieved, record_of
from qdrant_cir.evaluation.runs.run_file import RunHeader, append_records, open_run, read_run
from qdrant_cir.indexer import Indexer
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import Candidate, GalleryImage, Query, SearchResult, Timings

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {
    "blue": (0, 0, 255),
    "pale": (96, 96, 160),
    "navy": (0, 0, 128),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
}
QUERIES = tuple(
    EvaluationQuery(f"to {word}", GalleryImage("red"), f"make it {word}")
    for word in ("blue", "green", "white", "black", "red")
)
HEADER = RunHeader(
    benchmark="colors",
    split="all",
    part="all",
    bundle="tiny",
    limit=6,
    rerank_depth=4,
    excludes_reference=False,
    queries=len(QUERIES),
    queries_sha256="",
    gallery=len(COLORS),
    gallery_sha256="",
)


@pytest.fixture
def pictures(
    tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]
) -> Mapping[str, Path]:
    return dict(zip(COLORS, write_solid_images(tmp_path / "pictures", COLORS), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeStore]:
    with EdgeStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def retriever(store: EdgeStore, bundle: Bundle, pictures: Mapping[str, Path]) -> Retriever:
    collection = Collection.create(store, "colors", bundle)
    records = [gallery_record(name, path) for name, path in pictures.items()]
    Indexer(collection, ImageEncoder.open(bundle, Compute("cpu")), bundle).index(records)
    return Retriever.open("colors", store=store, bundle=bundle.folder, provider="cpu")


def answers(path: Path) -> list[object]:
    """Give the lines of a run without the seconds that they took."""
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [{key: value for key, value in line.items() if key != "timings"} for line in lines]


def test_a_record_ranks_as_the_retriever_did(retriever: Retriever) -> None:
    for query in QUERIES:
        asked = Query(query.reference, query.modification_text)
        result = retriever.search(asked, limit=6, rerank_depth=4)
        record = record_of(query.query_id, result, None)
        assert answer_reranked(record).ranking == tuple(c.image_id for c in result.candidates)
        alone = retriever.search(asked, limit=6, rerank_depth=0)
        assert answer_retrieved(record).ranking == tuple(c.image_id for c in alone.candidates)


def test_a_run_read_back_is_the_run_that_was_written(retriever: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    written = complete_run(retriever, QUERIES, path=path, header=HEADER)
    assert read_run(path) == (HEADER, written)
    assert list(written) == [query.query_id for query in QUERIES]


def test_a_run_that_was_cut_off_goes_on_where_it_was(retriever: Retriever, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    complete_run(retriever, QUERIES, path=whole, header=HEADER)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete_run(retriever, QUERIES, path=cut, header=HEADER, batch=1, progress=interrupt)
    before = cut.read_text()
    assert len(before.splitlines()) == 1 + 2
    seen: list[int] = []
    complete_run(retriever, QUERIES, path=cut, header=HEADER, batch=1, progress=lambda done, total: seen.append(done))
    assert seen == [3, 4, 5]
    assert cut.read_text().startswith(before)
    assert answers(cut) == answers(whole)


def test_a_line_that_was_cut_off_is_answered_again(retriever: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    complete_run(retriever, QUERIES, path=path, header=HEADER)
    expected = answers(path)
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    complete_run(retriever, QUERIES, path=path, header=HEADER)
    assert answers(path) == expected
    # even the first line may be torn
    path.write_bytes(content[:20])
    complete_run(retriever, QUERIES, path=path, header=HEADER)
    assert answers(path) == expected


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (replace(HEADER, bundle="other"), "bundle 'tiny' instead of 'other'"),
        (replace(HEADER, rerank_depth=3), "rerank_depth 4 instead of 3"),
        (replace(HEADER, queries_sha256="1"), "queries_sha256"),
    ],
)
def test_a_run_of_something_else_is_not_continued(tmp_path: Path, changed: RunHeader, complaint: str) -> None:
    path = tmp_path / "run.jsonl"
    open_run(path, HEADER)
    with pytest.raises(EvaluationError, match=complaint):
        open_run(path, changed)


def test_a_query_answered_twice_is_refused(retriever: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    records = complete_run(retriever, QUERIES, path=path, header=HEADER)
    append_records(path, [records["to blue"]])
    with pytest.raises(EvaluationError, match="answers the query 'to blue' a second time"):
        read_run(path)


def test_an_answer_to_an_unknown_query_is_refused(retriever: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    complete_run(retriever, QUERIES, path=path, header=HEADER)
    with pytest.raises(EvaluationError, match=r"1 are not of this data set \(to blue\)"):
        complete_run(retriever, QUERIES[1:], path=path, header=HEADER)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "is empty"),
        ("{}\n", "does not begin with a valid header"),
        ('{"format": 9, "run": {}}\n', "has the format 9"),
        (
            json.dumps({"format": 1, "run": dataclasses.asdict(HEADER)}) + '\n{"a": 1}\n',
            "line 2 is not an answer",
        ),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(line)
    with pytest.raises(EvaluationError, match=complaint):
        read_run(path)


def candidate(image_id: str, rank: int, score: float | None) -> Candidate:
    return Candidate(image_id, {}, None, 1.0 / rank, rank, score, None)


def test_scores_that_give_no_order_are_refused() -> None:
    zero = Timings(0, 0, 0, 0, 0, 0)
    for candidates, complaint in (
        ((candidate("a", 1, math.nan),), "which cannot be ranked"),
        ((candidate("a", 1, 2.0), candidate("a", 2, 1.0)), "is in the ranking 2 times"),
    ):
        with pytest.raises(EvaluationError, match=complaint):
            record_of("q", SearchResult(candidates, zero, "full", ()), None)


def test_candidates_that_stage_two_could_not_read_give_no_number(
    retriever: Retriever, store: EdgeStore, tmp_path: Path
) -> None:
    from qdrant_cir.storage.points import point_id_of

    store.delete("colors__tokens", [point_id_of("pale")])
    with pytest.raises(EvaluationError, match=r"1 candidates have no valid tokens \(pale\)"):
        complete_run(retriever, QUERIES[:1], path=tmp_path / "run.jsonl", header=HEADER)


def benchmark(pictures: Mapping[str, Path], truth: Mapping[str, Truth]) -> Benchmark:
    gallery = tuple(gallery_record(name, path) for name, path in pictures.items())
    part = EvaluationPart("all", QUERIES, gallery, excludes_reference=False)
    return Benchmark("colors", "all", (part,), {"all": truth}, (Recall(1), Recall(6)))


def test_the_ranker_cannot_see_the_targets(
    store: EdgeStore, bundle: Bundle, pictures: Mapping[str, Path], tmp_path: Path
) -> None:
    """Whatever is right, the run is the same, and nothing that runs it is given an answer."""
    settings = EvaluationSettings(rerank_depth=4, provider="cpu")
    runs = []
    for name, targets in (("true", "blue"), ("false", "green"), ("unknown", None)):
        truth = {} if targets is None else {q.query_id: Truth(frozenset({targets})) for q in QUERIES}
        evaluate(benchmark(pictures, truth), store=store, bundle=bundle, out=tmp_path / name, settings=settings)
        runs.append(answers(tmp_path / name / "runs" / "all_all_4.jsonl"))
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == len(QUERIES)
    source = inspect.getsource(inspect.getmodule(complete_run))  # type: ignore[arg-type]
    assert "Truth" not in source
    collection = Collection.open(store, "colors_all_all", bundle)
    assert {json.dumps(image.payload) for image in collection.known(list(COLORS)).values()} == {"{}"}


def test_the_digest_of_the_queries_changes_with_what_is_asked() -> None:
    part = EvaluationPart("all", QUERIES, None, excludes_reference=False)
    other = replace(part, queries=(replace(QUERIES[0], modification_text="make it red"), *QUERIES[1:]))
    assert queries_sha256(part) != queries_sha256(other)
    assert queries_sha256(part) == queries_sha256(replace(part, name="another"))
