"""Queries on photographs of clothes by people that training never saw, and what answers them.

Kinds are labelled by hand. Colours are named by a program (``qdrant_cir/photographs``), which is wrong in some cases;
``photo_labels.csv`` holds colour, sleeves and pattern of 300 photographs by eye, on which queries are asked apart.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.errors import ImageError, InputError
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.photographs.colours import (
    BASIC_COLOURS,
    COLOURS,
    HELD_OUT_COLOURS,
    basic_colour,
    lab_of_rgb,
    rgb_of_lab,
)
from qdrant_cir.photographs.edits import PATTERNS, Look, dressed
from qdrant_cir.photographs.labels import KINDS, Kind, Photograph, split_of
from qdrant_cir.photographs.masks import GarmentMask, find_mask
from qdrant_cir.photographs.rendering import floor_of, photographed
from qdrant_cir.photographs.wording import Appearance, change_text, class_text, sleeve_text
from qdrant_cir.types import Float32

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EyeLabel", "LabelledPicture", "PhotoBenchmark", "PhotoQuery", "photo_benchmark", "read_eye_labels"]

ASKED_KINDS = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
SURE_MARGIN = 4.0
"""Margin of an automatic colour name from which on a query may be built on it."""
EYE_LABELS = Path(__file__).with_name("photo_labels.csv")
"""Labels that come with this package, of photographs by held-out senders of the "Clothing dataset"."""
_LIGHTNESS, _HUE = 10.0, 12.0
"""Lab units by which a lighter picture is lighter, and by which its hue may differ."""
_CHROMA, _ANGLE = 10.0, 20.0
"""Lab units by which a brighter picture is more colourful, and degrees by which its hue may differ."""
_NO_HUE = 8.0
"""Chroma up to which a colour has no hue, so that nothing is said of it."""
_NEGATIONS = ("not {old} but {new}", "{new} and not {old}", "no longer {old}, now {new}", "is {new} instead of {old}")
_LARGEST_SIDE, _EDITED_SIDE = 320, 256
_PLAIN_SPREAD = 8.0
"""Spread of colour up to which a garment counts as plain, so that a pattern can be drawn on it."""
_SLEEVES: Mapping[str, str] = {"t-shirt": "long", "polo": "long", "longsleeve": "short"}
_SLEEVE_KINDS: Mapping[str, str] = {"long": "longsleeve", "short": "t-shirt"}


@dataclass(frozen=True, slots=True)
class EyeLabel:
    """What a look at a photograph says; a field is empty where it is not clear.

    Attributes:
        colour: basic name.
        sleeves: ``long``, ``short`` or ``none``.
        pattern: ``plain``, ``stripes``, ``checks``, ``dots``, ``flowers``, ``print`` or ``other``.
    """

    colour: str
    sleeves: str
    pattern: str


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture of the gallery.

    Attributes:
        image_id: the photograph's, with a suffix where it is an edited one.
        picture: a path, or the edited picture.
        kind: what it shows.
        sender: who took it.
        colour: basic name; empty where it is not sure.
        lab: median colour of the garment, float32 [3]; None where its place is not known.
        eye: labels made by eye; None where there are none.
        garment: number of the photograph.
        edit: what was changed; empty for the photograph as it is.
    """

    image_id: str
    picture: Path | Image
    kind: Kind
    sender: str
    colour: str
    lab: Float32 | None
    eye: EyeLabel | None
    garment: int
    edit: str = ""


@dataclass(frozen=True, slots=True)
class PhotoQuery:
    """One query.

    Attributes:
        group: what is asked for: ``colour``, ``class``, ``sleeves``, ``shade``, ``brighter, duller``, ``pattern``,
            ``negation``, or ``same garment, ...``.
        reference: place of the reference in the gallery; it is never returned.
        text: the modification text.
        right: places of the pictures that answer it.
        gallery: places that are searched.
    """

    group: str
    reference: int
    text: str
    right: NDArray[np.int64]
    gallery: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PhotoBenchmark:
    """Pictures and queries.

    Attributes:
        pictures: photographs first, then edited ones.
        queries: in groups.
        without_mask: photographs that were left out, because their garment could not be told from its surroundings.
        unreadable: files that are no pictures, with the reason.
    """

    pictures: tuple[LabelledPicture, ...]
    queries: tuple[PhotoQuery, ...]
    without_mask: int
    unreadable: Mapping[str, str]


def read_eye_labels(path: Path = EYE_LABELS) -> dict[str, EyeLabel]:
    """Read labels made by eye: a CSV with ``file``, ``colour``, ``sleeves`` and ``pattern``.

    Raises:
        InputError: the file cannot be read, lacks a column, or names a colour that is no basic one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {row["file"]: EyeLabel(row["colour"], row["sleeves"], row["pattern"]) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except KeyError as error:
        raise InputError(f"{path} has no column {error}; expected file, colour, sleeves and pattern.") from error
    unknown = sorted({label.colour for label in found.values()} - {*BASIC_COLOURS, ""})
    if unknown:
        raise InputError(f"{path} names {', '.join(unknown)}; colours are {', '.join(BASIC_COLOURS)}, or empty.")
    return found


def photo_benchmark(
    photographs: Sequence[Photograph],
    *,
    eye_labels: Mapping[str, EyeLabel],
    queries_per_group: int = 300,
    seed: int = 7,
) -> PhotoBenchmark:
    """Make queries on the photographs of held-out senders.

    Args:
        photographs: of all senders; those of training and validation are left out.
        eye_labels: by file; queries on the photographs that have one are asked apart.
        queries_per_group: at most.
        seed: of references, wordings and edits.

    Raises:
        InputError: no photograph of a held-out sender can be used.
    """
    rng = np.random.default_rng(seed)
    held_out = [photograph for photograph in photographs if split_of(photograph.sender) == "test"]
    pictures: list[LabelledPicture] = []
    garments: list[tuple[NDArray[np.uint8], Float32, GarmentMask]] = []
    unreadable: dict[str, str] = {}
    without_mask = 0
    for photograph in held_out:
        try:
            picture = load_image(photograph.path)
        except ImageError as error:
            unreadable[photograph.image_id] = str(error)
            continue
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
        rgb = np.array(picture)
        lab = lab_of_rgb(rgb)
        mask = find_mask(picture, lab)
        if mask is None:
            without_mask += 1
            continue
        named = basic_colour(mask.lab)
        colour = named.name if named.margin > SURE_MARGIN else ""
        pictures.append(
            LabelledPicture(
                photograph.image_id,
                photograph.path,
                photograph.kind,
                photograph.sender,
                colour,
                mask.lab,
                eye_labels.get(photograph.image_id),
                len(pictures),
            )
        )
        garments.append((rgb, lab, mask))
    if not pictures:
        raise InputError(
            f"None of {len(photographs)} photographs is by a held-out sender and shows a garment that stands out "
            "from its surroundings; give more photographs."
        )
    originals = np.arange(len(pictures))
    # a picture whose colour is not sure is neither right nor wrong
    sure = np.array([place for place, picture in enumerate(pictures) if picture.colour])
    queries = [
        *_colour_queries(pictures, sure, queries_per_group, rng),
        *_colour_queries(pictures, sure, queries_per_group, rng, held_out_wording=True),
        *_class_queries(pictures, sure, queries_per_group, rng),
        *_class_queries(pictures, sure, queries_per_group, rng, held_out_wording=True),
        *_sleeve_queries(pictures, sure, queries_per_group, rng),
        *_shade_queries(pictures, originals, queries_per_group, rng),
    ]
    # a generator of their own, so that the other groups' queries stay what they were before there were these
    own = np.random.default_rng([seed, 1])
    queries += _chroma_queries(pictures, originals, queries_per_group, own)
    queries += _negated_queries(pictures, sure, queries_per_group, own)
    queries += _eye_queries(pictures, queries_per_group, rng)
    queries += _plain_queries(pictures, queries_per_group, own)
    queries += _edited_queries(pictures, garments, queries_per_group, rng)
    return PhotoBenchmark(tuple(pictures), tuple(queries), without_mask, unreadable)


def _query(
    group: str, reference: int, text: str, right: NDArray[np.bool_], gallery: NDArray[np.int64]
) -> PhotoQuery | None:
    kept = gallery[gallery != reference]
    found = np.flatnonzero(right)
    found = found[found != reference]
    return PhotoQuery(group, reference, text, found, kept) if len(found) and text else None


def _draw(queries: Sequence[PhotoQuery | None], most: int, rng: np.random.Generator) -> list[PhotoQuery]:
    made = [query for query in queries if query is not None]
    order = rng.permutation(len(made))[:most]
    return [made[number] for number in sorted(order.tolist())]


def _columns(pictures: Sequence[LabelledPicture]) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    return np.array([p.kind.label for p in pictures]), np.array([p.colour for p in pictures])


def _looks(picture: LabelledPicture) -> Appearance:
    return Appearance(picture.kind, picture.colour)


def _colour_queries(
    pictures: Sequence[LabelledPicture],
    gallery: NDArray[np.int64],
    most: int,
    rng: np.random.Generator,
    *,
    held_out_wording: bool = False,
) -> list[PhotoQuery]:
    kinds, colours = _columns(pictures)
    made = []
    for place in gallery.tolist():
        picture = pictures[place]
        # a colour that some other picture of this kind has, as often as it is had
        others = np.flatnonzero((kinds == picture.kind.label) & (colours != picture.colour) & (colours != ""))
        if not picture.colour or not len(others):
            continue
        colour = str(colours[int(rng.choice(others))])
        right = (kinds == picture.kind.label) & (colours == colour)
        text = f"in {colour}"
        if held_out_wording:
            text = change_text(_looks(picture), Appearance(picture.kind, colour), rng, held_out=True)
        group = "colour, other wording" if held_out_wording else "colour"
        made.append(_query(group, place, text, right, gallery))
    return _draw(made, most, rng)


def _class_queries(
    pictures: Sequence[LabelledPicture],
    gallery: NDArray[np.int64],
    most: int,
    rng: np.random.Generator,
    *,
    held_out_wording: bool = False,
) -> list[PhotoQuery]:
    kinds, colours = _columns(pictures)
    is_asked = np.isin(kinds, [KINDS[label].label for label in ASKED_KINDS])
    made = []
    for place in gallery.tolist():
        picture = pictures[place]
        # a kind that some other picture in this colour is of, as often as it is
        others = np.flatnonzero((colours == picture.colour) & (kinds != picture.kind.label) & is_asked)
        if not picture.colour or not len(others):
            continue
        asked = pictures[int(rng.choice(others))].kind
        right = (kinds == asked.label) & (colours == picture.colour)
        text = f"rather a {asked.nouns[0]}"
        if held_out_wording:
            text = class_text(_looks(picture), asked, rng, held_out=True)
        group = "class, other wording" if held_out_wording else "class"
        made.append(_query(group, place, text, right, gallery))
    return _draw(made, most, rng)


def _sleeve_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    kinds, colours = _columns(pictures)
    made = []
    for place in gallery.tolist():
        picture = pictures[place]
        sleeves = _SLEEVES.get(picture.kind.label.lower())
        if sleeves is None or not picture.colour:
            continue
        asked = KINDS[_SLEEVE_KINDS[sleeves]]
        right = (kinds == asked.label) & (colours == picture.colour)
        made.append(_query("sleeves", place, sleeve_text(sleeves, rng), right, gallery))
    return _draw(made, most, rng)


def _shade_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    kinds, _ = _columns(pictures)
    labs = np.array([np.full(3, np.nan) if p.lab is None else p.lab for p in pictures])
    made = []
    for place in gallery.tolist():
        lighter = labs[:, 0] - labs[place, 0]
        near = np.linalg.norm(labs[:, 1:] - labs[place, 1:], axis=1) < _HUE
        same = (kinds == pictures[place].kind.label) & near
        made.append(_query("shade", place, "lighter", same & (lighter > _LIGHTNESS), gallery))
        made.append(_query("shade", place, "darker", same & (lighter < -_LIGHTNESS), gallery))
    return _draw(made, most, rng)


def _chroma_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    """Ask for the same kind in the same hue, with a stronger or a weaker colour."""
    kinds, _ = _columns(pictures)
    labs = np.array([np.full(3, np.nan) if p.lab is None else p.lab for p in pictures])
    chroma, angle = np.hypot(labs[:, 1], labs[:, 2]), np.degrees(np.arctan2(labs[:, 2], labs[:, 1]))
    made = []
    for place in gallery.tolist():
        if not chroma[place] > _NO_HUE:
            continue
        near = np.abs((angle - angle[place] + 180) % 360 - 180) < _ANGLE
        same = (kinds == pictures[place].kind.label) & near & (chroma > _NO_HUE)
        more = chroma - chroma[place]
        made.append(_query("brighter, duller", place, "brighter", same & (more > _CHROMA), gallery))
        made.append(_query("brighter, duller", place, "duller", same & (more < -_CHROMA), gallery))
    return _draw(made, most, rng)


def _negated_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    """Ask for another colour in texts that also name the reference's, so that a model that passes over "not" fails."""
    kinds, colours = _columns(pictures)
    made = []
    for place in gallery.tolist():
        picture = pictures[place]
        others = np.flatnonzero((kinds == picture.kind.label) & (colours != picture.colour) & (colours != ""))
        if not len(others):
            continue
        colour = str(colours[int(rng.choice(others))])
        text = _NEGATIONS[int(rng.integers(len(_NEGATIONS)))].format(old=picture.colour, new=colour)
        made.append(_query("negation", place, text, (kinds == picture.kind.label) & (colours == colour), gallery))
    return _draw(made, most, rng)


def _plain_queries(pictures: Sequence[LabelledPicture], most: int, rng: np.random.Generator) -> list[PhotoQuery]:
    """Ask for what is labelled by eye as patterned or printed, without that, on the same kind in whatever colour."""
    kinds, _ = _columns(pictures)
    patterns = np.array([p.eye.pattern if p.eye else "" for p in pictures])
    gallery = np.flatnonzero([p.eye is not None for p in pictures])
    made = []
    for place in gallery.tolist():
        if patterns[place] in (*PATTERNS, "print"):
            text = ("without {}", "no {}", "without the {}")[int(rng.integers(3))].format(patterns[place])
            right = (kinds == kinds[place]) & (patterns == "plain")
            made.append(_query("negation of a pattern, by eye", place, text, right, gallery))
    return _draw(made, most, rng)


def _eye_queries(pictures: Sequence[LabelledPicture], most: int, rng: np.random.Generator) -> list[PhotoQuery]:
    """Ask for colour, kind, sleeves and pattern among the photographs that were labelled by eye."""
    seen = [
        replace(picture, colour=picture.eye.colour, eye=picture.eye) if picture.eye else replace(picture, colour="")
        for picture in pictures
    ]
    labelled = np.array([place for place, picture in enumerate(seen) if picture.eye], np.int64)
    sure = np.array([place for place in labelled.tolist() if seen[place].colour], np.int64)
    groups = [
        _colour_queries(seen, sure, most, rng),
        _class_queries(seen, sure, most, rng),
        _eye_sleeve_queries(seen, sure, most, rng),
        _pattern_queries(seen, labelled, most, rng),
    ]
    return [replace(query, group=f"{query.group}, by eye") for group in groups for query in group]


def _eye_sleeve_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    """Ask for other sleeves in the same colour, on whatever is worn above."""
    _, colours = _columns(pictures)
    sleeves = np.array([p.eye.sleeves if p.eye else "" for p in pictures])
    regions = np.array([p.kind.region for p in pictures])
    made = []
    for place in gallery.tolist():
        own = sleeves[place]
        others = np.flatnonzero(
            (colours == colours[place]) & (sleeves != own) & (sleeves != "") & (regions == regions[place])
        )
        if not own or not len(others):
            continue
        asked = str(sleeves[int(rng.choice(others))])
        right = (sleeves == asked) & (colours == colours[place]) & (regions == regions[place])
        made.append(_query("sleeves", place, sleeve_text(asked, rng), right, gallery))
    return _draw(made, most, rng)


def _pattern_queries(
    pictures: Sequence[LabelledPicture], gallery: NDArray[np.int64], most: int, rng: np.random.Generator
) -> list[PhotoQuery]:
    """Ask for a pattern, or for none, on the same kind of clothing in whatever colour."""
    kinds, _ = _columns(pictures)
    patterns = np.array([p.eye.pattern if p.eye else "" for p in pictures])
    made = []
    for place in gallery.tolist():
        others = np.flatnonzero(
            (kinds == kinds[place]) & (patterns != patterns[place]) & np.isin(patterns, ("plain", *PATTERNS))
        )
        if not len(others):
            continue
        asked = str(patterns[int(rng.choice(others))])
        right = (kinds == kinds[place]) & (patterns == asked)
        made.append(_query("pattern", place, "plain" if asked == "plain" else f"with {asked}", right, gallery))
    return _draw(made, most, rng)


def _edited_queries(
    pictures: list[LabelledPicture],
    garments: Sequence[tuple[NDArray[np.uint8], Float32, GarmentMask]],
    most: int,
    rng: np.random.Generator,
) -> list[PhotoQuery]:
    """Edit each garment, photograph it anew on another photograph's floor, and ask for it among all of these.

    For each there is a second edit of the same garment in the gallery. The edited pictures are appended.
    """
    floors = [floor for rgb, _, mask in garments if (floor := floor_of(rgb, mask)) is not None]
    names = [number for number, colour in enumerate(COLOURS) if colour.name not in HELD_OUT_COLOURS]
    asked: list[tuple[str, int, str, int]] = []
    for garment, (rgb, lab, mask) in enumerate(garments):
        source = pictures[garment]
        basic = basic_colour(mask.lab).name
        first, second = _two_colours(names, basic, rng)
        is_patterned = garment % 2 == 1 and mask.spread < _PLAIN_SPREAD
        pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
        looks: list[tuple[str, Look, str]] = [
            ("colour", Look(COLOURS[first].lab, "unknown", "unknown", None), f"in {COLOURS[first].name}"),
            ("colour", Look(COLOURS[second].lab, "unknown", "unknown", None), f"in {COLOURS[second].name}"),
        ]
        if is_patterned:
            look = Look(None, pattern, "unknown", COLOURS[first].lab)
            looks[0] = ("pattern", look, f"with {pattern}")
        for number, (edit, look, text) in enumerate(looks):
            changed = dressed(lab, mask, look, rng)
            if changed is None:
                continue
            shown = rgb + mask.alpha[..., None] * (rgb_of_lab(changed).astype(np.float32) - rgb)
            floor = floors[int(rng.integers(len(floors)))] if floors else None
            picture = photographed(shown.astype(np.uint8), mask, "floor", floor, size=_EDITED_SIDE, rng=rng)
            if number == 0:
                asked.append((f"same garment, {edit}", garment, text, len(pictures)))
            image_id = f"{source.image_id}#{number}"
            pictures.append(replace(source, image_id=image_id, picture=picture, colour="", lab=None, edit=edit))
    everything = np.arange(len(pictures))
    made = [
        PhotoQuery(group, garment, text, np.array([target]), everything[everything != garment])
        for group, garment, text, target in asked
    ]
    return [
        query
        for group in sorted({query.group for query in made})
        for query in _draw([query for query in made if query.group == group], most, rng)
    ]


def _two_colours(names: Sequence[int], own: str, rng: np.random.Generator) -> tuple[int, int]:
    """Choose two names of colours under different basic colours, neither of them the garment's own."""
    others = [basic for basic in rng.permutation(BASIC_COLOURS).tolist() if basic != own][:2]
    chosen = [[n for n in names if COLOURS[n].basic == basic] for basic in others]
    first, second = (listed[int(rng.integers(len(listed)))] for listed in chosen)
    return first, second
