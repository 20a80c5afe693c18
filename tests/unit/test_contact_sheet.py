"""The contact sheet shows what an answer says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet
from qdrant_cir.errors import InputError
from qdrant_cir.types import Candidate, SearchResult, Timings

Color = tuple[int, int, int]
COLORS: Mapping[str, Color] = {"red": (250, 10, 10), "lime": (10, 250, 10), "blue": (10, 10, 250)}
FRAME = (22, 150, 72)


def candidate(source: Path | None, *, retrieved: int, reranked: int | None) -> Candidate:
    name = "unknown" if source is None else source.stem
    return Candidate(
        image_id=name,
        payload={},
        source=None if source is None else str(source),
        retrieval_score=1.0 - retrieved / 10,
        retrieval_rank=retrieved,
        rerank_score=None if reranked is None else 1.0 - reranked / 10,
        rerank_rank=reranked,
    )


def answer(candidates: Sequence[Candidate]) -> SearchResult:
    return SearchResult(tuple(candidates), Timings(0, 0, 0, 0, 0, 0), "full", ())


def columns_of(sheet: Image.Image, color: Color) -> list[int]:
    """Return the left edges of the fields that are painted in a colour."""
    pixels = sheet.load()
    assert pixels is not None
    found = [x for x in range(sheet.width) if any(pixels[x, y] == color for y in range(0, sheet.height, 4))]
    return [x for x in found if x - 1 not in found]


@pytest.fixture
def paths(tmp_path: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]) -> list[Path]:
    return write_solid_images(tmp_path, COLORS)


def test_candidates_stand_in_stage_ones_order_on_the_left_and_re_ranked_on_the_right(
    paths: list[Path],
) -> None:
    red, lime, blue = paths
    result = answer(
        [
            candidate(blue, retrieved=3, reranked=1),
            candidate(red, retrieved=1, reranked=2),
            candidate(lime, retrieved=2, reranked=3),
        ]
    )
    sheet = draw_contact_sheet([SheetRow(None, "make it blue", result)])
    first = {name: columns_of(sheet, color) for name, color in COLORS.items()}
    assert all(len(places) == 2 for places in first.values())
    assert first["red"][0] < first["lime"][0] < first["blue"][0]
    assert first["blue"][1] < first["red"][1] < first["lime"][1]


def test_the_target_is_framed_in_green_on_both_sides(paths: list[Path]) -> None:
    result = answer([candidate(path, retrieved=n, reranked=n) for n, path in enumerate(paths, start=1)])
    plain = draw_contact_sheet([SheetRow(paths[0], "x", result)])
    framed = draw_contact_sheet([SheetRow(paths[0], "x", result, frozenset({"lime"}))])
    assert columns_of(plain, FRAME) == []
    lime = columns_of(framed, COLORS["lime"])
    assert [x for x in columns_of(framed, FRAME) if x + 5 in lime] == [x - 5 for x in lime]


def test_the_reference_is_drawn_once_per_row_and_rows_add_height(paths: list[Path]) -> None:
    row = SheetRow(paths[0], "x", answer([]))
    one, two = draw_contact_sheet([row]), draw_contact_sheet([row, row])
    assert len(columns_of(one, COLORS["red"])) == 1
    assert one.mode == "RGB"
    assert (two.width, two.height > one.height) == (one.width, True)


def test_files_that_are_gone_or_unknown_become_placeholders(tmp_path: Path) -> None:
    result = answer(
        [candidate(tmp_path / "gone.png", retrieved=1, reranked=1), candidate(None, retrieved=2, reranked=2)]
    )
    sheet = draw_contact_sheet([SheetRow(str(tmp_path / "gone_too.png"), "x", result)])
    grey = columns_of(sheet, (236, 237, 240))
    assert len(grey) >= 5


def test_an_answer_that_was_not_re_ranked_is_drawn_on_the_left_alone(paths: list[Path]) -> None:
    result = answer([candidate(paths[2], retrieved=1, reranked=None)])
    assert len(columns_of(draw_contact_sheet([SheetRow(None, "", result)]), COLORS["blue"])) == 1


@pytest.mark.parametrize("text", ["", "   ", "word " * 400, "zweite\nZeile", "\u65e5\u672c\u8a9e"])
def test_any_text_fits(text: str) -> None:
    sheet = draw_contact_sheet([SheetRow(None, text, answer([]))], title="title")
    # the margin on the right stays empty
    assert sheet.crop((sheet.width - 20, 0, sheet.width, sheet.height)).getcolors() == [
        (20 * sheet.height, (255, 255, 255))
    ]


@pytest.mark.parametrize("text", ["x" * 2_000, "word " * 200_000, "i" * 63 + "W" * 65])
def test_a_long_text_is_measured_a_few_times_and_cut_as_late_as_possible(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    measured: dict[str, float] = {}
    written: list[str] = []
    measure, write = ImageDraw.ImageDraw.textlength, ImageDraw.ImageDraw.text

    def measuring(draw: ImageDraw.ImageDraw, line: str, **options: object) -> float:
        measured[line] = measure(draw, line, **options)
        return measured[line]

    def writing(draw: ImageDraw.ImageDraw, place: tuple[float, float], line: str, **options: object) -> None:
        written.append(line)
        write(draw, place, line, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "textlength", measuring)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", writing)
    width = draw_contact_sheet([SheetRow(None, text, answer([]))]).width
    assert len(measured) < 25
    assert sum(map(len, measured)) < 10_000
    (heading,) = [line for line in written if line.startswith("\u201c")]
    assert measured[heading.removesuffix("...") + "..."] <= width - 2 * 28
    longer = [length for line, length in measured.items() if len(line) == len(heading) + 1]
    assert heading.endswith("\u201d") or min(longer) > width - 2 * 28


def test_no_rows_and_no_columns_are_refused() -> None:
    with pytest.raises(InputError, match="at least one query"):
        draw_contact_sheet([])
    with pytest.raises(InputError, match="columns is 0"):
        draw_contact_sheet([SheetRow(None, "x", answer([]))], columns=0)
