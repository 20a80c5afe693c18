"""Fine-tuning on triplets of one's own: both layouts, missing pictures, exact resume, the best weights kept."""

import json
import logging
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.bundle.weights import load_start  # noqa: E402
from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import build_model  # noqa: E402
from onnx_export.training.custom.data import is_held_out, read_custom_data  # noqa: E402
from onnx_export.training.custom.encoder import EncoderStage  # noqa: E402
from onnx_export.training.custom.training import CustomRecipe, CustomRun  # noqa: E402
from onnx_export.training.custom.vocabulary import extend_vocabulary, unknown_words  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.stages import StageTwo  # noqa: E402
from qdrant_cir.cli import app as search_app  # noqa: E402
from qdrant_cir.drawn import dataset  # noqa: E402
from qdrant_cir.drawn.dataset import sample_drawn  # noqa: E402
from qdrant_cir.drawn.files import write_drawn  # noqa: E402

TINY = CustomRecipe(
    steps_one=4, batch_one=4, steps_two=3, batch_two=3, negatives=16, held_out=0.3, evaluate_every=2, warmup=1
)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_SHARING", 2)  # several references, for held-out triplets are chosen by theirs
        catalog = sample_drawn(5, products=120, queries=12)
    write_drawn(catalog, folder, size=32)
    return folder


@pytest.fixture
def catalogue(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "catalogue"))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    save_model_folder(folder, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {"made": "for a test"}))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model_folder(folder).model.state_dict())


def changed(before: Path, after: Path) -> set[str]:
    first, second = weights(before), weights(after)
    return {name.split(".")[0] for name, value in first.items() if not torch.equal(value, second[name])}


def test_own_lines_keep_all_their_targets(catalogue: Path) -> None:
    lines = [json.loads(line) for line in (catalogue / "queries.jsonl").read_text().splitlines()]
    data = read_custom_data("own", catalogue)
    assert sorted(t.targets for t in data.triplets) == sorted(tuple(sorted(line["targets"])) for line in lines)
    assert len(data.pictures) == 120


def test_fashioniqs_captions_are_joined_in_both_orders(tmp_path: Path) -> None:
    (tmp_path / "captions").mkdir()
    entry = {"candidate": "a", "target": "b", "captions": ["is red", "has sleeves"]}
    (tmp_path / "captions" / "cap.dress.train.json").write_text(json.dumps([entry]))
    (triplet,) = read_custom_data("fashioniq", tmp_path).triplets
    assert triplet.texts == ("Is red and has sleeves", "Has sleeves and is red")
    assert (triplet.reference, triplet.targets, triplet.near) == ("a", ("b",), ("a",))


def test_cirrs_other_members_are_near(tmp_path: Path) -> None:
    (tmp_path / "captions").mkdir()
    (tmp_path / "image_splits").mkdir()
    members = list("abcdef")
    entry = {"pairid": 1, "reference": "a", "target_hard": "c", "caption": "x", "img_set": {"members": members}}
    (tmp_path / "captions" / "cap.rc2.train.json").write_text(json.dumps([entry]))
    paths = {name: f"./train/{name}.png" for name in members}
    (tmp_path / "image_splits" / "split.rc2.train.json").write_text(json.dumps(paths))
    data = read_custom_data("cirr", tmp_path)
    assert data.triplets[0].near == ("a", "b", "d", "e", "f")
    assert data.excludes_reference


def test_a_target_that_is_no_picture_is_refused(catalogue: Path) -> None:
    reference = read_custom_data("own", catalogue).triplets[0].reference
    line = {"reference": reference, "modification_text": "in red", "targets": ["nowhere"]}
    queries = catalogue / "mine.jsonl"
    queries.write_text(json.dumps(line))
    with pytest.raises(TrainingError, match="nowhere"):
        read_custom_data("own", catalogue, queries=queries)


def test_the_command_fine_tunes_composer_and_reranker_and_nothing_else(
    catalogue: Path, start: Path, tmp_path: Path
) -> None:
    for path in [*catalogue.glob("captions/*.json"), *catalogue.glob("image_splits/*.json")]:
        path.rename(path.with_name(path.name.replace(".val.", ".train.")))
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"batch_one": 4, "batch_two": 3, "held_out": 0.3, "warmup": 1, "rate_one": 1e-2}))
    command = (
        f"train own --data fashioniq --root {catalogue} --start {start} --run {tmp_path / 'run'} --recipe {recipe}"
    )
    result = CliRunner().invoke(app, [*command.split(), "--steps-one", "2", "--steps-two", "2", "--held-out", "0"])
    assert result.exit_code == 0, result.output
    assert changed(start, tmp_path / "run" / "model") == {"composer", "reranker"}
    assert load_model_folder(tmp_path / "run" / "model").provenance["started_from"] == {"made": "for a test"}


def test_without_a_start_the_bundled_model_goes_on(catalogue: Path, tmp_path: Path) -> None:
    command = f"train own --data own --root {catalogue} --run {tmp_path / 'run'} --held-out 0"
    result = CliRunner().invoke(app, [*command.split(), "--steps-one", "1", "--steps-two", "1", "--rate-one", "1e-3"])
    assert result.exit_code == 0, result.output
    bundled, tuned = load_start(None), load_model_folder(tmp_path / "run" / "model")
    assert tuned.provenance["started_from"] == bundled.provenance
    before, after = bundled.model.state_dict(), tuned.model.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} <= {
        "composer",
        "reranker",
    }


@pytest.mark.parametrize(("stages", "part"), [("one", "composer"), ("two", "reranker")])
def test_one_stage_alone_leaves_the_other_as_it_was(
    catalogue: Path, start: Path, tmp_path: Path, stages: str, part: str
) -> None:
    recipe = replace(TINY, held_out=0.0)
    out = CustomRun(tmp_path / "run", recipe, start=start, data=read_custom_data("own", catalogue)).train(stages)  # type: ignore[arg-type]
    assert changed(start, out) == {part}


def test_candidates_are_read_through_the_models_second_encoder_where_it_has_one(
    catalogue: Path, start: Path, tmp_path: Path
) -> None:
    second = build_model(SIZES, seed=4).image_encoder.visual_encoder
    save_model_folder(start, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}, second))
    run = tmp_path / "run"
    out = CustomRun(run, replace(TINY, steps_two=1), start=start, data=read_custom_data("own", catalogue)).train("two")
    tokens, candidates = (np.load(run / name / "tokens.npy") for name in ("features", "candidate_features"))
    assert tokens.shape == candidates.shape
    assert not np.allclose(tokens, candidates)
    kept = load_model_folder(out).candidate_encoder
    assert kept is not None
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_an_interrupted_run_ends_with_the_same_model(
    catalogue: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: float
) -> None:
    data, recipe = read_custom_data("own", catalogue), replace(TINY, held_out=held_out)
    whole = CustomRun(tmp_path / "whole", recipe, start=start, data=data).train()
    assert held_out or changed(start, whole) == {"composer", "reranker"}
    ordinary = StageTwo.step

    def interrupted(stage: StageTwo, step: int) -> dict[str, torch.Tensor]:
        if step == 2:
            raise KeyboardInterrupt
        return ordinary(stage, step)

    stopped = CustomRun(tmp_path / "stopped", recipe, start=start, data=data)
    with monkeypatch.context() as patch:
        patch.setattr(StageTwo, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    resumed = CustomRun(tmp_path / "stopped", recipe, start=start, data=data).train()
    assert changed(whole, resumed) == set()
    assert load_model_folder(resumed).provenance["validation_triplets"] == sum(
        is_held_out(triplet, held_out) for triplet in data.triplets
    )


def test_a_trained_encoder_is_stopped_and_resumed_exactly_and_its_pictures_are_encoded_again(
    catalogue: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_custom_data("own", catalogue)
    recipe = replace(TINY, train_encoder=True, steps_encoder=3, batch_encoder=2, steps_one=2, rate_encoder=1e-2)
    whole = CustomRun(tmp_path / "whole", recipe, start=start, data=data).train("one")
    assert changed(start, whole) == {"image_encoder", "composer"}
    before, after = (np.load(tmp_path / "whole" / name / "vectors.npy") for name in ("start_features", "features"))
    assert not np.allclose(before, after)
    ordinary = EncoderStage.step

    def interrupted(stage: EncoderStage, step: int) -> dict[str, torch.Tensor]:
        if step == 2:
            raise KeyboardInterrupt
        return ordinary(stage, step)

    stopped = CustomRun(tmp_path / "stopped", recipe, start=start, data=data)
    with monkeypatch.context() as patch:
        patch.setattr(EncoderStage, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stopped.train("one")
    resumed = CustomRun(tmp_path / "stopped", recipe, start=start, data=data).train("one")
    assert changed(whole, resumed) == set()


def test_batch_norms_keep_the_statistics_that_a_bundle_gave_them(catalogue: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, train_encoder=True, steps_encoder=1, batch_encoder=2, steps_one=0, held_out=0.0)
    out = CustomRun(tmp_path / "run", recipe, start=Path("drawn"), data=read_custom_data("own", catalogue)).train("one")
    before, after = load_start(Path("drawn")).model.state_dict(), load_model_folder(out).model.state_dict()
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(before[name], after[name]) for name in means)


def test_a_model_with_a_second_encoder_keeps_its_first_frozen(catalogue: Path, start: Path, tmp_path: Path) -> None:
    second = build_model(SIZES, seed=4).image_encoder.visual_encoder
    save_model_folder(start, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}, second))
    data = read_custom_data("own", catalogue)
    with pytest.raises(TrainingError, match="second image encoder"):
        CustomRun(tmp_path / "run", replace(TINY, train_encoder=True), start=start, data=data)


def test_new_words_get_rows_that_are_trained_and_the_other_rows_stay_known(
    catalogue: Path, start: Path, tmp_path: Path
) -> None:
    queries = catalogue / "queries.jsonl"
    lines = [json.loads(line) for line in queries.read_text().splitlines()]
    for line in lines:
        line["modification_text"] += " taupe, chartreuse!"
    lines[0]["modification_text"] += " oncewritten"
    queries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = replace(TINY, extend_vocabulary=True, held_out=0.0, rate_one=1e-2)
    run = CustomRun(tmp_path / "run", recipe, start=start, data=read_custom_data("own", catalogue))
    assert run.new_words == ("chartreuse", "taupe")
    fresh = run.start.model.composer.text_encoder.embeddings.word_embeddings.weight.detach().clone()
    out = load_model_folder(run.train())
    known = load_model_folder(start)
    assert out.tokenizer.token_to_id("red") == known.tokenizer.token_to_id("red")
    taupe = out.tokenizer.token_to_id("taupe")
    assert taupe is not None
    for part in (out.model.composer, out.model.reranker):
        rows = part.text_encoder.embeddings.word_embeddings.weight
        assert len(rows) == out.model.sizes.vocabulary > taupe
    assert not torch.equal(out.model.composer.text_encoder.embeddings.word_embeddings.weight[taupe], fresh[taupe])
    assert out.provenance["new_words"] == ["chartreuse", "taupe"]


def test_a_vocabulary_grows_beyond_its_spare_rows(start: Path) -> None:
    words = tuple(f"word{number}" for number in range(600))
    before = load_model_folder(start).model.composer.text_encoder.embeddings.word_embeddings.weight
    larger = extend_vocabulary(load_model_folder(start), words, seed=1)
    after = larger.model.composer.text_encoder.embeddings.word_embeddings.weight
    first = larger.tokenizer.token_to_id("word0")
    assert len(after) == larger.model.sizes.vocabulary == first + 600 > len(before)
    assert torch.equal(after[:first], before[:first])


def test_a_tokenizer_of_pieces_has_no_unknown_words() -> None:
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(TrainingError, match="Leave out --extend-vocabulary"):
        unknown_words(pieces, ["taupe"])


def test_a_run_whose_best_is_its_start_says_so(
    catalogue: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(TINY, rate_one=0.0)
    with caplog.at_level(logging.WARNING):
        CustomRun(tmp_path / "run", recipe, start=start, data=read_custom_data("own", catalogue)).train("one")
    assert "stage-one: no step was better than its start" in caplog.text


def test_a_missing_picture_is_named_and_its_triplets_are_left_out(
    catalogue: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_custom_data("own", catalogue)
    lost = data.triplets[-1].reference
    (catalogue / "images" / f"{lost}.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        run = CustomRun(tmp_path / "run", TINY, start=start, data=data)
    assert f"left out {lost}: " in caplog.text
    gone = sum(lost in triplet.images() for triplet in data.triplets)
    assert f"{gone} of {len(data.triplets)} triplets are left out" in caplog.text
    assert lost not in run.data.pictures


def test_features_are_encoded_again_only_where_a_picture_changed(
    catalogue: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, data = replace(TINY, steps_one=1, steps_two=1), read_custom_data("own", catalogue)
    CustomRun(tmp_path / "run", recipe, start=start, data=data).train("one")
    encoded = (tmp_path / "run" / "features" / "vectors.npy").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        CustomRun(tmp_path / "run", recipe, start=start, data=data).train("one")
        assert (tmp_path / "run" / "features" / "vectors.npy").stat().st_mtime_ns == encoded
        first, second = sorted((catalogue / "images").iterdir())[:2]
        shutil.copy(second, first)
        CustomRun(tmp_path / "run", recipe, start=start, data=data).train("one")
    assert caplog.text.count("120 pictures are encoded again") == 1


def test_a_run_folder_of_another_recipe_is_refused(catalogue: Path, start: Path, tmp_path: Path) -> None:
    data = read_custom_data("own", catalogue)
    CustomRun(tmp_path / "run", TINY, start=start, data=data)
    with pytest.raises(TrainingError, match="another recipe"):
        CustomRun(tmp_path / "run", CustomRecipe(held_out=0.3), start=start, data=data)


def test_a_run_made_before_a_field_of_the_recipe_existed_goes_on(catalogue: Path, start: Path, tmp_path: Path) -> None:
    data, kept = read_custom_data("own", catalogue), tmp_path / "run" / "run.json"
    CustomRun(tmp_path / "run", TINY, start=start, data=data)
    record = json.loads(kept.read_text())
    del record["recipe"]["accumulation"]
    kept.write_text(json.dumps(record))
    CustomRun(tmp_path / "run", TINY, start=start, data=data)
    with pytest.raises(TrainingError, match="another recipe"):
        CustomRun(tmp_path / "run", replace(TINY, accumulation=2), start=start, data=data)


def test_the_commands_of_the_document_lead_from_pictures_to_a_search(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    smaller = {
        "--products 3000": "--products 300 --size 32",
        "--products 2000": "--products 120 --size 32",
        "--queries 600": "--queries 60",
        "--queries 400": "--queries 12",
        "--start drawn --run runs/shop": f"--run runs/shop --start {start} --recipe {tmp_path / 'recipe.json'}",
    }
    (tmp_path / "recipe.json").write_text(
        json.dumps({"steps_one": 2, "batch_one": 4, "steps_two": 2, "batch_two": 2, "held_out": 0.3})
    )
    commands = [line for block in re.findall("```bash\n(.*?)```", document, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        for shown, run in smaller.items():
            command = command.replace(shown, run)
        program = app if command.startswith("python -m onnx_export ") else search_app
        arguments = command.removeprefix("python -m onnx_export ").removeprefix("qdrant-cir ")
        done = CliRunner().invoke(program, shlex.split(arguments))
        assert done.exit_code == 0, f"{command}: {done.output[-2000:]} {done.exception}"
