"""Large constants that are float16 values stored as such: half the bytes, and not a bit lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 512
"""Numbers in a constant from which on the cast is worth its node."""


def halve_constants(path: Path) -> int:
    """Store a graph's float32 constants as float16 where that is exact, each with a cast behind it.

    Weights that were rounded to float16 before, as those of the frozen trunk, are the only ones that this is true of; a
    graph without any stays as it is, byte for byte.

    Args:
        path: of the ONNX file; its external data, where there is any, lies beside it as ``NAME.data``.

    Returns:
        How many constants were stored in half the bytes.
    """
    model = onnx.load(path)
    graph = model.graph
    casts = []
    for number, constant in enumerate(graph.initializer):
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size < SMALLEST or not np.any(values) or not np.array_equal(halves.astype(np.float32), values):
            continue
        name = constant.name
        graph.initializer[number].CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    if not casts:
        return 0
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    described = {info.name for info in graph.value_info}
    for node in casts:
        stored = next(value for value in graph.initializer if value.name == node.input[0])
        if node.output[0] not in described:
            graph.value_info.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, stored.dims))
    data = path.with_name(f"{path.name}.data")
    was_external = data.exists()
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=was_external, all_tensors_to_one_file=True, location=data.name)
    if was_external:
        data.chmod(path.stat().st_mode)  # onnx makes it readable by its owner alone
    return len(casts)
