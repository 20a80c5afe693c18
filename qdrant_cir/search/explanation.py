"""Why a candidate stands where it stands: the cells of its picture and the words of the text that carried its score."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qdrant_cir.search.answer_json import candidate_object
from qdrant_cir.types import Candidate, JsonObject, Precision

__all__ = ["CellEffects", "Explanation", "Region", "WordEffect", "WordSpan", "words_of"]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in fractions of a picture's width and height, from its upper left corner.

    Numbers below 0 or above 1 lie outside of the picture, where the model sees a black margin.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class CellEffects:
    """What every cell of the candidate's picture adds to its score.

    The model sees a square from the middle of the picture, of ``max(shorter, longer / pad_ratio)`` pixels, and divides
    it into cells of equal size.

    Attributes:
        drops: how much the score falls when the cell is taken away from the candidate, as rows from top to bottom of
            cells from left to right; negative where it rises.
        text_drops: the part of that which goes back to the text: the fall less the fall without a word, on average
            over the three words that add most to the score.
        pad_ratio: of the square above.
    """

    drops: tuple[tuple[float, ...], ...]
    text_drops: tuple[tuple[float, ...], ...]
    pad_ratio: float

    @property
    def rows(self) -> int:
        """Cells from top to bottom."""
        return len(self.drops)

    @property
    def columns(self) -> int:
        """Cells from left to right."""
        return len(self.drops[0])

    def square(self, *, width: int, height: int) -> Region:
        """Return where all cells together lie in an upright picture of that size."""
        side = max(min(width, height), max(width, height) / self.pad_ratio)
        across, down = side / width / 2, side / height / 2
        return Region(0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down)

    def best(self, count: int) -> list[tuple[int, int]]:
        """Return the row and column of the cells to which the text owes most, best first."""
        places = [(row, column) for row in range(self.rows) for column in range(self.columns)]
        return sorted(places, key=lambda place: -self.text_drops[place[0]][place[1]])[:count]


@dataclass(frozen=True, slots=True)
class WordSpan:
    """One word of a text and where it stands: ``text[start:stop]``."""

    word: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class WordEffect:
    """What one word of the text adds.

    The candidate alone is scored again with the text without the word. The scores of all others are kept, so ``rank``
    and ``places`` are about right, not exact.

    Attributes:
        word: as it was written.
        start: where it stands in the text: ``text[start:stop]``.
        stop: likewise.
        drop: how much the candidate's score falls without it; negative where it rises.
        rank: the candidate's place without it, from 1.
        places: places gained by the word; negative where it costs some.
        is_known: whether the model knows it; a word that it does not know changes nothing.
    """

    word: str
    start: int
    stop: int
    drop: float
    rank: int
    places: int
    is_known: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one candidate stands where it stands.

    Attributes:
        candidate: with both scores and both ranks.
        count: candidates that were re-ranked, this one among them.
        words: one per word of the text, in its order.
        cells: None where they cannot be told; a note has the reason.
        first_retrieved: what would have come first without re-ranking.
        seconds: that search and explanation took together.
        notes: plain sentences about what was left out, and why.
        precision: what the scores of candidates and words were computed in; those of cells always are in float32.
    """

    candidate: Candidate
    count: int
    words: tuple[WordEffect, ...]
    cells: CellEffects | None
    first_retrieved: Candidate
    seconds: float
    notes: tuple[str, ...]
    precision: Precision = "float32"

    def to_object(self, *, with_point: bool = True) -> JsonObject:
        """Return the explanation as JSON; ``with_point`` as of :func:`~qdrant_cir.search.answer_json.candidate_object`.

        The service leaves it out.
        """
        cells = self.cells
        return {
            "candidate": candidate_object(self.candidate, self.candidate.rerank_rank, with_point=with_point),
            "count": self.count,
            "first_retrieved": candidate_object(
                self.first_retrieved, self.first_retrieved.rerank_rank, with_point=with_point
            ),
            "words": [
                {
                    "word": each.word,
                    "start": each.start,
                    "stop": each.stop,
                    "drop": each.drop,
                    "rank": each.rank,
                    "places": each.places,
                    "is_known": each.is_known,
                }
                for each in self.words
            ],
            "cells": None
            if cells is None
            else {
                "rows": cells.rows,
                "columns": cells.columns,
                "drops": [list(row) for row in cells.drops],
                "text_drops": [list(row) for row in cells.text_drops],
                "pad_ratio": cells.pad_ratio,
            },
            "precision": self.precision,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def words_of(text: str) -> list[WordSpan]:
    """Return the words of a text: what stands between spaces."""
    return [WordSpan(found[0], found.start(), found.end()) for found in _WORD.finditer(text)]
