"""Tracing takes most of the time of these tests, so the very same module is traced once for all of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    import torch  # here, for each of the files says what is missing where there is no torch

    trace, programs = torch.onnx.export, {}

    def trace_once(module: object, **how: object) -> object:
        written = io.BytesIO()
        torch.save((module, how), written)
        key = hashlib.sha256(written.getvalue()).hexdigest()
        if key not in programs:
            programs[key] = trace(module, **how)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", trace_once)
        yield
