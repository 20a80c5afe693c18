"""The controls compare as they say, are trained from a round, and are measured on the benchmark's catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES, TINY_ROUND  # noqa: E402

from benchmarks.controls.__main__ import main as train_main  # noqa: E402
from benchmarks.controls.heads import KINDS, LateInteraction, build_control, head_of  # noqa: E402
from benchmarks.controls.training import ControlTraining  # noqa: E402
from benchmarks.quality.__main__ import main as quality_main  # noqa: E402
from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import DRAWN_SMALL, build_model  # noqa: E402
from onnx_export.training import similarity  # noqa: E402
from onnx_export.training.drawn.families import VARIANTS  # noqa: E402
from onnx_export.training.drawn.family_batches import Gallery  # noqa: E402
from onnx_export.training.drawn.family_round import open_round_families  # noqa: E402
from onnx_export.training.drawn.further import train_round_from  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from qdrant_cir.errors import InputError  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402
from qdrant_cir.model.compute import Compute  # noqa: E402
from qdrant_cir.model.image_encoder import ImageEncoder  # noqa: E402
from qdrant_cir.model.preprocess import preprocess  # noqa: E402


def test_maxsim_sums_over_words_the_best_cosine_among_tokens() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]])  # the third is padding
    pictures = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])

    scores = LateInteraction(DRAWN_SMALL).scores(queries, pictures)

    assert np.allclose(scores, [[1.0 + 0.8, 0.6 + 1.0]])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_score(kind: str) -> None:
    head = head_of(build_control(kind, seed=0).eval())
    states, tokens = torch.randn(1, 3, DRAWN_SMALL.text_width), torch.randn(2, 65, DRAWN_SMALL.image_width)
    padded = torch.cat((states, torch.randn(1, 2, DRAWN_SMALL.text_width)), dim=1)

    short = head.scores(head.queries(states, torch.ones(1, 3)), head.pictures(tokens))
    long = head.scores(head.queries(padded, torch.tensor([[1, 1, 1, 0, 0]])), head.pictures(tokens))

    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_learns_some_queries_by_heart(kind: str, tmp_path: Path) -> None:
    model, generator = build_model(SIZES, seed=3), torch.Generator().manual_seed(1)
    families = open_round_families(tmp_path, TINY_ROUND, SIZES, build_tokenizer())
    tokens, vectors = (torch.randn(2 * VARIANTS, *shape, generator=generator) for shape in ((5, 16), (8,)))
    gallery = Gallery(tokens.half(), vectors, torch.zeros(5, 16))
    control = ControlTraining(kind, model, families, build_tokenizer(), gallery, TINY_ROUND)
    optimiser = torch.optim.AdamW(control.modules.parameters(), lr=3e-3)

    first = control.step(0)
    for _ in range(25):
        optimiser.zero_grad()
        torch.stack([value for name, value in control.step(0).items() if not name.startswith("_")]).sum().backward()
        optimiser.step()

    assert control.step(0)["loss"] < 0.7 * first["loss"]


def test_controls_are_measured_on_the_catalogue(evaluated_catalog: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "controls", tmp_path / "out"
    folder.mkdir()
    for kind in KINDS:
        torch.save({"modules": build_control(kind, seed=0).state_dict()}, folder / f"{kind}.ckpt")
    bundle = load_bundle("drawn")
    pictures = np.random.default_rng(0).integers(256, size=(2, 128, 128, 3), dtype=np.uint8)
    pixels = np.stack([preprocess(Image.fromarray(picture), bundle.manifest.preprocessing) for picture in pictures])
    vectors = ImageEncoder.open(bundle, Compute("cpu", 1)).encode(pixels).vectors
    np.savez(folder / "features.npz", pictures=pictures, vectors=vectors)
    (folder / "controls.json").write_text(
        '{"command": "python -m benchmarks.controls --round ROUND --steps 7"}', encoding="utf-8"
    )
    asked = ["--catalog", str(evaluated_catalog / "catalog"), "--run", str(evaluated_catalog / "run")]
    asked += ["--out", str(out), "--threads", "1", "--only", "controls", "--controls", str(folder)]

    quality_main(asked)

    found = json.loads((out / "quality.json").read_text(encoding="utf-8"))["controls"]
    assert len(found["rows"]) == 8  # stage one, two controls in three ways, the re-ranker
    assert found["data"]["stage one"]["R@1"]["over_stage_one"]["value"] == 0
    assert found["command"].startswith("python -m benchmarks.controls --round ROUND --steps 7\n")
    np.savez(folder / "features.npz", pictures=pictures, vectors=-vectors)
    with pytest.raises(InputError, match="another image encoder"):
        quality_main(asked)


def test_controls_are_trained_on_what_a_round_learnt_from_and_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "CANDIDATES", 4)
    start, round_folder, out = tmp_path / "start", tmp_path / "round", tmp_path / "controls"
    begun = ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {})
    save_model_folder(start, begun)
    command = ["--round", str(round_folder), "--start", str(start), "--out", str(out), "--steps", "2"]
    round_folder.mkdir()
    (round_folder / "round.json").write_text(json.dumps({"round": asdict(TINY_ROUND)}), encoding="utf-8")
    with pytest.raises(TrainingError, match="has no features yet"):
        train_main(command)
    (round_folder / "round.json").unlink()
    train_round_from(round_folder, begun, TINY_ROUND)

    train_main(command)
    trained = {path.name: torch.load(path, weights_only=True) for path in out.glob("*.ckpt")}
    train_main([*command, "--kinds", "single_vector"])

    assert {name: state["step"] for name, state in trained.items()} == {
        "single_vector.ckpt": 2,
        "late_interaction.ckpt": 2,
    }
    again = torch.load(out / "single_vector.ckpt", weights_only=True)["modules"]
    assert all(torch.equal(again[key], value) for key, value in trained["single_vector.ckpt"]["modules"].items())
    words = "text_encoder.embeddings.word_embeddings.weight"
    before = load_model_folder(start).model.state_dict()[f"composer.{words}"]
    assert torch.allclose(again[words], before, atol=0.05)
    told = json.loads((out / "controls.json").read_text(encoding="utf-8"))["command"]
    made = "python -m benchmarks.controls --round ROUND --start BUNDLE --out CONTROLS --steps 2 --kinds"
    assert told.splitlines() == [f"{made} single_vector late_interaction", f"{made} single_vector"]
