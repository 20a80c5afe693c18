"""Top-K files of the original code: the released numbers come out, ours can be read back, and nothing is executed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from typer.testing import CliRunner  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.checkpoints.label_files import LabelFile, read_label_file, recall_of, write_label_file  # noqa: E402
from onnx_export.checkpoints.label_runs import label_run  # noqa: E402
from onnx_export.errors import CheckpointError, LabelFileError  # noqa: E402
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart, EvaluationQuery  # noqa: E402
from qdrant_cir.evaluation.metrics import Recall, Truth  # noqa: E402
from qdrant_cir.evaluation.runs.rankings import QueryRecord, ScoredImage, StageScores  # noqa: E402
from qdrant_cir.evaluation.runs.run_file import RunHeader, append_records, open_run  # noqa: E402
from qdrant_cir.indexing.sources import ImageRecord  # noqa: E402
from qdrant_cir.types import GalleryImage, Timings  # noqa: E402

# Three queries over five images. Targets: b is first, d is third, e is not among three.
NAMES = np.array([["b", "a", "c"], ["a", "b", "d"], ["c", "a", "b"]])
TARGETS = ("b", "d", "e")


def table() -> LabelFile:
    return LabelFile(np.array(TARGETS)[:, None] == NAMES, NAMES, TARGETS, tuple("abcde"), "val", "dress")


def test_the_released_labels_give_the_published_recall(shared_data: Path) -> None:
    content = read_label_file(shared_data / "paper" / "fiq_stageII_labels_val_dress.pt")
    assert content.labels.shape == (2017, 200)
    assert content.names is None
    recall = recall_of(content, (10, 50))
    assert {name: round(100 * value, 2) for name, value in recall.items()} == {"R@10": 47.89, "R@50": 71.44}


def test_the_command_prints_them(shared_data: Path) -> None:
    file = shared_data / "paper" / "fiq_stageII_labels_val_dress.pt"
    result = CliRunner().invoke(app, ["labels", "score", str(file)])
    assert result.output.splitlines() == ["2017 queries, 200 places each", "R@10   47.89", "R@50   71.44"]


def test_a_file_that_was_written_is_read_back(tmp_path: Path) -> None:
    write_label_file(tmp_path / "top.pt", table())
    content = read_label_file(tmp_path / "top.pt")
    assert content.names is not None
    assert content.names.tolist() == NAMES.tolist()
    assert content.labels.tolist() == [[True, False, False], [False, False, True], [False, False, False]]
    assert (content.target_names, content.index_names) == (TARGETS, tuple("abcde"))
    assert (content.split, content.category) == ("val", "dress")
    assert recall_of(content, (1, 3)) == {"R@1": pytest.approx(1 / 3), "R@3": pytest.approx(2 / 3)}


def test_the_file_has_the_keys_and_types_that_the_original_reads(tmp_path: Path) -> None:
    write_label_file(tmp_path / "top.pt", table())
    value = torch.load(tmp_path / "top.pt", weights_only=False)  # our own file, as the original reads it
    assert set(value) == {"sorted_index_names", "target_names", "index_names", "labels", "split", "dress_types"}
    assert value["sorted_index_names"][:, :2].shape == (3, 2)
    assert value["sorted_index_names"][1].tolist() == ["a", "b", "d"]
    assert value["labels"][:, :2].numpy().dtype == np.bool_
    assert value["dress_types"] == "dress"


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_label_file_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    hidden = np.array([RunsCode(tmp_path / "ran")], dtype=object)
    torch.save({"sorted_index_names": hidden, "labels": torch.ones(1, 1, dtype=torch.bool)}, tmp_path / "top.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        read_label_file(tmp_path / "top.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"labels": torch.ones(2, 2, dtype=torch.bool)}, "should hold sorted_index_names and labels"),
        (torch.ones(2, 2), r"should be bool \[Q, K\]; they are torch\.float32 \[2, 2\]"),
        ([1, 2], "it holds list"),
        (
            {"sorted_index_names": NAMES, "labels": torch.ones(3, 2, dtype=torch.bool)},
            r"names \[3, 3\], labels \[3, 2\]",
        ),
        (
            {
                "sorted_index_names": NAMES,
                "labels": torch.zeros(3, 3, dtype=torch.bool),
                "target_names": list(TARGETS),
            },
            "not where the targets stand",
        ),
    ],
)
def test_what_is_no_label_file_is_refused_with_what_it_is(tmp_path: Path, value: object, message: str) -> None:
    torch.save(value, tmp_path / "top.pt")
    with pytest.raises(LabelFileError, match=message):
        read_label_file(tmp_path / "top.pt")


def test_recall_beyond_the_last_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match=r"R@4 cannot be read from 3 queries with 3 places"):
        recall_of(table(), (4,))


def test_labels_alone_are_not_written_for_stage_two(tmp_path: Path) -> None:
    content = LabelFile(table().labels, None, (), (), "", "")
    with pytest.raises(LabelFileError, match="needs the images' names"):
        write_label_file(tmp_path / "top.pt", content)


def record(query_id: str, retrieved: str, reranked: str, subset: str = "") -> QueryRecord:
    """A record whose scores fall in the order of the letters."""

    def scored(names: str) -> tuple[ScoredImage, ...]:
        return tuple(ScoredImage(name, 1.0 - place / 10) for place, name in enumerate(names))

    return QueryRecord(
        query_id=query_id,
        gallery=StageScores(scored(retrieved), scored(reranked)),
        subset=StageScores(scored(subset), ()) if subset else None,
        timings=Timings(0, 0, 0, 0, 0, 0),
        notes=(),
    )


def benchmark(name: str, split: str, part: str) -> Benchmark:
    gallery = tuple(ImageRecord(letter, f"{letter}.png", payload={}, source=None) for letter in "abcde")
    queries = tuple(EvaluationQuery(f"{n}", GalleryImage("a"), "but red") for n in range(3))
    truth = {f"{n}": Truth(frozenset({target})) for n, target in enumerate(TARGETS)}
    return Benchmark(name, split, (EvaluationPart(part, queries, gallery, False),), {part: truth}, (Recall(1),))


def write_run(path: Path, name: str, split: str, part: str, records: list[QueryRecord]) -> Path:
    open_run(path, RunHeader(name, split, part, "f" * 64, 3, 2, False, 3, "", 5, ""))
    append_records(path, records)
    return path


def test_a_run_becomes_a_file_in_the_order_of_either_stage(tmp_path: Path) -> None:
    records = [record("1", "abd", "ba"), record("0", "bac", "ab"), record("2", "cab", "ac")]
    run = write_run(tmp_path / "run.jsonl", "fashioniq", "original", "dress", records)
    data = benchmark("fashioniq", "original", "dress")
    one = label_run(run, data)
    assert one.names is not None
    assert one.names.tolist() == NAMES.tolist()
    assert one.labels.tolist() == table().labels.tolist()
    assert (one.target_names, one.index_names, one.split, one.category) == (TARGETS, tuple("abcde"), "val", "dress")
    two = label_run(run, data, stage="two", depth=2)
    assert two.names is not None
    assert two.names.tolist() == [["a", "b"], ["b", "a"], ["a", "c"]]


def test_subsets_of_cirr_are_labelled_in_their_own_order(tmp_path: Path) -> None:
    records = [record("0", "bac", "", "abc"), record("1", "abd", "", "dab"), record("2", "cab", "", "abe")]
    run = write_run(tmp_path / "run.jsonl", "cirr", "val", "val", records)
    content = label_run(run, benchmark("cirr", "val", "val"))
    assert content.group_labels is not None
    assert content.group_labels.tolist() == [[False, True, False], [True, False, False], [False, False, True]]
    write_label_file(tmp_path / "top.pt", content)
    read = read_label_file(tmp_path / "top.pt").group_labels
    assert read is not None
    assert read.tolist() == content.group_labels.tolist()


def test_a_run_that_cannot_fill_the_table_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", "cirr", "val", "val", [record("0", "bac", ""), record("1", "ab", "")])
    data = benchmark("cirr", "val", "val")
    with pytest.raises(LabelFileError, match=r"Top-3 file needs 3 images.*query '1' has 2, and 2 have fewer"):
        label_run(run, data)
    with pytest.raises(LabelFileError, match="is of cirr val val; the data set is fashioniq original"):
        label_run(run, benchmark("fashioniq", "original", "dress"))


def test_the_command_turns_a_run_over_a_real_layout_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "captions").mkdir()
    (tmp_path / "image_splits").mkdir()
    for category in ("dress", "shirt", "toptee"):
        entries = [{"candidate": "a", "target": target, "captions": ["is red", "has sleeves"]} for target in TARGETS]
        (tmp_path / "captions" / f"cap.{category}.val.json").write_text(json.dumps(entries))
        (tmp_path / "image_splits" / f"split.{category}.val.json").write_text(json.dumps(list("abcde")))
    records = [record("0", "bac", ""), record("1", "abd", ""), record("2", "cab", "")]
    run = write_run(tmp_path / "run.jsonl", "fashioniq", "original", "dress", records)
    out = tmp_path / "fiq_top_3_val_dress.pt"
    result = CliRunner().invoke(
        app, ["labels", "from-run", str(run), "--benchmark", "fashioniq", "--root", str(tmp_path), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert recall_of(read_label_file(out), (1,)) == {"R@1": pytest.approx(1 / 3)}
