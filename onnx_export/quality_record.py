"""Keeping what was measured of a bundle in the bundle itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from onnx_export.errors import ExportError
from qdrant_cir.bundle import load_bundle
from qdrant_cir.manifest import MANIFEST_FILE

KEPT = ("benchmark", "split", "stage_one", "stage_two", "ceiling", "run")


def record_quality(bundle_folder: Path, report_file: Path) -> None:
    """Write a report's numbers into the manifest's provenance; the bundle's fingerprint stays what it is.

    Args:
        bundle_folder: the bundle that was evaluated.
        report_file: ``report.json`` of ``qdrant-cir evaluate``.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: the report cannot be read, or is of another bundle.
    """
    bundle = load_bundle(bundle_folder)
    try:
        report = json.loads(report_file.read_text(encoding="utf-8"))
        fingerprint = report["run"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{report_file} is no report of `qdrant-cir evaluate`: {error}") from error
    if fingerprint != bundle.fingerprint:
        raise ExportError(
            f"{report_file} is about the bundle {fingerprint[:12]}, but {bundle_folder} is {bundle.fingerprint[:12]}. "
            "Evaluate this bundle and give that report."
        )
    quality = {key: report[key] for key in KEPT if key in report}
    manifest = replace(bundle.manifest, provenance={**bundle.manifest.provenance, "quality": quality})
    partial = bundle_folder / f"{MANIFEST_FILE}.part"
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(bundle_folder / MANIFEST_FILE)
