"""The description of the service's interface and its dashboard are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qdrant_cir.search.gate import Gate
from qdrant_cir.service.answering import Settings
from qdrant_cir.service.app import create_app
from qdrant_cir.service.observing import Metrics

ROOT = Path(__file__).parents[2]


def test_the_committed_description_is_what_the_service_generates() -> None:
    """Regenerate with: python -m qdrant_cir.service.openapi > docs/openapi.json."""
    committed = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert committed == create_app({}, Settings()).openapi()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "docker" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"qdrant_cir_\w+", target["expr"])
    }
    told = Metrics(Gate(1)).text().decode()
    bases = set(re.findall(r"^# TYPE (\w+) ", told, re.M))
    known = bases | {f"{base}_{suffix}" for base in bases for suffix in ("bucket", "sum", "count")}
    assert asked
    assert asked <= known
    # every metric is shown
    assert {base for base in bases if base.startswith("qdrant_cir_") and not base.endswith("_created")} <= {
        re.sub("_(bucket|sum|count)$", "", name) for name in asked
    }


@pytest.mark.parametrize("key", ["title", "panels", "uid"])
def test_the_dashboard_is_one(key: str) -> None:
    assert json.loads((ROOT / "docker" / "grafana-dashboard.json").read_text(encoding="utf-8"))[key]
