"""Locations of external weights: found wherever a graph may name them and however they were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from qdrant_cir.errors import BundleError
from qdrant_cir.model.graph_locations import external_locations

LOCATION = "other.data"


def external(location: str = LOCATION, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    return helper.make_graph(list(nodes), "g", [], [value], list(initializers))


def constant(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], **attributes)


def branch(inner: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph(constant(value_int=1)))


def as_model(main: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(main)


def sparse() -> onnx.SparseTensorProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    return onnx.SparseTensorProto(values=external(), indices=indices, dims=[9])


def with_sparse_initializer() -> onnx.ModelProto:
    model = as_model(graph())
    model.graph.sparse_initializer.append(sparse())
    return model


def with_function() -> onnx.ModelProto:
    function = helper.make_function("own", "f", [], ["y"], [constant(value=external())], [])
    return helper.make_model(graph(), functions=[function])


def with_default_of_function() -> onnx.ModelProto:
    function = helper.make_function("own", "f", [], ["y"], [], [])
    function.attribute_proto.append(helper.make_attribute("w", external()))
    return helper.make_model(graph(), functions=[function])


def with_training() -> onnx.ModelProto:
    model = as_model(graph())
    model.training_info.add().algorithm.CopyFrom(graph(initializers=(external(),)))
    return model


def with_lists() -> onnx.ModelProto:
    node = helper.make_node("Own", [], ["y"], domain="own")
    node.attribute.append(helper.make_attribute("tensors", [external()]))
    node.attribute.append(helper.make_attribute("graphs", [graph(constant(value=external("second.data")))]))
    return as_model(graph(node))


@pytest.mark.parametrize(
    "build",
    [
        lambda: as_model(graph(initializers=(external(),))),
        with_sparse_initializer,
        lambda: as_model(graph(constant(value=external()))),
        lambda: as_model(graph(constant(sparse_value=sparse()))),
        lambda: as_model(graph(branch(graph(initializers=(external(),))))),
        lambda: as_model(graph(branch(graph(branch(graph(constant(value=external()))))))),
        with_function,
        with_default_of_function,
        with_training,
    ],
)
def test_a_location_is_found_wherever_a_graph_may_name_it(tmp_path: Path, build: Callable[[], onnx.ModelProto]) -> None:
    onnx.save(build(), tmp_path / "g.onnx")
    assert external_locations(tmp_path / "g.onnx") == (LOCATION,)


def test_several_locations_are_named_once_each(tmp_path: Path) -> None:
    onnx.save(with_lists(), tmp_path / "g.onnx")
    assert set(external_locations(tmp_path / "g.onnx")) == {LOCATION, "second.data"}


def test_a_graph_that_holds_its_weights_names_no_location(tmp_path: Path, tiny_bundle: Path) -> None:
    assert external_locations(tiny_bundle / "onnx" / "composer.onnx") == ()
    # the words alone, as a weight, a name or a text, are no location
    node = constant(value=helper.make_tensor("location", TensorProto.STRING, [1], [b"\x0a\x08location\x12\x03abc"]))
    onnx.save(as_model(graph(node)), tmp_path / "g.onnx")
    assert external_locations(tmp_path / "g.onnx") == ()


def field(number: int, content: bytes, *, padding: int = 0) -> bytes:
    """A field of bytes; with padding its tag and length take more bytes than they need."""
    return number_bytes(number << 3 | 2, padding) + number_bytes(len(content), padding) + content


def number_bytes(value: int, padding: int = 0) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    groups += [0] * padding
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


def model_of_entry(entry: bytes) -> bytes:
    tensor = field(8, b"w") + b"\x10\x01" + b"\x08\x04" + field(13, entry) + b"\x70\x01"
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]).SerializeToString()
    opset = onnx.OperatorSetIdProto(version=17).SerializeToString()
    return b"\x08\x08" + field(8, opset) + field(7, field(2, b"g") + field(5, tensor) + field(12, value))


def found_by_bytes(content: bytes) -> list[str]:
    """The search for ``location`` as bytes that this reader replaces."""
    key, place, found = b"\x0a\x08location\x12", -1, []
    while (place := content.find(key, place + 1)) >= 0:
        start = place + len(key)
        found.append(content[start + 1 : start + 1 + content[start]].decode("utf-8", "replace"))
    return found


WRITTEN_OTHERWISE = {
    "value before key": field(2, b"other.data") + field(1, b"location"),
    "longer tag and length": field(1, b"location", padding=1) + field(2, b"other.data", padding=2),
    "an unknown field between": field(1, b"location") + field(9, b"x") + field(2, b"other.data"),
    "a number between": field(1, b"location") + b"\x18\x05" + field(2, b"other.data"),
    "key twice": field(1, b"offset") + field(2, b"other.data") + field(1, b"location"),
}


@pytest.mark.parametrize("entry", WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_a_location_is_found_however_it_was_written(tmp_path: Path, entry: bytes) -> None:
    content = model_of_entry(entry)
    (tmp_path / "g.onnx").write_bytes(content)
    read = onnx.load(tmp_path / "g.onnx", load_external_data=False)
    assert [(pair.key, pair.value) for pair in read.graph.initializer[0].external_data] == [("location", LOCATION)]
    assert found_by_bytes(content) != [LOCATION]
    assert external_locations(tmp_path / "g.onnx") == (LOCATION,)


def test_a_long_location_is_read_whole(tmp_path: Path) -> None:
    content = model_of_entry(field(1, b"location") + field(2, b"d" * 300))
    (tmp_path / "g.onnx").write_bytes(content)
    assert found_by_bytes(content) != ["d" * 300]
    assert external_locations(tmp_path / "g.onnx") == ("d" * 300,)


def test_every_value_of_an_entry_counts(tmp_path: Path) -> None:
    entry = field(1, b"location") + field(2, b"first.data") + field(2, b"last.data")
    (tmp_path / "g.onnx").write_bytes(model_of_entry(entry))
    assert set(external_locations(tmp_path / "g.onnx")) == {"first.data", "last.data"}


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = field(1, field(5, field(6, content)))
    return field(7, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x3a", "ends within a number"),
        (b"\x3a\x05abc", "ends behind what holds it"),
        (field(7, b"\x0a\x7f"), "ends behind what holds it"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x02\x01a", "field number 0"),
        (b"\xff\xff\xff\xff\x7f\x00", "field number"),
        (b"\x80" * 6 + b"\x01", "a number of more than 5 bytes"),
        (b"\x08" + b"\x80" * 11, "a number of more than 10 bytes"),
        (nested(40), "more than 100 deep"),
        (model_of_entry(field(1, b"location") + field(2, b"\xff\xfe")), "no text"),
    ],
)
def test_what_is_no_protobuf_is_a_bundle_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        external_locations(tmp_path / "g.onnx")


def test_a_file_of_very_many_fields_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qdrant_cir.model.graph_locations._MOST_FIELDS", 1_000)
    (tmp_path / "g.onnx").write_bytes(b"\x08\x08" * 1_001)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        external_locations(tmp_path / "g.onnx")
