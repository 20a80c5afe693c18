"""Weights from elsewhere: nothing is lost silently, nothing is unpickled, BLIP's numbers come out as BLIP's."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
transformers = pytest.importorskip("transformers", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.checkpoints.blip import load_blip, load_released, read_blip_sizes, read_sizes  # noqa: E402
from onnx_export.errors import CheckpointError  # noqa: E402
from onnx_export.models import BLIP_BASE, CirModel, ModelSizes, build_model  # noqa: E402

States = tuple[dict[str, Any], dict[str, Any]]
Blip = tuple[Any, Path]

TINY = ModelSizes(
    image_size=32,
    patch_size=16,
    stem="patch",
    image_width=24,
    image_depth=2,
    image_heads=2,
    text_width=32,
    text_depth=4,
    text_heads=4,
    feed_forward=48,
    vocabulary=50,
    max_positions=16,
    vector_size=12,
    merge_layers_from=2,
)


def released_states(model: CirModel) -> tuple[dict, dict]:
    """Write a model's weights under the names and in the split of the released files."""
    encoder = model.image_encoder.state_dict()
    stage_one = {"temp": torch.tensor(0.07), **encoder, **model.composer.state_dict()}
    stage_two = {k: v for k, v in encoder.items() if k.startswith("visual_encoder.")}
    return stage_one, {**stage_two, **model.reranker.state_dict()}


def save_pair(folder: Path, one: dict, two: dict) -> tuple[Path, Path]:
    paths = folder / "one.pt", folder / "two.pt"
    torch.save({"epoch": 3, "BLIP_Retrieval": one, "optimizer_state_dict": {}}, paths[0])
    torch.save({"epoch": 3, "BLIP_NLVR": two, "optimizer_state_dict": {}}, paths[1])
    return paths


@pytest.fixture
def states() -> States:
    return released_states(build_model(TINY, seed=5))


def test_a_released_pair_gives_back_every_weight(tmp_path: Path, states: States) -> None:
    conversion = load_released(*save_pair(tmp_path, *states), TINY)
    original = build_model(TINY, seed=5).state_dict()
    assert all(torch.equal(original[k], v) for k, v in conversion.model.state_dict().items())
    assert conversion.candidate_encoder is None


def test_a_missing_key_is_named(tmp_path: Path, states: States) -> None:
    del states[0]["text_proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing text_proj\.bias"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_an_unexpected_key_is_named(tmp_path: Path, states: States) -> None:
    states[1]["adapter.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"unexpected adapter\.weight"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path, states: States) -> None:
    states[1]["cls_head.2.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"cls_head\.2\.bias is \[3\], expected \[2\]"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_stages_with_different_image_encoders_keep_both(tmp_path: Path, states: States) -> None:
    states[1]["visual_encoder.norm.bias"] = states[1]["visual_encoder.norm.bias"] + 0.5
    conversion = load_released(*save_pair(tmp_path, *states), TINY)
    encoders = conversion.report.encoders
    assert encoders is not None
    assert encoders.differing == ("visual_encoder.norm.bias",)
    assert encoders.largest_difference == 0.5
    assert conversion.candidate_encoder is not None
    assert torch.equal(conversion.candidate_encoder.norm.bias, states[1]["visual_encoder.norm.bias"])
    assert torch.equal(conversion.model.image_encoder.visual_encoder.norm.bias, states[0]["visual_encoder.norm.bias"])
    assert "visual_encoder.norm.bias" in conversion.report.sources[1].used


def test_an_incomplete_second_encoder_is_refused(tmp_path: Path, states: States) -> None:
    del states[1]["visual_encoder.norm.bias"]
    with pytest.raises(CheckpointError, match=r"VisionTransformer: missing visual_encoder\.norm\.bias"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_numbers_that_are_not_finite_are_called_damage(tmp_path: Path, states: States) -> None:
    states[0]["text_proj.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite, in text_proj\.bias"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_every_key_has_a_fate(tmp_path: Path, states: States) -> None:
    one, two = load_released(*save_pair(tmp_path, *states), TINY).report.sources
    assert {*one.used, *one.ignored} == {*states[0], "epoch", "optimizer_state_dict"}
    assert {*two.used, *two.ignored} == {*states[1], "epoch", "optimizer_state_dict"}
    assert one.ignored["temp"] == "the learnt temperature of stage one's loss"
    assert "equal to stage one's" in two.ignored["visual_encoder.norm.bias"]


def test_swapped_stages_are_recognised(tmp_path: Path, states: States) -> None:
    one, two = save_pair(tmp_path, *states)
    with pytest.raises(CheckpointError, match="swapped"):
        load_released(two, one, TINY)


def test_a_truncated_file_is_called_cut_off(tmp_path: Path, states: States) -> None:
    one, two = save_pair(tmp_path, *states)
    one.write_bytes(one.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut off: its 5,000 bytes.*Download it again"):
        load_released(one, two, TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>", r"not a torch checkpoint: .*15 bytes that begin with b'<!DO'"),
        (b"", "not a torch checkpoint"),
        (pickle.dumps({"BLIP_Retrieval": {}}, protocol=4), "plain pickle, no file of torch.save"),
    ],
)
def test_what_is_no_checkpoint_at_all_is_called_so(
    tmp_path: Path, states: States, content: bytes, message: str
) -> None:
    one, two = save_pair(tmp_path, *states)
    one.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_released(one, two, TINY)


def test_another_zip_archive_is_called_so(tmp_path: Path, states: States) -> None:
    one, two = save_pair(tmp_path, *states)
    with zipfile.ZipFile(one, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(CheckpointError, match="found another zip archive"):
        load_released(one, two, TINY)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no file .*one\.pt"):
        load_released(tmp_path / "one.pt", tmp_path / "two.pt", TINY)


def test_a_checkpoint_of_other_things_than_tensors_says_which(tmp_path: Path, states: States) -> None:
    states[0]["note"] = "trained on Tuesday"
    with pytest.raises(CheckpointError, match=r"should hold tensors by name.*note: str"):
        load_released(*save_pair(tmp_path, *states), TINY)


def test_sizes_that_are_not_given_are_the_papers(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"hidden_size": 96, "num_attention_heads": 8, "model_type": "bert"}')
    assert read_sizes(config) == replace(BLIP_BASE, text_width=96, text_heads=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"model_type": "bert"}', "names no size of a model"),
        ("[1]", "names no size of a model"),
        ('{"vision_heads": "12"}', "vision_heads is '12'; expected a whole number"),
        ('{"vision_heads": 0}', "vision_heads is 0"),
        ('{"hidden_size": 64}', r"num_attention_heads do not divide hidden_size \(64 / 12\)"),
    ],
)
def test_sizes_that_make_no_model_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_sizes(tmp_path / "config.json")


class RunsCode:
    """What a hostile checkpoint holds: an object whose unpickling calls a function."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path, states: States) -> None:
    marker = tmp_path / "ran"
    states[0]["temp"] = RunsCode(marker)
    one, two = save_pair(tmp_path, *states)
    with pytest.raises(CheckpointError, match="could run code"):
        load_released(one, two, TINY)
    assert not marker.exists()


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Blip:
    config = transformers.BlipConfig(
        text_config={
            "vocab_size": 50,
            "hidden_size": 32,
            "encoder_hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 16,
        },
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
        },
        image_text_hidden_size=12,
    )
    torch.manual_seed(0)
    model = transformers.BlipForImageTextRetrieval(config).eval()
    folder = tmp_path_factory.mktemp("blip")
    model.save_pretrained(folder)
    return model, folder


@torch.no_grad()
def test_a_transformers_blip_gives_the_same_tokens_and_text_states(blip: Blip) -> None:
    original, folder = blip
    model = load_blip(folder, TINY).model
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[4, 7, 9, 11], [4, 8, 0, 0]])
    mask = (ids > 0).long()
    tokens = original.vision_model(pixels).last_hidden_state
    ours, vectors = model.image_encoder(pixels)
    assert (ours - tokens).abs().max() < 1e-5
    expected = torch.nn.functional.normalize(original.vision_proj(tokens[:, 0]), dim=-1)
    assert (vectors - expected).abs().max() < 1e-5
    states = original.text_encoder(ids, attention_mask=mask, encoder_hidden_states=tokens).last_hidden_state
    composed = model.composer(ids, mask, tokens)
    kept = mask.bool()
    assert (composed.fusion_states - states)[kept].abs().max() < 1e-4


@pytest.fixture
def copied(blip: Blip, tmp_path: Path) -> Path:
    """The folder of BLIP, which a test may spoil."""
    return Path(shutil.copytree(blip[1], tmp_path / "blip"))


def configure(folder: Path, part: str, **values: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[part] if part else config).update(values)
    path.write_text(json.dumps(config))


def test_a_folders_own_configuration_says_the_sizes(blip: Blip) -> None:
    assert read_blip_sizes(blip[1]) == TINY
    assert load_blip(blip[1]).model.sizes == TINY


@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("text_config", {"num_attention_heads": 8}),
        ("vision_config", {"num_attention_heads": 3}),
        ("text_config", {"layer_norm_eps": 1e-2}),
        ("vision_config", {"layer_norm_eps": 1e-2}),
    ],
)
def test_what_weights_do_not_show_is_obeyed(copied: Path, part: str, values: dict[str, object]) -> None:
    configure(copied, part, **values)
    original = transformers.BlipForImageTextRetrieval.from_pretrained(copied).eval()
    model = load_blip(copied).model
    pixels, ids = torch.randn(1, 3, 32, 32), torch.tensor([[4, 7, 9, 11]])
    ones = torch.ones_like(ids)
    tokens = original.vision_model(pixels).last_hidden_state
    assert (model.image_encoder(pixels)[0] - tokens).abs().max() < 1e-5
    states = original.text_encoder(ids, attention_mask=ones, encoder_hidden_states=tokens).last_hidden_state
    assert (model.composer(ids, ones, tokens).fusion_states - states).abs().max() < 1e-5
    if part == "text_config":
        heads, eps = model.sizes.text_heads, model.sizes.text_norm_eps
        cross = model.reranker.text_encoder.encoder.layer[0].crossattention
        assert (cross.self1.heads, cross.output.LayerNormB.eps) == (heads, eps)


@pytest.mark.parametrize("field", ["text_heads", "image_heads", "vocabulary", "image_size", "vector_size"])
def test_sizes_that_say_otherwise_than_the_folder_are_refused(blip: Blip, field: str) -> None:
    other = replace(TINY, **{field: 2 * getattr(TINY, field)})
    with pytest.raises(CheckpointError, match=rf"{field} is \d+ there and \d+ in the sizes given"):
        load_blip(blip[1], other)


def test_what_a_folder_does_not_say_is_taken_from_the_sizes(blip: Blip, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text('{"merge_layers_from": 3}')
    sizes = read_sizes(tmp_path / "sizes.json", read_blip_sizes(blip[1]))
    assert sizes == replace(TINY, merge_layers_from=3)
    assert load_blip(blip[1], sizes).model.sizes == sizes


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("text_config", {"hidden_act": "relu"}, "hidden_act of text_config is 'relu'"),
        ("vision_config", {"hidden_act": "quick_gelu"}, "hidden_act of vision_config is 'quick_gelu'"),
        ("vision_config", {"intermediate_size": 48}, "intermediate_size of vision_config is 48"),
        ("vision_config", {"image_size": [32, 48]}, r"image_size is \[32, 48\]; expected a whole number"),
        ("vision_config", {"image_size": 33}, "patch_size does not divide image_size"),
        ("vision_config", {"num_attention_heads": 5}, "vision_heads do not divide encoder_width"),
        ("text_config", {"num_attention_heads": 0}, "text_heads is 0"),
        ("text_config", {"layer_norm_eps": 0.0}, "text_norm_eps is 0.0"),
        ("text_config", {"num_attention_heads": "many"}, "text_heads is 'many'|cannot be read"),
        ("text_config", {"vocab_size": 60}, r"of another shape text_encoder\.embeddings\.word_embeddings"),
        ("", {"model_type": "clip"}, "holds a model of type 'clip'|cannot be read"),
        ("", {"model_type": "no such model"}, "cannot be read"),
        ("", {"text_config": 5}, "cannot be read"),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(
    copied: Path, part: str, values: dict[str, object], message: str
) -> None:
    configure(copied, part, **values)
    with pytest.raises(CheckpointError, match=message):
        load_blip(copied)


def test_weights_that_are_missing_are_named_and_never_random(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["text_proj.bias"], weights["itm_head.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing itm_head\.weight, text_proj\.bias; of another shape nothing"):
        load_blip(copied)


def test_a_captioning_model_is_no_retrieval_model(blip: Blip, tmp_path: Path) -> None:
    transformers.BlipForConditionalGeneration(blip[0].config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing itm_head\.bias.*and \d+ more"):
        load_blip(tmp_path)


def test_a_weight_that_transformers_does_not_read_is_in_the_report(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    weights["adapter.weight"] = torch.zeros(1)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    ignored = load_blip(copied).report.sources[0].ignored
    assert ignored["adapter.weight"] == "no weight of BlipForImageTextRetrieval"


@pytest.mark.parametrize("content", [b"", b"{", b"no weights", bytes(200)])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_blip_folder_is_a_checkpoint_error(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_blip(copied)


def test_both_reranker_streams_start_from_the_text_encoder(blip: Blip) -> None:
    original, folder = blip
    conversion = load_blip(folder, TINY)
    layer = conversion.model.reranker.text_encoder.encoder.layer[3]
    source = original.text_encoder.encoder.layer[3].crossattention
    query = dict(source.named_modules())["self"].query.weight
    assert torch.equal(layer.crossattention.self0.query.weight, query)
    assert torch.equal(layer.crossattention.self1.query.weight, query)
    assert torch.equal(layer.crossattention.output.LayerNormB.weight, source.output.LayerNorm.weight)
    fresh = set(conversion.report.fresh)
    assert fresh == {
        *(f"cls_head.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")),
        *(
            f"text_encoder.encoder.layer.{i}.crossattention.output.merge_layer.{p}"
            for i in (2, 3)
            for p in ("weight", "bias")
        ),
    }
