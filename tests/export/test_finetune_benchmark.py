"""The fine-tuning benchmark: what the colour card does to texts, gains by hand, and a tiny run of the whole."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from benchmarks.color_card import CARD_NAMES, say_by_card
from benchmarks.finetune import _parser, compare, main
from onnx_export.training.drawn.tokenizer import build_tokenizer
from qdrant_cir.drawn.dataset import _plan, sample_drawn
from qdrant_cir.drawn.wording import COLOR_WORDS


def test_every_colour_has_one_name_on_the_card_whatever_it_is_called() -> None:
    names = {frozenset(say_by_card(word) for word in words) for words in COLOR_WORDS.values()}
    assert all(len(of_one_colour) == 1 for of_one_colour in names)
    assert len(names) == len(COLOR_WORDS) == 12


def test_the_longest_word_for_a_colour_is_replaced_and_articles_follow() -> None:
    assert say_by_card("navy blue sleeves and not pink ones") == "dark 1 sleeves and not light 2 ones"
    assert say_by_card("with an orange brim") == "with a golden 2 brim"


def test_every_word_of_the_card_is_one_that_the_bundled_model_knows() -> None:
    tokenizer = build_tokenizer()
    queries = sample_drawn(3, products=600, queries=100).queries
    texts = [say_by_card(text) for query in queries for text in (query.modification_text, query.paraphrase)]
    assert not any("[UNK]" in encoding.tokens for encoding in tokenizer.encode_batch(texts))
    assert sum(any(name in text for name in CARD_NAMES.values()) for text in texts) > 100


def test_gains_are_paired_and_wordings_stand_apart(tmp_path: Path) -> None:
    def write(name: str, hits: dict[str, list[tuple[int, int]]]) -> Path:
        lines = [
            {"query_id": f"{number} {wording}", "labels": [wording]}
            | {stage: {"R@1": float(hit), "R@10": 1.0} for stage, hit in zip(("retrieved", "final"), pair, strict=True)}
            for wording, pairs in hits.items()
            for number, pair in enumerate(pairs)
        ]
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return path

    before = write("before", {"card": [(0, 0), (0, 1), (0, 0), (1, 0)], "ordinary": [(1, 1)] * 4})
    after = write("after", {"card": [(1, 1), (0, 1), (0, 1), (1, 1)], "ordinary": [(0, 1)] * 4})
    rows = {(row.wording, row.metric): row for row in compare(before, after)}

    card = rows["card", "R@1"]
    assert [level.value for level in card.levels.values()] == [25, 25, 50, 100]
    assert [gain.value for gain in card.gains.values()] == [25, 75, 0, 50]
    assert rows["ordinary", "R@1"].gains["stage one, after - before"].high == -100
    assert {gain.value for gain in rows["card", "R@10"].gains.values()} == {0}


def test_the_catalogues_that_it_draws_without_options_hold_their_queries() -> None:
    asked = _parser().parse_args(["--out", "out"])
    _plan(asked.products, asked.queries)  # raises where they do not fit
    _plan(asked.test_products, asked.test_queries)


def test_a_run_goes_from_drawn_pictures_to_its_table_and_is_not_run_twice(tmp_path: Path) -> None:
    command = ["--out", str(tmp_path / "out"), "--products", "300", "--queries", "60", "--test-products", "60"]
    command += ["--test-queries", "4", "-K", "10", "--steps-one", "2", "--steps-two", "2", "--evaluate-every", "2"]
    command += ["--held-out", "0.4"]
    main(command)
    found = json.loads((tmp_path / "out" / "finetune.json").read_text(encoding="utf-8"))
    main(command)
    again = json.loads((tmp_path / "out" / "finetune.json").read_text(encoding="utf-8"))

    assert [(row["wording"], row["metric"], row["queries"]) for row in found["rows"]] == [
        ("card", "R@1", 4),
        ("card", "R@10", 4),
        ("ordinary", "R@1", 4),
        ("ordinary", "R@10", 4),
    ]
    assert [step["command"].split()[0] for step in found["steps"][1:]] == [
        "qdrant-cir",
        "python",
        "python",
        "qdrant-cir",
    ]
    assert found["steps"][1:] == again["steps"][1:]
    assert "| by the card | R@10 |" in (tmp_path / "out" / "finetune.md").read_text(encoding="utf-8")
