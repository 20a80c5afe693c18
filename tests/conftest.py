"""What every test folder may use: a model computed by hand, pictures, data, and honest skips.

A test that cannot run says ``pytest.skip("needs KIND: ...")`` (also at module level, in ``importorskip`` and
in ``skipif``), KIND being qdrant, cluster, torch, browser or data. ``CIR_REQUIRE=qdrant,torch`` turns skips of those
kinds into failures.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from qdrant_cir.model.bundle import (
    REQUIRED_GRAPHS,
    GraphVariant,
    Manifest,
    ModelSizes,
    PreprocessingSpec,
    TokenCodec,
    TokenizerSpec,
    graph_entry,
    sha256_of,
    write_manifest,
)

_NEEDS = re.compile(r"needs (qdrant|cluster|torch|browser|data)\b")


def _fail_where_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    kind = _NEEDS.search(reason)
    if report.skipped and kind and kind[1] in os.environ.get("CIR_REQUIRE", "").split(","):
        report.outcome = "failed"
        report.longrepr = f"CIR_REQUIRE={os.environ['CIR_REQUIRE']} forbids this skip. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_where_required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_required(report)
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real annotation files and photographs beside the repository."""
    folder = Path(__file__).parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs data: {folder} is not there")
    return folder.resolve()


# The tiny model, of 16 px. Tokens: mean colour of the picture and of its quadrants. Vector: direction of
# the mean. Colours are RGB from -1 to 1. A word adds its colour to the mean. Score: a dot product.

TINY_SIZES = ModelSizes(image_size=16, token_rows=5, token_dims=3, vector_size=3, fusion_dims=3, token_codec="int8")

# What a word adds. [PAD] and [CLS] are loud: whoever forgets mask or first id sees it in every number.
TINY_WORDS: Mapping[str, tuple[float, float, float]] = {
    "[PAD]": (9, 0, 0),
    "[UNK]": (0, 0, 0),
    "[CLS]": (0, 9, 0),
    "[SEP]": (0, 0, 0),
    "[ENC]": (0, 0, 0),
    "make": (0, 0, 0),
    "it": (0, 0, 0),
    "red": (3, -3, -3),
    "green": (-3, 3, -3),
    "blue": (-3, -3, 3),
    "white": (3, 3, 3),
    "black": (-3, -3, -3),
    "darker": (-1, -1, -1),
    "lighter": (1, 1, 1),
    "same": (0, 0, 0),
    "but": (0, 0, 0),
}

_ONNX_HEADER = '<ir_version: 8, opset_import: ["": 17]>'

_IMAGE_ENCODER = """
image_encoder (float[batch,3,16,16] pixel_values) => (float[batch,5,3] tokens, float[batch,3] vectors)
<int64[3] rows = {0, 3, -1}, float tiny = {0.000001}> {
    whole = AveragePool <kernel_shape = [16, 16]> (pixel_values)
    quadrants = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (pixel_values)
    whole_row = Reshape (whole, rows)
    quadrant_rows = Reshape (quadrants, rows)
    columns = Concat <axis = 2> (whole_row, quadrant_rows)
    tokens = Transpose <perm = [0, 2, 1]> (columns)
    mean = ReduceMean <axes = [2, 3], keepdims = 0> (pixel_values)
    length = ReduceL2 <axes = [1], keepdims = 1> (mean)
    safe_length = Max (length, tiny)
    vectors = Div (mean, safe_length)
}
"""

_COMPOSER = """
composer (int64[batch,length] input_ids, int64[batch,length] attention_mask,
          float[batch,5,3] reference_tokens)
    => (float[batch,3] query_vectors, float[batch,length,3] fusion_states)
<float[WORD_COUNT,3] words = {WORDS}, int64[1] one = {1}, int64[1] last = {-1}, float tiny = {0.000001},
 int64 first = {0}> {
    meanings = Gather (words, input_ids)
    mask = Cast <to = 1> (attention_mask)
    mask_column = Unsqueeze (mask, last)
    masked = Mul (meanings, mask_column)
    change = ReduceSum <keepdims = 0> (masked, one)
    reference = Gather <axis = 1> (reference_tokens, first)
    moved = Add (reference, change)
    length_of_moved = ReduceL2 <axes = [1], keepdims = 1> (moved)
    safe_length = Max (length_of_moved, tiny)
    query_vectors = Div (moved, safe_length)
    query_rows = Unsqueeze (query_vectors, one)
    nothing = Sub (mask_column, mask_column)
    fusion_states = Add (query_rows, nothing)
}
"""

_RERANKER = """
reranker (int64[1,length] input_ids, float[1,length,3] fusion_states, CODEC[candidates,5,3] candidate_tokens,
          float[candidates,5] candidate_scales) => (float[candidates] scores)
<int64 first = {0}, int64[1] last = {-1}, int64[1] flat = {-1}> {
    values = Cast <to = 1> (candidate_tokens)
    scale_columns = Unsqueeze (candidate_scales, last)
    tokens = Mul (values, scale_columns)
    mean = ReduceMean <axes = [1], keepdims = 0> (tokens)
    state = Gather <axis = 1> (fusion_states, first)
    column = Transpose <perm = [1, 0]> (state)
    products = MatMul (mean, column)
    scores = Reshape (products, flat)
}
"""

# The mean of the tokens that are left, each as often as its weight says.
_WEIGHTED_RERANKER = """
reranker (int64[1,length] input_ids, float[1,length,3] fusion_states, CODEC[candidates,5,3] candidate_tokens,
          float[candidates,5] candidate_scales, float[candidates,5] candidate_weights) => (float[candidates] scores)
<int64 first = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] flat = {-1}> {
    values = Cast <to = 1> (candidate_tokens)
    factors = Mul (candidate_scales, candidate_weights)
    columns = Unsqueeze (factors, last)
    rows = Mul (values, columns)
    total = ReduceSum <keepdims = 0> (rows, one)
    count = ReduceSum <keepdims = 1> (candidate_weights, last)
    mean = Div (total, count)
    state = Gather <axis = 1> (fusion_states, first)
    column = Transpose <perm = [1, 0]> (state)
    products = MatMul (mean, column)
    scores = Reshape (products, flat)
}
"""


@pytest.fixture(scope="session")
def tiny_sizes() -> ModelSizes:
    """The tiny model's sizes."""
    return TINY_SIZES


@pytest.fixture(scope="session")
def build_tiny_bundle() -> Callable[..., Path]:
    """The builder of the tiny model: ``build_tiny_bundle(folder, codec="int8", name="tiny") -> folder``.

    With ``weighted=True`` it holds the re-ranker that explanations need.
    """
    return _build_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder of the tiny model. Shared by the whole session: copy it before changing it."""
    return _build_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def write_solid_images() -> Callable[[Path, Mapping[str, tuple[int, int, int]]], list[Path]]:
    """Write one-colour pictures: ``write_solid_images(folder, {"red": (255, 0, 0)})`` gives red.png."""

    def write(folder: Path, colours: Mapping[str, tuple[int, int, int]]) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, colour in colours.items():
            paths.append(folder / f"{name}.png")
            Image.new("RGB", (20, 20), colour).save(paths[-1])
        return paths

    return write


def _build_tiny_bundle(folder: Path, codec: TokenCodec = "int8", name: str = "tiny", *, weighted: bool = False) -> Path:
    sizes = ModelSizes(
        image_size=TINY_SIZES.image_size,
        token_rows=TINY_SIZES.token_rows,
        token_dims=TINY_SIZES.token_dims,
        vector_size=TINY_SIZES.vector_size,
        fusion_dims=TINY_SIZES.fusion_dims,
        token_codec=codec,
    )
    (folder / "onnx").mkdir(parents=True)
    _write_graphs(folder / "onnx", codec, weighted=weighted)
    _write_tokenizer(folder / "tokenizer.json")
    graphs = {graph: graph_entry(folder, graph, [f"onnx/{graph}.onnx"], sizes) for graph in REQUIRED_GRAPHS}
    if weighted:
        file = "onnx/reranker_weighted.onnx"
        graphs["reranker"] = replace(graphs["reranker"], weighted=GraphVariant(file, {file: sha256_of(folder / file)}))
    write_manifest(
        folder,
        Manifest(
            name=name,
            licence="Apache-2.0",
            graphs=graphs,
            preprocessing=PreprocessingSpec(
                size=sizes.image_size, pad_ratio=1.25, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
            ),
            tokenizer=TokenizerSpec(
                file="tokenizer.json",
                sha256=sha256_of(folder / "tokenizer.json"),
                max_length=8,
                first_token_id=list(TINY_WORDS).index("[ENC]"),
            ),
            vector_size=sizes.vector_size,
            token_rows=sizes.token_rows,
            token_dims=sizes.token_dims,
            fusion_dims=sizes.fusion_dims,
            token_codec=codec,
            provenance={"made_by": "hand"},
        ),
    )
    return folder


def _write_graphs(folder: Path, codec: TokenCodec, *, weighted: bool) -> None:
    import onnx
    import onnx.parser

    words = ", ".join(f"{float(number)}" for word in TINY_WORDS.values() for number in word)
    element = {"int8": "int8", "float16": "float16", "float32": "float"}[codec]
    texts = {
        "image_encoder": _IMAGE_ENCODER,
        "composer": _COMPOSER.replace("WORD_COUNT", str(len(TINY_WORDS))).replace("WORDS", words),
        "reranker": _RERANKER.replace("CODEC", element),
    }
    if weighted:
        texts["reranker_weighted"] = _WEIGHTED_RERANKER.replace("CODEC", element)
    for name, text in texts.items():
        model = onnx.parser.parse_model(_ONNX_HEADER + text)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / f"{name}.onnx")


def _write_tokenizer(path: Path) -> None:
    ids = {word: place for place, word in enumerate(TINY_WORDS)}
    special = [
        {
            "id": ids[word],
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for word in ids
        if word.startswith("[")
    ]
    closing = {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")}
    template = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": closing,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
