"""The controls compare as they say, are trained from a run, and are measured on the benchmark's catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from torch import Tensor  # noqa: E402

from benchmarks.controls.__main__ import main as train_main  # noqa: E402
from benchmarks.controls.heads import KINDS, LateInteraction, build_control, head_of  # noqa: E402
from benchmarks.controls.ranking import load_control  # noqa: E402
from benchmarks.controls.training import BATCHES, ROUND_BATCHES, BatchSize, ControlTraining  # noqa: E402
from benchmarks.quality.__main__ import main as quality_main  # noqa: E402
from onnx_export.bundle_weights import load_start  # noqa: E402
from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.models import CATALOG_SMALL, build_model  # noqa: E402
from onnx_export.training.features import PictureFeatures  # noqa: E402
from onnx_export.training.pool import PICTURES_PER_GROUP, open_pool  # noqa: E402
from onnx_export.training.recipe import Recipe, Run  # noqa: E402
from onnx_export.training.rounds import Round, round_triplets  # noqa: E402
from onnx_export.training.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.triplets import Triplet, TripletSet  # noqa: E402
from qdrant_cir.bundle import default_bundle_path, load_bundle  # noqa: E402
from qdrant_cir.errors import InputError  # noqa: E402
from qdrant_cir.image_encoder import ImageEncoder  # noqa: E402
from qdrant_cir.preprocess import preprocess  # noqa: E402


def random_triplets(count: int) -> TripletSet:
    """Triplets of four random pictures each: reference, target, two near-duplicates."""
    rng = np.random.default_rng(0)
    shape = (4 * count, CATALOG_SMALL.token_rows, CATALOG_SMALL.image_width)
    tokens = rng.standard_normal(shape).astype(np.float16)
    features = PictureFeatures(tokens, torch.zeros(4 * count, CATALOG_SMALL.vector_size), torch.zeros(shape[1:]))
    triplets = [
        Triplet(row, (row + 1,), (row, row + 2, row + 3), ("the collar is red",)) for row in range(0, 4 * count, 4)
    ]
    attributes = [{"collar.color": ("red", "blue")[row % 2]} for row in range(4 * count)]
    return TripletSet(triplets, features, np.arange(4 * count), attributes)


def test_maxsim_sums_over_words_the_best_cosine_among_tokens() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]])  # the third is padding
    pictures = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])

    scores = LateInteraction(CATALOG_SMALL).scores(queries, pictures)

    assert np.allclose(scores, [[1.0 + 0.8, 0.6 + 1.0]])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_score(kind: str) -> None:
    head = head_of(build_control(kind, seed=0).eval())
    states, tokens = torch.randn(1, 3, CATALOG_SMALL.text_width), torch.randn(2, 65, CATALOG_SMALL.image_width)
    padded = torch.cat((states, torch.randn(1, 2, CATALOG_SMALL.text_width)), dim=1)

    short = head.scores(head.queries(states, torch.ones(1, 3)), head.pictures(tokens))
    long = head.scores(head.queries(padded, torch.tensor([[1, 1, 1, 0, 0]])), head.pictures(tokens))

    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_learns_some_triplets_by_heart(kind: str) -> None:
    data = random_triplets(4)
    control = ControlTraining(kind, data, build_tokenizer(), seed=0, batch=BatchSize(4, 16))
    optimiser = torch.optim.AdamW(control.modules.parameters(), lr=2e-3)

    first = control.step(0)
    for step in range(12):
        optimiser.zero_grad()
        torch.stack([value for name, value in control.step(step).items() if not name.startswith("_")]).sum().backward()
        optimiser.step()

    assert control.step(0)["loss"] < 0.7 * first["loss"]


def test_controls_are_measured_on_the_catalogue(tmp_path: Path) -> None:
    folder, out = tmp_path / "controls", tmp_path / "out"
    folder.mkdir()
    for kind in KINDS:
        torch.save({"modules": build_control(kind, seed=0).state_dict()}, folder / f"{kind}.ckpt")
    bundle = load_bundle()
    pictures = np.random.default_rng(0).integers(256, size=(2, 128, 128, 3), dtype=np.uint8)
    pixels = np.stack([preprocess(Image.fromarray(picture), bundle.manifest.preprocessing) for picture in pictures])
    vectors = ImageEncoder.open(bundle, provider="cpu", threads=1).encode(pixels).vectors
    np.savez(folder / "features.npz", pictures=pictures, vectors=vectors)
    (folder / "controls.json").write_text(
        '{"command": "python -m benchmarks.controls --run RUN --steps 7"}', encoding="utf-8"
    )
    asked = ["--out", str(out), "--products", "60", "--queries", "4", "--threads", "1", "--only", "controls"]

    quality_main([*asked, "--controls", str(folder)])

    found = json.loads((out / "quality.json").read_text(encoding="utf-8"))["controls"]
    assert len(found["rows"]) == 8  # stage one, two controls in three ways, the re-ranker
    assert found["data"]["stage one"]["R@1"]["over_stage_one"]["value"] == 0
    assert found["command"].startswith("python -m benchmarks.controls --run RUN --steps 7\n")
    np.savez(folder / "features.npz", pictures=pictures, vectors=-vectors)
    with pytest.raises(InputError, match="another image encoder"):
        quality_main([*asked, "--controls", str(folder)])


def test_controls_are_trained_from_a_run_and_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "controls"
    grounded = keep_run(run)
    command = ["--run", str(run), "--out", str(out), "--steps", "2", "--round-steps", "1"]
    for kind in KINDS:
        monkeypatch.setitem(BATCHES, kind, BatchSize(4, 16))

    train_main(command)
    trained = {path.name: torch.load(path, weights_only=True) for path in out.glob("*.ckpt")}
    train_main(command)

    assert {name: state["step"] for name, state in trained.items()} == {
        "single_vector.ckpt": 2,
        "single_vector-rounds.ckpt": 1,
        "late_interaction.ckpt": 2,
        "late_interaction-rounds.ckpt": 1,
    }
    for name, state in trained.items():
        again = torch.load(out / name, weights_only=True)["modules"]
        assert all(torch.equal(again[key], value) for key, value in state["modules"].items())
    words = "text_encoder.embeddings.word_embeddings.weight"
    assert torch.allclose(trained["single_vector.ckpt"]["modules"][words], grounded[f"composer.{words}"], atol=0.05)
    first, last = (trained[f"single_vector{end}.ckpt"]["modules"]["head.query.weight"] for end in ("", "-rounds"))
    assert torch.allclose(last, first, atol=0.01)
    assert not torch.equal(last, first)
    assert torch.equal(load_control(out, "single_vector").state_dict()["head.query.weight"], last)
    told = json.loads((out / "controls.json").read_text(encoding="utf-8"))["command"]
    assert told == "python -m benchmarks.controls --run RUN --out CONTROLS --steps 2 --round-steps 1"


def test_controls_are_trained_on_what_a_round_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    round_folder, out = tmp_path / "round", tmp_path / "controls"
    settings = {"round_": {"stage_one_steps": 0, "stage_two_steps": 1, "families": 2}, "seed": 5, "rate": 1e-3}
    command = ["--round", str(round_folder), "--out", str(out), "--steps", "2", "--kinds", "single_vector"]
    command += ["--start", str(default_bundle_path())]
    round_folder.mkdir()
    (round_folder / "round.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(TrainingError, match="has no features yet"):
        train_main(command)
    model = load_start(None).model
    round_triplets(model, round_folder / "round", Round(**settings["round_"]), seed=5)
    monkeypatch.setitem(ROUND_BATCHES, "single_vector", BatchSize(4, 16))

    train_main(command)

    words = "text_encoder.embeddings.word_embeddings.weight"
    trained = torch.load(out / "single_vector.ckpt", weights_only=True)["modules"]
    assert torch.allclose(trained[words], model.state_dict()[f"composer.{words}"], atol=0.05)
    assert not (out / "late_interaction.ckpt").exists()
    told = json.loads((out / "controls.json").read_text(encoding="utf-8"))["command"]
    assert told.endswith("--round ROUND --start BUNDLE --out CONTROLS --steps 2 --kinds single_vector")


def keep_run(folder: Path) -> dict[str, Tensor]:
    """Lay out a run as it is after grounding, its features random; gives the checkpoint's weights."""
    recipe = Recipe(groups=250, rounds=(Round(0, 3, groups=250),) * 2)
    Run(folder, recipe)
    open_pool(folder / "pool", groups=250, size=CATALOG_SMALL.image_size, seed=recipe.seed, workers=2)
    rng, pictures = np.random.default_rng(0), 250 * PICTURES_PER_GROUP
    shape = (pictures, CATALOG_SMALL.token_rows, CATALOG_SMALL.image_width)
    np.save(folder / "tokens.npy", rng.standard_normal(shape, dtype=np.float32).astype(np.float16))
    np.save(folder / "vectors.npy", rng.standard_normal((pictures, CATALOG_SMALL.vector_size), dtype=np.float32))
    for name in ("tokens.npy", "vectors.npy"):
        (folder / "pool" / name).symlink_to(folder / name)
    for number in (2, 3):
        (folder / f"round-{number}").symlink_to(folder / "pool")
    weights = build_model(CATALOG_SMALL, seed=5).state_dict()
    torch.save({"modules": weights}, folder / "grounding.ckpt")
    return weights
