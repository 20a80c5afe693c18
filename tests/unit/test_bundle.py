"""Bundles: what is written is read, and whatever is not what the manifest says is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qdrant_cir.errors import BundleError
from qdrant_cir.model.bundle import (
    Bundle,
    ModelSizes,
    contract_tensors,
    default_bundle_path,
    load_bundle,
    parse_manifest,
    sha256_of,
    write_manifest,
)
from qdrant_cir.types import JsonObject


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(folder: Path, change: Callable[[JsonObject], object]) -> None:
    path = folder / "cir_config.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def put(keys: str, value: object) -> Callable[[JsonObject], None]:
    """Set ``a.b.0.c`` in nested JSON; a value of None removes it."""

    def change(manifest: JsonObject) -> None:
        *outer, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        place: object = manifest
        for key in outer:
            place = place[key]  # type: ignore[index]
        if value is None:
            del place[last]  # type: ignore[attr-defined]
        else:
            place[last] = value  # type: ignore[index]

    return change


def test_sha256_of_abc_is_the_published_digest(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_manifest_that_was_written_is_read_back_equal(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    assert parse_manifest(manifest.to_json()) == manifest
    assert parse_manifest(write_manifest(tmp_path, manifest).read_text()) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["cir_config.json"]


def test_a_bundle_knows_its_sizes_and_files(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.manifest.sizes == ModelSizes(
        image_size=16, token_rows=5, token_dims=3, vector_size=3, fusion_dims=3, token_codec="int8"
    )
    assert bundle.graph_path("reranker") == tiny_bundle / "onnx" / "reranker.onnx"
    assert bundle.tokenizer_path == tiny_bundle / "tokenizer.json"
    assert load_bundle(str(tiny_bundle)) == bundle


def test_the_default_bundle_lies_in_the_package() -> None:
    assert default_bundle_path().parts[-3:] == ("qdrant_cir", "bundles", "default")


def test_a_contract_is_filled_in_with_the_sizes() -> None:
    sizes = ModelSizes(
        image_size=384,
        token_rows=577,
        token_dims=768,
        vector_size=256,
        fusion_dims=512,
        token_codec="float16",
    )
    contract = contract_tensors("reranker", sizes)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in contract.inputs] == [
        ("input_ids", "int64", (1, "length")),
        ("fusion_states", "float32", (1, "length", 512)),
        ("candidate_tokens", "float16", ("candidates", 577, 768)),
        ("candidate_scales", "float32", ("candidates", 577)),
    ]


@pytest.mark.parametrize(
    ("keys", "value"),
    [("name", "renamed"), ("licence", "MIT"), ("provenance", {"trained": "longer"})],
)
def test_the_fingerprint_is_blind_to_what_changes_no_number(folder: Path, keys: str, value: object) -> None:
    before = load_bundle(folder).fingerprint
    edit(folder, put(keys, value))
    assert load_bundle(folder).fingerprint == before


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("preprocessing.pad_ratio", 1.5),
        ("preprocessing.mean", [0.4, 0.5, 0.5]),
        ("tokenizer.max_length", 7),
        ("tokenizer.first_token_id", 5),
    ],
)
def test_the_fingerprint_changes_with_what_is_stored_or_scored(folder: Path, keys: str, value: object) -> None:
    before = load_bundle(folder).fingerprint
    edit(folder, put(keys, value))
    assert load_bundle(folder).fingerprint != before


def test_the_fingerprint_does_not_depend_on_the_place_of_the_folder(tiny_bundle: Path, folder: Path) -> None:
    assert load_bundle(tiny_bundle).fingerprint == load_bundle(folder).fingerprint
    assert len(load_bundle(folder).fingerprint) == 64


def test_a_changed_byte_in_a_graph_is_refused_with_both_checksums(folder: Path) -> None:
    path = folder / "onnx" / "composer.onnx"
    expected = sha256_of(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=f"expected sha256 {expected}, found {sha256_of(path)}"):
        load_bundle(folder)


def test_a_changed_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not the file that the manifest describes"):
        load_bundle(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "onnx" / "reranker.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks the file onnx/reranker\.onnx"):
        load_bundle(folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../tokenizer.json", "onnx/../../x", "C:/x", "onnx\\x", ""])
def test_paths_that_are_not_plainly_inside_the_folder_are_refused(folder: Path, path: str) -> None:
    edit(folder, put("tokenizer.file", path))
    with pytest.raises(BundleError, match="not a plain path inside the bundle"):
        load_bundle(folder)


@pytest.mark.parametrize("linked", ["tokenizer.json", "onnx"])
def test_symbolic_links_are_refused_even_to_the_right_content(folder: Path, tmp_path: Path, linked: str) -> None:
    (folder / linked).rename(tmp_path / "elsewhere")
    (folder / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="symbolic link"):
        load_bundle(folder)


def external_graph(folder: Path) -> Path:
    """Rewrite the composer with its weights in a file of their own, and give that file."""
    import onnx
    from onnx import numpy_helper

    path = folder / "onnx" / "composer.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:  # only raw bytes can move out
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path, save_as_external_data=True, location="composer.onnx.data", size_threshold=0)
    data = path.with_name("composer.onnx.data")
    edit(folder, put("graphs.composer.files", {"onnx/composer.onnx": sha256_of(path)}))
    return data


def test_weights_without_a_checksum_are_refused(folder: Path) -> None:
    external_graph(folder)
    with pytest.raises(BundleError, match=r"no checksum of onnx/composer\.onnx\.data"):
        load_bundle(folder)


def test_external_weights_with_a_checksum_are_loaded_and_guarded(folder: Path) -> None:
    data = external_graph(folder)
    graph = folder / "onnx" / "composer.onnx"
    hashes = {"onnx/composer.onnx": sha256_of(graph), "onnx/composer.onnx.data": sha256_of(data)}
    edit(folder, put("graphs.composer.files", hashes))
    assert isinstance(load_bundle(folder), Bundle)
    data.write_bytes(bytes(len(data.read_bytes())))
    with pytest.raises(BundleError, match=r"composer\.onnx\.data is not the file"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("format_version", 2, "format version 2; this version of qdrant-cir reads 1"),
        ("format_version", "1", "format_version must be int, but is str"),
        ("graphs.reranker", None, r"lacks graphs\.reranker"),
        ("graphs.composer.inputs", None, r"lacks graphs\.composer\.inputs"),
        ("graphs.composer.inputs.0.name", 5, r"graphs\.composer\.inputs\[0\]\.name must be str, but is int"),
        ("graphs.composer.file", "onnx/other.onnx", r"no checksum of onnx/other\.onnx"),
        ("graphs.reranker.inputs.2.dtype", "float32", r"Expected .*candidate_tokens int8 \[candidates,5,3\]"),
        ("graphs.reranker.outputs.0.name", "logits", r"Expected scores float32 \[candidates\]; .* logits"),
        ("graphs.composer.inputs.0.shape", [2, "length"], r"declares input_ids int64 \[2,length\]"),
        ("preprocessing.mean", [0.5, 0.5], "must hold 3 numbers"),
        ("preprocessing.std", [0.5, 0.5, 0], "must be a number above 0"),
        ("preprocessing.size", 0, "must be at least 1"),
        ("preprocessing.size", True, "must be int, but is bool"),
        ("tokenizer.sha256", None, r"lacks tokenizer\.sha256"),
        ("token_codec", "int4", "expected one of int8, float16, float32"),
        ("vector_size", 256, r"query_vectors|vectors float32 \[batch,256\]"),
        ("provenance", None, "lacks provenance"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_by_the_key(folder: Path, keys: str, value: object, message: str) -> None:
    edit(folder, put(keys, value))
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "must hold a JSON object, but holds list")]
)
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "cir_config.json").write_text(content)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_a_manifest_of_other_bytes_than_text_is_refused(folder: Path) -> None:
    (folder / "cir_config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(folder)


def test_no_folder_and_no_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no bundle folder"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"is not a bundle: it has no cir_config\.json"):
        load_bundle(tmp_path)


def test_a_preprocessing_version_is_written_from_2_on_and_an_unknown_one_is_refused(tiny_bundle: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    assert "version" not in manifest.to_json().split('"preprocessing"')[1].split("}")[0]
    second = replace(manifest, preprocessing=replace(manifest.preprocessing, version=2))
    assert parse_manifest(second.to_json()) == second
    third = replace(manifest, preprocessing=replace(manifest.preprocessing, version=3))
    with pytest.raises(BundleError, match="preprocessing version 3; this version of qdrant-cir knows versions up to 2"):
        parse_manifest(third.to_json())
