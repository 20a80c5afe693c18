"""Recipes of the three trainings, read from JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_export.errors import TrainingError
from onnx_export.training.custom.training import CustomRecipe
from onnx_export.training.drawn.recipe import BUNDLED
from onnx_export.training.drawn.recipe import read_recipe as read_drawn_recipe
from onnx_export.training.photos.run import PhotoRecipe
from onnx_export.training.recipes import read_recipe


@pytest.mark.parametrize("default", [CustomRecipe(), PhotoRecipe()])
def test_a_field_that_is_given_counts_and_the_others_keep_their_defaults(
    default: CustomRecipe | PhotoRecipe, tmp_path: Path
) -> None:
    assert read_recipe(None, default) is default
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"seed": 7}))
    read = read_recipe(file, default)
    assert (read.seed, read.patience, type(read)) == (7, default.patience, type(default))


def test_the_drawn_recipe_without_a_file_is_the_one_of_the_packaged_bundle(tmp_path: Path) -> None:
    assert read_drawn_recipe(None) is BUNDLED
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"seed": 7}))
    assert (read_drawn_recipe(file).seed, read_drawn_recipe(file).families) == (7, None)


@pytest.mark.parametrize("text", ['{"sed": 7}', "[7]", "7"])
def test_what_is_no_recipe_is_refused_with_the_fields(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(TrainingError, match=r"is no CustomRecipe .*fields are seed, steps_one"):
        read_recipe(file, CustomRecipe())


@pytest.mark.parametrize("text", [None, "{", "\xff"])
def test_a_file_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match=r"recipe\.json cannot be read as a recipe"):
        read_recipe(file, CustomRecipe())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"steps_one": value} for value in (-1, 1.5, "many", True, None)),
        *({"rate_two": value} for value in (-0.1, "fast", False)),
        *({"batch_two": 0}, {"patience": 0}, {"accumulation": 0}, {"extend_vocabulary": 1}),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_refused_before_anything_is_encoded(wrong: object, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(wrong))
    with pytest.raises(TrainingError, match=r"recipe\.json: .* is .*; expected"):
        read_recipe(file, CustomRecipe())


@pytest.mark.parametrize(
    "text", ['{"rounds": 5}', '{"rounds": [5]}', '{"families": 3}', '{"families": {"seed": []}}', "null"]
)
def test_a_drawn_recipe_of_other_parts_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(TrainingError, match=r"recipe\.json"):
        read_drawn_recipe(file)
