"""A bundle computes what the torch model computes, and verification notices when it does not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from onnx_export import verify  # noqa: E402
from onnx_export.checkpoints.blip import load_released, read_sizes  # noqa: E402
from onnx_export.errors import ExportError, VerificationError  # noqa: E402
from onnx_export.export import BundleDescription, export_bundle, read_tokenizer  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder, save_model_folder  # noqa: E402
from onnx_export.models import DRAWN_SMALL, build_model  # noqa: E402
from onnx_export.verify import torch_scores, verify_bundle  # noqa: E402
from qdrant_cir.model.bundle import load_bundle  # noqa: E402
from qdrant_cir.model.compute import Compute  # noqa: E402
from qdrant_cir.model.reranker import Reranker  # noqa: E402
from qdrant_cir.types import Composition, StoredTokens  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[ENC]", "make", "it", "red", "longer", "sleeves"]
ABOUT = BundleDescription("test", "Apache-2.0", {"source": "a test"})


def words_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    small = {"image_size": 32, "image_width": 48, "text_width": 48, "feed_forward": 96, "vocabulary": 16}
    sizes = replace(DRAWN_SMALL, **small, image_depth=2, text_depth=2, merge_layers_from=1)  # type: ignore[arg-type]
    model = build_model(sizes, seed=2)
    for parameter in model.parameters():  # biases and norms that matter, scores that spread
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return ModelFolder(model, words_tokenizer(), {"source": "a test"})


@pytest.fixture(scope="module", params=["int8", "float32"])
def bundle_path(request: pytest.FixtureRequest, folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / request.param
    return export_bundle(folder.model, folder.tokenizer, out, codec=request.param, description=ABOUT)


def test_the_bundle_agrees_with_torch(bundle_path: Path, folder: ModelFolder) -> None:
    result = verify_bundle(load_bundle(bundle_path), folder)
    assert result.orders == 9
    assert max(result.tokens, result.vectors, result.query_vectors, result.fusion_states, result.scores) < 1e-4


def test_verification_notices_another_model(bundle_path: Path, folder: ModelFolder) -> None:
    other = build_model(folder.model.sizes, seed=3)
    other.load_state_dict(folder.model.state_dict())
    with torch.no_grad():
        other.reranker.cls_head[2].weight[0] *= -1
    with pytest.raises(VerificationError, match="scores at K=1"):
        verify_bundle(load_bundle(bundle_path), ModelFolder(other, folder.tokenizer, {}))


def test_verification_notices_another_order_of_candidates_though_every_score_is_close_enough(
    bundle_path: Path, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerance = 0.5

    def nudged(folder: ModelFolder, query: Composition, candidates: StoredTokens) -> torch.Tensor:
        """Move torch's scores by less than the tolerance, down and up by turns from the best one on."""
        scores = torch_scores(folder, query, candidates)
        ranks = scores.argsort(descending=True).argsort()
        return scores + 0.9 * tolerance * torch.where(ranks % 2 == 0, -1.0, 1.0)

    verify_bundle(load_bundle(bundle_path), folder, tolerance=tolerance)
    monkeypatch.setattr(verify, "torch_scores", nudged)
    with pytest.raises(VerificationError, match="candidates come in another order"):
        verify_bundle(load_bundle(bundle_path), folder, tolerance=tolerance)


def test_no_path_of_the_machine_is_in_the_graphs(bundle_path: Path) -> None:
    for graph in (bundle_path / "onnx").glob("*.onnx"):
        assert b"onnx_export/" not in graph.read_bytes()


def test_the_golden_scores_survive_export(shared_data: Path, tmp_path: Path) -> None:
    golden = shared_data / "paper" / "golden"
    sizes = read_sizes(golden / "config.json")
    model = load_released(golden / "stage1.pt", golden / "stage2.pt", sizes).model
    bundle = load_bundle(
        export_bundle(model, words_tokenizer(), tmp_path / "golden", codec="float32", description=ABOUT)
    )
    expected = torch.load(golden / "expected.pt", weights_only=True)
    tokens = expected["image_tokens"].numpy()
    candidates = StoredTokens(tokens, torch.ones(tokens.shape[:2]).numpy())
    reranker = Reranker.open(bundle, Compute("cpu"))
    for query in expected["queries"]:
        composed = Composition(
            query["query_vector"][0].numpy(), query["input_ids"][0].numpy(), query["fusion_states"][0].numpy()
        )
        assert abs(reranker.score(composed, candidates) - query["scores"].numpy()).max() < 1e-4


def test_a_model_folder_gives_back_what_was_saved(folder: ModelFolder, tmp_path: Path) -> None:
    save_model_folder(tmp_path, folder)
    loaded = load_model_folder(tmp_path)
    assert loaded.provenance == folder.provenance
    state = loaded.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in folder.model.state_dict().items())


def test_a_folder_with_other_files_is_never_overwritten(folder: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="no bundle folder"):
        export_bundle(folder.model, folder.tokenizer, tmp_path, codec="int8", description=ABOUT)
    assert (tmp_path / "thesis.txt").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder: ModelFolder, tmp_path: Path) -> None:
    tokenizer = words_tokenizer()
    tokenizer.add_tokens([f"word{i}" for i in range(20)])
    with pytest.raises(ExportError, match="at most 16 tokens"):
        export_bundle(folder.model, tokenizer, tmp_path / "b", codec="int8", description=ABOUT)


def test_a_bert_vocabulary_gets_dec_and_enc_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "##der"]))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.token_to_id("[DEC]") == 7
    assert tokenizer.token_to_id("[ENC]") == 8
    assert tokenizer.encode("Redder").tokens == ["[CLS]", "red", "##der", "[SEP]"]


def test_the_manifest_names_the_tools_and_the_source(bundle_path: Path) -> None:
    provenance = json.loads((bundle_path / "cir_config.json").read_text())["provenance"]
    assert provenance["source"] == "a test"
    assert set(provenance["tools"]) == {"torch", "onnx", "onnxscript", "qdrant-cir"}
