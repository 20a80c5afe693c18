"""What commands print of names that others gave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdrant_cir.cli import printing
from qdrant_cir.indexing.report import FailedImage, IndexReport

REPORT = IndexReport(
    indexed=1,
    updated=0,
    unchanged=0,
    failed=(FailedImage("\x1b]0;owned\x07.jpg", "no \x1b[31m\npicture"), FailedImage("a\udcff.jpg", "no picture")),
    seconds=1.0,
    images_per_second=1.0,
    skipped={"": 1, ".txt": 2},
)


def test_a_report_holds_nothing_that_commands_a_terminal() -> None:
    text = printing.index_report_text("shop", REPORT, images=1)
    assert all(line.isprintable() for line in text.splitlines())
    assert r"failed: '\x1b]0;owned\x07.jpg': no \x1b[31m" in text
    assert "skipped files whose suffix is not one of a picture: 1 without one, 2 .txt" in text


def test_of_many_failures_a_report_lists_the_first_and_shortens_what_is_long() -> None:
    report = replace(REPORT, failed=tuple(FailedImage(f"{n}.jpg", "x" * 5000) for n in range(103)))
    lines = printing.index_report_text("shop", report, images=1).splitlines()
    assert sum("failed: " in line for line in lines) == 100
    assert max(map(len, lines)) < 400
    assert "  and 3 more; --json lists all." in lines


def test_a_report_in_json_can_be_written_whatever_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_json(printing.index_report_json("shop", REPORT, images=1))
    printed = capsys.readouterr().out
    assert r"a\udcff.jpg" in printed
    assert "\x1b" not in printed


def test_tables_and_notes_show_names_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_table(("image",), [("\x1b[31m.jpg",), ("plain.jpg",)])
    printing.print_note("There is no image \x1b[31m.jpg.")
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "plain.jpg" in captured.out
