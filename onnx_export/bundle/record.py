"""Measurements of a bundle in its own manifest: its quality, or when re-ranking may end early."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from onnx_export.errors import ExportError
from qdrant_cir.errors import InputError
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.manifest import MANIFEST_FILE
from qdrant_cir.search.effort import PROVENANCE_KEY, EffortCalibration
from qdrant_cir.types import JsonObject

KEPT = ("benchmark", "split", "stage_one", "stage_two", "ceiling", "run", "photographs", "groups")


def record_measurement(bundle_folder: Path, file: Path) -> None:
    """Write the numbers of a report or a calibration into the manifest. The fingerprint does not change.

    Args:
        bundle_folder: the bundle that was measured.
        file: ``report.json`` of ``qdrant-cir evaluate``, also of ``evaluate photos``, or the file of
            ``qdrant-cir calibrate``. A bundle with a calibration needs no ``--calibration`` for
            ``search --confidence``.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: the file cannot be read, or is of another bundle.
    """
    bundle = load_bundle(bundle_folder)
    measured: JsonObject
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if "bounds" in value:
            calibration = EffortCalibration.of_object(value, place=str(file))
            fingerprint, measured = calibration.fingerprint, {PROVENANCE_KEY: calibration.to_object()}
        else:
            fingerprint = str(value["run"]["fingerprint"])
            measured = {"quality": {key: value[key] for key in KEPT if key in value}}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError) as error:
        raise ExportError(
            f"{file} is neither a report of `qdrant-cir evaluate` nor a file of `qdrant-cir calibrate`: {error}"
        ) from error
    if fingerprint != bundle.fingerprint:
        raise ExportError(
            f"{file} is about the bundle {fingerprint[:12]}, but {bundle_folder} is {bundle.fingerprint[:12]}. "
            "Measure this bundle and give the file of that."
        )
    _write(bundle, bundle_folder, measured)


def _write(bundle: Bundle, folder: Path, measured: JsonObject) -> None:
    manifest = replace(bundle.manifest, provenance={**bundle.manifest.provenance, **measured})
    partial = folder / f"{MANIFEST_FILE}.part"
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(folder / MANIFEST_FILE)
