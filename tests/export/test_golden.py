"""The torch model against what the original computes (``data/paper/golden``)."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from onnx_export.checkpoints.blip import Conversion, load_released, read_sizes  # noqa: E402
from onnx_export.graphs import RerankerGraph  # noqa: E402

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    return shared_data / "paper" / "golden"


@pytest.fixture(scope="module")
def conversion(golden: Path) -> Conversion:
    sizes = read_sizes(golden / "config.json")
    return load_released(golden / "stage1.pt", golden / "stage2.pt", sizes)


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "expected.pt", weights_only=True)


def test_every_checkpoint_key_is_used_or_named_as_unused(conversion: Conversion) -> None:
    report = conversion.report
    training = {"epoch", "optimizer_state_dict"}
    one, two = report.sources
    assert set(one.ignored) == {"temp", "text_encoder.embeddings.position_ids", *training}
    assert {key for key in two.ignored if not key.startswith("visual_encoder.")} == {
        "text_encoder.embeddings.position_ids",
        *training,
    }
    # 222 and 363 tensors are in the files (PAPER: golden data)
    assert len(one.used) + len(one.ignored) - len(training) == 222
    assert len(two.used) + len(two.ignored) - len(training) == 363
    assert report.fresh == ()
    assert report.encoders is not None
    assert report.encoders.equal


@torch.no_grad()
def test_image_tokens_and_embeddings_are_the_originals(conversion: Conversion, expected: dict[str, Any]) -> None:
    tokens, vectors = conversion.model.image_encoder(expected["pixel_values"])
    assert (tokens - expected["image_tokens"]).abs().max() < TOLERANCE
    assert (vectors - expected["image_embedding"]).abs().max() < TOLERANCE


@torch.no_grad()
def test_query_vectors_fusion_states_and_scores_are_the_originals(
    conversion: Conversion, expected: dict[str, Any]
) -> None:
    for query in expected["queries"]:
        ids = query["input_ids"]
        reference = expected["image_tokens"][query["reference"]][None]
        composed = conversion.model.composer(ids, torch.ones_like(ids), reference)
        assert (composed.query_vectors - query["query_vector"]).abs().max() < TOLERANCE
        assert (composed.fusion_states - query["fusion_states"]).abs().max() < TOLERANCE
        candidates = expected["image_tokens"]
        k = len(candidates)
        scores = conversion.model.reranker(
            ids.expand(k, -1),
            torch.ones_like(ids).expand(k, -1),
            composed.fusion_states.expand(k, -1, -1),
            candidates,
        )
        assert (scores - query["scores"]).abs().max() < TOLERANCE


@torch.no_grad()
def test_the_absorbed_reranker_gives_the_originals_scores(conversion: Conversion, expected: dict[str, Any]) -> None:
    graph = RerankerGraph(conversion.model.reranker)
    candidates = expected["image_tokens"]
    for query in expected["queries"]:
        scores = graph(query["input_ids"], query["fusion_states"], candidates, torch.ones(candidates.shape[:2]))
        assert (scores - query["scores"]).abs().max() < TOLERANCE


@torch.no_grad()
def test_padding_changes_no_query_vector(conversion: Conversion, expected: dict[str, Any]) -> None:
    queries = expected["queries"]
    length = max(q["input_ids"].shape[1] for q in queries)
    ids = torch.zeros(len(queries), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, query in enumerate(queries):
        ids[row, : query["input_ids"].shape[1]] = query["input_ids"][0]
        mask[row, : query["input_ids"].shape[1]] = 1
    reference = expected["image_tokens"][[q["reference"] for q in queries]]
    vectors = conversion.model.composer(ids, mask, reference).query_vectors
    assert (vectors - expected["padded_query_vectors"]).abs().max() < TOLERANCE


@torch.no_grad()
def test_in_batch_scoring_equals_pairwise_scoring(conversion: Conversion, expected: dict[str, Any]) -> None:
    query, tokens = expected["queries"][0], expected["image_tokens"]
    ids = query["input_ids"].expand(3, -1)
    states = query["fusion_states"].expand(3, -1, -1)
    index = torch.tensor([4, 0, 4])
    picked = conversion.model.reranker(ids, torch.ones_like(ids), states, tokens, index)
    assert (picked - query["scores"][index]).abs().max() < TOLERANCE
