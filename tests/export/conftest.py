"""Tracing takes most of the time of these tests, so the very same module is traced once for all of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    trace, programs = torch.onnx.export, {}

    def trace_once(module: Any, **how: Any) -> Any:
        written = io.BytesIO()
        torch.save((module, how), written)
        key = hashlib.sha256(written.getvalue()).hexdigest()
        if key not in programs:
            programs[key] = trace(module, **how)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", trace_once)
        yield
