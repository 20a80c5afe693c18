"""Photographs of clothes: masks, colours, edits, texts, splits, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qdrant_cir.errors import InputError
from qdrant_cir.photographs.colours import (
    BASIC_COLOURS,
    COLOURS,
    HELD_OUT_COLOURS,
    basic_colour,
    lab_of_rgb,
    rgb_of_lab,
)
from qdrant_cir.photographs.edits import PATTERNS, Look, dressed
from qdrant_cir.photographs.labels import KINDS, read_photographs, split_of
from qdrant_cir.photographs.masks import find_mask
from qdrant_cir.photographs.rendering import floor_of, photographed
from qdrant_cir.photographs.wording import Appearance, change_text, class_text, sleeve_text, training_words

FLOOR, CLOTH = (200, 180, 150), (40, 60, 140)


def photograph(cloth: tuple[int, int, int] = CLOTH, *, seed: int = 0) -> Image.Image:
    """A garment of one colour with folds, on a floor of another."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((260, 200, 3))
    pixels[:] = FLOOR
    folds = 1 + 0.12 * np.sin(np.arange(100) / 7)[None, :, None]
    pixels[60:200, 50:150] = np.array(cloth) * folds
    return Image.fromarray(np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8))


def labelled_folder(folder: Path, count: int, *, label: str = "T-Shirt") -> Path:
    names = [f"{number}.jpg" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(b"")
    rows = [f"{name},{label},{number % 7}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(("file,label,sender", *rows)) + "\n")
    return folder


def test_a_colour_survives_the_way_to_lab_and_back() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (50, 3)).astype(np.uint8)
    assert np.abs(rgb_of_lab(lab_of_rgb(rgb)).astype(int) - rgb).max() <= 1


def test_white_black_and_red_have_the_lab_values_of_the_standard() -> None:
    lab = lab_of_rgb(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], np.uint8))
    assert np.allclose(lab, [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.2]], atol=0.1)


@pytest.mark.parametrize("basic", BASIC_COLOURS)
def test_the_plain_colour_of_each_name_is_called_by_it(basic: str) -> None:
    colour = next(colour for colour in COLOURS if colour.name == basic)
    assert basic_colour(colour.lab).name == basic


def test_names_of_colours_are_unique_and_some_are_held_out() -> None:
    names = [colour.name for colour in COLOURS]
    assert len(set(names)) == len(names)
    assert set(names) >= HELD_OUT_COLOURS
    assert len(names) > 200


def test_a_mask_covers_the_garment_and_leaves_the_floor() -> None:
    picture = photograph()
    mask = find_mask(picture, lab_of_rgb(np.asarray(picture)))
    assert mask is not None
    inside = np.zeros((260, 200), np.bool_)
    inside[60:200, 50:150] = True
    found = mask.alpha > 0.5
    assert (found & inside).sum() / (found | inside).sum() > 0.93
    assert basic_colour(mask.lab).name == "blue"


def test_a_picture_without_a_garment_has_no_mask() -> None:
    noise = np.random.default_rng(0).normal(128, 3, (260, 200, 3))
    picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    assert find_mask(picture, lab_of_rgb(np.asarray(picture))) is None


def test_a_recoloured_garment_has_the_wanted_colour_and_keeps_its_folds() -> None:
    picture = photograph()
    lab = lab_of_rgb(np.asarray(picture))
    mask = find_mask(picture, lab)
    assert mask is not None
    wanted = next(colour for colour in COLOURS if colour.name == "red").lab
    changed = dressed(lab, mask, Look(wanted, "unknown", "unknown", None), np.random.default_rng(0))
    assert changed is not None
    inside = mask.alpha > 0.95
    assert np.abs(np.median(changed[inside], axis=0) - wanted).max() < 2
    assert np.corrcoef(changed[inside][:, 0], lab[inside][:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_shows_both_colours(pattern: str) -> None:
    picture = photograph()
    lab = lab_of_rgb(np.asarray(picture))
    mask = find_mask(picture, lab)
    assert mask is not None
    second = next(colour for colour in COLOURS if colour.name == "yellow").lab
    look = Look(None, pattern, "unknown", second)  # type: ignore[arg-type]
    changed = dressed(lab, mask, look, np.random.default_rng(3))
    assert changed is not None
    b = changed[mask.alpha > 0.95][:, 2]
    assert 0.05 < (b > 20).mean() < 0.8


def test_a_photograph_is_taken_alike_by_equal_seeds_and_differently_by_others() -> None:
    picture = photograph()
    rgb = np.asarray(picture)
    mask = find_mask(picture, lab_of_rgb(rgb))
    assert mask is not None
    floor = floor_of(rgb, mask)

    def taken(seed: int) -> bytes:
        return photographed(rgb, mask, "floor", floor, size=64, rng=np.random.default_rng(seed)).tobytes()

    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_held_out_wordings_are_never_training_wordings() -> None:
    rng = np.random.default_rng(0)
    shirt, skirt = KINDS["shirt"], KINDS["skirt"]
    before, after = Appearance(shirt, "red"), Appearance(shirt, "blue")
    trained = {change_text(before, after, rng) for _ in range(400)} | {
        class_text(before, skirt, rng) for _ in range(400)
    }
    held_out = {change_text(before, after, rng, held_out=True) for _ in range(40)}
    held_out |= {class_text(before, skirt, rng, held_out=True) for _ in range(40)}
    assert not trained & held_out


def test_every_training_text_is_made_of_training_words() -> None:
    rng = np.random.default_rng(0)
    words = training_words(tuple(c.name for c in COLOURS if c.name not in HELD_OUT_COLOURS), tuple(KINDS.values()))
    assert not words & HELD_OUT_COLOURS
    before = Appearance(KINDS["t-shirt"], "red", "plain", "none")
    after = Appearance(KINDS["t-shirt"], "navy blue", "stripes", "none", "pink")
    for _ in range(200):
        texts = (change_text(before, after, rng), sleeve_text("long", rng), class_text(before, KINDS["hat"], rng))
        for text in texts:
            assert set(text.replace("-", " ").replace(",", " ").replace("'", " ").split()) <= words, text


def test_a_text_says_what_changed_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    plain = Appearance(KINDS["shirt"], "red", "plain", "none")
    assert "blue" in change_text(plain, Appearance(KINDS["shirt"], "blue", "plain", "none"), rng)
    assert change_text(plain, plain, rng) == ""


def test_all_pictures_of_a_sender_are_in_one_split_and_every_split_has_senders() -> None:
    found = {split_of(str(number)) for number in range(100)}
    assert found == {"training", "validation", "test"}
    assert split_of("17") == split_of("17")


def test_fewer_than_fifty_photographs_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="49 labelled photographs; at least 50 are needed, because"):
        read_photographs(labelled_folder(tmp_path, 49))


def test_labels_that_the_model_is_not_taught_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not taught: 'Sofa'\. Known are Blazer"):
        read_photographs(labelled_folder(tmp_path, 60, label="Sofa"))


def test_a_label_column_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column category; it has file, label, sender"):
        read_photographs(labelled_folder(tmp_path, 60), label_column="category")


def test_a_photograph_without_a_sender_is_its_own(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path, 50)
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text("\n".join(line.rpartition(",")[0] for line in text.splitlines()) + "\n")
    assert read_photographs(folder)[3].sender == "3.jpg"
