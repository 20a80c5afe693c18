"""What was measured of a bundle is kept with it, changes nothing it computes, and is never another bundle's."""

import json
import shutil
from math import isfinite
from pathlib import Path

import pytest

from onnx_export.bundle.record import record_measurement
from onnx_export.errors import ExportError
from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.search.effort import Effort, EffortCalibration, LeadBound


def write_report(path: Path, fingerprint: str) -> Path:
    stage = {"recall@1": {"value": 40.0, "low": 30.0, "high": 50.0}}
    report = {"benchmark": "catalog", "run": {"fingerprint": fingerprint}, "stage_one": stage, "stage_two": None}
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_a_recorded_report_leaves_the_fingerprint_and_can_be_read_back(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    before = load_bundle(folder)
    record_measurement(folder, write_report(tmp_path / "report.json", before.fingerprint))
    after = load_bundle(folder)
    assert after.fingerprint == before.fingerprint
    assert after.manifest.provenance["quality"]["stage_one"]["recall@1"]["value"] == 40.0  # type: ignore[index, call-overload]


def test_a_recorded_calibration_is_what_a_confidence_needs(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    effort = Effort(confidence=0.8)
    with pytest.raises(InputError, match="holds no calibration"):
        effort.stop_rule(load_bundle(folder), limit=5, rerank_depth=40)
    calibration = EffortCalibration(load_bundle(folder).fingerprint, 40, 10, 100, (LeadBound(5, 0.8, 1.5),))
    path = tmp_path / "effort.json"
    path.write_text(json.dumps(calibration.to_object()), encoding="utf-8")
    record_measurement(folder, path)
    assert effort.stop_rule(load_bundle(folder), limit=5, rerank_depth=40).lead == 1.5


def test_a_report_on_photographs_is_recorded_with_its_groups(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    groups = [{"group": "colour", "systems": {"stage one": {"value": 0.5, "low": 0.4, "high": 0.6}}}]
    run = {"bundle": "tiny", "fingerprint": load_bundle(folder).fingerprint}
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"benchmark": "photos", "run": run, "photographs": 607, "groups": groups}))
    record_measurement(folder, path)
    assert load_bundle(folder).manifest.provenance["quality"]["groups"] == groups  # type: ignore[index, call-overload]


def test_the_packaged_bundles_hold_what_was_measured_of_them() -> None:
    for name in ("drawn", "photos"):
        bundle = load_bundle(name)
        quality = bundle.manifest.provenance["quality"]
        assert quality["run"]["fingerprint"] == bundle.fingerprint  # type: ignore[index, call-overload]


def test_the_bundled_model_holds_its_calibration() -> None:
    rule = Effort(confidence=0.95).stop_rule(load_bundle("drawn"), limit=10, rerank_depth=100)
    assert isfinite(rule.lead)


def test_a_report_of_another_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is about the bundle 0000"):
        record_measurement(tiny_bundle, write_report(tmp_path / "report.json", "0" * 64))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bounds": []}'])
def test_a_file_that_is_neither_is_refused(tiny_bundle: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ExportError, match="is neither a report"):
        record_measurement(tiny_bundle, path)
