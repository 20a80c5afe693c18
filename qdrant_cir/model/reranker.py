"""One query and its candidates to scores: the ``reranker`` graph (paper, section 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.errors import InputError, TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.sessions import Session, open_graph
from qdrant_cir.types import Composition, Float32, StoredTokens

__all__ = ["DEFAULT_CHUNK", "Reranker"]

DEFAULT_CHUNK = 8
"""The most candidates per run; runs are of equal size as far as possible. Runs of 50 are 6 % faster per candidate,
but leave 0.9 GB in the arena at full size."""


class Reranker:
    """The triplet re-ranker of a bundle. Safe to share between threads."""

    def __init__(self, session: Session, *, chunk: int = DEFAULT_CHUNK) -> None:
        """Use a session of the ``reranker`` graph, with at most ``chunk`` candidates per run.

        Raises:
            InputError: ``chunk`` is below 1.
        """
        if chunk < 1:
            raise InputError(f"chunk is {chunk}; it must be at least 1.")
        self._session = session
        self._chunk = chunk
        self._dtype = next(tensor.dtype for tensor in session.inputs if tensor.name == "candidate_tokens")

    @classmethod
    def open(cls, bundle: Bundle, compute: Compute, *, chunk: int = DEFAULT_CHUNK) -> Reranker:
        """Load the graph of a bundle; arguments and errors as :func:`qdrant_cir.model.sessions.open_graph`."""
        return cls(open_graph(bundle, "reranker", compute), chunk=chunk)

    def check_process(self) -> None:
        """Check that the process loaded the graph itself. Raises ProviderError if it was forked afterwards."""
        self._session.check_process()

    def score(self, query: Composition, candidates: StoredTokens) -> Float32:
        """Score every candidate against one query.

        Args:
            query: as the composer returns it.
            candidates: K images' tokens in the bundle's codec; K may be 0.

        Returns:
            float32 [K], in the candidates' order; higher is better.

        Raises:
            TokensError: the candidates are in another codec than the graph reads.
            InputError: query or candidates do not fit the graph.
            ProviderError: the computation failed.
        """
        if candidates.values.dtype != self._dtype:
            raise TokensError(
                f"The candidates' tokens are {candidates.values.dtype}; the re-ranker reads {self._dtype}. "
                "Use the bundle that the collection was made with."
            )
        count = len(candidates.values)
        scores = np.empty(count, dtype=np.float32)
        input_ids = query.input_ids[None]
        fusion_states = query.fusion_states[None]
        runs = -(-count // self._chunk)
        for run in range(runs):
            part = slice(run * count // runs, (run + 1) * count // runs)
            inputs: dict[str, NDArray[np.generic]] = {
                "input_ids": input_ids,
                "fusion_states": fusion_states,
                "candidate_tokens": candidates.values[part],
                "candidate_scales": candidates.scales[part],
            }
            if candidates.weights is not None:
                inputs["candidate_weights"] = candidates.weights[part]
            scores[part] = self._session.run(inputs)["scores"]
        return scores
