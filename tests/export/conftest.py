"""Tracing takes most of the time of these tests, so the very same module is traced once for all of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qdrant_cir.cli.app import app


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


@pytest.fixture(scope="session")
def evaluated_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny drawn catalogue, ``catalog``, and the bundled model's evaluation of it, ``run``."""
    folder = tmp_path_factory.mktemp("evaluated")
    catalog = ["--products", "60", "--queries", "4", "--seed", "77", "--size", "128"]
    built = CliRunner().invoke(app, ["catalog", "build", "--out", str(folder / "catalog"), *catalog])
    assert built.exit_code == 0, built.output
    evaluation = ["--rerank-depth", "200", "--provider", "cpu", "--out", str(folder / "run")]
    run = CliRunner().invoke(app, ["evaluate", "catalog", "--root", str(folder / "catalog"), *evaluation])
    assert run.exit_code == 0, run.output
    return folder
