"""Queries over a pool of families, drawn anew for every batch: pictures, texts, and which pictures answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_export.training.photos.families import OPPOSITE, SURE_MARGIN
from onnx_export.training.photos.pool import KIND_NAMES, PhotoPool
from qdrant_cir.photographs.colours import BASIC_COLOURS, COLOURS, basic_colour
from qdrant_cir.photographs.labels import KINDS
from qdrant_cir.photographs.wording import (
    Appearance,
    Shade,
    change_text,
    class_text,
    length_text,
    shade_text,
    sleeve_text,
)

NO_REFERENCE = -1
UNKNOWN_WORD = "zzz"
"""No word; put into some training texts, so that an unknown word is passed over."""
_WITH_UNKNOWN = 0.08
_AS_PHOTOGRAPHED = 0.7
"""Share of the queries for a kind in a colour whose reference is a photograph as it is."""
_SHADES: dict[int, Shade] = {1: "lighter", 2: "darker", 3: "brighter", 4: "duller"}
_SLEEVES = {"t-shirt": ("long", "none"), "polo": ("long", "none"), "longsleeve": ("short", "none")}
_SLEEVE_KINDS = {"long": "longsleeve", "short": "t-shirt", "none": "undershirt"}


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """Queries of one batch; rows are rows of the pool.

    Attributes:
        rows: int64 [R], the pictures of the batch.
        references: int64 [Q], places in ``rows``; ``NO_REFERENCE`` where the text stands alone.
        texts: Q modification texts.
        right: bool [Q, R], pictures that answer the query.
        ignored: bool [Q, R], pictures that may or may not answer it.
        is_exact: bool [Q], queries that want one garment in one look; the others want a kind in a colour.
    """

    rows: NDArray[np.int64]
    references: NDArray[np.int64]
    texts: tuple[str, ...]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    is_exact: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Query:
    reference: int
    text: str
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    is_exact: bool


class QueryDrawer:
    """Draws batches of queries from a pool."""

    def __init__(self, pool: PhotoPool) -> None:
        self.facts = {**pool.facts, "basic": _sure_basics(pool)}
        self.pool = pool
        garment = self.facts["garment"]
        starts = np.flatnonzero(np.diff(garment, prepend=-1))
        self.families = [np.arange(a, b) for a, b in zip(starts, [*starts[1:], len(garment)], strict=True)]
        counts = np.bincount(self.facts["kind"][starts], minlength=len(KIND_NAMES))
        self.by_kind = [np.flatnonzero(self.facts["kind"][starts] == kind) for kind in range(len(KIND_NAMES))]
        # rarer kinds are drawn more often than they are photographed
        chances = np.sqrt(counts)
        self.kind_chances = chances / chances.sum()
        of_kind = np.divide(chances, counts, out=np.zeros_like(chances), where=counts > 0)
        each = of_kind[self.facts["kind"][starts]]
        self.garment_chances = each / each.sum()

    def draw(self, garments: int, *, singles: int, exact: int, labelled: int, rng: np.random.Generator) -> QueryBatch:
        """Draw a batch.

        Args:
            garments: families whose pictures are all in the batch.
            singles: further garments, each as it was photographed alone.
            exact: queries for one garment in one look.
            labelled: queries for a kind in a colour.
            rng: of everything.
        """
        chosen = self._garments(garments, rng)
        alone = [number for number in self._spread(garments + singles, rng) if number not in set(chosen)][:singles]
        whole = [self.families[number] for number in chosen]
        rows = np.concatenate([*whole, *(self.families[number][:1] for number in alone)])
        queries = [q for _ in range(4 * exact) if (q := self._exact(rows, rng)) is not None][:exact]
        queries += [q for _ in range(4 * labelled) if (q := self._labelled(rows, rng)) is not None][:labelled]
        texts = tuple(_with_unknown(query.text, rng) for query in queries)
        return QueryBatch(
            rows,
            np.array([query.reference for query in queries]),
            texts,
            np.stack([query.right for query in queries]),
            np.stack([query.ignored for query in queries]),
            np.array([query.is_exact for query in queries]),
        )

    def _garments(self, count: int, rng: np.random.Generator) -> list[int]:
        """Choose garments: half of them as a few kinds with several each, so that likeness alone does not do."""
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            kind = int(rng.choice(len(KIND_NAMES), p=self.kind_chances))
            same = self.by_kind[kind]
            wanted = 4 if len(chosen) < count // 2 else 1
            for number in rng.choice(same, min(wanted, len(same)), replace=False).tolist():
                chosen[number] = None
        return list(chosen)[:count]

    def _spread(self, count: int, rng: np.random.Generator) -> list[int]:
        """Choose different garments, of rarer kinds more often than they are photographed."""
        count = min(count, len(self.families))
        chosen = rng.choice(len(self.families), count, replace=False, p=self.garment_chances)
        return [int(number) for number in chosen]

    def appearance(self, row: int) -> Appearance:
        """Return what texts may say of a picture."""
        facts = self.facts
        named, basic, second = int(facts["colour"][row]), int(facts["basic"][row]), int(facts["second"][row])
        colour = COLOURS[named].name if named >= 0 else BASIC_COLOURS[basic] if basic >= 0 else ""
        return Appearance(
            KINDS[KIND_NAMES[int(facts["kind"][row])]],
            colour,
            self.pool.pattern(row),
            self.pool.graphic(row),
            COLOURS[second].name if second >= 0 else "",
        )

    def looks_alike(self, row: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pictures show the same garment with the same look: bool [R]."""
        same = np.ones(len(rows), np.bool_)
        for column in ("garment", "colour", "pattern", "graphic", "second", "shade"):
            same &= self.facts[column][rows] == self.facts[column][row]
        return same

    def _exact(self, rows: NDArray[np.int64], rng: np.random.Generator) -> _Query | None:
        reference = int(rng.integers(len(rows)))
        row = int(rows[reference])
        family = np.flatnonzero(self.facts["garment"][rows] == self.facts["garment"][row])
        if len(family) < 3:
            return None
        target = int(rows[int(rng.choice(family))])
        right = self.looks_alike(target, rows)
        if right[reference]:
            return None
        text = self.text_between(row, target, rng)
        return _Query(reference, text, right, np.zeros_like(right), is_exact=True) if text else None

    def text_between(self, row: int, target: int, rng: np.random.Generator, *, held_out: bool = False) -> str:
        """Return how two pictures of a garment differ; empty where no text says it exactly."""
        shade, base = self.facts["shade"], self.facts["base"]
        before = self.appearance(row)
        if shade[target]:
            is_of = bool(base[target] >= 0 and self.looks_alike(int(base[target]), np.array([row]))[0])
            return shade_text(_SHADES[int(shade[target])], before, rng, held_out=held_out) if is_of else ""
        if shade[row] and self.looks_alike(int(base[row]), np.array([target]))[0]:
            return shade_text(OPPOSITE[_SHADES[int(shade[row])]], before, rng, held_out=held_out)
        after = self.appearance(target)
        if shade[row]:
            before = Appearance(before.kind, "", before.pattern, before.graphic, before.second)
        has_other_colour = bool(shade[row]) or self.facts["colour"][row] != self.facts["colour"][target]
        if has_other_colour and (not after.colour or after.colour == before.colour):
            return ""
        return change_text(before, after, rng, held_out=held_out)

    def _labelled(self, rows: NDArray[np.int64], rng: np.random.Generator) -> _Query | None:
        kinds, basics = self.facts["kind"][rows], self.facts["basic"][rows]
        is_edited = self.facts["edited"][rows] > 0
        among = (basics >= 0) & ~is_edited if rng.random() < _AS_PHOTOGRAPHED else basics >= 0
        if not among.any():
            return None
        reference = int(rng.choice(np.flatnonzero(among)))
        row = int(rows[reference])
        own = self.facts["garment"][rows] == self.facts["garment"][row]
        kind, basic = int(kinds[reference]), int(basics[reference])
        before = self.appearance(row)
        draw = rng.random()
        if draw < 0.08:
            return self._described(rows, reference, rng)
        if draw < 0.45:
            others = np.unique(basics[(kinds == kind) & (basics >= 0) & (basics != basic) & ~own])
            if not len(others):
                return None
            basic = int(rng.choice(others))
            text = change_text(
                before, Appearance(before.kind, BASIC_COLOURS[basic], before.pattern, before.graphic), rng
            )
        elif draw < 0.85:
            others = np.unique(kinds[(basics == basic) & (kinds != kind)])
            if not len(others):
                return None
            kind = int(rng.choice(others))
            text = class_text(before, KINDS[KIND_NAMES[kind]], rng)
        else:
            asked = self._sleeves_or_length(before, rng)
            if asked is None:
                return None
            kind, text = asked
        # other garments must be found; what becomes of its own family is learnt from exact queries
        right = (kinds == kind) & (basics == basic) & ~own
        ignored = (kinds == kind) & ((basics < 0) | (own & (basics == basic)))
        return _Query(reference, text, right, ignored, is_exact=False) if right.any() else None

    def _sleeves_or_length(self, before: Appearance, rng: np.random.Generator) -> tuple[int, str] | None:
        label = before.kind.label.lower()
        if label in ("pants", "shorts"):
            kind = "shorts" if label == "pants" else "pants"
            return KIND_NAMES.index(kind), length_text(is_longer=label == "shorts", rng=rng)
        if label in _SLEEVES:
            sleeves = _SLEEVES[label][int(rng.random() < 0.35)]
            return KIND_NAMES.index(_SLEEVE_KINDS[sleeves]), sleeve_text(sleeves, rng)
        return None

    def _described(self, rows: NDArray[np.int64], place: int, rng: np.random.Generator) -> _Query:
        """Ask without a reference, by a description of one picture of the batch."""
        kinds, basics = self.facts["kind"][rows], self.facts["basic"][rows]
        look = self.appearance(int(rows[place]))
        noun = look.kind.nouns[int(rng.integers(len(look.kind.nouns)))]
        text = f"a {BASIC_COLOURS[int(basics[place])]} {noun}"
        right = (kinds == kinds[place]) & (basics == basics[place])
        return _Query(NO_REFERENCE, text, right, (kinds == kinds[place]) & (basics < 0), is_exact=False)


def _sure_basics(pool: PhotoPool) -> NDArray[np.int64]:
    """Basic colours of all pictures; -1 also where a colour's name and its look fall under different ones."""
    unsure = []
    for number, colour in enumerate(COLOURS):
        seen = basic_colour(colour.lab)
        if seen.name != colour.basic or seen.margin < SURE_MARGIN:
            unsure.append(number)
    return np.where(np.isin(pool.facts["colour"], unsure), -1, pool.facts["basic"])


def _with_unknown(text: str, rng: np.random.Generator) -> str:
    if rng.random() >= _WITH_UNKNOWN:
        return text
    words: Sequence[str] = text.split()
    place = int(rng.integers(len(words) + 1))
    return " ".join((*words[:place], UNKNOWN_WORD, *words[place:]))
