"""The re-ranker in other arithmetic: close to the exact one, named in the answer, and off unless asked for."""

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from onnx_export.__main__ import app as export_app
from onnx_export.bundle import precisions
from onnx_export.bundle.calibration import Inputs, value_ranges
from onnx_export.bundle.integer_arithmetic import ValueRange, with_integer_products
from onnx_export.bundle.precisions import AddedPrecision, add_precision
from onnx_export.errors import ExportError
from qdrant_cir import Query, Retriever
from qdrant_cir.cli import app
from qdrant_cir.cli.evaluate import evaluation_app
from qdrant_cir.drawn.dataset import draw_item, sample_drawn
from qdrant_cir.drawn.files import write_drawn
from qdrant_cir.errors import BundleError
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord, read_folder
from qdrant_cir.model.bundle import Bundle, load_bundle, packaged_bundle_path
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import preprocess
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.search.scoring import SharedReranker
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, EncodedImages, Float32, Precision, StoredTokens

QUERY_ROWS, TOKEN_ROWS, DIMS = 3, 5, 4
ENCODED = ("tokens", "vectors", "candidate_tokens")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the bundled model with every precision added."""
    folder = tmp_path_factory.mktemp("precisions") / "bundle"
    shutil.copytree(packaged_bundle_path("drawn"), folder)
    add_precision(folder, "int8")
    add_precision(folder, "int8", "image_encoder")
    add_precision(folder, "float16")
    return load_bundle(folder)


@cache
def triplets() -> tuple[Composition, StoredTokens]:
    """A drawn product with a text, and 24 other products; none of them calibrated the graphs."""
    bundle, catalog = load_bundle("drawn"), sample_drawn(5, products=48, queries=1)
    encoded = ImageEncoder.open(bundle, Compute("cpu")).encode(pixels())
    (query,) = Composer.open(bundle, Compute("cpu")).compose(encoded.tokens[:1], [catalog.queries[0].modification_text])
    return query, quantize(encoded.candidate_tokens[1:], "int8")


@cache
def pixels() -> Float32:
    """25 drawn products as the image encoder reads them."""
    spec, catalog = load_bundle("drawn").manifest.preprocessing, sample_drawn(5, products=48, queries=1)
    pictures = [draw_item(catalog, number).image for number in range(25)]
    return np.stack([preprocess(picture, spec) for picture in pictures])


def scores(bundle: Bundle, precision: Precision) -> Float32:
    return Reranker.open(bundle, Compute("cpu", precision=precision)).score(*triplets())


def spread_of_the_head(bundle: Bundle) -> float:
    """Standard deviation of the re-ranker's own part of the exact scores, which holds no cosine of stage one."""
    model = onnx.load(str(bundle.graph_path("reranker")))
    total = next(node for node in model.graph.node if "scores" in node.output)
    assert total.op_type == "Add"
    model.graph.output.append(helper.make_tensor_value_info(total.input[0], TensorProto.FLOAT, None))
    query, stored = triplets()
    given = {"input_ids": query.input_ids[None], "fusion_states": query.fusion_states[None]}
    given |= {"candidate_tokens": stored.values, "candidate_scales": stored.scales}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return float(session.run([total.input[0]], given)[0].std())


def of_some(stored: StoredTokens, rows: Sequence[int]) -> StoredTokens:
    return StoredTokens(stored.values[list(rows)], stored.scales[list(rows)])


def moved_by_neighbours(bundle: Bundle, precision: Precision) -> float:
    """The most that a candidate's score differs between runs alone, in other chunks, orders and numbers of threads."""
    query, stored = triplets()
    count, together = len(stored.values), scores(bundle, precision)
    backwards = list(range(count))[::-1]
    found = []
    for threads in (1, 2, 3):
        session = Reranker.open(bundle, Compute("cpu", threads, precision=precision))
        found.append(session.score(query, of_some(stored, backwards))[::-1])
        shared = SharedReranker(Reranker.open(bundle, Compute("cpu", 1, precision=precision)), threads=threads)
        found.append(shared.score(query, stored))
    for chunk in (1, 2, 3, 5, count):
        found.append(Reranker.open(bundle, Compute("cpu", 1, precision=precision), chunk=chunk).score(query, stored))
    # as re-ranking with a confidence does, ten at a time
    reranker = Reranker.open(bundle, Compute("cpu", 1, precision=precision))
    steps = [range(count)[start : start + 10] for start in range(0, count, 10)]
    found.append(np.concatenate([reranker.score(query, of_some(stored, step)) for step in steps]))
    assert all((np.argsort(-each) == np.argsort(-together)).all() for each in found)
    return float(np.abs(np.stack(found) - together).max())


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-6), ("int8", 0), ("float16", 1e-3)])
def test_a_candidates_score_depends_on_neither_neighbours_nor_order_nor_threads(
    bundle: Bundle, precision: Precision, most: float
) -> None:
    assert moved_by_neighbours(bundle, precision) <= most


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("int8", 0)])
def test_a_pictures_tokens_depend_on_neither_neighbours_nor_order_nor_threads(
    bundle: Bundle, precision: Precision, most: float
) -> None:
    batch = pixels()[:6]
    together = ImageEncoder.open(bundle, Compute("cpu", 1, precision=precision)).encode(batch)
    for threads in (1, 2, 3):
        encoder = ImageEncoder.open(bundle, Compute("cpu", threads, precision=precision))
        alone = [encoder.encode(batch[row : row + 1]) for row in range(len(batch))]
        others = [
            EncodedImages(*(np.concatenate([getattr(one, name) for one in alone]) for name in ENCODED)),
            EncodedImages(*(getattr(encoder.encode(batch[::-1].copy()), name)[::-1] for name in ENCODED)),
        ]
        for other, name in itertools.product(others, ENCODED):
            np.testing.assert_allclose(getattr(other, name), getattr(together, name), rtol=0, atol=most)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.25), ("float16", 0.02)])
def test_other_arithmetic_moves_scores_by_a_fraction_of_the_rerankers_spread(
    bundle: Bundle, precision: Precision, most: float
) -> None:
    exact, fast = scores(bundle, "float32"), scores(bundle, precision)
    moved = np.sqrt(np.mean((fast - exact) ** 2)) / spread_of_the_head(bundle)
    assert 0 < moved < most


def test_a_pair_that_is_far_apart_keeps_its_order_in_int8(bundle: Bundle) -> None:
    exact, fast = scores(bundle, "float32"), scores(bundle, "int8")
    apart = exact[:, None] - exact[None] > 0.5 * exact.std()
    assert (fast[:, None] > fast[None])[apart].all()


def test_a_variant_changes_neither_the_fingerprint_nor_the_exact_scores(bundle: Bundle) -> None:
    bundled = load_bundle("drawn")
    assert bundle.fingerprint == bundled.fingerprint
    np.testing.assert_array_equal(scores(bundle, "float32"), scores(bundled, "float32"))


def test_stored_tokens_go_into_the_integer_product_as_they_are(bundle: Bundle) -> None:
    graph = onnx.load(str(bundle.graph_path("reranker", "int8")), load_external_data=False).graph
    readers = {node.op_type for node in graph.node if "candidate_tokens" in node.input}
    # as floats they are read for stage one's cosine alone, which takes the first token
    floats = {node.output[0] for node in graph.node if node.op_type == "Cast" and "candidate_tokens" in node.input}
    assert readers - {"Cast"} == {"MatMulIntegerToFloat", "Transpose", "Shape"}
    assert {node.op_type for node in graph.node if floats & set(node.input)} <= {"Gather", "Slice"}
    weights = {w.name for w in graph.initializer if w.data_type == TensorProto.FLOAT and len(w.dims) >= 2}
    assert not [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def test_integer_products_are_exact_where_everything_is_a_whole_number() -> None:
    """Every scale is 1, and sums of two products go as near to 16 bits, where some processors end, as forms allow."""
    rng = np.random.default_rng(0)
    queries = rng.integers(-63, 64, (1, QUERY_ROWS, DIMS)).astype(np.float32)
    queries[..., 0] = queries[:, 0] = 63
    states = rng.integers(0, 256, (1, QUERY_ROWS, DIMS)).astype(np.float32)
    states[:, 0], states.flat[-1] = 255, 0
    weight = rng.integers(-64, 65, (DIMS, DIMS)).astype(np.float32)
    weight[:, 0] = weight[0] = 64
    tokens = rng.integers(-127, 128, (1, TOKEN_ROWS, DIMS)).astype(np.int8)
    tokens[:, 0] = 127
    nodes = [
        helper.make_node("Cast", ["candidate_tokens"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "columns"], ["similarity"]),
        helper.make_node("MatMul", ["states", "weight"], ["next_states"]),
        helper.make_node("Softmax", ["similarity"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "floats"], ["mixed"]),
    ]

    def value(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    outputs = ["similarity", "next_states", "mixed"]
    graph = helper.make_graph(
        nodes,
        "three products",
        [
            value("candidate_tokens", TensorProto.INT8, [1, TOKEN_ROWS, DIMS]),
            *(value(name, TensorProto.FLOAT, [1, QUERY_ROWS, DIMS]) for name in ("queries", "states")),
        ],
        [
            value(name, TensorProto.FLOAT, [1, QUERY_ROWS, axis])
            for name, axis in zip(outputs, (TOKEN_ROWS, DIMS, DIMS), strict=True)
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    given = {"candidate_tokens": tokens, "queries": queries, "states": states}
    exact = onnxruntime.InferenceSession(model.SerializeToString()).run(outputs, given)
    converted = with_integer_products(model, {"states": ValueRange(0, 255)})
    fast = onnxruntime.InferenceSession(converted.SerializeToString()).run(outputs, given)
    np.testing.assert_allclose(fast[0], exact[0], rtol=1e-6)
    np.testing.assert_array_equal(fast[1], exact[1])
    # a softmax over whole numbers this far apart is 1 in one place and 0 elsewhere: the row of that token
    np.testing.assert_allclose(fast[2], exact[2], atol=1e-4)


def test_a_bundle_without_the_variant_is_refused_with_the_command_that_adds_it() -> None:
    with pytest.raises(BundleError, match="add-precision"):
        Reranker.open(load_bundle("drawn"), Compute("cpu", precision="float16"))


def test_integer_products_want_tokens_stored_as_int8(bundle: Bundle) -> None:
    model = onnx.load(str(bundle.graph_path("reranker")))
    next(v for v in model.graph.input if v.name == "candidate_tokens").type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ExportError, match="--codec int8"):
        with_integer_products(model, {})


def test_numbers_beyond_the_calibrated_range_are_cut_off() -> None:
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "weight")
    shape = [1, 1, 2]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["states", "weight"], ["out"])],
        "one product",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    converted = with_integer_products(model, {"states": ValueRange(-51, 204)})
    session = onnxruntime.InferenceSession(converted.SerializeToString())
    (found,) = session.run(None, {"states": np.array([[[-60, 300]]], np.float32)})
    np.testing.assert_allclose(found, [[[-51, 204]]], rtol=1e-6)


def test_a_range_leaves_out_what_is_too_rare_for_its_coarser_steps() -> None:
    shape = [1, 20_001]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["states"], ["values"])],
        "nothing",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    common = np.linspace(0, 1, 20_000, dtype=np.float32)
    found = [
        value_ranges(model, ["values"], [{"states": np.append(common, np.float32(rare))[None]}])["values"].high
        for rare in (1.0, 1.3)
    ]
    # a step of 1.3 / 255 costs each of 20,000 numbers a little, cutting 1.3 down to 1.001 one number much: 0.09
    assert found == pytest.approx([1.0, 1.3 * 0.97])


def test_a_precision_that_is_slower_on_this_machine_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    def told_of(speed: float) -> str:
        added = AddedPrecision("onnx/reranker_float16.onnx", 0.01, 0.02, speed)
        monkeypatch.setattr(precisions, "add_precision", lambda *given, **named: added)
        return CliRunner().invoke(export_app, ["add-precision", "bundle", "--precision", "float16"]).stdout

    assert "0.80 times as fast as the exact graph, by processor time. That is not worth what it loses" in told_of(0.8)
    assert "Use it with precision='float16'" in told_of(1.9)


def test_pictures_of_ones_own_calibrate(tmp_path: Path) -> None:
    folder, pictures = tmp_path / "bundle", tmp_path / "pictures"
    shutil.copytree(packaged_bundle_path("drawn"), folder)
    pictures.mkdir()
    catalog = sample_drawn(9, products=48, queries=1)
    for number in range(9):
        draw_item(catalog, number).image.save(pictures / f"{number}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    command = ["add-precision", str(folder), "--pictures", str(pictures)]
    told = CliRunner().invoke(export_app, command)
    assert told.exit_code == 0, told.output
    assert f"on pictures of {pictures}" in told.stdout
    assert re.search(r"On this machine it is \d+\.\d\d times as fast as the exact graph", told.stdout)
    (pictures / "0.png").unlink()
    (pictures / "1.png").unlink()
    with pytest.raises(ExportError, match="7 pictures could be read; give a folder with at least 8"):
        add_precision(folder, "int8", pictures=pictures)


def test_the_answer_says_what_the_scores_were_computed_in(bundle: Bundle, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    pictures = {f"p{i}": Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for i in range(6)}
    with Indexer.open("pictures", store=tmp_path / "store", bundle=bundle.folder) as indexer:
        indexer.index(ImageRecord(name, picture, payload={}, source=None) for name, picture in pictures.items())
    answers = {}
    for precision in ("float32", "int8"):
        with Retriever.open(
            "pictures", store=tmp_path / "store", bundle=bundle.folder, precision=precision
        ) as retriever:
            answers[precision] = retriever.search(Query(pictures["p0"], "in red"))
    assert {name: answer.precision for name, answer in answers.items()} == {"float32": "float32", "int8": "int8"}
    exact, fast = ({c.image_id: c.rerank_score for c in a.candidates} for a in answers.values())
    assert exact.keys() == fast.keys()
    assert exact != fast


def test_a_precision_that_gives_no_numbers_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(model: onnx.ModelProto, inputs: Sequence[Inputs]) -> onnx.ModelProto:
        head = next(w for w in model.graph.initializer if w.name == "cls_head.2.bias")
        head.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), head.name))
        return model

    folder = tmp_path / "bundle"
    shutil.copytree(packaged_bundle_path("drawn"), folder)
    monkeypatch.setitem(precisions.CONVERSIONS, "int8", spoilt)
    with pytest.raises(ExportError, match="was not added"):
        add_precision(folder, "int8")
    assert not load_bundle(folder).manifest.graphs["reranker"].variants
    assert sorted(p.name for p in folder.rglob("*")) == sorted(p.name for p in packaged_bundle_path("drawn").rglob("*"))


def test_a_variant_is_replaced_by_one_of_the_same_precision(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(packaged_bundle_path("drawn"), folder)
    add_precision(folder, "int8")
    first = load_bundle(folder).manifest
    add_precision(folder, "int8")
    assert load_bundle(folder).manifest == first


def test_a_damaged_variant_is_refused_before_it_does_harm(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.folder, copy)
    weights = copy / "onnx" / "reranker_int8.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    with pytest.raises(BundleError, match=r"reranker_int8\.onnx\.data is not the file"):
        load_bundle(copy)


def test_images_of_the_int8_encoder_are_marked_and_the_exact_one_replaces_them(tmp_path: Path) -> None:
    folder, pictures, store = tmp_path / "bundle", tmp_path / "pictures", tmp_path / "store"
    shutil.copytree(packaged_bundle_path("drawn"), folder)
    assert add_precision(folder, "int8", "image_encoder").deviation < 0.05
    catalog = sample_drawn(3, products=48, queries=1)
    pictures.mkdir()
    for number in range(6):
        draw_item(catalog, number).image.save(pictures / f"{number}.png")

    def index(precision: Precision) -> tuple[int, tuple[str, ...]]:
        with Indexer.open("shop", store=store, bundle=folder, provider="cpu", precision=precision) as indexer:
            indexed = indexer.index(read_folder(pictures)).indexed
        with EdgeStore(store) as opened:
            return indexed, Collection.open(opened, "shop").info().precisions

    shop = ["-c", "shop", "--path", str(store)]
    command = CliRunner(env={"QDRANT_URL": ""})
    told = command.invoke(app, ["index", str(pictures), *shop, "--bundle", str(folder), "--precision", "int8"])
    assert told.exit_code == 0, told.output
    told = command.invoke(app, ["info", *shop, "--json"])
    assert json.loads(told.stdout)["collections"][0]["precisions"] == ["int8"]
    found = command.invoke(
        app,
        ["search", "--image", str(pictures / "0.png"), "--text", "in red", *shop, "--bundle", str(folder), "--json"],
    )
    assert json.loads(found.stdout)["notes"][0].startswith("6 of the 6 pictures found were encoded in int8")
    assert index("int8") == (0, ("int8",))
    assert index("float32") == (6, ("float32",))
    assert index("int8") == (0, ("float32",))  # an exact encoding serves as well


def test_a_bundle_without_the_encoder_in_that_precision_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"add-precision .* --precision int8 --graph image_encoder"):
        Indexer.open("shop", store=tmp_path / "store", provider="cpu", precision="int8")


def test_an_evaluation_in_int8_says_so_and_keeps_its_run_apart(bundle: Bundle, tmp_path: Path) -> None:
    write_drawn(sample_drawn(5, products=40, queries=3), tmp_path / "shop", size=64)
    out = tmp_path / "out"
    arguments = ["catalog", "--root", str(tmp_path / "shop"), "--bundle", str(bundle.folder), "--out", str(out)]

    def report(*options: str) -> str:
        result = CliRunner().invoke(evaluation_app, [*arguments, "--no-controls", "--provider", "cpu", *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "the best 50 re-ranked in int8." in report("--precision", "int8")
    assert "the best 50 re-ranked." in report()
    assert len(list((out / "runs").iterdir())) == 2
