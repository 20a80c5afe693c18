"""The memory of `convert released`, watched from outside, at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from benchmarks.conversion_memory import main, watch, write_checkpoints  # noqa: E402
from onnx_export.checkpoints.blip import load_released, read_sizes  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TINY = {
    "image_size": 32,
    "encoder_width": 16,
    "vision_depth": 1,
    "vision_heads": 2,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 512,
    "max_position_embeddings": 64,
    "embed_dim": 8,
    "merge_layers_from": 1,
}


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    path = tmp_path / "sizes.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.mark.parametrize("two_encoders", [False, True])
def test_the_checkpoints_are_in_the_released_layout(sizes: Path, tmp_path: Path, *, two_encoders: bool) -> None:
    one, two = write_checkpoints(read_sizes(sizes), tmp_path, two_encoders=two_encoders)
    assert (load_released(one, two, read_sizes(sizes)).candidate_encoder is not None) is two_encoders


def test_a_process_is_seen_to_allocate_what_it_allocates() -> None:
    code = "import time; held = bytearray(b'1') * 200_000_000; time.sleep(0.5)"
    watched = watch([sys.executable, "-c", code])
    assert 200 <= watched.allocated_megabytes <= watched.peak_megabytes < 300
    assert watched.seconds >= 0.5


def test_a_command_that_fails_gives_no_number() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_conversion_is_measured_and_gives_a_bundle(sizes: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept.json"
    main(["--out", str(out), "--sizes", str(sizes), "--json", str(kept)])
    (row,) = json.loads(kept.read_text())["rows"]
    assert row["stage_one_megabytes"] == pytest.approx((out / "stage_one.pt").stat().st_size / 1e6)
    assert 0 < row["watched"]["allocated_megabytes"] <= row["watched"]["peak_megabytes"]
    assert load_bundle(out / "bundle").manifest.provenance["source"] == "released checkpoints"
