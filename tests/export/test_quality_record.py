"""What was measured of a bundle is kept with it, changes nothing it computes, and is never another bundle's."""

import json
import shutil
from pathlib import Path

import pytest

from onnx_export.errors import ExportError
from onnx_export.quality_record import record_quality
from qdrant_cir.bundle import load_bundle


def write_report(path: Path, fingerprint: str) -> Path:
    stage = {"recall@1": {"value": 40.0, "low": 30.0, "high": 50.0}}
    report = {"benchmark": "catalog", "run": {"fingerprint": fingerprint}, "stage_one": stage, "stage_two": None}
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_a_recorded_report_leaves_the_fingerprint_and_can_be_read_back(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    before = load_bundle(folder)
    record_quality(folder, write_report(tmp_path / "report.json", before.fingerprint))
    after = load_bundle(folder)
    assert after.fingerprint == before.fingerprint
    assert after.manifest.provenance["quality"]["stage_one"]["recall@1"]["value"] == 40.0  # type: ignore[index, call-overload]


def test_a_report_of_another_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is about the bundle 0000"):
        record_quality(tiny_bundle, write_report(tmp_path / "report.json", "0" * 64))


def test_a_file_that_is_no_report_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ExportError, match="is no report"):
        record_quality(tiny_bundle, path)
