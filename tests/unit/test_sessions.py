"""Sessions: real onnxruntime on real files; what is not available is refused by name."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdrant_cir import AsyncRetriever, Indexer, Retriever
from qdrant_cir.errors import BundleError, InputError, MissingExtraError, ProviderError
from qdrant_cir.model.bundle import TensorSpec, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import Session, open_graph, open_session


@pytest.fixture(scope="module")
def encoder(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle / "onnx" / "image_encoder.onnx", Compute("cpu", 1))


def cuda_is_built_in() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_a_session_describes_its_graph(encoder: Session) -> None:
    assert encoder.provider == "cpu"
    assert encoder.inputs == (TensorSpec("pixel_values", "float32", ("batch", 3, 16, 16)),)
    assert [tensor.name for tensor in encoder.outputs] == ["tokens", "vectors"]


def test_io_binding_computes_what_a_plain_run_computes(encoder: Session) -> None:
    pixels = np.random.default_rng(3).normal(size=(3, 3, 16, 16)).astype(np.float32)
    plain, bound = encoder.run({"pixel_values": pixels}), encoder.run_bound({"pixel_values": pixels})
    assert plain.keys() == bound.keys()
    for name in plain:
        np.testing.assert_array_equal(plain[name], bound[name])


def test_io_binding_reads_arrays_that_are_not_contiguous(encoder: Session) -> None:
    pixels = np.random.default_rng(3).normal(size=(16, 16, 3, 2)).astype(np.float32).transpose(3, 2, 0, 1)
    expected = pixels.mean(axis=(2, 3))
    np.testing.assert_allclose(encoder.run_bound({"pixel_values": pixels})["tokens"][:, 0], expected, atol=1e-6)


def test_threads_may_share_a_session(encoder: Session) -> None:
    batches = [np.full((1, 3, 16, 16), value, np.float32) for value in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        means = list(pool.map(lambda pixels: encoder.run({"pixel_values": pixels})["tokens"].mean(), batches))
    assert means == list(range(1, 9))


def test_arena_shrinkage_changes_no_number(tiny_bundle: Path, encoder: Session) -> None:
    path = tiny_bundle / "onnx" / "image_encoder.onnx"
    shrinking = open_session(path, Compute("cpu", 1), shrinks_arena=True)
    pixels = np.random.default_rng(3).normal(size=(3, 3, 16, 16)).astype(np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(
            shrinking.run({"pixel_values": pixels})["tokens"], encoder.run({"pixel_values": pixels})["tokens"]
        )


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"pixels": np.zeros((1, 3, 16, 16), np.float32)},
        {"pixel_values": np.zeros((1, 3, 16, 16), np.float64)},
        {"pixel_values": np.zeros((3, 16, 16), np.float32)},
        {"pixel_values": np.zeros((1, 3, 16, 17), np.float32)},
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(
    encoder: Session, inputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
) -> None:
    with pytest.raises(InputError, match=r"Expected pixel_values float32 \[batch,3,16,16\]; got"):
        encoder.run(inputs)


def test_a_missing_file_and_one_that_is_no_graph_are_bundle_errors(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no graph"):
        open_session(tmp_path / "none.onnx", Compute("cpu"))
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(BundleError, match=r"cannot load .*bad\.onnx"):
        open_session(tmp_path / "bad.onnx", Compute("cpu"))


def test_cuda_that_is_not_there_is_refused_not_replaced_by_the_cpu(tiny_bundle: Path) -> None:
    if cuda_is_built_in():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ProviderError, match=r'has no CUDA provider .*pip install "qdrant-cir\[gpu\]"'):
        open_session(tiny_bundle / "onnx" / "composer.onnx", Compute("cuda"))


@pytest.mark.parametrize("entry", ["session.intra_op.allow_spinning", "session.inter_op.allow_spinning"])
def test_threads_without_work_sleep_for_spinning_ones_take_the_cores_of_other_sessions(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    import onnxruntime

    opened: list[onnxruntime.SessionOptions] = []
    plain = onnxruntime.InferenceSession

    def noted(path: str, options: onnxruntime.SessionOptions, **how: object) -> onnxruntime.InferenceSession:
        opened.append(options)
        return plain(path, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    bundle = load_bundle(tiny_bundle)
    for name in bundle.manifest.graphs:
        open_graph(bundle, name, Compute("cpu", 2))
    assert [options.get_session_config_entry(entry) for options in opened] == ["0"] * len(bundle.manifest.graphs)


def test_auto_says_what_it_chose(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="qdrant_cir.model.sessions"):
        session = open_session(tiny_bundle / "onnx" / "composer.onnx", Compute(threads=1))
    assert f"composer.onnx runs on {session.provider} (provider=auto)" in caplog.messages


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threads": 0}, "threads is 0; it must be at least 1"),
        ({"threads": "2"}, "threads is '2'"),
        ({"provider": "gpu"}, "provider is 'gpu'; give one of auto, cpu, cuda"),
        ({"provider": ["cuda"]}, "give one of auto, cpu, cuda"),
        ({"precision": "int4"}, "precision is 'int4'; give one of float32, float16, int8"),
    ],
)
def test_what_cannot_be_computed_with_is_refused_before_anything_is_opened(
    given: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    for opened in (Retriever, Indexer):
        with pytest.raises(InputError, match=re.escape(expected)):
            opened.open("shop", store=tmp_path / "store", **given)
    with pytest.raises(InputError, match=re.escape(expected)):
        AsyncRetriever.open("shop", store=tmp_path / "store", **given)
    assert not (tmp_path / "store").exists()


def test_without_onnxruntime_both_install_commands_are_named(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"qdrant-cir\[cpu\].*qdrant-cir\[gpu\]"):
        open_session(tiny_bundle / "onnx" / "composer.onnx", Compute())


def test_opening_a_graph_leaves_no_file_in_the_home_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import open_session
open_session(Path(sys.argv[1]), Compute("cpu", 1))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    graph = tiny_bundle / "onnx" / "composer.onnx"
    subprocess.run([sys.executable, "-c", code, str(graph)], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_two_onnxruntime_distributions_are_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProviderError, match="Both onnxruntime and onnxruntime-gpu are installed"):
        open_session(tiny_bundle / "onnx" / "composer.onnx", Compute())


def test_a_graph_that_is_not_what_its_manifest_says_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    spoiled = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, spoiled)
    shutil.copy(tiny_bundle / "onnx" / "image_encoder.onnx", spoiled / "onnx" / "reranker.onnx")
    swapped = type(bundle)(folder=spoiled, manifest=bundle.manifest, fingerprint=bundle.fingerprint)
    with pytest.raises(BundleError, match=r"Expected input_ids int64 .* the graph has pixel_values"):
        open_graph(swapped, "reranker", Compute("cpu", 1))


def test_every_graph_of_a_bundle_opens(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    for name in bundle.manifest.graphs:
        assert open_graph(bundle, name, Compute("cpu", 1)).provider == "cpu"
