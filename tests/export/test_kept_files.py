"""A damaged file of a run is named, with what to do; nothing of it is a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from test_training import toy_weights  # noqa: E402
from tiny_sizes import SIZES  # noqa: E402

from onnx_export.bundle.record import record_measurement  # noqa: E402
from onnx_export.errors import CheckpointError, ExportError, TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import build_model  # noqa: E402
from onnx_export.training.custom.data import CustomData, NamedTriplet  # noqa: E402
from onnx_export.training.custom.pictures import find_unreadable  # noqa: E402
from onnx_export.training.custom.training import CustomRecipe, CustomRun  # noqa: E402
from onnx_export.training.drawn import families, pool  # noqa: E402
from onnx_export.training.drawn.rounds import fit_similarity  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.training.features import compute_features  # noqa: E402
from onnx_export.training.photos.pool import COLUMNS  # noqa: E402
from onnx_export.training.photos.pool import open_pool as open_photo_pool  # noqa: E402
from qdrant_cir.indexing.sources import ImageRecord  # noqa: E402
from qdrant_cir.model.bundle import packaged_bundle_path  # noqa: E402

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)) * 4,
    "a list": lambda content: b"[1, 2]",
    "an empty object": lambda content: b"{}",
    "nested": lambda content: b"[" * 100_000,
}


def picture(folder: Path) -> ImageRecord:
    Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    return ImageRecord("red", folder / "red.png", {}, None)


def custom_run(folder: Path) -> None:
    start = folder.with_name("start")
    if not start.exists():
        save_model_folder(start, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}))
    record = picture(folder)
    names = [f"{number}" for number in range(9)]
    triplets = tuple(NamedTriplet(name, (names[number - 1],), (), ("in blue",)) for number, name in enumerate(names))
    CustomRun(folder, CustomRecipe(held_out=0.0), start=start, data=CustomData(dict.fromkeys(names, record), triplets))


def unreadable(folder: Path) -> None:
    find_unreadable({"red": picture(folder)}, folder)


def features(folder: Path) -> None:
    compute_features(build_model(SIZES, seed=3).eval(), lambda rows: torch.zeros(3, 3, 32, 32)[rows], 3, folder)


def drawn_pool(folder: Path) -> None:
    pool.open_pool(folder, groups=1, size=16, seed=1, workers=1)


def drawn_families(folder: Path) -> None:
    families.open_families(folder, families=1, size=16, seed=1, workers=1, tokenizer=build_tokenizer())


def photo_pool(folder: Path) -> None:
    if not (folder / "facts.npz").exists():
        facts: dict[str, Any] = {name: np.zeros(2, np.int64) for name in COLUMNS}
        np.savez(folder / "facts.npz", **facts)
        np.save(folder / "features.npy", np.zeros((2, 4, 9), np.float16))
        (folder / "about.json").write_text(json.dumps({"usable": {"colour": 1.0}, "skipped": 0}))
    open_photo_pool(folder, (), None, size=32, seed=1, workers=1)  # type: ignore[arg-type]


def toy(folder: Path) -> None:
    toy_weights(folder, stop_at=None if (folder / "toy.ckpt").exists() else 5)


def similarity(folder: Path) -> None:
    if not (folder / "fitted.json").exists():
        (folder / "fitted.json").write_text("5.0")
    fit_similarity(build_model(SIZES, seed=3), build_tokenizer(), None, folder / "fitted.json")  # type: ignore[arg-type]


KEPT = MappingProxyType(
    {
        "run.json": custom_run,
        "unreadable.json": unreadable,
        "vectors.npy": features,
        "tokens.npy": features,
        "facts_0000.jsonl": drawn_pool,
        "pictures.npy": drawn_pool,
        "facts_00000.npz": drawn_families,
        "facts.npz": photo_pool,
        "about.json": photo_pool,
        "features.npy": photo_pool,
        "toy.ckpt": toy,
        "fitted.json": similarity,
    }
)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, damage: str) -> None:
    use, folder = KEPT[name], tmp_path / "run"
    folder.mkdir()
    use(folder)
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(DAMAGES[damage](content))
    if (name, damage) == ("fitted.json", "cut"):
        pytest.skip("half of a number is a number")
    with pytest.raises(TrainingError, match=r"Remove|Restore") as refused:
        use(folder)
    assert str(file) in str(refused.value)
    # what it says helps: the same without the damage goes on
    file.write_bytes(content)
    use(folder)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["sizes.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_folder_is_named(tmp_path: Path, name: str, damage: str) -> None:
    save_model_folder(tmp_path, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}))
    file = tmp_path / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(CheckpointError, match="is damaged") as refused:
        load_model_folder(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("provenance"),
        lambda about: about.update(provenance=3),
        lambda about: about["sizes"].update(image_size="x"),
        lambda about: about["sizes"].update(text_depth=-3),
    ],
)
def test_sizes_and_provenance_that_no_model_has_are_named(tmp_path: Path, change: Callable[[Any], object]) -> None:
    save_model_folder(tmp_path, ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {}))
    file = tmp_path / "sizes.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize("content", ['{"run": {"fingerprint": 5}}', "[" * 100_000, "5", "[]", '{"run": []}', "{"])
def test_a_file_that_is_no_measurement_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ExportError, match=r"report\.json"):
        record_measurement(packaged_bundle_path("drawn"), tmp_path / "report.json")
