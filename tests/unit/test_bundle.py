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
    DEFAULT_BUNDLE,
    PACKAGED_BUNDLES,
    Bundle,
    ModelSizes,
    contract_tensors,
    default_bundle_path,
    load_bundle,
    packaged_bundle_path,
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


@pytest.mark.parametrize("name", PACKAGED_BUNDLES)
def test_a_packaged_bundle_is_opened_by_name_even_beside_a_folder_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_bundle(name).folder == packaged_bundle_path(name)
    assert load_bundle(Path(name)).folder == packaged_bundle_path(name)


def test_the_default_bundle_lies_in_the_package() -> None:
    assert default_bundle_path().parts[-3:] == ("qdrant_cir", "bundles", DEFAULT_BUNDLE)


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


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../tokenizer.json", "onnx/../../x", "C:/x", "onnx\\x", "", "./x", "onnx//x", "x\0"]
)
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


@pytest.fixture
def snapshot(folder: Path, tmp_path: Path) -> Path:
    """The bundle with external weights, as a hub's cache lays it out: files are links to blobs, by their digest."""
    data = external_graph(folder)
    graph = folder / "onnx" / "composer.onnx"
    files = {f"onnx/{path.name}": sha256_of(path) for path in (graph, data)}
    edit(folder, put("graphs.composer.files", files))
    repository = tmp_path / "models--own--bundle"
    moved = repository / "snapshots" / "0a1b2c"
    (repository / "blobs").mkdir(parents=True)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob = repository / "blobs" / sha256_of(path)
        link = moved / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        link.symlink_to(Path(*[".."] * len(link.relative_to(repository).parts[1:]), "blobs", blob.name))
    return moved


def test_links_of_a_hubs_cache_to_its_blobs_are_loaded(snapshot: Path) -> None:

    from qdrant_cir.model.compute import Compute
    from qdrant_cir.model.sessions import open_graph

    bundle = load_bundle(snapshot)
    assert open_graph(bundle, "composer", Compute("cpu")).inputs == bundle.manifest.graphs["composer"].inputs


def test_a_blob_with_another_checksum_is_refused(snapshot: Path) -> None:
    blob = (snapshot / "tokenizer.json").resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not the file that the manifest describes"):
        load_bundle(snapshot)


def test_a_link_out_of_the_hubs_repository_is_refused(snapshot: Path, tmp_path: Path) -> None:
    blob = (snapshot / "tokenizer.json").resolve()
    elsewhere = tmp_path / "models--other" / "blobs" / blob.name
    elsewhere.parent.mkdir(parents=True)
    blob.rename(elsewhere)
    for link in (snapshot / "tokenizer.json", blob):  # straight, and through a blob that is a link itself
        link.unlink(missing_ok=True)
        link.symlink_to(elsewhere)
        with pytest.raises(BundleError, match="symbolic link"):
            load_bundle(snapshot)
        link.unlink()
        (snapshot / "tokenizer.json").unlink(missing_ok=True)
        (snapshot / "tokenizer.json").symlink_to(blob)


def test_a_linked_folder_within_a_hubs_cache_is_refused(snapshot: Path) -> None:
    (snapshot / "onnx").rename(snapshot.parents[1] / "blobs" / "onnx")
    (snapshot / "onnx").symlink_to("../../blobs/onnx")
    with pytest.raises(BundleError, match="symbolic link"):
        load_bundle(snapshot)


def test_links_that_lead_to_each_other_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(BundleError, match="symbolic link"):
        load_bundle(folder)


def external_graph(folder: Path) -> Path:
    """Rewrite the composer with its weights in a file of their own, and give that file."""
    import onnx
    from onnx import numpy_helper

    path = folder / "onnx" / "composer.onnx"
    model = onnx.load(path)
    # only raw bytes can move out, and shapes must stay
    for tensor in (tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT):
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
    "location", ["/etc/passwd", "../tokenizer.json", "./composer.onnx", "*/_ORT_MEM_ADDR_/*", "linked.data", ""]
)
def test_weights_are_read_from_listed_files_alone(folder: Path, tmp_path: Path, location: str) -> None:
    import onnx

    path = folder / "onnx" / "composer.onnx"
    model = onnx.load(path)
    inner = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [0.0])
    inner.ClearField("float_data")
    inner.data_location = onnx.TensorProto.EXTERNAL
    inner.external_data.add(key="location", value=location)
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=inner))
    path.write_bytes(model.SerializeToString())
    (tmp_path / "secret").write_text("secret")
    (path.parent / "linked.data").symlink_to(tmp_path / "secret")
    edit(folder, put("graphs.composer.files", {"onnx/composer.onnx": sha256_of(path)}))
    with pytest.raises(BundleError, match="reads weights from"):
        load_bundle(folder)
    listed = {"onnx/composer.onnx": sha256_of(path), f"onnx/{location}": "0" * 64}
    edit(folder, put("graphs.composer.files", listed))
    with pytest.raises(BundleError, match=r"not a plain path|symbolic link|lacks the file|reads weights from"):
        load_bundle(folder)


def test_a_graph_under_a_name_of_another_format_is_refused(folder: Path) -> None:
    path = (folder / "onnx" / "composer.onnx").rename(folder / "onnx" / "composer.ort")
    edit(folder, put("graphs.composer.file", "onnx/composer.ort"))
    edit(folder, put("graphs.composer.files", {"onnx/composer.ort": sha256_of(path)}))
    with pytest.raises(BundleError, match=r"composer\.ort is no \.onnx file"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("format_version", 2, "format version 2; this version of qdrant-cir reads 1"),
        ("format_version", "1", "format_version must be int, but is str"),
        ("graphs.reranker", None, r"lacks graphs\.reranker"),
        ("graphs.composer.inputs", None, r"lacks graphs\.composer\.inputs"),
        ("graphs.composer.inputs.0.name", 5, r"graphs\.composer\.inputs\[0\]\.name must be str, but is int"),
        ("graphs.composer.file", "onnx/other.onnx", r"no checksum of 'onnx/other\.onnx'"),
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


SIZES = (
    "preprocessing.size",
    "token_rows",
    "token_dims",
    "vector_size",
    "fusion_dims",
    "tokenizer.max_length",
    "tokenizer.first_token_id",
)


@pytest.mark.parametrize("value", [10**12, 10**400, 2**31, -1, -(10**400), 3.0, 1e300, True, "16", [], {}])
@pytest.mark.parametrize("keys", SIZES)
def test_an_absurd_size_is_refused_by_the_key(folder: Path, keys: str, value: object) -> None:
    edit(folder, put(keys, value))
    with pytest.raises(BundleError, match=rf"{keys} must be (at most \d+|at least \d|int), but is") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("keys", [keys for keys in SIZES if keys != "tokenizer.first_token_id"])
def test_a_size_of_nothing_is_refused(folder: Path, keys: str) -> None:
    edit(folder, put(keys, 0))
    with pytest.raises(BundleError, match=f"{keys} must be at least 1, but is 0"):
        load_bundle(folder)


@pytest.mark.parametrize("value", [10**9, 16_385])
def test_a_text_of_absurd_length_is_refused(folder: Path, value: int) -> None:
    edit(folder, put("tokenizer.max_length", value))
    with pytest.raises(BundleError, match="max_length must be at most 16384"):
        load_bundle(folder)


def test_tokens_of_absurd_number_are_refused(folder: Path) -> None:
    edit(folder, put("token_rows", 65_536))
    edit(folder, put("token_dims", 257))
    with pytest.raises(BundleError, match="token_rows times token_dims must be at most 16777216"):
        load_bundle(folder)


@pytest.mark.parametrize("value", [10**400, 1e300, 1e-300, -1, True, None, "1.25", [1.25]])
@pytest.mark.parametrize("keys", ["preprocessing.pad_ratio", "preprocessing.mean.1", "preprocessing.std.2"])
def test_an_absurd_number_of_the_preprocessing_is_refused(folder: Path, keys: str, value: object) -> None:
    edit(folder, put(keys, "null" if value is None else value))
    with pytest.raises(BundleError, match=r"preprocessing\.\w+ must be a number above 0, from") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5_000, "is not JSON"),
        ("NaN", "not finite"),
        ("-Infinity", "not finite"),
        ("1e999", "not finite"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ("[" * 62 + "]" * 62, None),
        ("[" * 65 + "]" * 65, "more than 64 deep"),
        ("[" * 100_000 + "]" * 100_000, "is not JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is not JSON"),
    ],
)
def test_what_could_not_be_written_again_is_refused_anywhere(folder: Path, text: str, message: str | None) -> None:
    path = folder / "cir_config.json"
    edit(folder, put("provenance", {"note": "HERE"}))
    path.write_text(path.read_text().replace('"HERE"', text))
    if message is None:
        manifest = load_bundle(folder).manifest
        assert parse_manifest(manifest.to_json()) == manifest
        return
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_a_manifest_of_a_hundred_megabytes_is_not_read(folder: Path) -> None:
    import time

    with (folder / "cir_config.json").open("ab") as file:
        file.truncate(100_000_000)
    started = time.thread_time()
    with pytest.raises(BundleError, match="is larger than 4194304 bytes"):
        load_bundle(folder)
    assert time.thread_time() - started < 1


def test_files_by_the_thousand_are_refused(folder: Path) -> None:
    files = {f"onnx/{number}": "0" * 64 for number in range(5_000)} | {"onnx/composer.onnx": "0" * 64}
    edit(folder, put("graphs.composer.files", files))
    with pytest.raises(BundleError, match=r"graphs\.composer\.files names 5001 files; expected at most 4096"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3_000 + "y"])
def test_a_path_that_no_system_has_is_a_bundle_error(folder: Path, name: str) -> None:
    edit(folder, put("tokenizer.file", name))
    with pytest.raises(BundleError, match=r"cannot be read|lacks the file"):
        load_bundle(folder)


@pytest.mark.parametrize("folder_name", ["x" * 300, "x\0y"])
def test_a_folder_that_no_system_has_is_a_bundle_error(folder_name: str) -> None:
    with pytest.raises(BundleError, match=r"cannot be read|There is no bundle folder"):
        load_bundle(folder_name)


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
