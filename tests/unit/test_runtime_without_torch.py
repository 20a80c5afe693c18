"""Guards of the runtime's imports, each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

_WALK = """
import importlib, json, pkgutil, sys
import qdrant_cir
names = [module.name for module in pkgutil.walk_packages(qdrant_cir.__path__, "qdrant_cir.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""


def modules_after(code: str) -> dict[str, list[str]]:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, list[str]] = json.loads(finished.stdout)
    return answer


def test_no_module_of_the_runtime_imports_torch_or_the_export_tool() -> None:
    answer = modules_after(_WALK)
    assert {"qdrant_cir.model.bundle", "qdrant_cir.model.sessions", "qdrant_cir.storage.stores.protocol"} <= set(
        answer["imported"]
    )
    forbidden = {"torch", "transformers", "onnx", "onnxscript", "onnx_export"}
    assert forbidden.isdisjoint(answer["loaded"])


def test_sessions_does_not_load_onnxruntime_before_a_graph_is_opened() -> None:
    code = "import json, sys, qdrant_cir.model.sessions; print(json.dumps({'loaded': sorted(sys.modules)}))"
    assert {"onnxruntime", "tokenizers", "PIL.Image"}.isdisjoint(modules_after(code)["loaded"])
