"""A bundle read back into torch: equal scores after a second export, and refusals of what cannot be read."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

import onnx  # noqa: E402
from torch import Tensor  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from onnx_export.bundle.weights import load_start, read_bundle_model  # noqa: E402
from onnx_export.commands.bundles import bundles  # noqa: E402
from onnx_export.errors import CheckpointError  # noqa: E402
from onnx_export.export import BundleDescription, export_bundle  # noqa: E402
from onnx_export.graphs import AbsorbedLayer  # noqa: E402
from onnx_export.model_folder import ModelFolder, save_model_folder  # noqa: E402
from onnx_export.models import DRAWN_SMALL, PHOTO_SMALL, CirModel, build_model  # noqa: E402
from onnx_export.models.vit import VisionTransformer  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from onnx_export.verify import verify_bundle  # noqa: E402
from qdrant_cir.model.bundle import MANIFEST_FILE, load_bundle, sha256_of  # noqa: E402

SIZES = replace(
    DRAWN_SMALL,
    image_size=32,
    image_width=48,
    image_depth=2,
    text_width=48,
    text_depth=3,
    feed_forward=96,
    merge_layers_from=1,
)
"""The bundled model's kind, smaller; a feed-forward block as wide as two streams, so that shapes alone tell nothing."""


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Give weights, norms and running statistics values that matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.2, generator=generator)
    return model.eval()


def export(folder: ModelFolder, out: Path) -> Path:
    return export_bundle(
        folder.model,
        folder.tokenizer,
        out,
        codec="int8",
        description=BundleDescription("small", "Apache-2.0", folder.provenance),
        candidate_encoder=folder.candidate_encoder,
    )


def tiny() -> CirModel:
    model = build_model(SIZES, seed=2)
    spread(model)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ModelFolder(tiny(), build_tokenizer(), {"source": "a test", "quality": {"recall": 1}})
    return export(folder, tmp_path_factory.mktemp("exported") / "small")


def test_what_was_read_gives_what_the_bundle_gives(exported: Path) -> None:
    bundle = load_bundle(exported)
    result = verify_bundle(bundle, read_bundle_model(bundle), tolerance=1e-5)
    assert result.orders == 9


def test_every_weight_but_the_folded_and_the_lost_ones_is_the_trained_one(exported: Path) -> None:
    trained, read = tiny().state_dict(), read_bundle_model(load_bundle(exported)).model.state_dict()
    assert read.keys() == trained.keys()
    changed = {
        name
        for name, value in trained.items()
        if not torch.allclose(value.float(), read[name].float(), rtol=1e-6, atol=1e-7)
    }
    lost = {
        f"reranker.text_encoder.encoder.layer.{i}.crossattention.self{s}.key.bias" for i in range(3) for s in (0, 1)
    }
    assert changed - {name for name in changed if ".patch_embed.proj." in name} == lost


def test_a_second_export_gives_the_same_model(exported: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(bundles, ["export", str(exported), "--out", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    again = load_bundle(tmp_path / "again")
    original = ModelFolder(tiny(), build_tokenizer(), {})
    assert verify_bundle(again, original, tolerance=1e-5).scores < 1e-5
    made_of = again.manifest.provenance["made_of"]
    assert isinstance(made_of, dict)
    assert "quality" not in made_of


def test_a_bundle_that_computes_the_feed_forward_block_for_each_stream_is_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def earlier(
        self: AbsorbedLayer, x0: Tensor, x1: Tensor, tokens: Tensor, scales: Tensor, log_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rows0, rows1 = (x0[:, :1], x1[:, :1]) if self.last else (x0, x1)
        own = self.attention.output
        rows0 = own.LayerNormA(own.dense0(self.attention.self0(rows0, x0)) + rows0)
        rows1 = own.LayerNormB(own.dense1(self.attention.self1(rows1, x1)) + rows1)
        rows0, rows1 = self.cross(rows0, rows1, tokens, scales, log_weights)
        return self.output(self.intermediate(rows0), rows0), self.output(self.intermediate(rows1), rows1)

    with monkeypatch.context() as patched:
        patched.setattr(AbsorbedLayer, "forward", earlier)
        bundle = load_bundle(export(ModelFolder(tiny(), build_tokenizer(), {}), tmp_path / "earlier"))
    assert verify_bundle(bundle, read_bundle_model(bundle), tolerance=1e-5).scores < 1e-5


def test_biases_that_are_equal_and_kept_once_come_back_everywhere(tmp_path: Path) -> None:
    fresh = build_model(SIZES, seed=4)  # every bias is zero
    bundle = load_bundle(export(ModelFolder(fresh, build_tokenizer(), {}), tmp_path / "fresh"))
    read = read_bundle_model(bundle).model.state_dict()
    kept = fresh.state_dict()
    assert all(torch.allclose(kept[name], value) for name, value in read.items() if ".patch_embed." not in name)
    assert len({value.data_ptr() for value in read.values()}) == len(read)


def test_a_candidate_encoder_comes_back_too(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        second = VisionTransformer(SIZES)
    spread(second)
    out = export(ModelFolder(tiny(), build_tokenizer(), {}, second), tmp_path / "two")
    read = read_bundle_model(load_bundle(out)).candidate_encoder
    assert read is not None
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32))
    with torch.no_grad():
        assert float((read(pixels) - second(pixels)).abs().max()) < 1e-5


def test_a_packaged_model_is_read_by_its_name() -> None:
    read = load_start(Path("drawn"))
    assert read.provenance["source"] == f"the bundle {load_bundle('drawn').manifest.name}"
    assert replace(read.model.sizes, similarity_weight=0.0) == DRAWN_SMALL


def test_without_a_start_it_is_the_packaged_default() -> None:
    read = load_start(None)
    assert read.provenance["fingerprint"] == load_bundle().fingerprint
    assert replace(read.model.sizes, similarity_weight=0.0) == PHOTO_SMALL


def test_a_model_folder_is_a_start_as_well(tmp_path: Path) -> None:
    save_model_folder(tmp_path, ModelFolder(tiny(), build_tokenizer(), {"made": "for a test"}))
    assert load_start(tmp_path).provenance == {"made": "for a test"}


def test_a_bundle_of_another_tool_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(CheckpointError, match="its manifest lacks the model's sizes"):
        read_bundle_model(load_bundle(tiny_bundle))


def change_manifest(folder: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    change(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_other_preprocessing_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "other"))
    change_manifest(folder, lambda manifest: manifest["preprocessing"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(CheckpointError, match="preprocesses pictures differently"):
        read_bundle_model(load_bundle(folder))


def test_a_graph_without_float_weights_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "quantised"))
    path = folder / "onnx" / "composer.onnx"
    model = onnx.load(path, load_external_data=False)
    first = next(node for node in model.graph.node if node.op_type == "MatMul")
    first.op_type = "MatMulInteger"
    path.write_bytes(model.SerializeToString())

    def keep_checksum(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["graphs"]["composer"]["files"]["onnx/composer.onnx"] = sha256_of(path)

    change_manifest(folder, keep_checksum)
    with pytest.raises(CheckpointError, match=r"composer\.onnx cannot be read back into torch"):
        read_bundle_model(load_bundle(folder))


def test_a_bundle_that_computes_something_else_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "changed"))
    path = folder / "onnx" / "reranker.onnx"
    model = onnx.load(path, load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"
    path.write_bytes(model.SerializeToString())
    change_manifest(
        folder,
        lambda manifest: manifest["graphs"]["reranker"]["files"].update({"onnx/reranker.onnx": sha256_of(path)}),
    )
    with pytest.raises(CheckpointError, match="the model that was read differs"):
        read_bundle_model(load_bundle(folder))
