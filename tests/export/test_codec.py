"""Compressed tokens: where nothing is lost no score changes, and a fitted bundle is indexed and searched."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES  # noqa: E402

from benchmarks.codec import DIM_SIXTEENTHS, ROW_SHARES, frontier  # noqa: E402
from onnx_export.bundle.fitted_codec import FittedCodec, default_form, fit_codec  # noqa: E402
from onnx_export.bundle.precisions import add_precision  # noqa: E402
from onnx_export.bundle.token_projection import fit_projection, reading_metric  # noqa: E402
from onnx_export.errors import CheckpointError, ExportError  # noqa: E402
from onnx_export.export import BundleDescription, export_bundle  # noqa: E402
from onnx_export.graphs import RerankerGraph  # noqa: E402
from onnx_export.models import CirModel, build_model  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from qdrant_cir import Indexer, Query, Retriever  # noqa: E402
from qdrant_cir.cli import app  # noqa: E402
from qdrant_cir.errors import BundleError, InputError  # noqa: E402
from qdrant_cir.evaluation.token_loss import TokenLoss, measure_loss  # noqa: E402
from qdrant_cir.indexing.sources import ImageRecord, read_folder  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402
from qdrant_cir.types import Float32  # noqa: E402

IDS = torch.tensor([[3, 9, 27, 4]])
WIDTH = SIZES.image_width


@pytest.fixture(scope="module")
def model() -> CirModel:
    """A model of 17 tokens whose weights matter and whose score holds stage one's cosine."""
    built = build_model(replace(SIZES, image_size=64, similarity_weight=3.0), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return built


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(24):
        blocks = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(model: CirModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    described = BundleDescription("tiny", "Apache-2.0", {"effort": {"of": "all tokens"}})
    out = tmp_path_factory.mktemp("exact") / "bundle"
    return export_bundle(model, build_tokenizer(), out, codec="int8", description=described)


@pytest.fixture(scope="module")
def fitted(bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FittedCodec:
    broken = tmp_path_factory.mktemp("broken") / "broken.png"
    broken.write_bytes(b"no picture")
    records = [*read_folder(pictures), ImageRecord("broken", broken, payload={}, source=None)]
    return fit_codec(bundle, records, tmp_path_factory.mktemp("small") / "bundle", rows=6, dims=10)


def random_array(*shape: int, seed: int) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@torch.no_grad()
def exact_scores(model: CirModel, tokens: Float32) -> torch.Tensor:
    graph = RerankerGraph(model.reranker, model.similarity()).eval()
    states = torch.from_numpy(random_array(1, 4, SIZES.text_width, seed=1))
    scores: torch.Tensor = graph(IDS, states, torch.from_numpy(tokens), torch.ones(tokens.shape[:2]))
    return scores


@torch.no_grad()
def test_tokens_that_fill_only_five_dimensions_score_the_same_in_five(model: CirModel) -> None:
    tokens = random_array(6, 10, 5, seed=5) @ random_array(5, WIDTH, seed=6) + random_array(WIDTH, seed=7)
    projection = fit_projection(tokens.reshape(-1, WIDTH), 5, reading_metric(model))
    graph = RerankerGraph(model.reranker, model.similarity(), projection).eval()
    states, ones = torch.from_numpy(random_array(1, 4, SIZES.text_width, seed=1)), torch.ones(tokens.shape[:2])
    scores = graph(IDS, states, torch.from_numpy(projection.reduce(tokens)), ones, ones)
    torch.testing.assert_close(scores, exact_scores(model, tokens), atol=5e-4, rtol=1e-4)


@torch.no_grad()
def test_a_row_of_weight_three_scores_as_three_equal_rows(model: CirModel) -> None:
    few = random_array(2, 4, WIDTH, seed=2)
    identity = fit_projection(random_array(99, WIDTH, seed=3), WIDTH, np.eye(WIDTH, dtype=np.float32))
    graph = RerankerGraph(model.reranker, model.similarity(), identity).eval()
    states, weights = torch.from_numpy(random_array(1, 4, SIZES.text_width, seed=1)), torch.tensor([[1.0, 3, 2, 1]])
    scores = graph(IDS, states, torch.from_numpy(identity.reduce(few)), torch.ones(2, 4), weights.repeat(2, 1))
    torch.testing.assert_close(scores, exact_scores(model, np.repeat(few, [1, 3, 2, 1], axis=1)), atol=5e-4, rtol=1e-4)


def test_going_up_and_down_again_changes_nothing(model: CirModel) -> None:
    projection = fit_projection(random_array(99, WIDTH, seed=4), 7, reading_metric(model))
    np.testing.assert_allclose(projection.up @ projection.down, np.eye(7), atol=1e-4)


def test_a_fitted_bundle_is_indexed_and_searched_and_says_what_it_is(
    fitted: FittedCodec, pictures: Path, tmp_path: Path
) -> None:
    assert (fitted.pictures, list(fitted.skipped)) == (24, ["broken"])
    assert fitted.bytes_after == 20 + 6 * (10 + 4 + 2)
    assert 0 < fitted.lost < 1
    add_precision(fitted.folder, "int8")
    with Indexer.open("shop", store=tmp_path / "store", bundle=fitted.folder, provider="cpu") as indexer:
        assert indexer.index(read_folder(pictures)).indexed == 24
    for precision in ("float32", "int8"):
        with Retriever.open(
            "shop",
            store=tmp_path / "store",
            bundle=fitted.folder,
            provider="cpu",
            precision=precision,  # type: ignore[arg-type]
        ) as retriever:
            result = retriever.search(Query(pictures / "3.png", "in red"), limit=5)
        assert (result.rerank_mode, result.precision, result.scored) == ("compressed", precision, 24)


def test_a_fitted_bundle_holds_nothing_that_was_measured_with_all_tokens(fitted: FittedCodec) -> None:
    manifest = load_bundle(fitted.folder).manifest
    assert manifest.compression is not None
    assert manifest.compression.version == fitted.version
    assert "effort" not in manifest.provenance


def test_the_default_form_takes_at_most_24_kilobytes_at_the_papers_sizes() -> None:
    assert default_form(65, 192) == (22, 96)
    assert default_form(577, 768) == (97, 240)
    assert 20 + 97 * (240 + 4 + 2) < 24_000


def test_what_cannot_be_fitted_is_refused_by_name(
    bundle: Path, fitted: FittedCodec, pictures: Path, tmp_path: Path
) -> None:
    records = read_folder(pictures)
    with pytest.raises(ExportError, match="already; give the bundle that it was fitted from"):
        fit_codec(fitted.folder, records, tmp_path / "out")
    with pytest.raises(ExportError, match="exists; give a new folder"):
        fit_codec(bundle, records, fitted.folder)
    with pytest.raises(ExportError, match="17 tokens in 18 rows; give 3 to 17"):
        fit_codec(bundle, records, tmp_path / "out", rows=18)
    with pytest.raises(ExportError, match="3 pictures could be read; fitting needs at least 20"):
        fit_codec(bundle, records[:3], tmp_path / "out")
    with pytest.raises(ExportError, match="Cannot store 16 dimensions in 17"):
        fit_codec(bundle, records, tmp_path / "out", dims=17)
    assert not (tmp_path / "out").exists()


def test_a_compressed_bundle_is_not_read_back_into_torch(fitted: FittedCodec) -> None:
    from onnx_export.bundle.weights import read_bundle_model

    with pytest.raises(CheckpointError, match="compressed"):
        read_bundle_model(load_bundle(fitted.folder))


def test_a_fitted_bundle_knows_what_it_lost_and_plain_pictures_lose_less(
    fitted: FittedCodec, pictures: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(fitted.folder)
    same = measure_loss(bundle, list(read_folder(pictures)))
    assert same.pictures == 24
    assert same.lost_when_fitted == pytest.approx(same.lost, rel=0.5)
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 100, 200)).save(tmp_path / f"{number}.png")
    assert measure_loss(bundle, list(read_folder(tmp_path))).lost < same.lost


def test_a_gallery_has_drifted_where_half_as_much_again_is_lost() -> None:
    assert TokenLoss(10, {}, lost=0.16, lost_when_fitted=0.1).has_drifted
    assert not TokenLoss(10, {}, lost=0.14, lost_when_fitted=0.1).has_drifted
    assert not TokenLoss(10, {}, lost=0.9, lost_when_fitted=None).has_drifted


def test_loss_is_asked_of_fitted_bundles_and_of_pictures_that_can_be_read(
    bundle: Path, fitted: FittedCodec, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="stores all tokens"):
        measure_loss(load_bundle(bundle), list(read_folder(pictures)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="None of 1 pictures could be read"):
        measure_loss(load_bundle(fitted.folder), list(read_folder(tmp_path)))


def test_the_command_fits_a_bundle_and_checks_it(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["fit-codec", *arguments])

    small = tmp_path / "small"
    assert run(str(bundle), "--gallery", str(pictures)).exit_code == 3
    made = run(str(bundle), "--gallery", str(pictures), "--out", str(small), "--rows", "6", "--dims", "10", "--json")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout) == {"bundle": str(small)}
    told = run(str(small), "--gallery", str(pictures), "--check", "--json")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["pictures"] == 24
    assert "it still fits" in run(str(small), "--gallery", str(pictures), "--check").stdout


def test_fewer_dimensions_lose_more_and_all_of_them_only_what_8_bits_lose() -> None:
    rows = frontier(random_array(8, 12, 32, seed=9))
    assert rows[0].lost < 1e-3
    for share in range(len(ROW_SHARES)):
        of_these_rows = [row.lost for row in rows[share * len(DIM_SIXTEENTHS) : (share + 1) * len(DIM_SIXTEENTHS)]]
        assert of_these_rows == sorted(of_these_rows)
    assert [row.kilobytes for row in rows[:2]] == [(20 + 12 * (4 + 2 + dims)) / 1000 for dims in (32, 16)]
