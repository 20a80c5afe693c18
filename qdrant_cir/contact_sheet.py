"""Answers as one picture: reference, text, and the best candidates before and after re-ranking."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qdrant_cir.errors import ImageError, InputError
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.types import Candidate, ImageSource, SearchResult

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from qdrant_cir.search.explanation import CellEffects, Explanation

    _Font: TypeAlias = FreeTypeFont | ImageFont

__all__ = ["SheetRow", "draw_contact_sheet", "draw_explanation"]

_Color: TypeAlias = tuple[int, int, int]

_PAPER: _Color = (255, 255, 255)
_INK: _Color = (28, 30, 36)
_MUTED: _Color = (118, 122, 132)
_LINE: _Color = (225, 227, 232)
_GREEN: _Color = (22, 150, 72)
_RED: _Color = (196, 64, 56)
_GREY: _Color = (236, 237, 240)

_THUMB = 132
_REFERENCE = 160
_GAP = 10
_MARGIN = 28
_BETWEEN = 34
_HEADING = 46
_CAPTION = 30
_ROW = _HEADING + _REFERENCE + _CAPTION + 6
_TITLE = 46
_COLUMN_HEADS = 36

_LARGE = 448
_WORDS_WIDTH = 300
_WORDS_TOP = 52
_WORD_LINE = 34
_HEAT: _Color = (230, 40, 20)
_DARKEST = 190
"""Of 255, how much of the best cell is coloured."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One query of a sheet.

    Attributes:
        reference: the query's picture; None for a text-only query.
        modification_text: drawn above the row; may be empty.
        result: its answer. Stage one's best are drawn if the result holds them, so search with a
            ``limit`` of at least ``rerank_depth``.
        target_ids: image ids of right answers, framed in green where they appear; empty where unknown.
    """

    reference: ImageSource | None
    modification_text: str
    result: SearchResult
    target_ids: frozenset[str] = frozenset()


def draw_contact_sheet(rows: Sequence[SheetRow], *, title: str = "", columns: int = 5) -> Image:
    """Draw one row per query: the reference, stage one's best and the re-ranked best side by side.

    Args:
        rows: at least one.
        title: drawn on top; empty for none.
        columns: candidates drawn per stage.

    Returns:
        An RGB picture. A candidate whose file cannot be read is a grey field with its name.

    Raises:
        InputError: no rows, or ``columns`` below 1.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    if not rows:
        raise InputError("A contact sheet needs at least one query, but got none.")
    if columns < 1:
        raise InputError(f"columns is {columns}; it must be at least 1.")
    strip = columns * _THUMB + (columns - 1) * _GAP
    width = 2 * _MARGIN + _REFERENCE + 2 * _BETWEEN + 2 * strip
    top = _MARGIN + (_TITLE if title else 0)
    height = top + _COLUMN_HEADS + len(rows) * _ROW + _MARGIN // 2
    sheet = PillowImage.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 6), title, fill=_INK, font=_font(28))
    before = _MARGIN + _REFERENCE + _BETWEEN
    after = before + strip + _BETWEEN
    for left, head in (
        (_MARGIN, "Reference"),
        (before, "Retrieved (one vector)"),
        (after, "Re-ranked (triplets)"),
    ):
        draw.text((left, top), head, fill=_MUTED, font=_font(19))
    for place, row in enumerate(rows):
        _draw_row(sheet, row, top=top + _COLUMN_HEADS + place * _ROW, lefts=(before, after), columns=columns)
    return sheet


def draw_explanation(explanation: Explanation, picture: ImageSource | None) -> Image:
    """Draw why a candidate stands where it stands.

    Args:
        explanation: of the candidate.
        picture: the candidate's.

    Returns:
        An RGB picture: the candidate, redder where its cells carried more of the score, and beside it the words with
        the places that they gained. A picture that cannot be read is a grey field, without cells.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    candidate, words = explanation.candidate, explanation.words
    height = max(_LARGE, _WORDS_TOP + len(words) * _WORD_LINE) + 2 * _MARGIN
    sheet = PillowImage.new("RGB", (3 * _MARGIN + _LARGE + _WORDS_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    seen = _draw_picture(sheet, picture, left=_MARGIN, top=_MARGIN, side=_LARGE, name=candidate.image_id)
    if seen is not None and explanation.cells is not None:
        _draw_cells(sheet, explanation.cells, seen)
    left, right = 2 * _MARGIN + _LARGE, 2 * _MARGIN + _LARGE + _WORDS_WIDTH
    heading = f"was {candidate.retrieval_rank}, now {candidate.rerank_rank} of {explanation.count}"
    draw.text((left, _MARGIN), heading, fill=_INK, font=_font(26))
    most = max((abs(word.drop) for word in words), default=0.0) or 1.0
    for line, word in enumerate(words):
        top = _MARGIN + _WORDS_TOP + line * _WORD_LINE
        color = _INK if word.is_known else _MUTED
        label = _fitted(draw, word.word, _font(19), _WORDS_WIDTH // 2)
        draw.text((left, top), label, fill=color, font=_font(19))
        places = f"{word.places:+d}" if word.places else ""
        draw.text((right, top), places, fill=_GREEN if word.places > 0 else _RED, font=_font(19), anchor="ra")
        # a line under the word, as long as its share of the score
        length = round(_WORDS_WIDTH // 2 * abs(word.drop) / most)
        draw.line((left, top + 25, left + length, top + 25), fill=_GREEN if word.drop > 0 else _RED, width=3)
    return sheet


def _draw_cells(sheet: Image, cells: CellEffects, seen: tuple[int, int, int, int]) -> None:
    """Colour the cells that add to the score, over the picture that was drawn into ``seen``."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    left, top, right, bottom = seen
    width, height = right - left, bottom - top
    square = cells.square(width=width, height=height)
    most = max(max(map(max, cells.text_drops)), 1e-9)
    veil = PillowImage.new("L", (width, height), 0)
    draw = ImageDraw.Draw(veil)
    across = (square.right - square.left) * width / cells.columns
    down = (square.bottom - square.top) * height / cells.rows
    for row, drops in enumerate(cells.text_drops):
        for column, drop in enumerate(drops):
            corner = (square.left * width + column * across, square.top * height + row * down)
            box = (*corner, corner[0] + across, corner[1] + down)
            draw.rectangle(box, fill=round(_DARKEST * max(0.0, drop) / most))
    sheet.paste(PillowImage.new("RGB", (width, height), _HEAT), (left, top), veil)


def _draw_row(sheet: Image, row: SheetRow, *, top: int, lefts: tuple[int, int], columns: int) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    draw.line((_MARGIN, top, sheet.width - _MARGIN, top), fill=_LINE, width=2)
    text = f"\u201c{row.modification_text.strip()}\u201d" if row.modification_text.strip() else "image only"
    heading = _fitted(draw, text, _font(22), sheet.width - 2 * _MARGIN)
    draw.text((_MARGIN, top + 10), heading, fill=_INK, font=_font(22))
    pictures = top + _HEADING
    if row.reference is None:
        _draw_placeholder(sheet, "text only", left=_MARGIN, top=pictures, side=_REFERENCE)
    else:
        _draw_picture(
            sheet,
            row.reference,
            left=_MARGIN,
            top=pictures,
            side=_REFERENCE,
            name=_reference_name(row.reference),
        )
    by_retrieval = sorted(row.result.candidates, key=lambda candidate: candidate.retrieval_rank)
    reranked = [c for c in row.result.candidates if c.rerank_rank is not None]
    thumbs = pictures + (_REFERENCE - _THUMB) // 2
    for place, candidate in enumerate(c for c in by_retrieval[:columns] if c.retrieval_rank <= columns):
        left = lefts[0] + (candidate.retrieval_rank - 1) * (_THUMB + _GAP)
        _draw_candidate(sheet, candidate, row.target_ids, left=left, top=thumbs, place=place, moved=False)
    if not reranked:
        draw.text((lefts[1], thumbs + _THUMB // 2 - 10), "not re-ranked", fill=_MUTED, font=_font(19))
    for place, candidate in enumerate(reranked[:columns]):
        left = lefts[1] + place * (_THUMB + _GAP)
        _draw_candidate(sheet, candidate, row.target_ids, left=left, top=thumbs, place=place, moved=True)


def _draw_candidate(
    sheet: Image,
    candidate: Candidate,
    target_ids: frozenset[str],
    *,
    left: int,
    top: int,
    place: int,
    moved: bool,
) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    name = candidate.image_id if candidate.source is None else Path(candidate.source).name
    _draw_picture(sheet, candidate.source, left=left, top=top, side=_THUMB, name=name)
    is_target = candidate.image_id in target_ids
    if is_target:
        frame = (left - 5, top - 5, left + _THUMB + 4, top + _THUMB + 4)
        draw.rounded_rectangle(frame, radius=8, outline=_GREEN, width=5)
    number = str(place + 1 if moved else candidate.retrieval_rank)
    font = _font(18)
    baseline = top + _THUMB + 8
    draw.text((left + 2, baseline), number, fill=_GREEN if is_target else _INK, font=font)
    if moved:
        _draw_move(draw, left=left + 8 + int(draw.textlength(number, font=font)), top=baseline, candidate=candidate)


def _draw_move(draw: ImageDraw, *, left: int, top: int, candidate: Candidate) -> None:
    """Draw where a re-ranked candidate came from: a triangle up or down and its old place."""
    rank = candidate.rerank_rank or candidate.retrieval_rank
    climbed = candidate.retrieval_rank - rank
    if climbed == 0:
        draw.text((left, top), "=", fill=_MUTED, font=_font(18))
        return
    color, low, high = (_GREEN, top + 17, top + 7) if climbed > 0 else (_RED, top + 7, top + 17)
    draw.polygon(((left, low), (left + 12, low), (left + 6, high)), fill=color)
    draw.text((left + 17, top), f"from {candidate.retrieval_rank}", fill=_MUTED, font=_font(18))


def _draw_picture(
    sheet: Image, source: ImageSource | None, *, left: int, top: int, side: int, name: str
) -> tuple[int, int, int, int] | None:
    """Paste a picture, whole and centred in a square; a grey field with its name where it cannot be read.

    Returns:
        Where the picture lies: left, top, right, bottom; None where it could not be read.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    if source is None:
        _draw_placeholder(sheet, name, left=left, top=top, side=side)
        return None
    try:
        picture = load_image(source)
    except ImageError:
        _draw_placeholder(sheet, name, left=left, top=top, side=side)
        return None
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    thumb = picture.resize(size, PillowImage.Resampling.LANCZOS)
    ImageDraw.Draw(sheet).rectangle((left, top, left + side - 1, top + side - 1), fill=_GREY)
    place = (left + (side - size[0]) // 2, top + (side - size[1]) // 2)
    sheet.paste(thumb, place)
    return (*place, place[0] + size[0], place[1] + size[1])


def _draw_placeholder(sheet: Image, name: str, *, left: int, top: int, side: int) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_GREY, outline=_LINE)
    label = _fitted(draw, name, _font(15), side - 12)
    draw.text((left + side // 2, top + side // 2), label, fill=_MUTED, font=_font(15), anchor="mm")


def _reference_name(reference: ImageSource) -> str:
    return Path(reference).name if isinstance(reference, str) else "reference"


def _fitted(draw: ImageDraw, text: str, font: _Font, width: int) -> str:
    """Cut a text to a width in pixels, with an ellipsis where something is missing.

    Measures about twenty times, and at most twice what fits, because measuring is slow.
    """
    line = " ".join(text.split())

    def overflows(count: int) -> bool:
        return draw.textlength(line[:count] + "...", font=font) > width

    reach = 64
    while reach < len(line) and not overflows(reach):
        reach *= 2
    if reach >= len(line) and draw.textlength(line, font=font) <= width:
        return line
    # the shortest that is too long, minus one character
    kept = bisect_left(range(min(reach, len(line))), 1, key=overflows) - 1
    return line[: max(0, kept)].rstrip() + "..."


def _font(size: int) -> _Font:
    from PIL import ImageFont

    return ImageFont.load_default(size)
