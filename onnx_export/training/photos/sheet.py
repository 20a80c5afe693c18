"""A contact sheet of every kind of edit, for a person to look at before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Image as Picture

from onnx_export.errors import TrainingError
from onnx_export.training.photos.families import Member, draw_family
from onnx_export.training.photos.pool import read_garment, survey
from qdrant_cir.errors import ImageError
from qdrant_cir.photographs.colours import COLOURS
from qdrant_cir.photographs.edits import GRAPHICS, PATTERNS
from qdrant_cir.photographs.labels import Photograph

EDITS = ("colour", "lighter", "darker", "brighter", "duller", *PATTERNS, *GRAPHICS, "colour and pattern")
_SIDE, _LABEL, _TEXT, _GAP = 112, 150, 18, 10


@dataclass(frozen=True, slots=True)
class EditSheet:
    """What was drawn.

    Attributes:
        picture: one line for each kind of edit; each example is the photograph and, right of it, its edit.
        drawn: examples on the sheet, by kind of edit.
        without_mask: photographs without a usable mask, which were passed over.
        tried, refused: edits by kind as training counts them: refused are those that missed the colour wanted.
    """

    picture: Picture
    drawn: dict[str, int]
    without_mask: int
    tried: dict[str, int]
    refused: dict[str, int]


def draw_edit_sheet(
    photographs: Sequence[Photograph], *, examples: int, size: int, seed: int, most: int = 400
) -> EditSheet:
    """Draw families of photographs, in an order drawn from the seed, until every kind of edit has its examples.

    Args:
        photographs: to choose from.
        examples: pairs in a line; each is of another photograph.
        size: side of the pictures in pixels, as in training.
        seed: of everything.
        most: photographs that are tried.

    Raises:
        TrainingError: none of them has a usable mask.
    """
    rng = np.random.default_rng((seed, 21))
    order = [photographs[place] for place in rng.permutation(len(photographs))[:most].tolist()]
    floors = [floor for _, floor in map(survey, order[:examples]) if floor is not None]
    pairs: dict[str, list[tuple[Picture, Picture, str]]] = {edit: [] for edit in EDITS}
    tried: dict[str, int] = {}
    refused: dict[str, int] = {}
    without_mask = 0
    for photograph in order:
        if all(len(found) == examples for found in pairs.values()):
            break
        try:
            rgb, lab, mask = read_garment(photograph)
        except ImageError:
            continue
        if mask is None:
            without_mask += 1
            continue
        family = draw_family(rgb, lab, mask, photograph.kind, floors=floors, size=size, rng=rng)
        for total, more in ((tried, family.tried), (refused, family.refused)):
            for edit, times in more.items():
                total[edit] = total.get(edit, 0) + times
        taken = set()
        for member in family.members:
            edit = _edit_of(member)
            if edit in pairs and edit not in taken and len(pairs[edit]) < examples:
                taken.add(edit)
                before = member.variant.base if member.variant.shade else 0
                pairs[edit].append((family.members[max(before, 0)].picture, member.picture, _about(member)))
    if not any(pairs.values()):
        raise TrainingError(f"None of {len(order)} photographs shows a garment that stands out from what is around it.")
    drawn = {edit: len(found) for edit, found in pairs.items()}
    return EditSheet(_sheet(pairs, examples), drawn, without_mask, tried, refused)


def write_edit_sheet(path: Path, sheet: EditSheet) -> None:
    """Write a sheet as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.picture.save(path)


def _edit_of(member: Member) -> str:
    variant = member.variant
    if variant.edit == "shade":
        return variant.shade
    if variant.edit == "pattern":
        return variant.look.pattern if variant.colour < 0 else "colour and pattern"
    return variant.look.graphic if variant.edit == "graphic" else variant.edit


def _about(member: Member) -> str:
    variant = member.variant
    numbers = [number for number in (variant.colour, variant.second) if number >= 0 and not variant.shade]
    return ", ".join(COLOURS[number].name for number in numbers)


def _sheet(pairs: dict[str, list[tuple[Picture, Picture, str]]], examples: int) -> Picture:
    width, height = _LABEL + examples * (2 * _SIDE + _GAP), len(pairs) * (_SIDE + _TEXT + _GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for line, (edit, found) in enumerate(pairs.items()):
        top = line * (_SIDE + _TEXT + _GAP)
        pen.text((6, top + _SIDE // 2), edit, fill="black", font=font)
        for place, (before, after, about) in enumerate(found):
            left = _LABEL + place * (2 * _SIDE + _GAP)
            for picture, x in ((before, left), (after, left + _SIDE)):
                sheet.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (x, top))
            pen.text((left, top + _SIDE + 1), about, fill="black", font=font)
    return sheet
