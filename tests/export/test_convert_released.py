"""The paper's files to a bundle in one command: the originals' numbers come out, or nothing is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from typer.testing import CliRunner, Result  # noqa: E402

from onnx_export.__main__ import app  # noqa: E402
from onnx_export.checkpoints.blip import load_released, read_sizes  # noqa: E402
from onnx_export.checkpoints.released import ReleasedFiles, convert_released  # noqa: E402
from onnx_export.errors import CheckpointError, ExportError, VerificationError  # noqa: E402
from onnx_export.model_folder import load_model_folder  # noqa: E402
from onnx_export.verify import verify_bundle  # noqa: E402
from qdrant_cir.model.bundle import Bundle, load_bundle  # noqa: E402
from qdrant_cir.model.compute import Compute  # noqa: E402
from qdrant_cir.model.image_encoder import ImageEncoder  # noqa: E402
from qdrant_cir.model.reranker import Reranker  # noqa: E402
from qdrant_cir.model.sessions import open_graph  # noqa: E402
from qdrant_cir.model.text_tokenizer import TextTokenizer  # noqa: E402
from qdrant_cir.types import Composition, StoredTokens  # noqa: E402

TOLERANCE = 1e-4
"""What the paper's golden data allows after conversion and export together."""


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    return shared_data / "paper" / "golden"


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "expected.pt", weights_only=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[ENC]", "make", "it", "red", "longer", "sleeves"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def convert(*options: str | Path) -> Result:
    return CliRunner().invoke(app, ["convert", "released", *map(str, options)])


@pytest.fixture(scope="module")
def written(golden: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of everything that the command can write, and what it printed."""
    folder = tmp_path_factory.mktemp("written")
    result = convert(
        *("--stage-one", golden / "stage1.pt", "--stage-two", golden / "stage2.pt", "--tokenizer", tokenizer),
        *("--sizes", golden / "config.json", "--codec", "float32", "--out", folder / "bundle"),
        *("--model-folder", folder / "model", "--report", folder / "report.json", "--licence", "BSD-3-Clause"),
    )
    assert result.exit_code == 0, result.output
    return folder, result.output


@pytest.fixture(scope="module")
def bundle(written: tuple[Path, str]) -> Bundle:
    return load_bundle(written[0] / "bundle")


@pytest.fixture(scope="module")
def unusual(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for evaluation, of a tokenizer of which every word has a digit."""
    folder = tmp_path_factory.mktemp("unusual")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[ENC]", "make1", "it2", "red3"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    result = convert(
        *("--stage-one", golden / "stage1.pt", "--stage-two", golden / "stage2.pt", "--tokenizer", folder),
        *("--sizes", golden / "config.json", "--out", folder / "bundle", "--preprocessing", "original"),
    )
    assert result.exit_code == 0, result.output
    return load_bundle(folder / "bundle")


def test_original_preprocessing_is_in_the_manifest_and_makes_another_bundle(unusual: Bundle, bundle: Bundle) -> None:
    assert unusual.manifest.preprocessing == replace(bundle.manifest.preprocessing, version=0)
    assert unusual.fingerprint != bundle.fingerprint


def test_a_tokenizer_without_a_purely_alphabetic_word_is_verified_with_the_words_it_has(unusual: Bundle) -> None:
    assert TextTokenizer(unusual).tokenize(["make1 it2 red3"]).input_ids.tolist() == [[4, 5, 6, 7, 3]]


def test_the_bundles_encoder_gives_the_originals_tokens_and_embeddings(
    bundle: Bundle, expected: dict[str, Any]
) -> None:
    encoded = ImageEncoder.open(bundle, Compute("cpu")).encode(expected["pixel_values"].numpy())
    assert np.abs(encoded.tokens - expected["image_tokens"].numpy()).max() < TOLERANCE
    assert np.abs(encoded.vectors - expected["image_embedding"].numpy()).max() < TOLERANCE


def test_the_whole_path_from_pixels_to_scores_gives_the_originals_numbers(
    bundle: Bundle, expected: dict[str, Any]
) -> None:
    tokens = ImageEncoder.open(bundle, Compute("cpu")).encode(expected["pixel_values"].numpy()).tokens
    composer = open_graph(bundle, "composer", Compute("cpu"))
    reranker = Reranker.open(bundle, Compute("cpu"))
    stored = StoredTokens(tokens, np.ones(tokens.shape[:2], np.float32))
    for query in expected["queries"]:
        ids = query["input_ids"].numpy()
        composed = composer.run(
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "reference_tokens": tokens[[int(query["reference"])]],
            }
        )
        assert np.abs(composed["query_vectors"] - query["query_vector"].numpy()).max() < TOLERANCE
        assert np.abs(composed["fusion_states"] - query["fusion_states"].numpy()).max() < TOLERANCE
        asked = Composition(composed["query_vectors"][0], ids[0], composed["fusion_states"][0])
        assert np.abs(reranker.score(asked, stored) - query["scores"].numpy()).max() < TOLERANCE


def test_every_key_is_in_the_report_with_what_became_of_it(written: tuple[Path, str], golden: Path) -> None:
    folder, output = written
    report = json.loads((folder / "report.json").read_text())
    for source, file, key in zip(
        report["sources"], ("stage1.pt", "stage2.pt"), ("BLIP_Retrieval", "BLIP_NLVR"), strict=True
    ):
        content = torch.load(golden / file, weights_only=True)
        assert {*source["used"], *source["ignored"]} == {*content[key], "epoch", "optimizer_state_dict"}
        assert not set(source["used"]) & set(source["ignored"])
    assert report["encoders"] == {"differing": [], "largest_difference": 0.0}
    assert "ignored temp: the learnt temperature of stage one's loss" in output
    assert "image encoders: equal, so one graph serves both stages" in output
    assert "verified: torch and the bundle agree to" in output


def test_the_manifest_names_the_files_by_their_checksums(bundle: Bundle) -> None:
    provenance = bundle.manifest.provenance
    assert bundle.manifest.licence == "BSD-3-Clause"
    assert provenance["image_encoders"] == "one for both stages"
    stage_one = provenance["stage_one"]
    assert isinstance(stage_one, dict)
    assert stage_one["file"] == "stage1.pt"
    assert len(str(stage_one["sha256"])) == 64


def test_the_kept_model_folder_is_what_the_bundle_was_made_of(written: tuple[Path, str], bundle: Bundle) -> None:
    result = verify_bundle(bundle, load_model_folder(written[0] / "model"), candidates=(1, 3))
    assert result.largest < TOLERANCE


@pytest.fixture(scope="module")
def tuned_pair(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden pair, as if stage two's image encoder had been trained further."""
    folder = tmp_path_factory.mktemp("tuned")
    content = torch.load(golden / "stage2.pt", weights_only=True)
    state = content["BLIP_NLVR"]
    state["visual_encoder.blocks.1.mlp.fc2.bias"] += 0.25
    state["visual_encoder.norm.bias"] -= 0.125
    torch.save(content, folder / "stage2.pt")
    return folder


def test_encoders_that_differ_give_a_bundle_with_one_for_each_stage(
    golden: Path, tuned_pair: Path, tokenizer: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    result = convert(
        *("--stage-one", golden / "stage1.pt", "--stage-two", tuned_pair / "stage2.pt", "--tokenizer", tokenizer),
        *("--sizes", golden / "config.json", "--codec", "float32", "--out", tmp_path / "bundle"),
        *("--model-folder", tmp_path / "model"),
    )
    assert result.exit_code == 0, result.output
    assert "2 tensors differ, by up to 2.5e-01, so the bundle holds a second one for candidates" in result.output
    bundle = load_bundle(tmp_path / "bundle")
    encoded = ImageEncoder.open(bundle, Compute("cpu")).encode(expected["pixel_values"].numpy())
    assert np.abs(encoded.tokens - expected["image_tokens"].numpy()).max() < TOLERANCE

    conversion = load_released(golden / "stage1.pt", tuned_pair / "stage2.pt", read_sizes(golden / "config.json"))
    assert conversion.candidate_encoder is not None
    with torch.no_grad():
        second = conversion.candidate_encoder(expected["pixel_values"]).numpy()
    assert np.abs(encoded.candidate_tokens - second).max() < TOLERANCE
    assert np.abs(second - expected["image_tokens"].numpy()).max() > 0.1

    folder = load_model_folder(tmp_path / "model")
    assert folder.candidate_encoder is not None
    assert verify_bundle(bundle, folder, candidates=(2,)).largest < TOLERANCE
    folder.candidate_encoder.norm.bias.data += 0.01
    with pytest.raises(VerificationError, match="candidate tokens at batch 1"):
        verify_bundle(bundle, folder, candidates=(2,))


def test_a_bundle_that_fails_its_verification_does_not_appear(
    golden: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagree(*_: object, **__: object) -> None:
        raise VerificationError("scores differ")

    monkeypatch.setattr("onnx_export.checkpoints.released.verify_bundle", disagree)
    files = ReleasedFiles(golden / "stage1.pt", golden / "stage2.pt", tokenizer, read_sizes(golden / "config.json"))
    with pytest.raises(VerificationError):
        convert_released(files, tmp_path / "bundle", codec="float32")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_wrong_in_one_sentence_and_writes_nothing(
    golden: Path, tokenizer: Path, tmp_path: Path
) -> None:
    result = convert(
        *("--stage-one", golden / "stage2.pt", "--stage-two", golden / "stage1.pt", "--tokenizer", tokenizer),
        *("--out", tmp_path / "bundle"),
    )
    assert isinstance(result.exception, CheckpointError)
    assert "Are the two stages swapped?" in str(result.exception)
    assert not (tmp_path / "bundle").exists()


def test_a_missing_tokenizer_is_noticed_before_the_work(golden: Path, tmp_path: Path) -> None:
    files = ReleasedFiles(golden / "stage1.pt", golden / "stage2.pt", tmp_path, read_sizes(golden / "config.json"))
    with pytest.raises(ExportError, match=r"no tokenizer\.json and no vocab\.txt"):
        convert_released(files, tmp_path / "bundle")
