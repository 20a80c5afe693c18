"""The weight of stage one's cosine in the final score, fitted on queries that no stage was trained on.

The re-ranker is trained without the cosine, as in the paper. The two complement each other: the cosine is better on the
product as a whole, the re-ranker on which part has which attribute. On its training queries stage one is right in more
than 90 % (``stage-one.log.jsonl``), far more than elsewhere, so a weight fitted there would be too large.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.models import CirModel
from onnx_export.training.texts import encode_texts
from onnx_export.training.triplets import TripletSet

CANDIDATES = 50


@torch.no_grad()
def paired_scores(model: CirModel, data: TripletSet, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Score stage one's best candidates of every triplet by both stages.

    Returns:
        The re-ranker's scores, stage one's cosines, and whether each candidate is right, all [Q, K].
    """
    rescored, cosines, right = [], [], []
    for triplet in data.triplets:
        ids, mask = encode_texts(tokenizer, triplet.texts[:1], device=model.device)
        composed = model.composer(ids, mask, data.features.tokens_of(np.array([triplet.reference])))
        cosine, rows = (composed.query_vectors[0] @ data.features.vectors.T).topk(CANDIDATES)
        tokens, each = data.features.tokens_of(rows.cpu().numpy()), (CANDIDATES, -1)
        states = composed.fusion_states.expand(CANDIDATES, -1, -1)
        rescored.append(model.reranker(ids.expand(each), mask.expand(each), states, tokens).float().cpu())
        cosines.append(cosine.float().cpu())
        right.append(torch.from_numpy(data.are_right(triplet, rows.cpu().numpy())))
    return torch.stack(rescored), torch.stack(cosines), torch.stack(right)


def fit_similarity_weight(rescored: Tensor, cosines: Tensor, right: Tensor) -> float:
    """Fit the weight of the cosine, added to the re-ranker's score, by logistic regression over candidates.

    Args:
        rescored: float32 [Q, K].
        cosines: float32 [Q, K].
        right: bool [Q, K]; queries without a right candidate are left out.

    Returns:
        The weight, at least 0; 0 where the re-ranker is better alone.
    """
    known = right.any(1)
    rescored, cosines, right = rescored[known], cosines[known], right[known]
    factors = torch.tensor([1.0, 10.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([factors], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_shares = (factors[0] * rescored + factors[1] * cosines).log_softmax(1)
        value = -log_shares.masked_fill(~right, -torch.inf).logsumexp(1).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    of_reranker, of_cosine = (float(factor) for factor in factors.detach())
    return round(max(0.0, of_cosine / max(of_reranker, 1e-3)), 3)
