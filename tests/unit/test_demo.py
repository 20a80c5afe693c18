"""The demonstration shows where re-ranking wins and where it fails, and says how often each is."""

from __future__ import annotations

import shlex
from pathlib import Path

from typer.testing import CliRunner

from qdrant_cir.cli.app import app
from qdrant_cir.cli.demo import serve_command
from qdrant_cir.drawn.dataset import DrawnQuery
from qdrant_cir.drawn.demonstration import DemoAnswer, choose_answers, summarise_answers
from qdrant_cir.types import SearchResult, Timings

NOTHING = SearchResult((), Timings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "none", ())


def answer(kind: str, before: int, after: int, reference: str = "p0") -> DemoAnswer:
    query = DrawnQuery(f"{kind}{before}{after}", reference, "in red", kind, ("p1",), "p1", "red", False)
    return DemoAnswer(query, NOTHING, before, after)


def places(answers: list[DemoAnswer]) -> list[tuple[int | None, int | None]]:
    return [(each.place_before, each.place_after) for each in answers]


def test_five_wins_of_as_many_kinds_as_there_are_and_last_a_failure_are_shown() -> None:
    kinds = ("add", "remove", "swap", "two")
    every = [
        answer(kind, before, after) for kind in kinds for before, after in ((1, 1), (3, 2), (4, 1), (1, 2), (2, 1))
    ]
    chosen = choose_answers(every)
    assert places(chosen) == [(4, 1)] * 4 + [(2, 1), (3, 2)]
    assert [each.query.kind for each in chosen[:4]] == list(kinds)


def test_where_few_are_won_those_that_stage_one_does_not_answer_are_shown_before_the_others() -> None:
    assert places(choose_answers([answer("swap", 1, 1), answer("swap", 5, 3)])) == [(5, 3), (1, 1)]


def test_another_reference_is_preferred_to_one_that_was_shown() -> None:
    every = [answer("swap", 2, 1, "a"), answer("swap", 3, 1, "a"), answer("swap", 4, 1, "b")]
    assert [each.query.reference_id for each in choose_answers(every)] == ["a", "b", "a"]


def test_the_sentence_counts_all_queries() -> None:
    summary = summarise_answers(
        [answer("swap", 1, 1), answer("swap", 1, 2), answer("swap", 3, 1), answer("swap", 2, 2)]
    )
    assert summary.sentence.startswith(
        "Of all 4 queries 2 have the right product first when retrieved and 2 after re-ranking, which brings 1 to the "
        "top and takes 1 from there."
    )


def test_the_command_that_shows_the_page_is_one_that_the_command_line_takes() -> None:
    program, *arguments = shlex.split(serve_command(Path("my demo")))
    assert program.endswith("qdrant-cir")
    assert str(Path("my demo") / "store") in arguments
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--no-such-option", "--help"]).exit_code != 0
