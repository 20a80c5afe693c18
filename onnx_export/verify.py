"""Comparison of a bundle with the torch model that it was exported from, through the runtime's classes.

Compared are the graphs' tensor names, axes, shapes of real outputs, values, and the order of candidates, at batch 1 and
N, with short and long texts, few and many candidates. They are checked in this order, so that the first difference that
is reported is the cause of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnx_export.errors import VerificationError
from onnx_export.model_folder import ModelFolder
from qdrant_cir.model.bundle import Bundle, TensorSpec, contract_tensors
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.model.sessions import open_session
from qdrant_cir.model.text_tokenizer import TextTokenizer
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, EncodedImages, Float32, StoredTokens

BATCHES = (1, 3)
CANDIDATES = (1, 2, 50)
TEXT_LENGTHS = (1, 2, 33)


@dataclass(frozen=True, slots=True)
class Verification:
    """Largest absolute differences between torch and the bundle, and how many candidate orders were compared."""

    tokens: float
    vectors: float
    candidate_tokens: float
    query_vectors: float
    fusion_states: float
    scores: float
    orders: int

    @property
    def largest(self) -> float:
        """The largest difference of all."""
        return max(
            self.tokens,
            self.vectors,
            self.candidate_tokens,
            self.query_vectors,
            self.fusion_states,
            self.scores,
        )


def verify_bundle(
    bundle: Bundle,
    folder: ModelFolder,
    *,
    tolerance: float = 1e-4,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 0,
) -> Verification:
    """Compare a bundle with the model it was exported from.

    Args:
        bundle: a loaded bundle, whose checksums are known to be right.
        folder: the torch model.
        tolerance: largest absolute difference allowed anywhere.
        candidates: values of K.
        seed: of the random pictures and texts.

    Raises:
        VerificationError: the first difference found.
    """
    _check_interfaces(bundle)
    rng = np.random.default_rng(seed)
    encoded, encoder_differences = _compare_encoder(bundle, folder, rng, tolerance)
    composed, composer_differences = _compare_composer(bundle, folder, encoded, rng, tolerance)
    scores, orders = _compare_reranker(bundle, folder, encoded, composed, candidates, tolerance)
    return Verification(*encoder_differences, *composer_differences, scores, orders)


def _check_interfaces(bundle: Bundle) -> None:
    for name in bundle.manifest.graphs:
        contract = contract_tensors(name, bundle.manifest.sizes)
        session = open_session(bundle.graph_path(name), Compute("cpu"))
        for side, expected, found in (
            ("inputs", contract.inputs, session.inputs),
            ("outputs", contract.outputs, session.outputs),
        ):
            _check_tensors(f"{name} {side}", expected, found)


def _check_tensors(where: str, expected: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    if [t.name for t in expected] != [t.name for t in found]:
        raise VerificationError(f"{where}: names are {[t.name for t in found]}, expected {[t.name for t in expected]}.")
    for wanted, got in zip(expected, found, strict=True):
        fixed = tuple(a if isinstance(a, int) else None for a in wanted.shape)
        got_fixed = tuple(a if isinstance(a, int) else None for a in got.shape)
        if fixed != got_fixed or wanted.dtype != got.dtype:
            raise VerificationError(
                f"{where}: {wanted.name} is {got.dtype} {list(got.shape)}, expected {wanted.dtype} "
                f"{list(wanted.shape)} (a word is a dynamic axis)."
            )


def _difference(what: str, torch_value: Tensor, runtime_value: Float32, tolerance: float) -> float:
    if tuple(torch_value.shape) != runtime_value.shape:
        raise VerificationError(f"{what}: shape is {list(runtime_value.shape)}, torch gives {list(torch_value.shape)}.")
    difference = float(np.abs(torch_value.numpy() - runtime_value).max(initial=0.0))
    if not difference <= tolerance:
        raise VerificationError(f"{what}: largest difference to torch is {difference:.2e}, allowed {tolerance:.0e}.")
    return difference


@torch.inference_mode()
def _compare_encoder(
    bundle: Bundle, folder: ModelFolder, rng: np.random.Generator, tolerance: float
) -> tuple[EncodedImages, tuple[float, float, float]]:
    size = bundle.manifest.preprocessing.size
    encoder = ImageEncoder.open(bundle, Compute("cpu"))
    worst = [0.0, 0.0, 0.0]
    for batch in BATCHES:
        pixels = rng.standard_normal((batch, 3, size, size), dtype=np.float32)
        tokens, vectors = folder.model.image_encoder(torch.from_numpy(pixels))
        second = folder.candidate_encoder
        candidate_tokens = tokens if second is None else second(torch.from_numpy(pixels))
        encoded = encoder.encode(pixels)
        differences = (
            _difference(f"tokens at batch {batch}", tokens, encoded.tokens, tolerance),
            _difference(f"vectors at batch {batch}", vectors, encoded.vectors, tolerance),
            _difference(f"candidate tokens at batch {batch}", candidate_tokens, encoded.candidate_tokens, tolerance),
        )
        worst = list(map(max, worst, differences))
    return encoded, (worst[0], worst[1], worst[2])


@torch.inference_mode()
def _compare_composer(
    bundle: Bundle, folder: ModelFolder, encoded: EncodedImages, rng: np.random.Generator, tolerance: float
) -> tuple[list[Composition], tuple[float, float]]:
    composer = Composer.open(bundle, Compute("cpu"))
    tokenizer = TextTokenizer(bundle)
    vocabulary = sorted(filter(str.strip, folder.tokenizer.get_vocab()))
    words = [word for word in vocabulary if word.isalpha()] or vocabulary
    texts = [" ".join(rng.choice(words, length)) for length in TEXT_LENGTHS]
    worst = [0.0, 0.0]
    composed = composer.compose(encoded.tokens[: len(texts)], texts)
    for text, reference, together in zip(texts, encoded.tokens, composed, strict=True):
        tokenized = tokenizer.tokenize([text])
        ids, mask = torch.from_numpy(tokenized.input_ids), torch.from_numpy(tokenized.attention_mask)
        expected = folder.model.composer(ids, mask, torch.from_numpy(reference[None]))
        alone = composer.compose(reference[None], [text])[0]
        for query, where in ((alone, "alone"), (together, "in a batch")):
            what = f"of a text of {ids.shape[1]} tokens {where}"
            vector = _difference(f"query vector {what}", expected.query_vectors[0], query.vector, tolerance)
            states = _difference(f"fusion states {what}", expected.fusion_states[0], query.fusion_states, tolerance)
            worst = [max(worst[0], vector), max(worst[1], states)]
    return composed, (worst[0], worst[1])


@torch.inference_mode()
def _compare_reranker(
    bundle: Bundle,
    folder: ModelFolder,
    encoded: EncodedImages,
    composed: Sequence[Composition],
    counts: Sequence[int],
    tolerance: float,
) -> tuple[float, int]:
    reranker = Reranker.open(bundle, Compute("cpu"))
    base = encoded.candidate_tokens[np.arange(max(counts)) % len(encoded.candidate_tokens)]
    jitter = np.random.default_rng(1).standard_normal(base.shape, dtype=np.float32) * 0.1
    stored = quantize(base + jitter, bundle.manifest.token_codec)
    worst, orders = 0.0, 0
    for query in composed:
        for count in counts:
            candidates = StoredTokens(stored.values[:count], stored.scales[:count])
            scores = reranker.score(query, candidates)
            expected = torch_scores(folder, query, candidates)
            what = f"scores at K={count}, {len(query.input_ids)} text tokens"
            worst = max(worst, _difference(what, expected, scores, tolerance))
            _check_order(what, expected.numpy(), scores, tolerance)
            orders += 1
    return worst, orders


def torch_scores(folder: ModelFolder, query: Composition, candidates: StoredTokens) -> Tensor:
    """Return scores in the paper's form, a few candidates at a time to bound memory."""
    tokens = torch.from_numpy(candidates.values.astype(np.float32) * candidates.scales[..., None])
    ids = torch.from_numpy(query.input_ids)[None]
    states = torch.from_numpy(query.fusion_states)[None]

    def score(part: Tensor) -> Tensor:
        k = len(part)
        scores: Tensor = folder.model.score(
            ids.expand(k, -1), torch.ones_like(ids).expand(k, -1), states.expand(k, -1, -1), part
        )
        return scores

    return torch.cat([score(part) for part in torch.split(tokens, 4)])


def _check_order(what: str, expected: Float32, found: Float32, tolerance: float) -> None:
    """Check that candidates whose torch scores differ by more than the tolerance come in the same order."""
    order = np.argsort(-found, kind="stable")
    ranked = expected[order]
    if np.any(np.diff(ranked) > tolerance):
        raise VerificationError(f"{what}: candidates come in another order than by torch's scores.")
